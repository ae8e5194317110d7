# SPDX-License-Identifier: GPL-3.0-or-later
"""IP and what it carries: from a place in the data to a packet of `whoneeds.flow.compiled.packet`.

What the headers say of lengths counts for payload, since captures are cut; what lies beyond the captured end is never
read. A packet whose header claims more than was on the wire is left out, as is one that is cut within its headers.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.checksums import has_right_checksum, is_right, sum_words
from whoneeds.flow.compiled.frames import long_word, word
from whoneeds.flow.compiled.packet import (
    ACK,
    ACKNOWLEDGED,
    BODY,
    BODY_END,
    DONE,
    ESP,
    FAMILY,
    FLAGS,
    FRAGMENT,
    GRE,
    HEADER,
    ICMP,
    ICMP6,
    IP_BYTES,
    IPIP,
    IPV6_IN_IP,
    IS_BAD,
    KEPT_BYTES,
    ONE_WAY,
    PAYLOAD_BYTES,
    PROTOCOL,
    SCTP,
    SEQUENCE,
    SKIPPED,
    SOURCE_PORT,
    SYN,
    TARGET_PORT,
    TCP,
    UDP,
    WIRE_END,
)
from whoneeds.flow.compiled.table import MAPPED

_MOST_EXTENSIONS = 10
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _NOTHING, _MOBILITY = 0, 43, 44, 51, 60, 59, 135


@part
def decode_datagram(data, at, end, wire_end, packet, addresses, check):
    """Decode the IP packet at a place.

    Parameters
    ----------
    data : uint8 array
    at, end, wire_end : int
        Where it begins, where the captured data ends, and where the frame ended on the wire.
    packet : int64 array
        Filled in.
    addresses : uint64 array of 4
        Filled in: source, target.
    check : bool
        Whether checksums count.

    Returns
    -------
    int
        `DONE`, `SKIPPED` or `FRAGMENT`.
    """
    if at >= end:
        return SKIPPED
    version = data[at] >> 4
    if version == 4:
        return _decode_4(data, at, end, wire_end, packet, addresses, check)
    if version == 6:
        return _decode_6(data, at, end, wire_end, packet, addresses, check)
    return SKIPPED


@part
def _decode_4(data, at, end, wire_end, packet, addresses, check):
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
    addresses[0], addresses[1] = np.uint64(0), MAPPED | np.uint64(long_word(data, at + 12))
    addresses[2], addresses[3] = np.uint64(0), MAPPED | np.uint64(long_word(data, at + 16))
    packet[IP_BYTES], packet[FAMILY], packet[HEADER] = total, 4, at
    packet[WIRE_END] = at + total
    packet[BODY], packet[BODY_END] = at + header, min(end, at + total)
    packet[PROTOCOL] = data[at + 9]
    if word(data, at + 6) & 0x3FFF:
        return FRAGMENT
    return decode_transport(data, packet, check)


@part
def _decode_6(data, at, end, wire_end, packet, addresses, check):
    if at + 40 > end:
        return SKIPPED
    length = word(data, at + 4)
    if not length:
        length = wire_end - at - 40
    if at + 40 + length > wire_end:
        return SKIPPED
    for place in range(4):
        begin = at + 8 + 8 * place
        addresses[place] = (np.uint64(long_word(data, begin)) << np.uint64(32)) | np.uint64(long_word(data, begin + 4))
    packet[IP_BYTES], packet[FAMILY], packet[HEADER] = 40 + length, 6, at
    packet[WIRE_END] = at + 40 + length
    end = min(end, at + 40 + length)
    kind = np.int64(data[at + 6])
    at += 40
    for _extension in range(_MOST_EXTENSIONS):
        if kind in (_HOP_BY_HOP, _ROUTING, _DESTINATION, _AUTHENTICATION):
            if at + 8 > end:
                return SKIPPED
            length = (np.int64(data[at + 1]) + 2) * 4 if kind == _AUTHENTICATION else (np.int64(data[at + 1]) + 1) * 8
            kind = np.int64(data[at])
            at += length
            if at > end:
                return SKIPPED
        elif kind == _FRAGMENT:
            if at + 8 > end:
                return SKIPPED
            if word(data, at + 2) & 0xFFF9:
                packet[PROTOCOL] = _FRAGMENT
                packet[BODY], packet[BODY_END] = at, end
                return FRAGMENT
            kind = np.int64(data[at])
            at += 8
            packet[IP_BYTES] -= 8  # as of every packet that was put together from fragments, though it is whole
        else:
            break
    if kind in (_NOTHING, _MOBILITY):
        return SKIPPED
    packet[PROTOCOL], packet[BODY], packet[BODY_END] = kind, at, end
    return decode_transport(data, packet, check)


@part
def decode_transport(data, packet, check):
    """Decode what an IP packet carries; begin, end and protocol are in the packet by now."""
    at, end, protocol = packet[BODY], packet[BODY_END], packet[PROTOCOL]
    length = packet[WIRE_END] - at
    packet[ONE_WAY], packet[IS_BAD], packet[FLAGS] = 0, 0, 0
    packet[SOURCE_PORT], packet[TARGET_PORT] = 0, 0
    packet[PAYLOAD_BYTES], packet[KEPT_BYTES] = length, end - at
    if protocol == TCP:
        if length < 20 or at + 20 > end:
            return SKIPPED
        packet[SOURCE_PORT], packet[TARGET_PORT] = word(data, at), word(data, at + 2)
        header = (np.int64(data[at + 12]) >> 4) * 4
        packet[FLAGS] = data[at + 13]
        packet[SEQUENCE], packet[ACKNOWLEDGED] = long_word(data, at + 4), long_word(data, at + 8)
        packet[PAYLOAD_BYTES], packet[KEPT_BYTES] = length - header, end - at - header
        if header < 20 or header > length or header > end - at or _is_wrong(data, packet, check):
            packet[IS_BAD] = 1
        return DONE
    if protocol == UDP:
        if length < 8 or at + 8 > end:
            return SKIPPED
        packet[SOURCE_PORT], packet[TARGET_PORT] = word(data, at), word(data, at + 2)
        packet[PAYLOAD_BYTES] = max(word(data, at + 4) - 8, 0)
        if (packet[FAMILY] == 6 or word(data, at + 6)) and _is_wrong(data, packet, check):
            packet[IS_BAD] = 1
        return DONE
    if protocol in (ICMP, ICMP6):
        if length < 8 or at + 8 > end:
            return SKIPPED
        packet[SOURCE_PORT] = data[at]
        answer = counterpart(np.int64(data[at]), protocol == ICMP6)
        packet[ONE_WAY] = answer < 0
        packet[TARGET_PORT] = data[at + 1] if answer < 0 else answer
        packet[PAYLOAD_BYTES] = length - 8
        if check and end == packet[WIRE_END]:
            if protocol == ICMP6:
                packet[IS_BAD] = _is_wrong(data, packet, check)
            else:
                packet[IS_BAD] = not is_right(sum_words(data, at, end))
        return DONE
    if protocol == SCTP:
        if length < 12 or at + 12 > end:
            return SKIPPED
        packet[SOURCE_PORT], packet[TARGET_PORT] = word(data, at), word(data, at + 2)
        packet[PAYLOAD_BYTES] = length - 12
        return DONE
    if protocol == ESP or (protocol in (IPIP, IPV6_IN_IP, GRE) and at + 4 > end):
        return SKIPPED
    return DONE


@part
def _is_wrong(data, packet, check):
    if not check or packet[BODY_END] != packet[WIRE_END]:
        return False
    return not has_right_checksum(
        data, packet[BODY], packet[BODY_END], packet[PROTOCOL], packet[FAMILY], packet[HEADER]
    )


@part
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
