# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts document: per host, what it needs, who needs it, what it offers, what it runs, how well it was seen.

Pure: rows in, a document of plain dicts, lists, strings and numbers out. Every string is made inert here, every
list is sorted, and nothing in it says when it was made, so that equal evidence gives an equal document.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from whoneeds.analysis.naming import Names
from whoneeds.facts.groups import group_names
from whoneeds.facts.inert import make_inert
from whoneeds.facts.shortening import NAMES_LIMIT, SECTION_LIMIT, shorten
from whoneeds.model.conclusions import METHODS, Dependent, HostCoverage, Need, Provision
from whoneeds.model.errors import FactsError, InvalidRecord
from whoneeds.model.identity import check_host_name
from whoneeds.model.schema import check_value, columns

#: Schema number of the document. Readers refuse others by name.
FACTS_SCHEMA = 1
FACTS_KIND = "whoneeds-facts"

#: Most kinds of gap that are told for one host.
GAPS_LIMIT = 50

#: What is counted of the ends of a host's conversations.
_ENDS = ("ends", "by_socket", "by_listener", "ambiguous", "unknown", "unpaired")
_WELL_KNOWN_LIMIT = 1024
_INT64_MAX = 2**63 - 1

Row = Mapping[str, Any]
Document = dict[str, Any]


class _Verdict(NamedTuple):
    """What the level-1 dependency says of an application and a service."""

    kind: str
    usage_share: float
    probability: float | None
    grounds: str | None


def build_document(
    *,
    service_uses: Iterable[Row],
    dependencies: Iterable[Row],
    listeners: Iterable[Row],
    segments: Iterable[Row],
    gaps: Iterable[Row],
    ends: Iterable[Row],
    applications: Mapping[str, Iterable[str]],
    method: str = "macroscope",
    naming: Names = Names((), ()),
) -> Document:
    """Make the facts document.

    Parameters
    ----------
    service_uses : iterable of mapping
        Rows of `ServiceUse`.
    dependencies : iterable of mapping
        Rows of `Dependency`; those of level 1 give each use its kind and usage share, others are passed over.
    listeners : iterable of mapping
        Rows of `SocketRecord` with one more key, ``app``: the application of the row's owner, or None. Rows in
        other states than ``listen`` and ``bound`` are passed over.
    segments : iterable of mapping
        Rows of `SegmentHeader`. Every host with a segment is in the document, however little it did.
    gaps : iterable of mapping
        Rows of `Gap`.
    ends : iterable of mapping
        Rows of `whoneeds.analysis.coverage.count_ends`; a host without one had no conversation.
    applications : mapping of str to iterable of str
        For each host the applications that were seen on it.
    method : str
        The method that decided the kinds.
    naming : Names, optional
        Names and sets of the services that are used; none by default.

    Returns
    -------
    dict
        ``{"schema", "kind", "method", "hosts": {host: {"addresses", "needs", "needed_by", "provides", "runs",
        "groups", "coverage"}}}``; see docs/facts.md.

    Raises
    ------
    FactsError
        If a use has no level-1 dependency, a host's name cannot be one, or a value does not fit its field.
    """
    if method not in METHODS:
        raise FactsError("method of the facts", expected=" or ".join(METHODS), found=ascii(method)[:80])
    uses = tuple(service_uses)
    listening = tuple(row for row in listeners if row["state"] in ("listen", "bound"))
    headers = _by(segments, "host")
    gaps_of = _by(gaps, "host")
    ends_of = {row["host"]: row for row in ends}
    verdicts = {
        (row["app"], row["protocol"], row["port"]): _Verdict(
            row["kind"], row["usage_share"], row.get("probability"), row.get("grounds")
        )
        for row in dependencies
        if row["level"] == 1
    }
    uses_of, uses_upon, listening_on = _by(uses, "host"), _by(uses, "resp_host"), _by(listening, "host")

    hosts: dict[str, Any] = {}
    for host in sorted({*headers, *gaps_of, *uses_of, *listening_on, *applications}):
        _check_host(host)
        all_needs = list(_needs(uses_of[host], verdicts, naming))
        needs, needs_cut = shorten(all_needs, "needs")
        needed_by, needed_by_cut = shorten(list(_needed_by(uses_upon[host], verdicts)), "dependents")
        provides, provides_cut = shorten(list(_provides(listening_on[host], uses_upon[host], verdicts)), "services")
        runs, runs_cut = shorten([make_inert(app, 64) for app in set(applications.get(host, ()))], "applications")
        cuts = [cut for cut in (needs_cut, needed_by_cut, provides_cut, runs_cut) if cut]
        facts: dict[str, Any] = {
            "addresses": sorted({make_inert(text, 45) for row in headers[host] for text in row["addresses"]}),
            "needs": needs,
            "needed_by": needed_by,
            "provides": provides,
            "runs": runs,
            "coverage": _coverage(headers[host], gaps_of[host], ends_of.get(host, {}), cuts),
        }
        # Of needs all count: a host that needs very many others is still in the group of each.
        facts["groups"] = group_names(host, {**facts, "needs": all_needs})
        hosts[host] = facts
    return {"schema": FACTS_SCHEMA, "kind": FACTS_KIND, "method": method, "hosts": hosts}


def _needs(uses: list[Row], verdicts: Mapping[Any, _Verdict], naming: Names) -> Iterable[dict[str, Any]]:
    """One entry for each (application, service instance) that this host's instances used."""
    together = _group(uses, lambda use: (use["app"], use["protocol"], use["port"], use["resp_addr"], use["resp_host"]))
    for (app, protocol, port, address, resp_host), rows in together.items():
        verdict = _verdict(verdicts, app, protocol, port)
        called = naming.look_up(rows[0])
        yield _checked(
            Need,
            {
                "app": app,
                "kind": verdict.kind,
                "protocol": protocol,
                "port": port,
                "address": address,
                "host": resp_host,
                "provider": _agreed(row["resp_app"] for row in rows),
                "usage_share": verdict.usage_share,
                "support": len({(row["app"], row["pid"], row["address"]) for row in rows}),
                "flows": sum(row["flows"] for row in rows),
                "orig_bytes": _total_known(row["orig_bytes"] for row in rows),
                "resp_bytes": _total_known(row["resp_bytes"] for row in rows),
                "first_ns": min(row["first_ns"] for row in rows),
                "last_ns": max(row["last_ns"] for row in rows),
                "name": called.name,
                "any_of": called.any_of,
                "probability": verdict.probability,
                "grounds": verdict.grounds,
            },
        )


def _needed_by(uses: list[Row], verdicts: Mapping[Any, _Verdict]) -> Iterable[dict[str, Any]]:
    """One entry for each (host, application) that used a service of this host."""
    together = _group(uses, lambda use: (use["host"], use["app"], use["protocol"], use["port"]))
    for (host, app, protocol, port), rows in together.items():
        verdict = _verdict(verdicts, app, protocol, port)
        yield _checked(
            Dependent,
            {
                "host": host,
                "app": app,
                "kind": verdict.kind,
                "protocol": protocol,
                "port": port,
                "provider": _agreed(row["resp_app"] for row in rows),
                "support": len({(row["pid"], row["address"]) for row in rows}),
                "flows": sum(row["flows"] for row in rows),
                "first_ns": min(row["first_ns"] for row in rows),
                "last_ns": max(row["last_ns"] for row in rows),
                "probability": verdict.probability,
            },
        )


def _provides(sockets: list[Row], uses: list[Row], verdicts: Mapping[Any, _Verdict]) -> Iterable[dict[str, Any]]:
    """One entry for each (service, application) that listens here, or that others rely on here.

    A UDP socket without a peer may as well be a client's. It counts as a service where its port is well known or
    somebody used it.
    """
    used = {(use["protocol"], use["port"]) for use in uses}
    offers: dict[tuple[str, int, str | None], set[str]] = defaultdict(set)
    for rows in _group(sockets, lambda row: row["socket_id"]).values():
        protocol, port = rows[0]["protocol"], rows[0]["local_port"]
        if any(row["state"] == "listen" for row in rows) or port < _WELL_KNOWN_LIMIT or (protocol, port) in used:
            offers[protocol, port, _agreed(row["app"] for row in rows)] |= {row["local_addr"] for row in rows}
    listened = {(protocol, port) for protocol, port, _app in offers}

    relied = [use for use in uses if _verdict(verdicts, use["app"], use["protocol"], use["port"]).kind == "static"]
    for use in relied:
        if (use["protocol"], use["port"]) not in listened:
            offers[use["protocol"], use["port"], use["resp_app"]].add(use["resp_addr"])
    relied_on = _group(relied, lambda use: (use["protocol"], use["port"]))
    for (protocol, port, app), addresses in offers.items():
        by = [
            use for use in relied_on[protocol, port] if app is None or use["resp_app"] is None or app == use["resp_app"]
        ]
        yield _checked(
            Provision,
            {
                "app": app,
                "protocol": protocol,
                "port": port,
                "loopback_only": all(map(_is_loopback, addresses)),
                "needed_by_hosts": sorted({use["host"] for use in by})[:SECTION_LIMIT],
                "needed_by_apps": sorted({make_inert(use["app"], 64) for use in by})[:NAMES_LIMIT],
            },
        )


def _coverage(headers: list[Row], gaps: list[Row], ends: Row, cuts: list[str]) -> dict[str, Any]:
    words = sorted({make_inert(f"{gap['source']}: {gap['reason']}: {gap['detail']}", 255) for gap in gaps})
    if len(words) > GAPS_LIMIT:
        words = [*words[:GAPS_LIMIT], f"facts: truncated: {len(words) - GAPS_LIMIT} more kinds of gap"]
    return _checked(
        HostCoverage,
        {
            "segments": len(headers),
            "samples": _total(row["samples"] for row in headers),
            "period_s": max((row["period_s"] for row in headers), default=None),
            "privileged": all(row["privileged"] for row in headers) if headers else None,
            "first_ns": min((row["opened_ns"] for row in headers), default=None),
            "last_ns": max((row["closed_ns"] for row in headers), default=None),
            **{name: ends.get(name, 0) for name in _ENDS},
            "gaps": [*words, *cuts],
        },
    )


def _checked(record: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values in the record's order, strings made inert, each checked against its field."""
    made: dict[str, Any] = {}
    for column in columns(record):
        value = values[column.name]
        if isinstance(value, str) and column.choices is None:
            value = make_inert(value, column.max_length)
        try:
            check_value(column, value)
        except InvalidRecord as error:
            raise FactsError(
                f"{record.__name__.lower()} of a host's facts: {error.message}",
                expected=error.expected,
                found=error.found,
                remedy="derive the conclusions anew from the segments",
            ) from error
        made[column.name] = float(value) if column.type == "float64" and value is not None else value
    return made


def _verdict(verdicts: Mapping[Any, _Verdict], app: str, protocol: str, port: int) -> _Verdict:
    verdict = verdicts.get((app, protocol, port))
    if verdict is None:
        raise FactsError(
            "a use of a service without its dependency",
            expected=f"a level-1 dependency of {make_inert(app, 64)} on {protocol}/{port}",
            found="none",
            remedy="derive dependencies and facts from the same evidence",
        )
    return verdict


def _agreed(names: Iterable[str | None]) -> str | None:
    """The one name that all known ones agree on; None where they do not, or none is known."""
    known = {name for name in names if name is not None}
    return known.pop() if len(known) == 1 else None


def _total_known(values: Iterable[int | None]) -> int | None:
    """Sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return _total(known) if known else None


def _total(values: Iterable[int]) -> int:
    """Their sum, or the most that a column holds: a host that claims absurd counts must not stop the others' facts."""
    return min(sum(values), _INT64_MAX)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _check_host(host: str) -> None:
    try:
        check_host_name(host)
    except InvalidRecord as error:
        raise FactsError(error.message, expected=error.expected, found=error.found, remedy=error.remedy) from error


def _by(rows: Iterable[Row], name: str) -> defaultdict[Any, list[Row]]:
    return _group((row for row in rows if row[name] is not None), lambda row: row[name])


def _group(rows: Iterable[Row], key: Callable[[Row], Any]) -> defaultdict[Any, list[Row]]:
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
