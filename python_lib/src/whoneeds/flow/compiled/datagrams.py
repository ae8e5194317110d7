# SPDX-License-Identifier: GPL-3.0-or-later
"""IP and what it carries: from a place in the data to a packet of `whoneeds.flow.compiled.packet`.

What the headers say of lengths counts for payload, since captures are cut; what lies beyond the captured end is never
read. A packet whose header claims more than was on the wire is left out, as is one that is cut within its headers.
"""

import numpy as np

from whoneeds.flow.compiled import part, rare
from whoneeds.flow.compiled.checksums import has_right_checksum, is_right, sum_words
from whoneeds.flow.compiled.frames import long_word, word
from whoneeds.flow.compiled.packet import (
    ACK,
    DONE,
    ESP,
    FRAGMENT,
    GRE,
    ICMP,
    ICMP6,
    IPIP,
    IPV6_IN_IP,
    SCTP,
    SKIPPED,
    SYN,
    TCP,
    UDP,
)
from whoneeds.flow.compiled.table import MAPPED, hash_of, orient
from whoneeds.flow.compiled.tunnels import what_it_looks_like

_MOST_EXTENSIONS = 10
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _NOTHING, _MOBILITY = 0, 43, 44, 51, 60, 59, 135


@rare
def decode(data, at, end, wire_end, packet, check, seed):
    """Decode the IP packet at a place; whether it could be is written to the packet: `DONE`, `SKIPPED` or `FRAGMENT`.

    Parameters
    ----------
    data : uint8 array
    at, end, wire_end : int
        Where it begins, where the captured data ends, and where the frame ended on the wire. It begins at -1 if it came
        in fragments: then its headers are in the packet by now.
    packet : PACKET
        Filled in, up to its flow's key and the hash of that.
    check : int
        Whether checksums count.
    seed : uint64
    """
    what = DONE
    if at >= 0:
        what = _decode_network(data, at, end, wire_end, packet, check)
    if what == DONE:
        what = _decode_transport(data, packet, check)
    if what == DONE:
        orient(packet)
        packet["hash"] = hash_of(packet, seed)
    packet["what"] = what


@part
def _decode_network(data, at, end, wire_end, packet, check):
    if at >= end:
        return SKIPPED
    version = data[at] >> 4
    if version == 4:
        return _decode_4(data, at, end, wire_end, packet, check)
    if version == 6:
        return _decode_6(data, at, end, wire_end, packet)
    return SKIPPED


@part
def _decode_4(data, at, end, wire_end, packet, check):
    if at + 20 > end:
        return SKIPPED
    header = (np.int64(data[at]) & 15) * 4
    total = word(data, at + 2)
    if not total:  # the network card cuts it into packets later
        total = wire_end - at
    if header < 20 or total < header or at + total > wire_end or at + header > end:
        return SKIPPED
    if check and not is_right(sum_words(data, at, at + header)):
        return SKIPPED
    packet["a_high"], packet["a_low"] = np.uint64(0), MAPPED | np.uint64(long_word(data, at + 12))
    packet["b_high"], packet["b_low"] = np.uint64(0), MAPPED | np.uint64(long_word(data, at + 16))
    packet["ip_bytes"], packet["family"], packet["header"] = total, 4, at
    packet["wire_end"] = at + total
    packet["body"], packet["body_end"] = at + header, min(end, at + total)
    packet["protocol"] = data[at + 9]
    if word(data, at + 6) & 0x3FFF:
        return FRAGMENT
    return DONE


@part
def _decode_6(data, at, end, wire_end, packet):
    if at + 40 > end:
        return SKIPPED
    length = word(data, at + 4)
    if not length:
        length = wire_end - at - 40
    if at + 40 + length > wire_end:
        return SKIPPED
    packet["a_high"], packet["a_low"] = _eight_bytes(data, at + 8), _eight_bytes(data, at + 16)
    packet["b_high"], packet["b_low"] = _eight_bytes(data, at + 24), _eight_bytes(data, at + 32)
    packet["ip_bytes"], packet["family"], packet["header"] = 40 + length, 6, at
    packet["wire_end"] = at + 40 + length
    end = min(end, at + 40 + length)
    kind = np.int64(data[at + 6])
    at += 40
    is_routed = False
    for _extension in range(_MOST_EXTENSIONS):
        if kind in (_HOP_BY_HOP, _ROUTING, _DESTINATION, _AUTHENTICATION):
            if at + 8 > end:
                return SKIPPED
            length = (np.int64(data[at + 1]) + 2) * 4 if kind == _AUTHENTICATION else (np.int64(data[at + 1]) + 1) * 8
            if kind == _ROUTING and not is_routed and at + length <= end:
                is_routed = _is_underway(data, at)
                if is_routed:
                    packet["b_high"], packet["b_low"] = (
                        _eight_bytes(data, at + length - 16), _eight_bytes(data, at + length - 8),
                    )  # fmt: skip
            kind = np.int64(data[at])
            at += length
            if at > end:
                return SKIPPED
        elif kind == _FRAGMENT:
            if at + 8 > end:
                return SKIPPED
            if word(data, at + 2) & 0xFFF9:
                packet["protocol"] = _FRAGMENT
                packet["body"], packet["body_end"] = at, end
                return FRAGMENT
            kind = np.int64(data[at])
            at += 8
            packet["ip_bytes"] -= 8  # as of every packet that was put together from fragments, though it is whole
        else:
            break
    if kind in (_NOTHING, _MOBILITY):
        return SKIPPED
    packet["protocol"], packet["body"], packet["body_end"] = kind, at, end
    return DONE


@part
def _is_underway(data, at):
    """Whether a routing header of type 0 names further stations, the last of which is where the packet goes."""
    length = data[at + 1]
    return data[at + 2] == 0 and data[at + 3] > 0 and length >= 2 and not length & 1


@part
def _eight_bytes(data, at):
    return (np.uint64(long_word(data, at)) << np.uint64(32)) | np.uint64(long_word(data, at + 4))


@part
def _decode_transport(data, packet, check):
    """Decode what an IP packet carries; begin, end and protocol are in the packet by now."""
    at, end, protocol = packet["body"], packet["body_end"], packet["protocol"]
    length = packet["wire_end"] - at
    packet["one_way"], packet["is_bad"], packet["flags"] = 0, 0, 0
    packet["source_port"], packet["target_port"] = 0, 0
    packet["payload"], packet["kept"] = length, end - at
    if protocol == TCP:
        if length < 20 or at + 20 > end:
            return SKIPPED
        packet["source_port"], packet["target_port"] = word(data, at), word(data, at + 2)
        header = (np.int64(data[at + 12]) >> 4) * 4
        packet["flags"] = data[at + 13]
        packet["sequence"], packet["acknowledged"] = long_word(data, at + 4), long_word(data, at + 8)
        packet["payload"], packet["kept"] = length - header, end - at - header
        if header < 20 or header > length or header > end - at or (check and _is_wrong(data, packet)):
            packet["is_bad"] = 1
        return DONE
    if protocol == UDP:
        if length < 8 or at + 8 > end:
            return SKIPPED
        packet["source_port"], packet["target_port"] = word(data, at), word(data, at + 2)
        packet["payload"] = max(word(data, at + 4) - 8, 0)
        packet["flags"] = what_it_looks_like(data, at + 8, end)
        if check and (packet["family"] == 6 or word(data, at + 6)) and _is_wrong(data, packet):
            packet["is_bad"] = 1
        return DONE
    if protocol in (ICMP, ICMP6):
        if length < 8 or at + 8 > end:
            return SKIPPED
        packet["source_port"] = data[at]
        answer = counterpart(np.int64(data[at]), protocol == ICMP6)
        packet["one_way"] = answer < 0
        packet["target_port"] = data[at + 1] if answer < 0 else answer
        packet["payload"] = length - 8
        if check and end == packet["wire_end"]:
            if protocol == ICMP6:
                packet["is_bad"] = _is_wrong(data, packet)
            else:
                packet["is_bad"] = not is_right(sum_words(data, at, end))
        return DONE
    if protocol == SCTP:
        if length < 12 or at + 12 > end:
            return SKIPPED
        packet["source_port"], packet["target_port"] = word(data, at), word(data, at + 2)
        packet["payload"] = length - 12
        return DONE
    if protocol == ESP or (protocol in (IPIP, IPV6_IN_IP, GRE) and at + 4 > end):
        return SKIPPED
    return DONE


@rare
def _is_wrong(data, packet):
    if packet["body_end"] != packet["wire_end"]:
        return False
    return not has_right_checksum(data, packet)


@rare
def counterpart(kind, is_6):
    """The type of ICMP message that answers a type, or that it answers; -1 if there is none."""
    if is_6:
        if kind in (128, 130, 133, 135, 139, 144):
            return kind + 1
        if kind in (129, 131, 134, 136, 140, 145):
            return kind - 1
        return -1
    if kind in (0, 8):
        return 8 - kind
    if kind in (9, 10):
        return 19 - kind
    if kind in (13, 15, 17):
        return kind + 1
    if kind in (14, 16, 18):
        return kind - 1
    return -1


@part
def is_opening(flags):
    """Whether a TCP packet is the first of its connection."""
    return flags & (SYN | ACK) == SYN
