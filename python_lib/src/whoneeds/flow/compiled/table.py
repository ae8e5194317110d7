# SPDX-License-Identifier: GPL-3.0-or-later
"""The flow table: what is remembered of each flow, and how it is found by its ends.

A flow has two ends, 0 and 1, in an order that depends on their addresses alone; `orig_side` says which of them began.
Flows are found through an index, in which each stands with 32 bits of its key's hash, at the place that they name or
soon behind it; a flow that is over leaves its place to the next. What every packet needs of a flow is a
line of the processor's cache, and so is each of its ends; the rest lies elsewhere, since on a busy link each packet
belongs to another flow than the one before, and waiting for memory is most of what it costs.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.packet import TCP

#: What every packet needs of a flow, in 64 bytes.
FLOW = np.dtype(
    [
        ("ports", "u8"), ("a_low", "u8"), ("b_low", "u8"), ("last_ns", "i8"), ("close_ns", "i8"), ("missed", "i8"),
        ("following", "i4"), ("protocol", "u1"), ("orig_side", "i1"), ("is_used", "i1"), ("is_open", "i1"),
        ("is_partial", "i1"), ("history", "i1"), ("flipped", "i1"), ("saw_opening", "i1"), ("one_way", "i1"),
        ("tunnel", "i1"),
    ],
    align=True,
)  # fmt: skip
#: What few packets need.
REST = np.dtype(
    [
        ("a_high", "u8"), ("b_high", "u8"), ("number", "i8"), ("outer", "i8"), ("first_ns", "i8"), ("tick_ns", "i8"),
        ("attempt_ns", "i8"), ("vlan", "i2"), ("inner_vlan", "i2"),
    ],
    align=True,
)  # fmt: skip
#: What is remembered of one end of it, in 64 bytes. Numbers of TCP bytes count from its SYN; of all else `last` is how
#: many bytes of payload it sent.
END = np.dtype(
    [
        ("packets", "i8"), ("ip_bytes", "i8"), ("last", "i8"), ("acked", "i8"), ("read_to", "i8"), ("trimmed", "i8"),
        ("start", "u4"), ("beyond", "i4"), ("state", "i1"), ("before", "i1"), ("did_close", "i1"), ("was_seen", "i1"),
        ("fins", "i1"),
    ],
    align=True,
)  # fmt: skip
#: Types of what number a FIN of an end has, of the index (the hash, and behind it a flow's place and 1; 0 is nothing),
#: and of the table's own numbers.
FIN_AT, ENTRY, NUMBER = np.dtype("i8"), np.dtype("i8"), np.dtype("i8")
_LINE_BYTES = 64
#: States of an end of a TCP connection.
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)
#: Places in the table's own numbers.
(
    FREE, FRESH, COUNT, NEXT_NUMBER, HOLE_FREE, HOLES_LOST, GIVEN_UP, SKIPPED_PACKETS, PACKETS, NOW, DONE_COUNT,
    TOO_DEEP, WHY, WAITING,
) = range(14)  # fmt: skip
NUMBERS = 16
#: Timeouts, by place, in nanoseconds.
TCP_IDLE, OPENING_IDLE, UDP_IDLE, OTHER_IDLE, ATTEMPT, CLOSE_DELAY = range(6)
NEVER = np.int64(1 << 62)
#: What stands before an IPv4 address in the lower half of an IPv6 one.
MAPPED = np.uint64(0x0000FFFF00000000)

_LINGER_NS, _FIRST_TICK_NS, _TICK_NS = 5_000_000_000, 5_000_000_000, 6_000_000_000
_P1, _P2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_BITS = np.uint64(29)
_IS_WIDE, _HASH = np.uint64(1 << 41), 0xFFFFFFFF


@part
def mix(state, value):
    """One step of the hash."""
    state = (state ^ value) * _P1
    return (state ^ (state >> _BITS)) * _P2


@part
def orient(packet):
    """Put a packet's addresses in the flow's order and write its key; the side that sent it is noted."""
    source, target = packet["source_port"], packet["target_port"]
    swapped = False
    if not packet["one_way"]:
        if packet["a_high"] != packet["b_high"]:
            swapped = packet["a_high"] > packet["b_high"]
        elif packet["a_low"] != packet["b_low"]:
            swapped = packet["a_low"] > packet["b_low"]
        else:
            swapped = source > target
    if swapped:
        packet["a_high"], packet["b_high"] = packet["b_high"], packet["a_high"]
        packet["a_low"], packet["b_low"] = packet["b_low"], packet["a_low"]
    first, second = (target, source) if swapped else (source, target)
    is_wide = 1 if packet["a_high"] | packet["b_high"] else 0
    kind = (is_wide << 9) | (np.int64(packet["protocol"]) << 1) | np.int64(packet["one_way"])
    packet["ports"] = np.uint64((kind << 32) | (np.int64(first) << 16) | np.int64(second))
    packet["side"] = 1 if swapped else 0


@part
def hash_of(packet, seed):
    """The hash of a packet's key, of 32 bits."""
    return _hash(packet["ports"], packet["a_low"], packet["b_low"], packet["a_high"], packet["b_high"], seed)


@part
def hash_of_flow(flow, rest, seed):
    """The same of a flow of the table."""
    return _hash(flow["ports"], flow["a_low"], flow["b_low"], rest["a_high"], rest["b_high"], seed)


@part
def _hash(ports, a_low, b_low, a_high, b_high, seed):
    state = mix(mix(mix(seed, a_low), b_low), ports)
    if ports & _IS_WIDE:
        state = mix(mix(state, a_high), b_high)
    return np.int64(state >> np.uint64(32))


@part
def guess_flow(hashed, index):
    """The first flow with a hash, or -1."""
    mask = len(index) - 1
    place = hashed & mask
    while index[place]:
        if (index[place] >> 32) & _HASH == hashed:
            return (index[place] & _HASH) - 1
        place = (place + 1) & mask
    return np.int64(-1)


@part
def find_flow(packet, index, flows, rest):
    """The flow of a packet, or -1."""
    mask, hashed = len(index) - 1, packet["hash"]
    place = hashed & mask
    while index[place]:
        if (index[place] >> 32) & _HASH == hashed:
            at = (index[place] & _HASH) - 1
            flow = flows[at]
            if (
                flow["ports"] == packet["ports"]
                and flow["a_low"] == packet["a_low"]
                and flow["b_low"] == packet["b_low"]
                and (not flow["ports"] & _IS_WIDE or _has_high(rest[at], packet))
            ):
                return at
        place = (place + 1) & mask
    return np.int64(-1)


@part
def _has_high(rest, packet):
    return rest["a_high"] == packet["a_high"] and rest["b_high"] == packet["b_high"]


@part
def begin_flow(packet, index, flows, rests, ends, numbers):
    """Put a new flow into the table, which must have room; its place."""
    at = numbers[FREE]
    if at < 0:
        at = numbers[FRESH]
        numbers[FRESH] += 1
    else:
        numbers[FREE] = flows[at]["following"]
    flow, rest = flows[at], rests[at]
    numbers[COUNT] += 1
    flow["ports"], flow["a_low"], flow["b_low"] = packet["ports"], packet["a_low"], packet["b_low"]
    rest["a_high"], rest["b_high"] = packet["a_high"], packet["b_high"]
    rest["number"], rest["outer"] = numbers[NEXT_NUMBER], packet["outer"]
    numbers[NEXT_NUMBER] += 1
    now = packet["time_ns"]
    rest["first_ns"], rest["attempt_ns"], rest["tick_ns"] = now, NEVER, NEVER
    flow["last_ns"], flow["missed"], flow["close_ns"] = now, 0, NEVER
    rest["vlan"], rest["inner_vlan"] = packet["vlan"], packet["inner_vlan"]
    flow["protocol"], flow["orig_side"], flow["one_way"] = packet["protocol"], packet["side"], packet["one_way"]
    flow["tunnel"], flow["is_partial"], flow["is_open"], flow["history"] = packet["tunnel"], 0, 0, 0
    flow["flipped"], flow["saw_opening"], flow["is_used"] = 0, 0, 1
    for which in range(2):
        end = ends[2 * at + which]
        end["packets"], end["ip_bytes"], end["start"], end["beyond"] = 0, 0, 0, -1
        end["last"], end["acked"], end["read_to"], end["trimmed"] = 0, 0, 1, 1
        end["state"], end["before"], end["did_close"], end["was_seen"] = INACTIVE, INACTIVE, 0, 0
        end["fins"] = 0
    mask = len(index) - 1
    place = packet["hash"] & mask
    while index[place]:
        place = (place + 1) & mask
    index[place] = (packet["hash"] << 32) | (at + 1)
    return at


@part
def drop_flow(at, hashed, index, flows, numbers):
    """Take a flow out of the table."""
    mask = len(index) - 1
    place = hashed & mask
    while index[place] != (hashed << 32) | (at + 1):
        place = (place + 1) & mask
    _empty(place, index)
    flows[at]["following"] = numbers[FREE]
    flows[at]["is_used"] = 0
    numbers[FREE] = at
    numbers[COUNT] -= 1


@part
def _empty(place, index):
    """Empty a place of the index; what stands behind it because that was taken moves up."""
    mask = len(index) - 1
    following = (place + 1) & mask
    while index[following]:
        home = (index[following] >> 32) & mask
        if (following - home) & mask >= (following - place) & mask:
            index[place] = index[following]
            place = following
        following = (following + 1) & mask
    index[place] = 0


@part
def is_over(at, now_ns, flows, rests, ends, limits):
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
    if rs == INACTIVE and os in (SYN_SENT, SYN_ACK_SENT) and rests[at]["attempt_ns"] <= now_ns:
        return True
    one_closed, both_closed = orig["did_close"] or resp["did_close"], orig["did_close"] and resp["did_close"]
    closed = one_closed and (both_closed or os in (RESET, INACTIVE) or rs in (RESET, INACTIVE))
    if closed or (os == INACTIVE and rs == INACTIVE):
        look = _next_look(rests[at]["first_ns"] + _FIRST_TICK_NS, last + _LINGER_NS)
        if rests[at]["tick_ns"] != NEVER:
            look = min(look, _next_look(rests[at]["tick_ns"], last + _LINGER_NS))
        if look <= now_ns:
            return True
    return last + limits[TCP_IDLE if flow["is_open"] else OPENING_IDLE] <= now_ns


@part
def _next_look(first_ns, after_ns):
    """The first of the looks every six seconds that comes after a time."""
    if first_ns > after_ns:
        return first_ns
    return first_ns + ((after_ns - first_ns) // _TICK_NS + 1) * _TICK_NS


def make_table(most: int) -> tuple[np.ndarray, ...]:
    """An empty table for so many flows: flows, the rest of them, ends, their FINs, index and numbers."""
    index = _lines(1 << max(most * 2 - 1, 1).bit_length(), ENTRY)
    numbers = np.zeros(NUMBERS, NUMBER)
    numbers[FREE] = -1
    return _lines(most, FLOW), _lines(most, REST), _lines(2 * most, END), np.zeros(2 * most, FIN_AT), index, numbers


def _lines(count: int, kind: np.dtype) -> np.ndarray:
    """An array of zeros that begins where a line of the cache begins, and a pair of them."""
    room = np.zeros(count * kind.itemsize + 2 * _LINE_BYTES, np.uint8)
    begin = -room.ctypes.data % (2 * _LINE_BYTES)
    return room[begin : begin + count * kind.itemsize].view(kind)
