# SPDX-License-Identifier: GPL-3.0-or-later
"""What was called, by name: names that hosts saw meet the flows that began while they held.

A host's tracer sees answers of name services and the names in TLS hellos, and when it saw them (`NameRecord`). Neither
says which connection it was for. So a name is laid to a flow by host, address and time only:

- It holds on the host that saw it. What another one was answered may be another truth.
- It holds from a little before it was seen (a TLS hello comes after its connection, clocks of sources differ) until
  some time after it was last seen (programs keep answers). Both are settings, since no record says how long an answer
  may be kept.
- A flow has the name that holds for the address it *called* when it began. If two names do, as behind a proxy that
  serves both, it has none: ``ambiguous``. Nothing is guessed from which was asked for last.

Loopback addresses are not named: they are the host itself, in each namespace another service.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import ibis

from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number

#: From a name to its registered domain, or None where its suffix is not known.
Register = Callable[[str], str | None]

_KEY = ("app", "host", "protocol", "port", "resp_addr", "resp_host")


@dataclass(frozen=True)
class NameSettings:
    """How long a name holds.

    Attributes
    ----------
    early_s : float
        How long before it was first seen.
    hold_s : float
        How long after it was last seen.

    Raises
    ------
    SettingsError
        If a time is negative or longer than a year.
    """

    early_s: float = 10.0
    hold_s: float = 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, float) or is_whole_number(value)
            if not (is_number and math.isfinite(value) and 0 <= value <= 366 * 86400):
                raise SettingsError(
                    f"names: {field.name}", expected="seconds from 0 to a year", found=ascii(value)[:40],
                    remedy=f"leave it out for {field.default}",
                )  # fmt: skip


def find_spans(names: ibis.Table, settings: NameSettings = NameSettings()) -> ibis.Table:
    """When each name held for an address on a host; sightings whose times touch are one span.

    Parameters
    ----------
    names : ibis.Table
        Rows of `NameRecord`.
    settings : NameSettings

    Returns
    -------
    ibis.Table
        host, address, name, by_dns, by_sni (1 where it was seen so), from_ns, until_ns.
    """
    key = ["host", "address", "name"]
    early_ns, hold_ns = (round(seconds * 1e9) for seconds in (settings.early_s, settings.hold_s))
    seen = names.filter(~is_loopback(names.address)).select(
        *key,
        by_dns=(names.source == "dns").cast("int64"),
        by_sni=(names.source == "sni").cast("int64"),
        from_ns=names.first_ns - early_ns,
        until_ns=names.last_ns + hold_ns,
    )
    # one row an instant at which it begins to hold, so that the order of rows is certain
    seen = seen.group_by(*key, "from_ns").agg(
        by_dns=seen.by_dns.max(), by_sni=seen.by_sni.max(), until_ns=seen.until_ns.max()
    )
    in_order = {"group_by": key, "order_by": "from_ns"}
    seen = seen.mutate(reached_ns=seen.until_ns.max().over(ibis.window(**in_order, rows=(None, 0))))
    # it is another span where all that came before had ended
    apart = (seen.from_ns > seen.reached_ns.lag().over(ibis.window(**in_order))).fill_null(False)
    seen = seen.mutate(apart=apart.cast("int64"))
    seen = seen.mutate(island=seen.apart.sum().over(ibis.window(**in_order, rows=(None, 0))))
    return (
        seen.group_by(*key, "island")
        .agg(
            by_dns=seen.by_dns.max(),
            by_sni=seen.by_sni.max(),
            from_ns=seen.from_ns.min(),
            until_ns=seen.until_ns.max(),
        )
        .drop("island")
    )


def name_flows(uses: ibis.Table, spans: ibis.Table) -> ibis.Table:
    """The name of each flow that has one or several.

    Parameters
    ----------
    uses : ibis.Table
        From `whoneeds.collector.instances.find_uses`.
    spans : ibis.Table
        From `find_spans`.

    Returns
    -------
    ibis.Table
        flow_id, name (null if several held), told_by.
    """
    called = uses.select("flow_id", "host", address=uses.called_addr.coalesce(uses.resp_addr), at_ns=uses.first_ns)
    held = called.join(spans, ["host", "address"]).filter(
        lambda rows: (rows.at_ns >= rows.from_ns) & (rows.at_ns <= rows.until_ns)
    )
    named = held.group_by("flow_id").agg(
        names=held.name.nunique(), name=held.name.min(), dns=held.by_dns.max(), sni=held.by_sni.max()
    )
    one = named.names == 1
    told_by = ibis.cases(
        (~one, "ambiguous"), ((named.dns == 1) & (named.sni == 1), "both"), (named.dns == 1, "dns"), else_="sni"
    )
    return named.select("flow_id", name=ibis.ifelse(one, named.name, ibis.null("string")), told_by=told_by)


def sum_destinations(uses: ibis.Table, named: ibis.Table) -> ibis.Table:
    """By which names each service instance was called.

    Parameters
    ----------
    uses : ibis.Table
        From `whoneeds.collector.instances.find_uses`.
    named : ibis.Table
        From `name_flows`.

    Returns
    -------
    ibis.Table
        Columns of `Destination` but ``organisation``.
    """
    rows = uses.mutate(port=uses.resp_port).left_join(named, "flow_id")
    rows = rows.mutate(told_by=rows.told_by.fill_null("none"))
    return rows.group_by(*_KEY, "name", "told_by").agg(
        flows=rows.count(), first_ns=rows.first_ns.min(), last_ns=rows.last_ns.max()
    )


def find_destinations(
    uses: ibis.Table, names: ibis.Table, settings: NameSettings = NameSettings(), keep: Keep = keep_nothing
) -> ibis.Table:
    """By which names service instances were called, out of flows and names; see `sum_destinations`."""
    return sum_destinations(uses, keep(name_flows(uses, keep(find_spans(names, settings)))))


def organisation_of(name: str | None, resp_host: str | None, register: Register) -> str | None:
    """Whom a name belongs to: its registered domain, or the whole name where the suffix is not known.

    Of a traced host it is not asked: the host is the operator's own.

    Parameters
    ----------
    name, resp_host : str or None
    register : callable
        See `Register`.
    """
    if name is None or resp_host is not None:
        return None
    return register(name) or name


def make_register() -> Register:
    """The registered domain of a name by the public suffix list that comes with the library; nothing is fetched.

    Only the list's first part counts, suffixes that registries sell names under: what a hosting company gives to its
    customers below its own domain is that company's.
    """
    from publicsuffixlist import PublicSuffixList

    suffixes = PublicSuffixList(accept_unknown=False, only_icann=True)

    def register(name: str) -> str | None:
        found = suffixes.privatesuffix(name)
        return found if isinstance(found, str) else None

    return register
