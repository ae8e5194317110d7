# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a ring that the kernel's programs write into: memory that is shared, so that reading costs no system call.

The layout is that of ``BPF_MAP_TYPE_RINGBUF``: a page with the reader's position, a page with the writer's, and the
data, which lies there twice in a row so that no record is ever broken at the end. A record begins with its length and
a flag while it is being written; such a one, and all behind it, are left for the next time.
"""

import mmap
import struct
from typing import List

_POSITION = struct.Struct("=Q")
_HEAD = struct.Struct("=II")
HEAD_BYTES = _HEAD.size
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_PAGE = mmap.PAGESIZE


class KernelRing:
    """A ring.

    Parameters
    ----------
    descriptor : int
        Of the map.
    size : int
        Bytes of its data.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._size = size
        self._reader = mmap.mmap(descriptor, _PAGE)
        try:
            self._writer = mmap.mmap(descriptor, _PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)
        except BaseException:
            self._reader.close()
            raise

    def _unread(self) -> bytes:
        begin = _POSITION.unpack_from(self._reader)[0]
        length = min(_POSITION.unpack_from(self._writer)[0] - begin, self._size)
        at = _PAGE + begin % self._size
        return self._writer[at : at + max(length, 0)]

    def _advance(self, length: int) -> None:
        _POSITION.pack_into(self._reader, 0, _POSITION.unpack_from(self._reader)[0] + length)

    def take_alike(self, length: int, most: int) -> bytes:
        """Records of one length, each behind its head, at distances of ``HEAD_BYTES + length``.

        Parameters
        ----------
        length : int
            Of every record in this ring; a multiple of 8.
        most : int
            Most records.

        Returns
        -------
        bytes
            None of them is looked at one by one, however many there are.
        """
        stride = HEAD_BYTES + length
        found = self._unread()
        rows = min(len(found) // stride, most)
        head = _HEAD.pack(length, 0)[:4]
        for column in range(4):
            same = found[column : rows * stride : stride]
            if same.count(head[column]) != rows:  # one that is still being written
                rows = next(row for row in range(rows) if same[row] != head[column])
        self._advance(rows * stride)
        return found[: rows * stride]

    def take(self) -> List[bytes]:
        """All records, of any length."""
        found, at = self._unread(), 0
        records: List[bytes] = []
        while len(found) - at >= HEAD_BYTES:
            (head, _page) = _HEAD.unpack_from(found, at)
            length = head & ~(_BUSY | _DISCARDED)
            if head & _BUSY or length > len(found) - at - HEAD_BYTES:
                break
            if not head & _DISCARDED:
                records.append(found[at + HEAD_BYTES : at + HEAD_BYTES + length])
            at += HEAD_BYTES + (length + 7 & ~7)
        self._advance(at)
        return records

    def close(self) -> None:
        """Give the memory back."""
        self._reader.close()
        self._writer.close()
