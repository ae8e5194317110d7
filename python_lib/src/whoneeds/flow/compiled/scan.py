# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the records of a capture in a buffer."""

import numpy as np

from whoneeds.flow.compiled import entry, part

#: A record of a capture: where its frame lies in the data, its sizes, its time, and its link type.
RECORD = np.dtype([("at", "i8"), ("kept", "i8"), ("wire", "i8"), ("time_ns", "i8"), ("link", "i4")], align=True)
#: The bytes of a capture, and an interface that one describes: link type, times, and how much of a packet is kept.
DATA = np.dtype("u1")
INTERFACE = np.dtype([("link", "i8"), ("ticks_per_s", "i8"), ("offset_s", "i8"), ("snap", "i8")])
#: What is told beside how many records there are: where to go on, why it stopped, and the last time that was seen.
TOLD = np.dtype("i8")
AT, REASON, LAST_NS = range(3)
#: Longest frame; a longer one is a damaged length.
MOST_FRAME_BYTES = 1 << 18
NEEDS_MORE, AT_BLOCK, IS_DAMAGED = -1, -2, -3
_SECOND, _LATEST_S = 1_000_000_000, np.uint64(9_000_000_000)
_OLD_PACKET, _SIMPLE, _ENHANCED = 2, 3, 6


@part
def _number(data, at, big):
    if big:
        return (
            (np.int64(data[at]) << 24)
            | (np.int64(data[at + 1]) << 16)
            | (np.int64(data[at + 2]) << 8)
            | np.int64(data[at + 3])
        )
    return (
        np.int64(data[at])
        | (np.int64(data[at + 1]) << 8)
        | (np.int64(data[at + 2]) << 16)
        | (np.int64(data[at + 3]) << 24)
    )


@entry(DATA, int, int, int, int, int, RECORD, TOLD)
def scan_pcap(data, at, end, big, nanoseconds, link, records, told):
    """Find records; how many. Why it stopped is 0 if there is no more room for records."""
    count = 0
    while count < len(records):
        if at + 16 > end:
            return _tell(told, count, at, NEEDS_MORE if at < end else 0)
        kept = _number(data, at + 8, big)
        if kept > MOST_FRAME_BYTES:
            return _tell(told, count, at, IS_DAMAGED)
        if at + 16 + kept > end:
            return _tell(told, count, at, NEEDS_MORE)
        record = records[count]
        record["time_ns"] = _number(data, at, big) * 1_000_000_000 + _number(data, at + 4, big) * nanoseconds
        record["at"], record["kept"], record["link"] = at + 16, kept, link
        record["wire"] = max(_number(data, at + 12, big), kept)
        count += 1
        at += 16 + kept
    return _tell(told, count, at, 0)


@entry(DATA, int, int, int, INTERFACE, int, RECORD, TOLD)
def scan_pcapng(data, at, end, big, interfaces, known, records, told):
    """The same in pcapng; stops in front of every block that is no packet."""
    count = 0
    while count < len(records):
        if at + 12 > end:
            return _tell(told, count, at, NEEDS_MORE if at < end else 0)
        kind, length = _number(data, at, big), _number(data, at + 4, big)
        if kind not in (_ENHANCED, _SIMPLE, _OLD_PACKET):
            return _tell(told, count, at, AT_BLOCK)
        least = 16 if kind == _SIMPLE else 32
        if length < least or length % 4 or length > MOST_FRAME_BYTES + (1 << 17):
            return _tell(told, count, at, IS_DAMAGED)
        if at + length > end:
            return _tell(told, count, at, NEEDS_MORE)
        if _number(data, at + length - 4, big) != length:
            return _tell(told, count, at, IS_DAMAGED)
        interface = 0
        if kind == _ENHANCED:
            interface = _number(data, at + 8, big)
        elif kind == _OLD_PACKET:
            interface = _number(data, at + 8, big)
            interface = interface >> 16 if big else interface & 0xFFFF
        if interface >= known:
            return _tell(told, count, at, IS_DAMAGED)
        record = records[count]
        record["link"] = interfaces[interface]["link"]
        if kind == _SIMPLE:
            wire, begin = _number(data, at + 8, big), at + 12
            kept = min(wire, length - 16)
            if interfaces[interface]["snap"]:
                kept = min(kept, interfaces[interface]["snap"])
        else:
            kept, wire, begin = _number(data, at + 20, big), _number(data, at + 24, big), at + 28
            ticks = (np.uint64(_number(data, at + 12, big)) << np.uint64(32)) | np.uint64(_number(data, at + 16, big))
            told[LAST_NS] = _nanoseconds(ticks, interfaces[interface]["ticks_per_s"], interfaces[interface]["offset_s"])
            if kept > length - 32:
                return _tell(told, count, at, IS_DAMAGED)
        record["time_ns"], record["at"], record["kept"], record["wire"] = told[LAST_NS], begin, kept, max(wire, kept)
        count += 1
        at += length
    return _tell(told, count, at, 0)


@part
def _tell(told, count, at, why):
    told[AT], told[REASON] = at, why
    return count


@part
def _nanoseconds(ticks, ticks_per_s, offset_s):
    """Time since 1970; of a time that no number of nanoseconds holds, the latest one that does."""
    seconds = min(ticks // np.uint64(ticks_per_s), _LATEST_S)
    rest = np.int64(ticks % np.uint64(ticks_per_s))
    if ticks_per_s <= _SECOND:
        part_ns = rest * _SECOND // ticks_per_s
    elif ticks_per_s % _SECOND == 0:
        part_ns = rest // (ticks_per_s // _SECOND)
    else:
        part_ns = np.int64(rest * (_SECOND / ticks_per_s))
    whole_s = min(max(np.int64(seconds) + offset_s, -np.int64(_LATEST_S)), np.int64(_LATEST_S))
    return whole_s * _SECOND + part_ns
