# SPDX-License-Identifier: GPL-3.0-or-later
r"""Macroscope: which needs of an application are built in (static) and which are of the moment (transient).

L. Popa, B.-G. Chun, I. Stoica, J. Chandrashekar, N. Taft: "Macroscope: End-Point Approach to Networked
Application Dependency Discovery", CoNEXT 2009. Section 2.1 defines the levels, section 3.2 the rule.

The rule, for each application *a*, over services *s* = (protocol, port):

- :math:`N` instances of *a* were seen, :math:`N_s` of them used *s*, and :math:`S` services were used in all.
- Step 1: :math:`M = \sqrt{\sum_s (N - N_s)^2 / S}`. If :math:`M < T (N - 1)`, the application makes no transient
  connections and every service is static (reason ``all_static``).
- Step 2, for the others: a port below 1024 is static (``well_known_port``); otherwise *s* is static if
  :math:`|U_s| / |U| \ge U` and :math:`N_s / N \ge I` (``shared``), and transient if not (``not_shared``).
  :math:`U` are the users of *a*, :math:`U_s` those who reached *s* through it.
- Sampling: a connection of mean duration :math:`d` shorter than the sampling period :math:`W` is seen with
  probability :math:`p_d = d / W`, so :math:`N_s / N` (neither :math:`|U_s|/|U|` nor :math:`M`) is raised by
  :math:`1/p_d`, at most to 1, if there are several samples of it.

One instance alone (:math:`N = 1`) has :math:`M = 0`, which is not below :math:`T \cdot 0`: step 2 decides.

What stands at each level. The kind and its reason are decided once, for (application, protocol, port), and carried
to the finer levels, as the paper does. Support, users and shares speak of the *application* and the service
(levels 1 and 3) or the service instance (levels 2 and 4): "so many of its instances use this". Flows, bytes, first
and last seen speak of the row's own connections.

Where this departs from the paper, and why:

- An instance is (application, pid, address) *on a host*: the paper's address names a machine, but a loopback
  address, or one that two sites use, does not. For the same reason a service instance is (address, protocol,
  port) and the traced host that owns the address.
- A user is what `ServiceUse.user` says. On laptops the paper takes a machine for a user; on servers it is
  (host, uid). A process that was gone before it could be asked has no known user: it counts as nobody, neither in
  :math:`U` nor in :math:`U_s`. Where no user of a service is known, only the share of instances decides: "not known"
  is not "zero".
- The mean duration :math:`d` is the larger of two figures. The first is the observed mean, as published. Where
  durations come from samples alone that is too short, being cut at both ends, and would boost too much; so
  the second is estimated from the counts: if durations are memoryless, connections seen in :math:`k` samples on
  average last :math:`W / \ln(k / (k - 1))`. If neither says anything (every connection was seen once, with no
  duration), :math:`d` is not known, and nothing is adjusted: "not known" is not "zero".
- "Multiple samples" is read as two or more.
- :math:`W` is the mean of the observers' periods, weighted by flows: hosts may be sampled at different ones.
- A process seen again under a reused pid is the same instance, as in the paper.
"""

import math
from dataclasses import dataclass, fields

import ibis

from whoneeds.model.conclusions import Dependency
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import columns, is_whole_number
from whoneeds.store.portable import as_whole

_INSTANCE = ("app", "host", "pid", "address")
_SERVICE = ("app", "protocol", "port")
_SERVICE_INSTANCE = (*_SERVICE, "resp_addr", "resp_host")

#: For each level of section 2.1: what makes a row, and what its shares speak of.
_LEVELS = {
    1: (_SERVICE, _SERVICE),
    2: (_SERVICE_INSTANCE, _SERVICE_INSTANCE),
    3: ((*_INSTANCE, "protocol", "port"), _SERVICE),
    4: ((*_INSTANCE, "protocol", "port", "resp_addr", "resp_host"), _SERVICE_INSTANCE),
}


@dataclass(frozen=True)
class Thresholds:
    """The rule's parameters, with the paper's values (section 3.2) as defaults.

    Attributes
    ----------
    transient_share : float
        T: an application whose M is below this share of N - 1 makes no transient connections.
    users_share : float
        U: least share of the application's users that a static service has.
    instances_share : float
        I: least share of the application's instances that a static service has.
    well_known_below : int
        Ports below this one are static at any frequency.
    adjusted_from_samples : int
        Least number of samples of a use from which its frequency is adjusted for sampling.

    Raises
    ------
    SettingsError
        If a share lies outside [0, 1], a port outside [0, 65536] or a number of samples below 1.

    Examples
    --------
    >>> Thresholds().transient_share
    0.85
    """

    transient_share: float = 0.85
    users_share: float = 0.10
    instances_share: float = 0.10
    well_known_below: int = 1024
    adjusted_from_samples: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share"):
                is_number = isinstance(value, float) or is_whole_number(value)
                legal = is_number and math.isfinite(value) and 0 <= value <= 1
                expected = "a share between 0 and 1"
            else:
                least, most = (0, 65536) if field.name == "well_known_below" else (1, 2**31)
                legal = is_whole_number(value) and least <= value <= most
                expected = f"a whole number between {least} and {most}"
            if not legal:
                raise SettingsError(
                    f"threshold {field.name}",
                    expected=expected,
                    found=ascii(value)[:80],
                    remedy=f"leave it out for the published value, {field.default}",
                )


def extract_dependencies(
    service_use: ibis.Table, application_instance: ibis.Table, thresholds: Thresholds = Thresholds()
) -> ibis.Table:
    """Decide for every use whether it is a static or a transient need, at all four levels.

    Parameters
    ----------
    service_use : ibis.Table
        Rows of `ServiceUse`; every instance in it is a row of the second table.
    application_instance : ibis.Table
        Rows of `ApplicationInstance`: the population. An instance that used nothing counts in it.
    thresholds : Thresholds, optional
        The paper's by default.

    Returns
    -------
    ibis.Table
        Rows of `Dependency`, in no particular order; an application without uses has none.
    """
    uses = _name_providers(service_use)
    population = application_instance.group_by("app").agg(
        users_in_all=application_instance.user.nunique(),
    )
    instances = application_instance.select(*_INSTANCE).distinct()
    population = _join(instances.group_by("app").agg(population=instances.count()), population, ("app",))
    services = _measure(uses, _SERVICE, population, thresholds)
    verdicts = _decide(services, thresholds)
    measured = {
        _SERVICE: services,
        _SERVICE_INSTANCE: _measure(uses, _SERVICE_INSTANCE, population, thresholds),
    }
    made = []
    for level, (key, shares_of) in _LEVELS.items():
        rows = _join(_sum_volume(uses, key), measured[shares_of], shares_of)
        made.append(_as_records(_join(rows, verdicts, _SERVICE), level))
    return ibis.union(*made, distinct=False)


def _join(left: ibis.Table, right: ibis.Table, key: tuple[str, ...]) -> ibis.Table:
    """Inner join on equal columns, keeping each of them once."""
    wanted = [name for name in right.columns if name not in left.columns or name in key]
    return left.join(right.select(*wanted), list(key)).select(
        *left.columns, *(name for name in wanted if name not in key)
    )


def _name_providers(service_use: ibis.Table) -> ibis.Table:
    """Give every use of a service instance the name of the application there, if all who know it agree.

    A loopback address is another place in every network namespace, so there what the user itself knows goes first.
    The host of an instance that is not traced becomes the empty word, since no engine joins on unknowns.
    """
    uses = service_use.mutate(resp_host=service_use.resp_host.fill_null(""))
    place = ("protocol", "port", "resp_addr", "resp_host")
    named = uses.group_by(*place).agg(
        provider=ibis.ifelse(uses.resp_app.nunique() == 1, uses.resp_app.min(), ibis.null("string"))
    )
    joined = _join(uses, named, place)
    loopback = joined.resp_addr.startswith("127.") | (joined.resp_addr == "::1")
    own = ibis.ifelse(loopback, joined.resp_app, ibis.null("string"))
    return joined.mutate(provider=ibis.coalesce(own, joined.provider)).drop("resp_app")


def _measure(uses: ibis.Table, key: tuple[str, ...], population: ibis.Table, thresholds: Thresholds) -> ibis.Table:
    """Support, users and shares of each service or service instance; `_SERVICE` is always part of the key."""
    users = uses.select(*key, *(name for name in (*_INSTANCE, "user") if name not in key)).distinct()
    instances = users.drop("user").distinct()
    support = instances.group_by(*key).agg(support=instances.count())
    counted = _join(support, users.group_by(*key).agg(users=users.user.nunique().nullif(0)), key)
    flows = uses.flows.sum().cast("float64")
    sampled = uses.group_by(*key).agg(
        in_samples=uses.samples.sum().cast("int64"),
        # broken numbers add up to another sum in every order, and so on every engine: whole microseconds do not
        mean_observed_s=as_whole(uses.duration_s * 1e6).sum().cast("float64") / 1e6 / flows,
        mean_samples=uses.samples.sum().cast("float64") / flows,
        mean_period_s=(as_whole(uses.period_s * 1e6) * uses.flows).sum().cast("float64") / 1e6 / flows,
    )
    rows = _join(_join(counted, sampled, key), population, ("app",))
    mean_samples = ibis.greatest(rows.mean_samples, 1.0)
    # k / (k - 1) has no value at k = 1; nullif makes the estimate unknown there, and unknown adds nothing.
    estimated_s = (rows.mean_period_s / (mean_samples / (mean_samples - 1.0).nullif(0.0)).ln()).fill_null(0.0)
    rows = rows.mutate(mean_s=ibis.greatest(rows.mean_observed_s, estimated_s))
    adjusts = (
        (rows.in_samples >= thresholds.adjusted_from_samples) & (rows.mean_s > 0.0) & (rows.mean_s < rows.mean_period_s)
    )
    rows = rows.mutate(usage_share=rows.support.cast("float64") / rows.population.cast("float64"))
    raised = rows.usage_share * (rows.mean_period_s / rows.mean_s.nullif(0.0))
    rows = rows.mutate(
        adjusted_share=ibis.ifelse(adjusts, ibis.least(raised, 1.0), rows.usage_share),
        users_share=(rows.users.cast("float64") / rows.users_in_all.cast("float64")).fill_null(1.0),
    )
    return rows.select(
        *key, "support", "population", "users", "usage_share", "adjusted_share", "users_share"
    )  # fmt: skip


def _decide(services: ibis.Table, thresholds: Thresholds) -> ibis.Table:
    """The two steps of section 3.2: kind and reason of each (application, protocol, port)."""
    unused = (services.population - services.support).cast("float64")
    applications = services.group_by("app").agg(
        spread=((unused * unused).sum() / services.count().cast("float64")).sqrt(),
        bound=(services.population.max() - 1).cast("float64") * thresholds.transient_share,
    )
    rows = _join(services, applications, ("app",))
    shared = (rows.users_share >= thresholds.users_share) & (rows.adjusted_share >= thresholds.instances_share)
    reason = ibis.cases(
        (rows.spread < rows.bound, "all_static"),
        (rows.port < thresholds.well_known_below, "well_known_port"),
        (shared, "shared"),
        else_="not_shared",
    )
    decided = rows.select(*_SERVICE, reason=reason)
    return decided.mutate(kind=ibis.ifelse(decided.reason == "not_shared", "transient", "static"))


def _sum_volume(uses: ibis.Table, key: tuple[str, ...]) -> ibis.Table:
    """What the rows of one level carry themselves: flows, bytes, times, and the provider if all agree on it."""
    known = (uses.provider.nunique() == 1) & (uses.provider.count() == uses.count())
    return uses.group_by(*key).agg(
        resp_app=ibis.ifelse(known, uses.provider.min(), ibis.null("string")),
        flows=uses.flows.sum(),
        orig_bytes=uses.orig_bytes.sum(),
        resp_bytes=uses.resp_bytes.sum(),
        first_ns=uses.first_ns.min(),
        last_ns=uses.last_ns.max(),
    )


def _as_records(rows: ibis.Table, level: int) -> ibis.Table:
    """Rows with exactly the columns of `Dependency`; what a level does not speak of is not known."""
    rows = rows.mutate(level=ibis.literal(level), method=ibis.literal("macroscope"))
    if "resp_host" in rows.columns:
        rows = rows.mutate(resp_host=rows.resp_host.nullif(""))
    return rows.select(
        **{
            column.name: (rows[column.name] if column.name in rows.columns else ibis.null(column.type)).cast(
                column.type
            )
            for column in columns(Dependency)
        }
    )
