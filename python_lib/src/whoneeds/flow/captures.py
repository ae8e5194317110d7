# SPDX-License-Identifier: GPL-3.0-or-later
"""Capture files, pcap and pcapng: from pieces of a file to the records in it, in one pass and bounded memory.

A file that is damaged is read up to there; where that is, is said. Frames are not copied: a record says where its frame
lies in the buffer that is handed on with it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from whoneeds.flow.compiled.scan import (
    AT,
    AT_BLOCK,
    INTERFACE,
    IS_DAMAGED,
    MOST_FRAME_BYTES,
    NEEDS_MORE,
    REASON,
    RECORD,
    TOLD,
    scan_pcap,
    scan_pcapng,
)

#: Bytes that are looked at together, and records that are handed on together.
_BUFFER_BYTES, _MOST_RECORDS = 1 << 20, 1 << 14
#: Longest block that is no packet; a longer one is a damaged length.
_MOST_BLOCK_BYTES = 1 << 30
_MOST_INTERFACES = 1 << 12
_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1),
}  # fmt: skip
_NG_MAGIC = b"\x0a\x0d\x0d\x0a"
_INTERFACE = 1


class Source(Protocol):
    """What a capture is read from: a file that is open for reading."""

    def readinto(self, room: Any, /) -> int | None:
        """Fill some of the room, which is a view of bytes; how many bytes that is, 0 at the end."""


class _Pieces:
    """Pieces in memory, read like a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")  # a view: a large piece would be copied anew for each buffer

    def readinto(self, room: Any, /) -> int:
        if not self._rest:
            self._rest = memoryview(next((piece for piece in self._pieces if piece), b""))
        taken = min(len(self._rest), len(room))
        room[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


class Records(NamedTuple):
    """Some records of a capture.

    Attributes
    ----------
    data : uint8 array
    found : array of RECORD
    """

    data: Any
    found: Any


class CaptureReader:
    """Reads one capture file.

    Parameters
    ----------
    source : Source or iterable of bytes
        The file, open for reading or in pieces of any size.

    Attributes
    ----------
    problems : list of str
        What could not be read, with the place in the file.
    """

    def __init__(self, source: Source | Iterable[bytes]) -> None:
        self.problems: list[str] = []
        self._source: Any = source if hasattr(source, "readinto") else _Pieces(source)
        self._buffer = np.zeros(_BUFFER_BYTES, np.uint8)
        self._begin = self._end = 0
        self._offset = 0  # of the buffer's first byte in the file
        self._room = memoryview(self._buffer.data)
        self._records = np.zeros(_MOST_RECORDS, RECORD)
        self._told = np.zeros(3, TOLD)

    def __iter__(self) -> Iterator[Records]:
        """The records, some at a time; they are good until the next are asked for."""
        if not self._fill(8):
            self._complain("expected a capture, found " + ("nothing" if self._end == 0 else f"{self._end} bytes"))
            return
        magic = bytes(self._buffer[:4])
        if magic in _PCAP_MAGIC:
            yield from self._read_pcap(*_PCAP_MAGIC[magic])
        elif magic == _NG_MAGIC:
            yield from self._read_pcapng()
        else:
            self._complain(f"expected pcap or pcapng, found a file that begins with {magic.hex(' ')}")

    def _complain(self, what: str, at: int | None = None) -> None:
        self.problems.append(f"at byte {self._offset + (self._begin if at is None else at)}: {what}")

    def _fill(self, least: int) -> bool:
        """Have at least so many bytes in the buffer; whether there are as many."""
        if self._end - self._begin >= least:
            return True
        if self._begin:
            left = self._end - self._begin
            self._buffer[:left] = self._buffer[self._begin : self._end].copy()
            self._offset += self._begin
            self._begin, self._end = 0, left
        while self._end < _BUFFER_BYTES:
            taken = self._source.readinto(self._room[self._end :])
            if not taken:
                break
            self._end += taken
        return self._end - self._begin >= least

    def _read_pcap(self, order: str, nanoseconds: int) -> Iterator[Records]:
        if not self._fill(24):
            self._complain(f"expected a header of 24 bytes, found {self._end}")
            return
        big = order == ">"
        link = int(self._buffer[20:24].view(order + "u4")[0]) & 0x0FFFFFFF & 0xFFFF
        self._begin = 24
        while self._fill(1):
            count = scan_pcap(self._buffer, self._begin, self._end, big, nanoseconds, link, self._records, self._told)
            self._begin, why = self._told[[AT, REASON]].tolist()
            if count:
                yield Records(self._buffer, self._records[:count])
            if why == IS_DAMAGED:
                self._complain(f"expected a record of at most {MOST_FRAME_BYTES} bytes, found another length")
                return
            if why == NEEDS_MORE and not self._grow():
                self._complain("the file ends within a record")
                return

    def _grow(self) -> bool:
        """Whether the buffer holds more than it did."""
        before = self._end - self._begin
        self._fill(before + 1)
        return self._end - self._begin > before

    def _read_pcapng(self) -> Iterator[Records]:
        order, interfaces, known = "<", np.zeros(_MOST_INTERFACES, INTERFACE), 0
        while self._fill(1):
            count = scan_pcapng(
                self._buffer, self._begin, self._end, order == ">", interfaces, known, self._records, self._told
            )
            self._begin, why = self._told[[AT, REASON]].tolist()
            if count:
                yield Records(self._buffer, self._records[:count])
            if why == IS_DAMAGED:
                self._complain("expected a block, found a length or an interface that cannot be")
                return
            if why == NEEDS_MORE:
                if not self._grow():
                    self._complain("the file ends within a block")
                    return
                continue
            if why != AT_BLOCK:
                continue
            if not self._fill(12):
                self._complain("the file ends within a block")
                return
            head = self._buffer[self._begin : self._begin + 12]
            if bytes(head[:4]) == _NG_MAGIC:
                order, known = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(bytes(head[8:12]), "?"), 0
                if order == "?":
                    self._complain(
                        f"expected the mark of a byte order, found {bytes(head[8:12]).hex(' ')}", self._begin + 8
                    )
                    return
            kind, length = (int(number) for number in head[:8].view(order + "u4"))
            if length < 12 or length % 4 or length > _MOST_BLOCK_BYTES:
                self._complain(f"expected the length of a block, found {length}")
                return
            if kind == _INTERFACE:
                if length > _BUFFER_BYTES or not self._fill(length) or known >= _MOST_INTERFACES or length < 20:
                    self._complain("expected the description of an interface, found too much or too little")
                    return
                block = bytes(self._buffer[self._begin : self._begin + length])
                interfaces[known] = _describe_interface(block, order)
                known += 1
            if not self._skip(length):
                self._complain("the file ends within a block")
                return

    def _skip(self, length: int) -> bool:
        """Go on behind so many bytes, which may be more than the buffer holds."""
        while length > self._end - self._begin:
            length -= self._end - self._begin
            self._begin = self._end
            if not self._fill(1):
                return False
        self._begin += length
        return True


def _describe_interface(block: bytes, order: str) -> tuple[int, int, int, int]:
    """Link type, ticks in a second, offset in seconds, and how much of each packet is kept."""
    whose = "little" if order == "<" else "big"
    link, snap = int.from_bytes(block[8:10], whose), int.from_bytes(block[12:16], whose)  # type: ignore[arg-type]
    ticks, offset_s, at = 10**6, 0, 16
    while at + 4 <= len(block) - 4:
        code, size = (int.from_bytes(block[at + i : at + i + 2], whose) for i in (0, 2))  # type: ignore[arg-type]
        value = block[at + 4 : at + 4 + size]
        if not code or len(value) < size:
            break
        if code == 9 and size == 1:
            power = value[0] & 0x7F
            ticks = 1 << min(power, 62) if value[0] & 0x80 else 10 ** min(power, 18)
        elif code == 14 and size == 8:
            offset_s = int.from_bytes(value, whose, signed=True)  # type: ignore[arg-type]
        at += 4 + (size + 3) // 4 * 4
    return link, ticks, max(min(offset_s, 1 << 32), -(1 << 32)), snap
