# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up worlds of hosts and a monitor whose conversations are known, and the join in plain loops."""

import random
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from statistics import median

from fleet import DAY_NS

from whoneeds.model.evidence import FlowRecord, WireFlow

SECOND = 10**9


def make_flow(**values):
    """A conversation that hosts recorded, of which only what is given is known."""
    plain = {one.name: None for one in fields(FlowRecord)} | {
        "protocol": "tcp", "direction": "event", "duration_s": 1.0, "samples": 1, "period_s": 0.0, "candidates": 0,
    }  # fmt: skip
    return FlowRecord(**(plain | values))


def make_wire(**values):
    """A flow on a wire that was seen whole."""
    plain = {one.name: None for one in fields(WireFlow)} | {
        "host": "mon1", "source": "pcap", "protocol": "tcp", "direction": "handshake", "handshake": "full",
        "end": "fin", "closed_by": "both", "orig_packets": 6, "resp_packets": 5, "orig_bytes": 100,
        "resp_bytes": 900, "missed_bytes": 0,
    }  # fmt: skip
    return WireFlow(**(plain | values))


@dataclass
class World:
    """Flows of hosts, flows on a wire, and which belong together.

    Attributes
    ----------
    flows, wires : list
    truth : dict of str to str or None
        The host's flow of each flow on the wire; None where no host recorded it.
    doubtful : set of str
        Flows on the wire of which nobody could tell.
    """

    flows: list
    wires: list
    truth: dict
    doubtful: set


def make_world(seed, ahead_ns, conversations=60):
    """Clients and servers of which some are traced, by samples or by events, and a monitor with a clock of its own."""
    dice = random.Random(seed)
    world = World([], [], {}, set())
    for number in range(conversations):
        client, server = dice.sample(range(1, 6), 2)
        port = 40_000 + number
        begin = DAY_NS + dice.randrange(3600) * SECOND
        spans = [(begin, begin + dice.randrange(1, 90) * SECOND)]
        fate = dice.choice(["plain"] * 6 + ["reused_at_once", "reused_later", "reused_later", "unrecorded"])
        if fate == "reused_at_once":
            spans = [(begin, begin + SECOND // 2), (begin + SECOND, begin + 3 * SECOND // 2)]
        elif fate == "reused_later":
            spans.append((spans[0][1] + 1800 * SECOND, spans[0][1] + 1830 * SECOND))
        for turn, (first_ns, last_ns) in enumerate(spans):
            ends = {
                "orig_addr": f"10.0.0.{client}", "orig_port": port, "resp_addr": f"10.0.0.{server}", "resp_port": 443,
            }  # fmt: skip
            name = f"f{number}.{turn}"
            wire = make_wire(
                flow_id=f"w{number}.{turn}", first_ns=first_ns + ahead_ns, last_ns=last_ns + ahead_ns, **ends
            )
            world.wires.append(wire)
            recorded = fate != "unrecorded"
            world.truth[wire.flow_id] = name if recorded else None
            if fate == "reused_at_once":
                world.doubtful.add(wire.flow_id)
            if not recorded:
                continue
            sampled = client % 2 == 0
            late = dice.randrange(5 * SECOND) if sampled and fate != "reused_at_once" else 0
            seen_first = min(first_ns + late, last_ns)
            flow = make_flow(
                flow_id=name, first_ns=seen_first, last_ns=max(seen_first, last_ns - late), orig_host=f"h{client}",
                orig_socket_id=f"h{client}/{name}", period_s=5.0 if sampled else 0.0, **ends,
            )  # fmt: skip
            if sampled and dice.random() < 0.3:
                flow = turn_around(replace(flow, direction="unknown"))
            world.flows.append(flow)
    dice.shuffle(world.flows)
    dice.shuffle(world.wires)
    return world


def turn_around(flow):
    """The same conversation with its ends named the other way round."""
    sides = ("addr", "port", "host", "socket_id", "bytes", "packets")
    there = {f"orig_{name}": getattr(flow, f"resp_{name}") for name in sides}
    back = {f"resp_{name}": getattr(flow, f"orig_{name}") for name in sides}
    return replace(flow, **there, **back)


def ends_of(row):
    """The tuple of a flow, whoever began."""
    return row.protocol, frozenset([(row.orig_addr, row.orig_port), (row.resp_addr, row.resp_port)])


def host_of(flow):
    """The one host that recorded a flow."""
    return flow.orig_host if flow.orig_socket_id else flow.resp_host


def find_offset(deltas, width_ns):
    """The middle of the most differences that lie within a width; None if too few do."""
    ordered = sorted(deltas)
    best = max(([d for d in ordered if at <= d <= at + width_ns] for at in ordered), key=len, default=[])
    return round(median(best)) if len(best) >= 3 and 2 * len(best) > len(deltas) else None


def join_by_hand(flows, wires):
    """The flow that each wire belongs to; None where it cannot be told; no entry where it belongs to none."""
    on_wire, on_host = defaultdict(list), defaultdict(list)
    for wire in wires:
        on_wire[ends_of(wire)].append(wire)
    for flow in flows:
        on_host[ends_of(flow), host_of(flow)].append(flow)
    deltas = defaultdict(list)
    for (ends, host), held in on_host.items():
        if len(held) == len(on_wire[ends]) == 1:
            exact = held[0].period_s == 0
            deltas[host, exact].append(on_wire[ends][0].first_ns - held[0].first_ns)
    offsets = {}
    for host in {host for host, _exact in deltas}:
        by_kind = [find_offset(deltas[host, exact], width * SECOND) for exact, width in ((True, 2), (False, 7))]
        offsets[host] = next((one for one in by_kind if one is not None), None)
    made = {}
    for wire in wires:
        near, unsure = [], False
        for (ends, host), held in on_host.items():
            if ends != ends_of(wire):
                continue
            if offsets.get(host) is None:
                unsure = True
                continue
            for flow in held:
                overlap = min(flow.last_ns, wire.last_ns - offsets[host]) - max(
                    flow.first_ns, wire.first_ns - offsets[host]
                )
                slack = int(flow.period_s * SECOND) + 2 * SECOND
                if overlap >= -slack:
                    near.append((overlap, slack, flow.flow_id))
        best = max((overlap for overlap, _slack, _flow in near), default=0)
        close = [flow for overlap, slack, flow in near if overlap >= best - slack]
        if len(close) == 1:
            made[wire.flow_id] = close[0]
        elif close or unsure:
            made[wire.flow_id] = None
    return made
