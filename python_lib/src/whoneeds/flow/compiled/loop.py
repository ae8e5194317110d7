# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop over packets: find the IP packet, decode it, and lay it to its flow; tunnels inside out.

Packets are taken some at a time: all are decoded, what the flow table holds for each is asked for, and then they are
laid to their flows one by one. On a busy link each packet belongs to another flow than the one before, and waiting for
memory is most of what a packet costs; so the waits overlap.
"""

from typing import Any, NamedTuple

import numpy as np

from whoneeds.flow.compiled import entry, part, rare
from whoneeds.flow.compiled.ahead import fetch
from whoneeds.flow.compiled.datagrams import decode, is_opening
from whoneeds.flow.compiled.endings import MOST_PORTS, OUTCOME, hand_out
from whoneeds.flow.compiled.frames import find_ip
from whoneeds.flow.compiled.packet import FRAGMENT, PACKET, SKIPPED, SYN, TCP, UDP
from whoneeds.flow.compiled.scan import DATA, RECORD
from whoneeds.flow.compiled.streams import PIECE, drop_pieces, make_pieces
from whoneeds.flow.compiled.table import (
    COUNT,
    DONE_COUNT,
    END,
    ENTRY,
    FIN_AT,
    FLOW,
    FRESH,
    NOW,
    NUMBER,
    PACKETS,
    REST,
    SKIPPED_PACKETS,
    TOO_DEEP,
    WAITING,
    WHY,
    begin_flow,
    drop_flow,
    find_flow,
    guess_flow,
    hash_of_flow,
    is_over,
    make_table,
)
from whoneeds.flow.compiled.tcp import is_reused, take_segment
from whoneeds.flow.compiled.tunnels import may_be_tunnel, open_tunnel

#: Why the loop came back: all is read; a fragment is at hand; rows must be taken away; the table is full.
ALL_READ, HAS_FRAGMENT, HAS_ROWS, IS_FULL = range(4)
#: Rows that one packet can finish, and flows that it can begin, at most.
_MARGIN = 32
_DONE_ROWS, _PIECES = 1 << 12, 1 << 16
#: Packets that are taken together, and how far ahead flows are asked for: a processor forgets what it is asked for
#: beyond some two dozen lines at once.
_TOGETHER, _AHEAD = 64, 6
LIMIT, PORT = np.dtype("i8"), np.dtype("u1")


class State(NamedTuple):
    """All arrays that the compiled loop works on.

    Attributes
    ----------
    flows, rests, ends, fin_at, index, numbers, pieces : arrays
        The flow table; see `whoneeds.flow.compiled.table` and `whoneeds.flow.compiled.streams`.
    done : array of OUTCOME
        Flows that are over, up to ``numbers[DONE_COUNT]``.
    ports : uint8 array of 2 * 65536
        Ports of services, of TCP and, behind that, of UDP.
    limits : int64 array
        Timeouts.
    packets : array of PACKET
        The packets at hand.
    """

    flows: Any
    rests: Any
    ends: Any
    fin_at: Any
    index: Any
    numbers: Any
    pieces: Any
    done: Any
    ports: Any
    limits: Any
    packets: Any


#: Types of the arrays.
STATE = State(FLOW, REST, END, FIN_AT, ENTRY, NUMBER, PIECE, OUTCOME, PORT, LIMIT, PACKET)


def make_state(most_flows: int, ports: Any, limits: Any) -> State:
    """A state in which nothing was seen yet."""
    flows, rests, ends, fin_at, index, numbers = make_table(most_flows + _MARGIN)
    return State(
        flows,
        rests,
        ends,
        fin_at,
        index,
        numbers,
        make_pieces(_PIECES),
        np.zeros(_DONE_ROWS, OUTCOME),
        ports,
        limits,
        np.zeros(_TOGETHER, PACKET),
    )


@entry(DATA, RECORD, int, int, STATE, int, int, int, np.uint64)
def run(data, records, at, count, state, is_whole, check, depth, seed):
    """Read records, from one number on, until there is something to do that is not compiled.

    Parameters
    ----------
    data : uint8 array
    records : array of `whoneeds.flow.compiled.scan.RECORD`
    at, count : int
    state : State
    is_whole : int
        Whether the only record is the body of an IP packet that came in fragments, whose headers are the first of
        ``state.packets``.
    check : int
        Whether checksums count.
    depth : int
        Tunnels within each other that are opened.
    seed : uint64
        Of the hash.

    Returns
    -------
    int
        The record to go on with. Why, is in ``numbers[WHY]``: `ALL_READ`, `HAS_FRAGMENT` (``numbers[WAITING]`` says
        which of the packets it is), `HAS_ROWS` or `IS_FULL`.
    """
    packets, numbers = state.packets, state.numbers
    most_rows, most_flows = len(state.done) - _MARGIN, len(state.flows) - _MARGIN
    while at < count:
        together = min(count - at, _TOGETHER)
        for number in range(together):
            _decode_record(data, records[at + number], packets[number], state.index, is_whole, check, seed)
        for number in range(min(together, _AHEAD)):
            _fetch_flow(packets[number], state)
        for number in range(together):
            if number + _AHEAD < together:
                _fetch_flow(packets[number + _AHEAD], state)
            packet = packets[number]
            if not is_whole:  # else there is room, since there was before its last fragment
                if numbers[DONE_COUNT] >= most_rows:
                    numbers[WHY] = HAS_ROWS
                    return at + number
                if numbers[COUNT] >= most_flows:
                    numbers[WHY] = IS_FULL
                    return at + number
                numbers[PACKETS] += 1
                numbers[NOW] = max(numbers[NOW], packet["time_ns"])
            if packet["what"] == SKIPPED:
                numbers[SKIPPED_PACKETS] += 1
                continue
            for level in range(depth + 1):
                if packet["what"] == FRAGMENT:
                    numbers[WHY], numbers[WAITING] = HAS_FRAGMENT, number
                    return at + number + 1
                if packet["what"] == SKIPPED:
                    break
                kind = may_be_tunnel(packet)
                if kind <= 0:
                    _take_packet(packet, state)
                if not kind:
                    break
                inner = open_tunnel(data, packet)
                if inner < 0:
                    break
                if level == depth:
                    numbers[TOO_DEEP] += 1
                    break
                decode(data, inner, packet["body_end"], packet["wire_end"], packet, check, seed)
        at += together
    numbers[WHY] = ALL_READ
    return at


@part
def _decode_record(data, record, packet, index, is_whole, check, seed):
    """Decode the packet of a record, and ask for the place of the index that its flow is at."""
    at, end = record["at"], record["at"] + record["kept"]
    inner = np.int64(-1)
    if not is_whole:
        packet["time_ns"], packet["outer"] = record["time_ns"], -1
        packet["vlan"], packet["inner_vlan"], packet["tunnel"] = -1, -1, 0
        packet["what"] = SKIPPED
        inner = find_ip(data, at, end, record["link"], packet)
        if inner < 0:
            return
    decode(data, inner, end, at + record["wire"], packet, 0 if is_whole else check, seed)
    if not packet["what"]:
        fetch(index, packet["hash"] & (len(index) - 1))


@part
def _fetch_flow(packet, state):
    """Ask for a packet's flow and its ends, as far as the hash tells which it is."""
    at = np.int64(-1) if packet["what"] else guess_flow(packet["hash"], state.index)
    if at >= 0:
        fetch(state.flows, at)
        fetch(state.ends, 2 * at)
        fetch(state.ends, 2 * at + 1)


@part
def _take_packet(packet, state):
    """Lay a packet to its flow, which is noted as the outer one of what it may carry."""
    flows, rests, ends, numbers = state.flows, state.rests, state.ends, state.numbers
    at = find_flow(packet, state.index, flows, rests)
    is_tcp = packet["protocol"] == TCP
    if at >= 0:
        # by the newest time that was seen, as timers would: what was over stays so, whatever time a late packet claims
        over = is_over(at, numbers[NOW], flows, rests, ends, state.limits)
        if not over and is_tcp and not packet["is_bad"]:
            orig_side = flows[at]["orig_side"]
            over = is_reused(ends[2 * at + orig_side], ends[2 * at + 1 - orig_side], packet)
        if over:
            finish(at, packet["hash"], True, state)
            at = np.int64(-1)
    if at < 0:
        at = begin_flow(packet, state.index, flows, rests, ends, numbers)
        if _comes_from_service(packet, state.ports):
            flows[at]["orig_side"] = 1 - packet["side"]
            flows[at]["flipped"] = 1
    flow = flows[at]
    if packet["is_bad"]:
        return
    side = np.int64(flow["orig_side"] if flow["one_way"] else packet["side"])
    end = ends[2 * at + side]
    end["packets"] += 1
    end["ip_bytes"] += packet["ip_bytes"]
    if is_tcp:
        take_segment(flow, rests[at], ends, state.fin_at, at, side, packet, state.limits, state.pieces, numbers)
        return
    end["last"] += packet["payload"]
    flow["last_ns"] = packet["time_ns"]
    if packet["protocol"] == UDP:
        packet["outer"] = rests[at]["number"]


@part
def _comes_from_service(packet, ports):
    """Whether the first packet that is seen of a flow looks like an answer, by its ports."""
    source, target = packet["source_port"], packet["target_port"]
    if packet["protocol"] == UDP:
        return ports[MOST_PORTS + source] and not ports[MOST_PORTS + target]
    flags = np.int64(packet["flags"])
    if packet["protocol"] != TCP or is_opening(flags) or not ports[source]:
        return False
    if ports[target]:
        return not flags & SYN and source < target
    return True


@rare
def finish(at, hashed, over, state):
    """Hand a flow out and take it from the table."""
    hand_out(at, over, state.flows, state.rests, state.ends, state.ports, state.done, state.numbers)
    drop_pieces(state.ends[2 * at], state.pieces, state.numbers)
    drop_pieces(state.ends[2 * at + 1], state.pieces, state.numbers)
    drop_flow(at, hashed, state.index, state.flows, state.numbers)


@entry(int, STATE, int, np.uint64)
def sweep(begin, state, silent_since_ns, seed):
    """Hand out what is over, and what was silent since a time; the place to go on at, or -1 when all were looked at."""
    now = state.numbers[NOW]
    for at in range(begin, state.numbers[FRESH]):
        if not state.flows[at]["is_used"]:
            continue
        over = is_over(at, now, state.flows, state.rests, state.ends, state.limits)
        if over or state.flows[at]["last_ns"] <= silent_since_ns:
            if state.numbers[DONE_COUNT] >= len(state.done):
                return at
            finish(at, hash_of_flow(state.flows[at], state.rests[at], seed), over, state)
    return -1
