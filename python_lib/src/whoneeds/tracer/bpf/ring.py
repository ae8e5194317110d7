# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a ring that the kernel's programs write into: memory that is shared, so that reading costs no system call.

The layout is that of ``BPF_MAP_TYPE_RINGBUF``: a page with the reader's position, a page with the writer's, and the
data, which lies there twice in a row so that no record is ever broken at the end. A record begins with its length and
a flag while it is being written; such a one, and all behind it, are left for the next time.
"""

import mmap
import struct
from typing import List, Tuple

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

    def _unread(self) -> Tuple[int, int]:
        """Where what is not read yet begins and ends."""
        begin = _POSITION.unpack_from(self._reader)[0]
        length = min(_POSITION.unpack_from(self._writer)[0] - begin, self._size)
        at = _PAGE + begin % self._size
        return at, at + max(length, 0)

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
        at, end = self._unread()
        rows = min((end - at) // stride, most)
        head = _HEAD.pack(length, 0)[:4]
        for column in range(4):
            same = self._writer[at + column : at + rows * stride : stride]
            if same.count(head[column]) != rows:  # one that is still being written
                rows = next(row for row in range(rows) if same[row] != head[column])
        # copied after the heads were looked at, not with them: what was still being written then is not among it
        found = self._writer[at : at + rows * stride]
        self._advance(len(found))
        return found

    def take(self) -> List[bytes]:
        """All records, of any length."""
        begin, end = self._unread()
        at = begin
        records: List[bytes] = []
        while end - at >= HEAD_BYTES:
            (head, _page) = _HEAD.unpack_from(self._writer, at)
            length = head & ~(_BUSY | _DISCARDED)
            if head & _BUSY or HEAD_BYTES + (length + 7 & ~7) > end - at:
                break
            if not head & _DISCARDED:
                records.append(self._writer[at + HEAD_BYTES : at + HEAD_BYTES + length])
            at += HEAD_BYTES + (length + 7 & ~7)
        self._advance(at - begin)
        return records

    def close(self) -> None:
        """Give the memory back."""
        self._reader.close()
        self._writer.close()
