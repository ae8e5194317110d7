# SPDX-License-Identifier: GPL-3.0-or-later
"""Needs of needs: an application needs a service, and what answers there needs others in turn.

The paper stops at one step (section 2.1). Where the server's host is traced too, the step goes on: a *link* leads from
a program on a host to a service, and from there to the program that answered. Not to its name: two programs of one
name on a host (two databases, two scripts of one interpreter) need different things. So a link leads to the *groups*
whose processes held the answering sockets, a group being a process and all that it forked of the same program
(`whoneeds.collector.applications`), and goes on with what those groups need.

A path has a share: the product of its links' shares. A link's share is exact: of the instances of the dependent
program on that host, so many were seen to use the service. The product is a rule: it takes what a program needs to be
independent of who asks it, since no packet tells which request led to which.

A path ends, and says why: ``nothing`` more is needed; the next host is ``untraced``; the answering program is
``unnamed``; it bears a name that several programs there have, and it is ``unclear`` which of them answered; it comes
back to a program that is on it (``cycle``), which is the last one then; or it is as long as was asked for (``depth``).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis

from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number

ENDS = ("nothing", "untraced", "unnamed", "unclear", "cycle", "depth")

_SOURCE = ("app", "host", "group_id")
_TARGET = ("protocol", "port", "resp_host", "resp_app", "place")
_MOST_HOPS, _MOST_PATHS = 64, 1_000_000

Row = Mapping[str, Any]
#: A program on a host: application, host, and the groups of it that are meant.
_Node = tuple[str, str, frozenset[str]]


@dataclass(frozen=True)
class PathLimits:
    """How far paths are followed.

    Attributes
    ----------
    hops : int
        Most links of a path.
    paths : int
        Most paths in all; what is left out is told.

    Raises
    ------
    SettingsError
        If hops are not 1 to 64, or paths not 1 to a million.
    """

    hops: int = 8
    paths: int = 1000

    def __post_init__(self) -> None:
        for name, most in (("hops", _MOST_HOPS), ("paths", _MOST_PATHS)):
            value = getattr(self, name)
            if not (is_whole_number(value) and 1 <= value <= most):
                raise SettingsError(
                    f"most {name}", expected=f"a whole number from 1 to {most}", found=ascii(value)[:40]
                )


@dataclass(frozen=True)
class Hop:
    """One link of a path.

    Attributes
    ----------
    protocol : str
    port : int
    resp_app : str or None
        The program that answers, where it is known.
    resp_host : str or None
        Its host, where it is traced.
    place : str
        The host or else the address.
    instances, population : int
        Instances of the dependent program that use the service, and all of them.
    kind : str
    """

    protocol: str
    port: int
    resp_app: str | None
    resp_host: str | None
    place: str
    instances: int
    population: int
    kind: str


@dataclass(frozen=True)
class Path:
    """A whole path.

    Attributes
    ----------
    app, host : str
        Where it begins.
    hops : tuple of Hop
    end : str
        Why it ends, one of `ENDS`.
    """

    app: str
    host: str
    hops: tuple[Hop, ...]
    end: str

    @property
    def share(self) -> float:
        """Product of the shares of its links."""
        share = 1.0
        for hop in self.hops:
            share *= hop.instances / hop.population
        return share


def group_instances(application_instance: ibis.Table) -> ibis.Table:
    """Instances with the group that each belongs to.

    Parameters
    ----------
    application_instance : ibis.Table
        Rows of `ApplicationInstance`, with ``leader_id``.

    Returns
    -------
    ibis.Table
        app, host, pid, address, group_id; one row an instance.
    """
    group = application_instance.leader_id.coalesce(application_instance.process_id)
    return application_instance.select("app", "host", "pid", "address", group_id=group)


def count_members(grouped: ibis.Table) -> ibis.Table:
    """How many instances each group has: app, host, group_id, population."""
    return grouped.group_by(*_SOURCE).agg(population=grouped.count())


def find_answerers(flow: ibis.Table, attribution: ibis.Table, applications: ibis.Table) -> ibis.Table:
    """Which groups answered at which service instance.

    Parameters
    ----------
    flow, attribution : ibis.Table
        Rows of `FlowRecord` and `Attribution`.
    applications : ibis.Table
        From `whoneeds.collector.applications.find_applications`.

    Returns
    -------
    ibis.Table
        protocol, port, resp_addr, resp_host, resp_app, resp_group.
    """
    named = attribution.filter(attribution.side == "resp", attribution.app.notnull(), attribution.process_id.notnull())
    named = named.select("flow_id", "process_id", resp_app="app", answering="host")
    called = flow.filter(flow.resp_host.notnull()).select(
        "flow_id", "protocol", "resp_addr", "resp_host", port="resp_port"
    )
    answered = called.join(named, "flow_id").filter(lambda rows: rows.answering == rows.resp_host)
    answered = answered.select("protocol", "port", "resp_addr", "resp_host", "resp_app", "process_id").distinct()
    leaders = applications.select("process_id", "leader_id")
    answered = answered.left_join(leaders, "process_id").drop("process_id_right")
    group = answered.leader_id.coalesce(answered.process_id)
    return answered.select("protocol", "port", "resp_addr", "resp_host", "resp_app", resp_group=group).distinct()


def find_links(service_use: ibis.Table, grouped: ibis.Table, dependency: ibis.Table) -> ibis.Table:
    """What each group needs.

    Parameters
    ----------
    service_use : ibis.Table
        Rows of `ServiceUse`.
    grouped : ibis.Table
        From `group_instances`.
    dependency : ibis.Table
        Rows of `Dependency`, of level 1 at least, which say of which kind a need is.

    Returns
    -------
    ibis.Table
        app, host, group_id, protocol, port, resp_host, resp_app, place (the host or else the address), kind, instances
        (that use it).
    """
    uses = _place(service_use).join(grouped, ["app", "host", "pid", "address"])
    # the parts of an instance below its host, as one value: engines count distinct values of one column only
    uses = uses.mutate(instance=uses.pid.cast("string") + "/" + uses.address)
    links = uses.group_by(*_SOURCE, *_TARGET).agg(instances=uses.instance.nunique())
    kinds = dependency.filter(dependency.level == 1).select("app", "protocol", "port", "kind")
    return links.join(kinds, ["app", "protocol", "port"]).select(*_SOURCE, *_TARGET, "kind", "instances")


def find_continuations(service_use: ibis.Table, grouped: ibis.Table, answerers: ibis.Table) -> ibis.Table:
    """Where links lead on to: the groups that answered at the service instances which a group used.

    Parameters
    ----------
    service_use, grouped : ibis.Table
        As for `find_links`.
    answerers : ibis.Table
        From `find_answerers`.

    Returns
    -------
    ibis.Table
        The columns that tell a link, and resp_group.
    """
    traced = service_use.filter(service_use.resp_host.notnull(), service_use.resp_app.notnull())
    uses = _place(traced).join(grouped, ["app", "host", "pid", "address"])
    key = ["protocol", "port", "resp_addr", "resp_host", "resp_app"]
    return uses.join(answerers, key).select(*_SOURCE, *_TARGET, "resp_group").distinct()


def walk_paths(
    links: Iterable[Row],
    continuations: Iterable[Row],
    members: Iterable[Row],
    starts: Sequence[tuple[str, str]] | None = None,
    limits: PathLimits = PathLimits(),
) -> tuple[list[Path], bool]:
    """Follow links to their ends.

    Parameters
    ----------
    links, continuations, members : iterable of mapping
        Rows of `find_links`, `find_continuations` and `count_members`.
    starts : sequence of (str, str), optional
        Applications and hosts to begin with; by default all that have members.
    limits : PathLimits

    Returns
    -------
    paths : list of Path
        In order of their begins and links. Each is as long as it can be: none is the begin of another one.
    whole : bool
        False if there are more than were asked for.
    """
    net = _Net(links, continuations, members)
    begins = sorted(net.groups) if starts is None else sorted(set(starts))
    found: list[Path] = []
    for app, host in begins:
        for path in net.walk(app, host, limits.hops):
            if len(found) == limits.paths:
                return found, False
            found.append(path)
    return found, True


class _Net:
    """Links by what they lead from."""

    def __init__(self, links: Iterable[Row], continuations: Iterable[Row], members: Iterable[Row]) -> None:
        self._links: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in links:
            self._links[_key(row, _SOURCE)].append(row)
        self._further: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
        for row in continuations:
            self._further[_key(row, _SOURCE) + _key(row, _TARGET)].add(row["resp_group"])
        self._population: dict[tuple[Any, ...], int] = {}
        self.groups: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for row in members:
            self._population[_key(row, _SOURCE)] = row["population"]
            self.groups[row["app"], row["host"]].add(row["group_id"])

    def walk(self, app: str, host: str, most: int) -> Iterator[Path]:
        """Paths that begin with an application on a host, in order."""
        begin = (app, host, frozenset(self.groups.get((app, host), ())))
        # generators on a stack of their own, so that no path is made before it is asked for
        trail: list[_Node] = [begin]
        hops: list[Hop] = []
        open_steps = [iter(self._steps(begin))]
        while open_steps:
            step = next(open_steps[-1], None)
            if step is None:
                open_steps.pop()
                trail.pop()
                del hops[-1:]
                continue
            hop, groups = step
            end, reached = self._reach(hop, groups, trail)
            further = [] if end else self._steps(reached)
            if not end:
                end = "nothing" if not further else "depth" if len(hops) + 1 == most else ""
            if end:
                yield Path(app, host, (*hops, hop), end)
            else:
                trail.append(reached)
                hops.append(hop)
                open_steps.append(iter(further))

    def _steps(self, node: _Node) -> list[tuple[Hop, frozenset[str]]]:
        """What a program needs: each link once, over all of its groups, with the groups that answered."""
        app, host, groups = node
        population = sum(self._population[app, host, group] for group in groups)
        together: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for group in sorted(groups):
            for row in self._links.get((app, host, group), ()):
                together[_key(row, _TARGET)].append(row)
        made = []
        for target, rows in together.items():
            protocol, port, resp_host, resp_app, place = target
            answered: frozenset[str] = frozenset().union(
                *(self._further.get(_key(row, _SOURCE) + target, ()) for row in rows)
            )
            used = sum(row["instances"] for row in rows)
            hop = Hop(protocol, port, resp_app, resp_host, place, used, population, rows[0]["kind"])
            made.append((hop, answered))
        return sorted(made, key=lambda step: (step[0].protocol, step[0].port, step[0].place, step[0].resp_app or ""))

    def _reach(self, hop: Hop, answered: frozenset[str], trail: Sequence[_Node]) -> tuple[str, _Node]:
        """Where a link leads, or why it leads no further."""
        app, host = hop.resp_app, hop.resp_host
        reached: _Node = (app or "", host or "", frozenset())
        if host is None:
            return "untraced", reached
        if app is None:
            return "unnamed", reached
        known = self.groups.get((app, host), set())
        if answered:
            groups = answered & known
        elif len(known) > 1:
            return "unclear", reached
        else:
            groups = frozenset(known)
        reached = (app, host, groups)
        if any((app, host) == before[:2] and groups & before[2] for before in trail):
            return "cycle", reached
        return "", reached


def _place(service_use: ibis.Table) -> ibis.Table:
    """Uses with the host, or else the address, that they went to; not knowing one is no equal to join on."""
    return service_use.mutate(place=service_use.resp_host.coalesce(service_use.resp_addr))


def _key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
