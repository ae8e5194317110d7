# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop over packets: find the IP packet, decode it, and lay it to its flow; tunnels inside out."""

from typing import Any, NamedTuple

import numpy as np

from whoneeds.flow.compiled import njit, part
from whoneeds.flow.compiled.datagrams import decode_datagram, decode_transport, is_opening
from whoneeds.flow.compiled.endings import OUTCOME, hand_out
from whoneeds.flow.compiled.frames import find_ip
from whoneeds.flow.compiled.packet import (
    BODY_END,
    FLAGS,
    FRAGMENT,
    INNER_VLAN,
    IP_BYTES,
    IS_BAD,
    OUTER,
    PAYLOAD_BYTES,
    PROTOCOL,
    SIZE,
    SKIPPED,
    SOURCE_PORT,
    SYN,
    TARGET_PORT,
    TCP,
    TIME_NS,
    TUNNEL,
    UDP,
    VLAN,
    WIRE_END,
)
from whoneeds.flow.compiled.streams import drop_pieces, make_pieces
from whoneeds.flow.compiled.table import (
    COUNT,
    DONE_COUNT,
    NOW,
    PACKETS,
    SKIPPED_PACKETS,
    TOO_DEEP,
    begin_flow,
    chain_of,
    drop_flow,
    find_flow,
    is_over,
    make_table,
    orient,
    place_of,
)
from whoneeds.flow.compiled.tcp import is_reused, take_segment
from whoneeds.flow.compiled.tunnels import is_ip_tunnel, open_ip_tunnel, open_udp_tunnel
from whoneeds.flow.compiled.warm import AHEAD, warm

#: Why the loop came back: all is read; a fragment is at hand; rows must be taken away; the table is full.
ALL_READ, HAS_FRAGMENT, HAS_ROWS, IS_FULL = range(4)
#: Rows that one packet can finish, and flows that it can begin, at most.
_MARGIN = 32
_DONE_ROWS, _PIECES = 1 << 12, 1 << 16


class State(NamedTuple):
    """All arrays that the compiled loop works on.

    Attributes
    ----------
    flows, ends, heads, numbers, pieces : arrays
        The flow table; see `whoneeds.flow.compiled.table` and `whoneeds.flow.compiled.streams`.
    done : array of OUTCOME
        Flows that are over, up to ``numbers[DONE_COUNT]``.
    ports : bool array of 2 x 65536
        Ports of services, of TCP and of UDP.
    limits : int64 array
        Timeouts.
    packet, addresses, key, places : arrays
        The packet at hand, and where the next ones have their flows.
    """

    flows: Any
    ends: Any
    heads: Any
    numbers: Any
    pieces: Any
    done: Any
    ports: Any
    limits: Any
    packet: Any
    addresses: Any
    key: Any
    places: Any


def make_state(most_flows: int, ports: Any, limits: Any) -> State:
    """A state in which nothing was seen yet."""
    return State(
        *make_table(most_flows + _MARGIN),
        make_pieces(_PIECES),
        np.zeros(_DONE_ROWS, OUTCOME),
        ports,
        limits,
        np.zeros(SIZE, np.int64),
        np.zeros(4, np.uint64),
        np.zeros(5, np.uint64),
        np.zeros(AHEAD, np.int64),
    )


@njit
def run(data, records, begin, count, state, check, depth, seed):
    """Read records, from one number on, until there is something to do that is not compiled.

    Parameters
    ----------
    data : uint8 array
    records : array of `whoneeds.flow.compiled.scan.RECORD`
    begin, count : int
    state : State
    check : bool
        Whether checksums count.
    depth : int
        Tunnels within each other that are opened.
    seed : uint64
        Of the hash.

    Returns
    -------
    next, why : int
        The record to go on with, and `ALL_READ`, `HAS_FRAGMENT`, `HAS_ROWS` or `IS_FULL`.
    """
    packet, numbers = state.packet, state.numbers
    most_rows, most_flows = len(state.done) - _MARGIN, len(state.flows) - _MARGIN
    at = warmed = begin
    while at < count:
        if at >= warmed:
            warmed = min(at + AHEAD, count)
            packet[SIZE - 1] = warm(data, records, at, warmed, state, seed, state.places)
        if numbers[DONE_COUNT] >= most_rows:
            return at, HAS_ROWS
        if numbers[COUNT] >= most_flows:
            return at, IS_FULL
        record = records[at]
        at += 1
        numbers[PACKETS] += 1
        packet[TIME_NS] = record["time_ns"]
        packet[VLAN], packet[INNER_VLAN], packet[TUNNEL], packet[OUTER] = -1, -1, 0, -1
        numbers[NOW] = max(numbers[NOW], record["time_ns"])
        end = record["at"] + record["kept"]
        ip = find_ip(data, record["at"], end, record["link"], packet)
        if ip < 0:
            numbers[SKIPPED_PACKETS] += 1
            continue
        if take_datagram(data, ip, end, record["at"] + record["wire"], state, check, depth, seed) == FRAGMENT:
            return at, HAS_FRAGMENT
    return at, ALL_READ


@part
def take_datagram(data, at, end, wire_end, state, check, depth, seed):
    """Take an IP packet in, and what it carries in tunnels; `FRAGMENT` if it is one, which then waits in the state."""
    packet = state.packet
    for level in range(depth + 1):
        what = decode_datagram(data, at, end, wire_end, packet, state.addresses, check)
        if what == FRAGMENT:
            return FRAGMENT
        if what == SKIPPED:
            if not level:
                state.numbers[SKIPPED_PACKETS] += 1
            return SKIPPED
        at = _take_decoded(data, state, seed)
        if at < 0:
            return 0
        end, wire_end = packet[BODY_END], packet[WIRE_END]
    state.numbers[TOO_DEEP] += 1
    return 0


@njit
def take_whole(data, end, state, check, depth, seed):
    """Take in an IP packet that came in fragments: its headers are decoded, this is its body, its length is known."""
    packet = state.packet
    packet[BODY_END] = end
    if decode_transport(data, packet, False) == SKIPPED:
        state.numbers[SKIPPED_PACKETS] += 1
        return
    inner = _take_decoded(data, state, seed)
    if inner >= 0:
        take_datagram(data, inner, packet[BODY_END], packet[WIRE_END], state, check, depth - 1, seed)


@part
def _take_decoded(data, state, seed):
    """Lay a decoded packet to its flow; where the packet begins that it carries in a tunnel, or -1."""
    packet = state.packet
    if is_ip_tunnel(packet):
        return open_ip_tunnel(data, packet)
    number = _take_packet(state, seed)
    if packet[PROTOCOL] != UDP or packet[IS_BAD]:
        return -1
    inner = open_udp_tunnel(data, packet)
    if inner >= 0:
        packet[OUTER] = number
    return inner


@part
def _take_packet(state, seed):
    """Lay a packet to its flow; the flow's number."""
    packet, flows, ends, numbers = state.packet, state.flows, state.ends, state.numbers
    side = orient(packet, state.addresses, state.key)
    chain = place_of(state.key, seed, state.heads)
    at = find_flow(state.key, chain, state.heads, flows)
    now = packet[TIME_NS]
    if at >= 0:
        # by the newest time that was seen, as timers would: what was over stays so, whatever time a late packet claims
        over = is_over(at, numbers[NOW], flows, ends, state.limits)
        if not over and packet[PROTOCOL] == TCP and not packet[IS_BAD]:
            orig_side = flows[at]["orig_side"]
            if is_reused(ends[2 * at + orig_side], ends[2 * at + 1 - orig_side], packet):
                over = True
        if over:
            finish(at, chain, True, state)
            at = -1
    if at < 0:
        at = begin_flow(packet, state.key, side, chain, state.heads, flows, ends, numbers)
        if _comes_from_service(packet, state.ports):
            flows[at]["orig_side"] = 1 - side
            flows[at]["flipped"] = 1
    flow = flows[at]
    if packet[IS_BAD]:
        return flow["number"]
    if flow["one_way"]:
        side = flow["orig_side"]
    end = ends[2 * at + side]
    end["packets"] += 1
    end["ip_bytes"] += packet[IP_BYTES]
    if packet[PROTOCOL] == TCP:
        take_segment(flow, ends, at, side, packet, state.limits, state.pieces, numbers)
    else:
        end["payload"] += packet[PAYLOAD_BYTES]
        flow["last_ns"] = now
    return flow["number"]


@part
def _comes_from_service(packet, ports):
    """Whether the first packet that is seen of a flow looks like an answer, by its ports."""
    source, target = packet[SOURCE_PORT], packet[TARGET_PORT]
    if packet[PROTOCOL] == UDP:
        return ports[1, source] and not ports[1, target]
    if packet[PROTOCOL] != TCP or is_opening(packet[FLAGS]) or not ports[0, source]:
        return False
    if ports[0, target]:
        return not packet[FLAGS] & SYN and source < target
    return True


@part
def finish(at, chain, over, state):
    """Hand a flow out and take it from the table."""
    hand_out(at, over, state.flows, state.ends, state.ports, state.done, state.numbers)
    drop_pieces(state.ends[2 * at], state.pieces, state.numbers)
    drop_pieces(state.ends[2 * at + 1], state.pieces, state.numbers)
    drop_flow(at, chain, state.heads, state.flows, state.numbers)


@njit
def sweep(begin, state, silent_since_ns, seed):
    """Hand out what is over, and what was silent since a time; the place to go on at, or -1 when all were looked at."""
    now = state.numbers[NOW]
    for at in range(begin, len(state.flows)):
        if state.flows[at]["number"] < 0:
            continue
        over = is_over(at, now, state.flows, state.ends, state.limits)
        if over or state.flows[at]["last_ns"] <= silent_since_ns:
            if state.numbers[DONE_COUNT] >= len(state.done):
                return at
            finish(at, chain_of(state.flows[at], seed, state.heads, state.key), over, state)
    return -1
