# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations of hosts together with what was watched on wires: the steps of `wires` and `wire_flows` in order."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ibis

from whoneeds.collector.addresses import find_claims
from whoneeds.collector.flows import FlowSettings
from whoneeds.collector.sockets import Keep
from whoneeds.collector.wire_flows import add_counts, count_joined, tell_unrecorded
from whoneeds.collector.wires import (
    WireClock,
    compare_wires,
    find_keys,
    find_meetings,
    place_wires,
    settle_wires,
    tabulate_clocks,
)
from whoneeds.model.conclusions import WireJoin

#: Gives the rows of an expression.
Read = Callable[[ibis.Table], Iterable[Mapping[str, Any]]]


def of_hosts(segments: ibis.Table) -> ibis.Table:
    """Segments of hosts; those of who watched a network say nothing of any host.

    Parameters
    ----------
    segments : ibis.Table
        SegmentHeader.
    """
    return segments.filter(~segments.sources.contains("wire"))


def join_watched(
    flows: ibis.Table,
    wires: ibis.Table,
    translations: ibis.Table,
    segments: ibis.Table,
    keep: Keep,
    read: Read,
    settings: FlowSettings = FlowSettings(),
) -> tuple[ibis.Table, list[WireJoin]]:
    """Conversations that hosts recorded, that wires carried, or both.

    Parameters
    ----------
    flows : ibis.Table
        FlowRecord, from `whoneeds.collector.flows.build_flows`.
    wires, translations, segments : ibis.Table
        WireFlow, TranslationRecord, and SegmentHeader of hosts.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.
    read : callable
        Works an expression out: clocks are settled between two steps.
    settings : FlowSettings

    Returns
    -------
    flows : ibis.Table
        FlowRecord.
    joins : list of WireJoin
        For each monitor and host that have a tuple in common.
    """
    claims = keep(find_claims(segments))
    flows = keep(flows)
    known = keep(find_keys(wires, translations, claims, settings.clock_offset_ns, keep))
    meetings = find_meetings(known, flows, keep)
    clocks = settle_wires(read(compare_wires(meetings)))
    by_host, by_monitor = tabulate_clocks(clocks)
    places = place_wires(meetings, by_host, keep)
    unrecorded = tell_unrecorded(known, places, by_monitor, claims, settings.clock_offset_ns)
    joined = {(row["monitor"], row["host"]): row for row in read(count_joined(meetings, places))}
    nothing = WireClock(None, 0, 0)
    joins = [
        WireJoin(
            monitor=monitor,
            host=host,
            ahead_ns=clocks.get((monitor, host), nothing).ahead_ns,
            agreeing=clocks.get((monitor, host), nothing).agreeing,
            witnesses=clocks.get((monitor, host), nothing).witnesses,
            joined=joined[monitor, host]["joined"],
            doubtful=joined[monitor, host]["doubtful"],
        )
        for monitor, host in sorted(joined)
    ]
    filled = add_counts(flows, known, places)
    return filled.select(flows.columns).union(unrecorded.select(flows.columns)), joins


def tell_wire_clocks(joins: Iterable[Mapping[str, Any]], step_ns: int) -> list[dict[str, Any]]:
    """Monitors' clocks that are not the hosts', in the form of gaps of the hosts.

    Parameters
    ----------
    joins : iterable of mapping
        Rows of WireJoin.
    step_ns : int
        A difference that is worth a word.
    """
    return [
        {"host": row["host"], "source": "clock", "reason": "ambiguous", "detail": told}
        for row in joins
        if (told := _tell(row, step_ns)) is not None
    ]


def _tell(row: Mapping[str, Any], step_ns: int) -> str | None:
    monitor = f"monitor {row['monitor']}"
    if row["ahead_ns"] is None and row["doubtful"]:
        return (
            f"the clock of {monitor} cannot be compared, since {row['agreeing']} of {row['witnesses']} connections in "
            f"common agree on it: {row['doubtful']} flows that it saw were not joined with any"
        )
    if row["ahead_ns"] is None or abs(row["ahead_ns"]) <= step_ns:
        return None
    apart = f"{abs(row['ahead_ns']) / 1e9:.1f} s {'ahead' if row['ahead_ns'] > 0 else 'behind'}"
    return (
        f"the clock of {monitor} is {apart}, by {row['agreeing']} connections in common; they were joined all the same"
    )
