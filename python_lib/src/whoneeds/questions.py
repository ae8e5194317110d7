# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a store: connections, attempts, dependencies, names, paths, clocks; nothing is written.

What is not stored as it is asked for (other filters, another method) is worked out from what is, by what the line
itself goes through (`whoneeds.sources`).
"""

from dataclasses import dataclass, replace
from typing import Any

import ibis

from whoneeds.analysis.filters import EVERYWHERE, Filters, find_users, select_flows
from whoneeds.analysis.naming import Names
from whoneeds.analysis.paths import count_members, find_answerers, find_continuations, find_links, group_instances
from whoneeds.collector.applications import find_applications
from whoneeds.collector.clocks import STEP_NS, ClockOffset
from whoneeds.collector.connections import join_connections
from whoneeds.collector.instances import is_failed, select_location
from whoneeds.collector.watched import tell_wire_clocks
from whoneeds.model.conclusions import ApplicationInstance, Attribution, Dependency, ServiceUse, WireJoin
from whoneeds.model.destinations import Destination, ReplicaSet
from whoneeds.model.evidence import FlowRecord, ProcessRecord, SegmentHeader
from whoneeds.model.schema import table_name
from whoneeds.sources import DEFAULT_METHOD, find_clocks, find_dependencies, find_filtered_uses, read_rows, require
from whoneeds.store.manifest import read_manifest
from whoneeds.store.session import Store


def find_attempts(store: Store, filters: Filters) -> tuple[Any, Any]:
    """What applications tried, answered or not, and all that was seen beside it, as expressions.

    Returns
    -------
    attempts : ibis.Table
        Flows with their instances, and ``failed``; see `whoneeds.analysis.attempts`.
    flow : ibis.Table
        All flows that the filters leave; where they tell users apart, those of the attempts alone.
    """
    uses = find_filtered_uses(store, filters, failed=True)
    attempts = uses.mutate(failed=is_failed(uses))
    seen = select_flows(store.table(FlowRecord), filters, store.table(SegmentHeader))
    seen = select_location(seen, filters.location)
    return attempts, seen.semi_join(attempts.select("flow_id"), "flow_id") if filters.users else seen


def find_connections(store: Store, filters: Filters) -> Any:
    """Flows that filters leave, with the programs at both ends, as an expression.

    A host is meant at either end. What a host saw counts wherever it was, unless a location is asked for.
    """
    require(store, Attribution, "whoneeds attribute")
    found, named = store.table(FlowRecord), store.table(Attribution)
    processes, segments = store.table(ProcessRecord), store.table(SegmentHeader)
    if filters.location not in (None, EVERYWHERE):
        found = found.filter((found.location == filters.location).fill_null(False))
    if filters.hosts:
        at_either = found.orig_host.isin(filters.hosts).fill_null(False) | found.resp_host.isin(filters.hosts)
        found = found.filter(at_either.fill_null(False))
    found = select_flows(found, replace(filters, hosts=()), segments)
    if filters.users:
        by_user = processes.select("process_id", user=processes.host + ibis.literal("/") + processes.uid.cast("string"))
        by_user = by_user.semi_join(find_users(processes, filters.users), "user")
        callers = named.filter(named.side == "orig").semi_join(by_user, "process_id")
        found = found.semi_join(callers.select("flow_id"), "flow_id")
    return join_connections(found, named, processes)


def choose_dependencies(store: Store, filters: Filters, method: str | None = None) -> Any:
    """Dependencies as they are stored, or decided anew where filters or a method ask for others, as an expression."""
    require(store, Dependency, "whoneeds analyze")
    stored = tell_method(store)
    if not filters.changes_population and method in (None, stored):
        return store.table(Dependency)
    return find_dependencies(store, filters, method=method or stored)


def tell_method(store: Store) -> str:
    """The method that decided the stored dependencies; the default one where there are none."""
    found = read_rows(store, store.table(Dependency).select("method").limit(1))
    return str(found[0]["method"]) if found else DEFAULT_METHOD


def find_naming(store: Store) -> Names:
    """Names and sets of services; none where the store was analysed before there were any."""
    derived = read_manifest(store.path).derived
    known = all(table_name(record) in derived for record in (Destination, ReplicaSet))
    return Names(store.rows(Destination), store.rows(ReplicaSet)) if known else Names((), ())


def find_clock_gaps(store: Store) -> list[dict[str, Any]]:
    """Wrong clocks in the form of gaps: what a host says of times is not to be taken as it is."""
    _steps, offsets = find_clocks(store)
    return [
        {
            "host": boot.host,
            "source": "clock",
            "reason": "ambiguous",
            "detail": _describe_clock(offset),
        }
        for boot, offset in sorted(offsets.items())
    ] + tell_wire_clocks(read_rows(store, store.table(WireJoin)), STEP_NS)


def _describe_clock(offset: ClockOffset) -> str:
    """How a host's clock stands to others, in words."""
    apart = f"{abs(offset.ahead_ns) / 1e9:.1f} s {'ahead of' if offset.ahead_ns > 0 else 'behind'}"
    hosts = f"{offset.agreeing} other host{'' if offset.agreeing == 1 else 's'}"
    if offset.by_most:
        told = f"the host's clock is {apart} the one that {hosts} agree on: set it"
    else:
        told = f"the host's clock is {apart} that of {hosts}, and which is right cannot be told: set both"
    return f"{told}; connections were put in order all the same"


@dataclass(frozen=True)
class Net:
    """Links between programs, and where they lead on to, as rows.

    Attributes
    ----------
    links, continuations, members : list of dict
        Of `whoneeds.analysis.paths`.
    """

    links: list[dict[str, Any]]
    continuations: list[dict[str, Any]]
    members: list[dict[str, Any]]


def find_net(store: Store, kind: str | None = "static") -> Net:
    """Links that paths go along.

    Parameters
    ----------
    store : Store
    kind : {"static", "transient"}, optional
        Which needs count; None for all.
    """
    require(store, Dependency, "whoneeds analyze")
    grouped = store.keep(group_instances(store.table(ApplicationInstance)))
    applications = store.keep(find_applications(store.table(ProcessRecord), store.keep))
    used = store.table(ServiceUse)
    answerers = find_answerers(store.table(FlowRecord), store.table(Attribution), applications)
    links = find_links(used, grouped, store.table(Dependency))
    return Net(
        read_rows(store, links if kind is None else links.filter(links.kind == kind)),
        read_rows(store, find_continuations(used, grouped, answerers)),
        read_rows(store, count_members(grouped)),
    )
