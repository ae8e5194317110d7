# SPDX-License-Identifier: GPL-3.0-or-later
"""The four levels of a dependency (Macroscope, section 2.1), whatever method decided it.

A verdict speaks of an application and a service. It is carried to the finer levels, as the paper does. Support, users
and shares speak of the *application* and the service (levels 1 and 3) or the service instance (levels 2 and 4): "so
many of its instances use this". Flows, bytes, first and last seen speak of the row's own connections.
"""

from dataclasses import dataclass

import ibis

from whoneeds.model.conclusions import Dependency
from whoneeds.model.schema import columns
from whoneeds.store.portable import as_whole

INSTANCE = ("app", "host", "pid", "address")
#: An instance of which it counts as well when its process began.
RUN = (*INSTANCE, "process_id")
SERVICE = ("app", "protocol", "port")
SERVICE_INSTANCE = (*SERVICE, "resp_addr", "resp_host")

#: For each level: what makes a row, and what its shares speak of.
_LEVELS = {
    1: (SERVICE, SERVICE),
    2: (SERVICE_INSTANCE, SERVICE_INSTANCE),
    3: ((*INSTANCE, "protocol", "port"), SERVICE),
    4: ((*INSTANCE, "protocol", "port", "resp_addr", "resp_host"), SERVICE_INSTANCE),
}


@dataclass(frozen=True)
class Counting:
    """How uses are counted.

    Attributes
    ----------
    instance : tuple of str
        What makes an instance.
    adjusted_from_samples : int
        Least number of samples of a use from which its frequency is adjusted for sampling.
    """

    instance: tuple[str, ...] = INSTANCE
    adjusted_from_samples: int = 2


def count_population(instances: ibis.Table, counting: Counting) -> ibis.Table:
    """How many instances and users each application has.

    Parameters
    ----------
    instances : ibis.Table
        Rows of `ApplicationInstance`, or of `ServiceUse`.
    counting : Counting

    Returns
    -------
    ibis.Table
        app, population, users_in_all.
    """
    users = instances.group_by("app").agg(users_in_all=instances.user.nunique())
    each = instances.select(*counting.instance).distinct()
    return join_once(each.group_by("app").agg(population=each.count()), users, ("app",))


def spread_verdicts(
    service_use: ibis.Table, population: ibis.Table, verdicts: ibis.Table, method: str, counting: Counting
) -> ibis.Table:
    """Dependencies at all four levels.

    Parameters
    ----------
    service_use : ibis.Table
        Rows of `ServiceUse`.
    population : ibis.Table
        From `count_population`.
    verdicts : ibis.Table
        app, protocol, port, kind, reason, and what else `Dependency` has that the method gives.
    method : str
    counting : Counting

    Returns
    -------
    ibis.Table
        Rows of `Dependency`, in no particular order.
    """
    uses = _name_providers(service_use)
    made = []
    for level, (key, shares_of) in _LEVELS.items():
        measured = measure(service_use, shares_of, population, counting)
        rows = join_once(_sum_volume(uses, key), measured, shares_of)
        made.append(_as_records(join_once(rows, verdicts, SERVICE), level, method))
    return ibis.union(*made, distinct=False)


def join_once(left: ibis.Table, right: ibis.Table, key: tuple[str, ...]) -> ibis.Table:
    """Inner join on equal columns, keeping each of them once."""
    wanted = [name for name in right.columns if name not in left.columns or name in key]
    return left.join(right.select(*wanted), list(key)).select(
        *left.columns, *(name for name in wanted if name not in key)
    )


def measure(service_use: ibis.Table, key: tuple[str, ...], population: ibis.Table, counting: Counting) -> ibis.Table:
    """Support, users and shares of each service or service instance; `SERVICE` is always part of the key."""
    uses = _fill_hosts(service_use)
    users = uses.select(*key, *(name for name in (*counting.instance, "user") if name not in key)).distinct()
    instances = users.drop("user").distinct()
    support = instances.group_by(*key).agg(support=instances.count())
    counted = join_once(support, users.group_by(*key).agg(users=users.user.nunique().nullif(0)), key)
    flows = uses.flows.sum().cast("float64")
    sampled = uses.group_by(*key).agg(
        in_samples=uses.samples.sum().cast("int64"),
        # broken numbers add up to another sum in every order, and so on every engine: whole microseconds do not
        mean_observed_s=as_whole(uses.duration_s * 1e6).sum().cast("float64") / 1e6 / flows,
        mean_samples=uses.samples.sum().cast("float64") / flows,
        mean_period_s=(as_whole(uses.period_s * 1e6) * uses.flows).sum().cast("float64") / 1e6 / flows,
    )
    rows = join_once(join_once(counted, sampled, key), population, ("app",))
    mean_samples = ibis.greatest(rows.mean_samples, 1.0)
    # k / (k - 1) has no value at k = 1; nullif makes the estimate unknown there, and unknown adds nothing.
    estimated_s = (rows.mean_period_s / (mean_samples / (mean_samples - 1.0).nullif(0.0)).ln()).fill_null(0.0)
    rows = rows.mutate(mean_s=ibis.greatest(rows.mean_observed_s, estimated_s))
    adjusts = (
        (rows.in_samples >= counting.adjusted_from_samples) & (rows.mean_s > 0.0) & (rows.mean_s < rows.mean_period_s)
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


def _name_providers(service_use: ibis.Table) -> ibis.Table:
    """Give every use of a service instance the name of the application there, if all who know it agree.

    A loopback address is another place in every network namespace, so there what the user itself knows goes first.
    """
    uses = _fill_hosts(service_use)
    place = ("protocol", "port", "resp_addr", "resp_host")
    named = uses.group_by(*place).agg(
        provider=ibis.ifelse(uses.resp_app.nunique() == 1, uses.resp_app.min(), ibis.null("string"))
    )
    joined = join_once(uses, named, place)
    loopback = joined.resp_addr.startswith("127.") | (joined.resp_addr == "::1")
    own = ibis.ifelse(loopback, joined.resp_app, ibis.null("string"))
    return joined.mutate(provider=ibis.coalesce(own, joined.provider)).drop("resp_app")


def _fill_hosts(service_use: ibis.Table) -> ibis.Table:
    """The host of an instance that is not traced becomes the empty word, since no engine joins on unknowns."""
    return service_use.mutate(resp_host=service_use.resp_host.fill_null(""))


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


def _as_records(rows: ibis.Table, level: int, method: str) -> ibis.Table:
    """Rows with exactly the columns of `Dependency`; what a level does not speak of is not known."""
    rows = rows.mutate(level=ibis.literal(level), method=ibis.literal(method))
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
