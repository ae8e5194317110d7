# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a flow: the words that a wire flow has for it, and the row that is handed out.

The three words `end`, `handshake` and `closed_by` together tell Zeek's ``conn_state``; see ``docs/flows.md``.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.packet import TCP, UDP
from whoneeds.flow.compiled.table import (
    CLOSED,
    DONE_COUNT,
    ESTABLISHED,
    INACTIVE,
    PARTIAL,
    RESET,
    SYN_ACK_SENT,
    SYN_SENT,
)
from whoneeds.flow.compiled.tcp import BROKEN_OFF, payload_of
from whoneeds.model.evidence import CLOSED_BY, ENDS, HANDSHAKES, WIRE_DIRECTIONS

#: A flow as it is handed out: who began is settled, and words stand as their numbers in the vocabulary.
OUTCOME = np.dtype(
    [
        ("orig_high", "u8"), ("orig_low", "u8"), ("resp_high", "u8"), ("resp_low", "u8"),
        ("number", "i8"), ("outer", "i8"), ("first_ns", "i8"), ("last_ns", "i8"),
        ("orig_packets", "i8"), ("resp_packets", "i8"), ("orig_bytes", "i8"), ("resp_bytes", "i8"),
        ("orig_ip_bytes", "i8"), ("resp_ip_bytes", "i8"), ("missed_bytes", "i8"),
        ("orig_port", "u2"), ("resp_port", "u2"), ("vlan", "i2"), ("inner_vlan", "i2"),
        ("protocol", "u1"), ("end", "i1"), ("handshake", "i1"), ("closed_by", "i1"), ("direction", "i1"),
        ("tunnel", "i1"), ("one_way", "i1"),
    ],
    align=True,
)  # fmt: skip
#: Of each protocol.
MOST_PORTS = 1 << 16
_FIN, _RST, _REJECTED, _UNANSWERED, _IDLE, _ACTIVE = (
    ENDS.index(word) for word in ("fin", "rst", "rejected", "unanswered", "idle", "active")
)
_FULL, _ORIG, _RESP, _NONE = (HANDSHAKES.index(word) for word in ("full", "orig", "resp", "none"))
_BOTH, _BY_ORIG, _BY_RESP, _BY_NONE = (CLOSED_BY.index(word) for word in ("both", "orig", "resp", "none"))
_HANDSHAKE, _PORT, _FIRST = (WIRE_DIRECTIONS.index(word) for word in ("handshake", "port", "first"))


@part
def hand_out(at, is_over, flows, rests, ends, ports, done, numbers):
    """Write a flow's row behind those that are done.

    Parameters
    ----------
    at : int
        Its place.
    is_over : bool
        Whether it had ended; else the reading ends before it does.
    flows, rests, ends : arrays
    ports : uint8 array of 2 * 65536
        Which ports services have, of TCP and, behind that, of UDP.
    done : array of OUTCOME
    numbers : array
    """
    flow, rest, row = flows[at], rests[at], done[numbers[DONE_COUNT]]
    numbers[DONE_COUNT] += 1
    side = flow["orig_side"]
    orig, resp = ends[2 * at + side], ends[2 * at + 1 - side]
    low, high = (
        np.uint16((flow["ports"] >> np.uint64(16)) & np.uint64(0xFFFF)),
        np.uint16(flow["ports"] & np.uint64(0xFFFF)),
    )
    if side == 0:
        row["orig_high"], row["orig_low"] = rest["a_high"], flow["a_low"]
        row["resp_high"], row["resp_low"] = rest["b_high"], flow["b_low"]
        row["orig_port"], row["resp_port"] = low, high
    else:
        row["orig_high"], row["orig_low"] = rest["b_high"], flow["b_low"]
        row["resp_high"], row["resp_low"] = rest["a_high"], flow["a_low"]
        row["orig_port"], row["resp_port"] = high, low
    row["number"], row["outer"], row["first_ns"], row["last_ns"] = (
        rest["number"], rest["outer"], rest["first_ns"], flow["last_ns"],
    )  # fmt: skip
    row["orig_packets"], row["resp_packets"] = orig["packets"], resp["packets"]
    row["orig_ip_bytes"], row["resp_ip_bytes"] = orig["ip_bytes"], resp["ip_bytes"]
    row["missed_bytes"], row["vlan"], row["inner_vlan"] = flow["missed"], rest["vlan"], rest["inner_vlan"]
    row["protocol"], row["tunnel"], row["one_way"] = flow["protocol"], flow["tunnel"], flow["one_way"]
    row["end"], row["handshake"], row["closed_by"] = _IDLE if is_over else _ACTIVE, _NONE, _BY_NONE
    if flow["protocol"] == TCP:
        row["orig_bytes"], row["resp_bytes"] = payload_of(orig, resp), payload_of(resp, orig)
        _judge(flow, orig, resp, row)
    else:
        row["orig_bytes"], row["resp_bytes"] = orig["last"], resp["last"]
        if flow["protocol"] == UDP and not (orig["packets"] and resp["packets"]):
            row["end"] = _UNANSWERED
    row["direction"] = _direction(flow, row, ports)


@part
def _direction(flow, row, ports):
    if flow["saw_opening"]:
        return _HANDSHAKE
    if flow["protocol"] in (TCP, UDP):
        first = 0 if flow["protocol"] == TCP else MOST_PORTS
        orig, resp = first + np.int64(row["orig_port"]), first + np.int64(row["resp_port"])
        if flow["flipped"] or (ports[resp] and not ports[orig]):
            return _PORT
    return _FIRST


@part
def _is_open(end, closes):
    """Whether an end took part in the opening, as far as can be told; what it was counts if it closed by itself."""
    state = end["before"] if closes and end["state"] in (CLOSED, RESET) else end["state"]
    return state not in (INACTIVE, PARTIAL)


@part
def _judge(flow, orig, resp, row):
    os, rs = orig["state"], resp["state"]
    silent = rs in (INACTIVE, PARTIAL)
    closed_by = _BY_NONE
    if rs == RESET:
        closed_by = _BY_RESP
        attempt = os in (SYN_SENT, SYN_ACK_SENT) or (os == RESET and not row["orig_bytes"] and not row["resp_bytes"])
        row["end"] = _REJECTED if attempt else _RST
    elif os == RESET:
        closed_by = _BY_ORIG
        row["end"] = _RST
    elif os == CLOSED and rs == CLOSED:
        closed_by = _BOTH
        row["end"] = _FIN
    elif os == CLOSED:
        closed_by = _BY_ORIG
    elif rs == CLOSED:
        closed_by = _BY_RESP
    elif os == SYN_SENT and rs == INACTIVE:
        row["end"] = _UNANSWERED
    row["closed_by"] = closed_by
    orig_open = _is_open(orig, closed_by in (_BY_ORIG, _BOTH))
    resp_open = _is_open(resp, closed_by in (_BY_RESP, _BOTH))
    if os == RESET and rs != RESET and silent:
        # broken off before an answer; else it had more to say, and what it had before cannot be told
        row["handshake"] = _ORIG if flow["history"] == BROKEN_OFF else _NONE
    elif closed_by == _BY_NONE and orig_open and resp_open:
        row["handshake"] = _FULL if os == ESTABLISHED and rs == ESTABLISHED else _ORIG
    elif orig_open and resp_open:
        row["handshake"] = _FULL
    elif orig_open:
        row["handshake"] = _ORIG
    elif resp_open:
        row["handshake"] = _RESP
