# SPDX-License-Identifier: GPL-3.0-or-later
"""The features that `evidence` weighs, each a number made of a service's traits, and what to say of them in words.

A feature's value may be unknown, and unknown has a weight of its own. Features that speak of one matter share a
*topic*: their weights are added up before it is told which matters weighed most, so that none is told twice.

Shares of few are not those of many, so what is a share here has its count beside it as another feature, and some
features are *crossed*: two of them cut into few classes each, every pair of classes with a weight of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ibis

from whoneeds.store.portable import as_whole

Value = Callable[[ibis.Table], Any]


@dataclass(frozen=True)
class Feature:
    """A number that is weighed.

    Attributes
    ----------
    name : str
    topic : str
        The matter that it speaks of, one of `TOPICS`.
    value : callable
        From rows of `ServiceTrait` to a column of broken numbers.
    """

    name: str
    topic: str
    value: Value


def _share(part: Any, whole: Any) -> Any:
    """A share, not known where there is no whole."""
    return part.cast("float64") / whole.cast("float64").nullif(0.0)


def _share_of_many(part: Any, whole: Any) -> Any:
    """A share of two or more; of one alone it says nothing."""
    return ibis.ifelse(whole > 1, _share(part, whole), ibis.null("float64"))


def _port_class(t: ibis.Table) -> Any:
    """0: below 1024; 1: none that kernels here give to callers; 2: one that they give; not known."""
    return ibis.cases(
        (t.port < 1024, 0.0), ((~t.dynamic).fill_null(False), 1.0), (t.dynamic.fill_null(False), 2.0),
        else_=ibis.null("float64"),
    )  # fmt: skip


def _listener(t: ibis.Table) -> Any:
    """0: on traced hosts nobody was seen waiting; 1: the application itself; 2: another program; 3: a unit."""
    return ibis.cases(
        (t.traced_destinations == 0, ibis.null("float64")),
        (t.unit_destinations > 0, 3.0),
        (t.own_destinations > 0, 1.0),
        (t.listened_destinations > 0, 2.0),
        else_=0.0,
    )


def _class(value: Any, edges: tuple[float, ...]) -> Any:
    """Number of the class between edges, from 1 on; 0 is not known."""
    return ibis.cases(
        (value.isnull(), 0.0), *((value < edge, float(number)) for number, edge in enumerate(edges, 1)),
        else_=float(len(edges) + 1),
    )  # fmt: skip


def _crossed(one: Value, one_edges: tuple[float, ...], other: Value, other_edges: tuple[float, ...]) -> Value:
    """The pair of classes that two features fall into, as one number."""

    def value(t: ibis.Table) -> Any:
        return _class(one(t), one_edges) * (len(other_edges) + 2) + _class(other(t), other_edges)

    return value


def _usage(t: ibis.Table) -> Any:
    return _share(t.support, t.population)


def _support(t: ibis.Table) -> Any:
    return t.support.cast("float64")


def _crowd(t: ibis.Table) -> Any:
    return _share(t.other_single_ports, t.destinations)


def _singles(t: ibis.Table) -> Any:
    return t.other_single_services.cast("float64")


def _near(t: ibis.Table) -> Any:
    return t.near_services.cast("float64")


def _spread(t: ibis.Table) -> Any:
    return _share(t.destinations, t.support)


def _excess(t: ibis.Table) -> Any:
    """How much more it is used than a port near it on average."""
    return _share(t.support * t.near_services, t.near_support)


def _each(t: ibis.Table) -> Any:
    """Services that an instance uses: who picks one of many uses few at a time."""
    return _share(t.support_in_all, t.population)


def _in_turn(t: ibis.Table) -> Any:
    """How much more it is used than a service of the application on average."""
    return _share(t.support * (t.other_services + 1), t.support_in_all)


def _names(t: ibis.Table) -> Any:
    return _share(t.named_destinations, t.destinations)


def _apps(t: ibis.Table) -> Any:
    return t.service_apps.cast("float64")


_SOME_PORTS, _SOME_SINGLES, _SOME_SUPPORT = (1.0, 2.0), (1.0, 3.0, 12.0, 60.0), (2.0, 3.0, 6.0)

FEATURES: tuple[Feature, ...] = (
    Feature("usage_share", "usage", _usage),
    Feature("support", "usage", _support),
    Feature("population", "usage", lambda t: t.population.cast("float64")),
    Feature(
        "support x population", "usage",
        _crossed(_support, _SOME_SUPPORT, lambda t: t.population.cast("float64"), (2.0, 4.0, 12.0)),
    ),
    Feature("services_each", "picks", _each),
    Feature("usage_in_turn", "picks", _in_turn),
    Feature("usage_share x services_each", "picks", _crossed(_usage, (0.02, 0.1, 0.4), _each, (1.01, 1.5, 3.0))),
    Feature("usage_in_turn x singles", "picks", _crossed(_in_turn, (0.3, 1.0, 3.0), _singles, _SOME_SINGLES)),
    Feature("hosts_share", "hosts", lambda t: _share_of_many(t.hosts, t.hosts_in_all)),
    Feature("users_share", "hosts", lambda t: _share_of_many(t.users, t.users_in_all)),
    Feature("days_share", "days", lambda t: _share_of_many(t.days, t.days_in_all)),
    Feature("port_class", "port", _port_class),
    Feature("near_services", "near", _near),
    Feature("near_excess", "near", _excess),
    Feature("near_services x near_excess", "near", _crossed(_near, (1.0, 3.0, 20.0), _excess, (0.5, 2.0, 8.0, 40.0))),
    Feature("port_class x near_services", "near", _crossed(_port_class, _SOME_PORTS, _near, (1.0, 3.0, 20.0))),
    Feature("other_services", "singles", lambda t: t.other_services.cast("float64")),
    Feature("other_single_services", "singles", _singles),
    Feature("port_class x singles", "singles", _crossed(_port_class, _SOME_PORTS, _singles, _SOME_SINGLES)),
    Feature("support x singles", "singles", _crossed(_support, _SOME_SUPPORT, _singles, _SOME_SINGLES)),
    Feature("usage_share x singles", "singles", _crossed(_usage, (0.02, 0.1, 0.4), _singles, _SOME_SINGLES)),
    Feature("places_share", "places", _spread),
    Feature("repeated_share", "places", lambda t: _share_of_many(t.repeated_destinations, t.support)),
    Feature("concentration", "places", lambda t: _share_of_many(t.top_support, t.support)),
    Feature("support x places_share", "places", _crossed(_support, (2.0, 4.0, 12.0), _spread, (0.1, 0.34, 0.7, 1.01))),
    Feature("single_ports_there", "company", _crowd),
    Feature(
        "lasting_ports_there", "company", lambda t: _share(t.other_ports - t.other_single_ports, t.destinations)
    ),
    Feature("port_class x single_ports_there", "company", _crossed(_port_class, _SOME_PORTS, _crowd, (0.01, 0.5, 3.0))),
    Feature("named_share", "names", _names),
    Feature("service_apps", "others", _apps),
    Feature("shared_share", "others", lambda t: _share(t.shared_destinations, t.destinations)),
    Feature("named_share x service_apps", "others", _crossed(_names, (0.01, 0.9), _apps, (1.0, 3.0))),
    Feature("port_class x service_apps", "others", _crossed(_port_class, _SOME_PORTS, _apps, (1.0, 3.0, 10.0))),
    Feature("listener", "listener", _listener),
    Feature("port_class x listener", "listener", _crossed(_port_class, _SOME_PORTS, _listener, (0.5, 1.5, 2.5))),
    Feature("early_share", "manner", lambda t: _share(t.early, t.support)),
    Feature("flows_each", "manner", lambda t: _share(t.flows, t.support)),
    Feature("seen_share", "manner", lambda t: ibis.least(t.duration_s / t.period_s.nullif(0.0), 1.0)),
)  # fmt: skip


def _text(*parts: Any) -> Any:
    """Words and whole numbers in one line."""
    made = [ibis.literal(part) if isinstance(part, str) else part.cast("string") for part in parts]
    line = made[0]
    for part in made[1:]:
        line = line + part
    return line


def _tell_port(t: ibis.Table) -> Any:
    return ibis.cases(
        (t.port < 1024, "a port below 1024"),
        (t.dynamic.isnull(), "too few connections to know which ports callers are given"),
        (t.dynamic, "a port of those that kernels here give to callers"),
        else_="no port of those that kernels here give to callers",
    )


def _tell_listener(t: ibis.Table) -> Any:
    return ibis.cases(
        (t.traced_destinations == 0, ibis.literal("on no traced host")),
        (t.unit_destinations > 0, ibis.literal("a service of the host waits on it")),
        (t.own_destinations > 0, ibis.literal("the same application waits on it")),
        (t.listened_destinations > 0, ibis.literal("a program waits on it")),
        else_=ibis.literal("nobody was seen waiting on it"),
    )


def _tell_names(t: ibis.Table) -> Any:
    known = _text(t.named_destinations, " of ", t.destinations, " places have names")
    return ibis.ifelse(t.named_destinations.isnull(), "no names are known", known)


#: Each topic, and how it is told with its figures; in one line of these at most three stand.
TOPICS: dict[str, Callable[[ibis.Table], Any]] = {
    "usage": lambda t: _text("used by ", t.support, " of ", t.population, " instances"),
    "picks": lambda t: _text(
        "its ", t.population, " instances used ", t.other_services + 1, " services ", t.support_in_all, " times"
    ),
    "hosts": lambda t: _text("on ", t.hosts, " of ", t.hosts_in_all, " hosts"),
    "days": lambda t: _text("on ", t.days, " of ", t.days_in_all, " days"),
    "port": _tell_port,
    "near": lambda t: _text(t.near_services, " other ports near it"),
    "singles": lambda t: _text(
        "of ", t.other_services, " other services ", t.other_single_services, " were used by one instance"
    ),
    "places": lambda t: _text("at ", t.destinations, " places, ", t.repeated_destinations, " of them again"),
    "company": lambda t: _text(t.other_single_ports, " other ports called once at its places"),
    "names": _tell_names,
    "others": lambda t: _text(t.service_apps, " other applications use it"),
    "listener": _tell_listener,
    "manner": lambda t: _text(
        t.flows, " connections of ", as_whole(t.duration_s), " s, ", t.early, " instances at their start"
    ),
}
