# SPDX-License-Identifier: GPL-3.0-or-later
"""The flow table: what is remembered of each flow, and how it is found by its ends.

A flow has two ends, 0 and 1, in an order that depends on their addresses alone; `ORIG_SIDE` says which of them began.
Flows are found through chains; a flow that is over leaves its place to the next. All numbers are of the flow, the
state of its ends lies beside it in an array of twice as many rows.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.packet import (
    INNER_VLAN,
    ONE_WAY,
    OUTER,
    PROTOCOL,
    SOURCE_PORT,
    TARGET_PORT,
    TCP,
    TIME_NS,
    TUNNEL,
    VLAN,
)

#: What is remembered of a flow.
FLOW = np.dtype(
    [
        ("a_high", "u8"), ("a_low", "u8"), ("b_high", "u8"), ("b_low", "u8"), ("ports", "u8"),
        ("number", "i8"), ("outer", "i8"), ("first_ns", "i8"), ("last_ns", "i8"),
        ("attempt_ns", "i8"), ("close_ns", "i8"), ("tick_ns", "i8"), ("missed", "i8"),
        ("following", "i4"), ("vlan", "i2"), ("inner_vlan", "i2"),
        ("protocol", "u1"), ("orig_side", "i1"), ("one_way", "i1"), ("tunnel", "i1"), ("is_partial", "i1"),
        ("is_open", "i1"), ("history", "i1"), ("flipped", "i1"), ("saw_opening", "i1"),
    ],
    align=True,
)  # fmt: skip
#: What is remembered of one end of it. Numbers of TCP bytes count from its SYN.
END = np.dtype(
    [
        ("packets", "i8"), ("ip_bytes", "i8"), ("payload", "i8"),
        ("last", "i8"), ("acked", "i8"), ("fin_at", "i8"), ("read_to", "i8"), ("trimmed", "i8"),
        ("start", "u4"), ("beyond", "i4"), ("fins", "i4"),
        ("state", "i1"), ("before", "i1"), ("did_close", "i1"), ("was_seen", "i1"),
    ],
    align=True,
)  # fmt: skip
#: States of an end of a TCP connection.
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)
#: Places in the table's own numbers.
(
    FREE, COUNT, NEXT_NUMBER, HOLE_FREE, HOLES_LOST, GIVEN_UP, SKIPPED_PACKETS, PACKETS, NOW, DONE_COUNT, TOO_DEEP,
) = range(11)  # fmt: skip
NUMBERS = 16
#: Timeouts, by place, in nanoseconds.
TCP_IDLE, OPENING_IDLE, UDP_IDLE, OTHER_IDLE, ATTEMPT, CLOSE_DELAY = range(6)
NEVER = np.int64(1 << 62)
#: What stands before an IPv4 address in the lower half of an IPv6 one.
MAPPED = np.uint64(0x0000FFFF00000000)

_LINGER_NS, _FIRST_TICK_NS, _TICK_NS = 5_000_000_000, 5_000_000_000, 6_000_000_000
_P1, _P2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_BITS = np.uint64(29)


@part
def mix(state, value):
    """One step of the hash."""
    state = (state ^ value) * _P1
    return (state ^ (state >> _BITS)) * _P2


@part
def orient(packet, addresses, key):
    """Write the flow's key for a packet; the side on which the packet's sender is.

    Parameters
    ----------
    packet, addresses : arrays
    key : uint64 array of 5
        Filled in: the two addresses in order, and ports with the protocol.
    """
    source, target = packet[SOURCE_PORT], packet[TARGET_PORT]
    swapped = False
    if not packet[ONE_WAY]:
        if addresses[0] != addresses[2]:
            swapped = addresses[0] > addresses[2]
        elif addresses[1] != addresses[3]:
            swapped = addresses[1] > addresses[3]
        else:
            swapped = source > target
    if swapped:
        key[0], key[1], key[2], key[3] = addresses[2], addresses[3], addresses[0], addresses[1]
        source, target = target, source
    else:
        key[0], key[1], key[2], key[3] = addresses[0], addresses[1], addresses[2], addresses[3]
    key[4] = np.uint64((packet[PROTOCOL] << 33) | (packet[ONE_WAY] << 32) | (source << 16) | target)
    return 1 if swapped else 0


@part
def place_of(key, seed, heads):
    """The chain that a key belongs to."""
    state = mix(mix(mix(mix(mix(seed, key[0]), key[1]), key[2]), key[3]), key[4])
    return np.int64(state >> np.uint64(20)) & (len(heads) - 1)


@part
def chain_of(flow, seed, heads, key):
    """The chain that a flow of the table is in; writes its key."""
    key[0], key[1], key[2], key[3], key[4] = flow["a_high"], flow["a_low"], flow["b_high"], flow["b_low"], flow["ports"]
    return place_of(key, seed, heads)


@part
def find_flow(key, chain, heads, flows):
    """The flow with a key, or -1."""
    at = heads[chain]
    while at >= 0:
        flow = flows[at]
        if (
            flow["ports"] == key[4]
            and flow["a_low"] == key[1]
            and flow["b_low"] == key[3]
            and flow["a_high"] == key[0]
            and flow["b_high"] == key[2]
        ):
            return at
        at = flow["following"]
    return -1


@part
def begin_flow(packet, key, side, chain, heads, flows, ends, numbers):
    """Put a new flow into the table, which must have room; its place."""
    at = numbers[FREE]
    flow = flows[at]
    numbers[FREE] = flow["following"]
    numbers[COUNT] += 1
    flow["a_high"], flow["a_low"], flow["b_high"], flow["b_low"], flow["ports"] = key[0], key[1], key[2], key[3], key[4]
    flow["number"], flow["outer"] = numbers[NEXT_NUMBER], packet[OUTER]
    numbers[NEXT_NUMBER] += 1
    now = packet[TIME_NS]
    flow["first_ns"], flow["last_ns"], flow["missed"] = now, now, 0
    flow["attempt_ns"], flow["close_ns"], flow["tick_ns"] = NEVER, NEVER, NEVER
    flow["vlan"], flow["inner_vlan"] = packet[VLAN], packet[INNER_VLAN]
    flow["protocol"], flow["orig_side"], flow["one_way"] = packet[PROTOCOL], side, packet[ONE_WAY]
    flow["tunnel"], flow["is_partial"], flow["is_open"], flow["history"] = packet[TUNNEL], 0, 0, 0
    flow["flipped"], flow["saw_opening"] = 0, 0
    for which in range(2):
        end = ends[2 * at + which]
        end["packets"], end["ip_bytes"], end["payload"] = 0, 0, 0
        end["last"], end["acked"], end["fin_at"], end["read_to"], end["trimmed"] = 0, 0, 0, 1, 1
        end["start"], end["beyond"], end["fins"] = 0, -1, 0
        end["state"], end["before"], end["did_close"], end["was_seen"] = INACTIVE, INACTIVE, 0, 0
    flow["following"] = heads[chain]
    heads[chain] = at
    return at


@part
def drop_flow(at, chain, heads, flows, numbers):
    """Take a flow out of the table."""
    flow = flows[at]
    if heads[chain] == at:
        heads[chain] = flow["following"]
    else:
        before = heads[chain]
        while flows[before]["following"] != at:
            before = flows[before]["following"]
        flows[before]["following"] = flow["following"]
    flow["following"] = numbers[FREE]
    flow["number"] = -1
    numbers[FREE] = at
    numbers[COUNT] -= 1


@part
def is_over(at, now_ns, flows, ends, limits):
    """Whether a flow had ended by a time, if nothing more came until then.

    Follows Zeek's timers. A connection that both ends closed, or one reset, is over after the close delay; an attempt
    that nobody answers after its own; one that is half over, at the next look that is taken every six seconds.
    """
    flow = flows[at]
    last = flow["last_ns"]
    if flow["protocol"] != TCP:
        return last + limits[UDP_IDLE if flow["protocol"] == 17 else OTHER_IDLE] <= now_ns
    if flow["close_ns"] != NEVER:
        return flow["close_ns"] <= now_ns
    orig, resp = ends[2 * at + flow["orig_side"]], ends[2 * at + 1 - flow["orig_side"]]
    os, rs = orig["state"], resp["state"]
    if flow["attempt_ns"] <= now_ns and os in (SYN_SENT, SYN_ACK_SENT) and rs == INACTIVE:
        return True
    one_closed, both_closed = orig["did_close"] or resp["did_close"], orig["did_close"] and resp["did_close"]
    closed = one_closed and (both_closed or os in (RESET, INACTIVE) or rs in (RESET, INACTIVE))
    if closed or (os == INACTIVE and rs == INACTIVE):
        look = _next_look(flow["first_ns"] + _FIRST_TICK_NS, last + _LINGER_NS)
        if flow["tick_ns"] != NEVER:
            look = min(look, _next_look(flow["tick_ns"], last + _LINGER_NS))
        if look <= now_ns:
            return True
    return last + limits[TCP_IDLE if flow["is_open"] else OPENING_IDLE] <= now_ns


@part
def _next_look(first_ns, after_ns):
    """The first of the looks every six seconds that comes after a time."""
    if first_ns > after_ns:
        return first_ns
    return first_ns + ((after_ns - first_ns) // _TICK_NS + 1) * _TICK_NS


def make_table(most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An empty table for so many flows: flows, ends, chains and numbers."""
    flows = np.zeros(most, FLOW)
    flows["number"] = -1
    flows["following"] = np.arange(1, most + 1)
    flows["following"][-1] = -1
    ends = np.zeros(2 * most, END)
    heads = np.full(1 << max(most * 2 - 1, 1).bit_length(), -1, np.int32)
    numbers = np.zeros(NUMBERS, np.int64)
    return flows, ends, heads, numbers
