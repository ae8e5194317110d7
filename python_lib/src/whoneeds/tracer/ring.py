# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a page of the kernel's trace ring apart: records with their times, and how many were lost before them.

Pure and bounded: every length is checked against the page, so that no bytes make it read beyond them or run for
ever. The layout is that of ``events/header_page`` and ``events/header_event`` of tracefs.
"""

import struct
from typing import List, NamedTuple, Tuple

from whoneeds.model.errors import HostError

#: Time stamp of the page, and what is committed of it (with flags in the upper bits).
_PAGE = struct.Struct("=QQ")
_WORD = struct.Struct("=I")
_COUNT = struct.Struct("=Q")
_SIZE_MASK = (1 << 27) - 1
_MISSED, _MISSED_STORED = 1 << 31, 1 << 30
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31

#: Time (of the instance's clock), begin and end of the record in its page.
Place = Tuple[int, int, int]


class Page(NamedTuple):
    """What a page holds.

    Attributes
    ----------
    places : list of Place
    lost : int
        Records that the kernel wrote over before this page; at least 1 if it does not say how many.
    """

    places: List[Place]
    lost: int


def split_page(page: bytes) -> Page:
    """Split a page into its records.

    Parameters
    ----------
    page : bytes
        As one read of ``trace_pipe_raw`` gives it.

    Raises
    ------
    HostError
        If a length does not fit the page.
    """
    if len(page) < _PAGE.size:
        raise HostError("trace page", expected=f"at least {_PAGE.size} bytes", found=f"{len(page)}")
    now, committed = _PAGE.unpack_from(page, 0)
    end = _PAGE.size + (committed & _SIZE_MASK)
    if end > len(page):
        raise HostError("trace page", expected=f"at most {len(page)} bytes", found=f"{end}")
    places: List[Place] = []
    at, word = _PAGE.size, _WORD.unpack_from
    while end - at >= 4:
        (head,) = word(page, at)
        kind, delta = head & 31, head >> 5
        if 0 < kind < _PADDING:  # a record of so many words
            now += delta
            begin, at = at + 4, at + 4 + 4 * kind
        elif kind == 0 or kind == _PADDING:
            if kind == _PADDING and delta == 0:
                break  # nothing more on this page
            if end - at < 8:
                raise _cut(at, end)
            (length,) = word(page, at + 4)
            if length < 4:
                raise HostError("trace record", expected="4 bytes or more", found=f"{length}")
            now += delta
            begin, at = at + 8, at + 4 + ((length + 3) & ~3)
        else:
            if end - at < 8:
                raise _cut(at, end)
            (high,) = word(page, at + 4)
            now = (high << 27) + delta + (now if kind == _TIME_EXTEND else now & (31 << 59))
            at += 8
            continue
        if at > end:
            raise _cut(begin, end)
        if kind != _PADDING:
            places.append((now, begin, at))
    return Page(places, _count_lost(page, committed, end))


def _count_lost(page: bytes, committed: int, end: int) -> int:
    if not committed & _MISSED:
        return 0
    if committed & _MISSED_STORED and len(page) - end >= _COUNT.size:
        return max(int(_COUNT.unpack_from(page, end)[0]), 1)
    return 1


def _cut(at: int, end: int) -> HostError:
    return HostError("trace record", expected=f"an end before byte {end}", found=f"one that begins at {at} and goes on")
