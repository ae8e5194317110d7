# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows of one host that begin within a window of one another, by the million.

Both methods that look at the timing of packets, Orion and Sherlock, rest on this.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

#: Pairs that are held at a time.
_CHUNK = 1 << 21


def near_pairs(earlier_ns: Any, later_ns: Any, window_ns: int) -> Iterator[tuple[Any, Any]]:
    """Pairs of an instant of the first and one of the second that follows it within a window.

    Parameters
    ----------
    earlier_ns, later_ns : numpy.ndarray
        Instants of one host in order; int64. They may be the same: an instant is not paired with its own index then.
    window_ns : int
        A pair is less than this apart; equal instants follow each other both ways.

    Yields
    ------
    tuple of numpy.ndarray
        Indices into both, of some two million pairs at most unless one instant alone has more.
    """
    low = np.searchsorted(later_ns, earlier_ns, side="left")
    high = np.searchsorted(later_ns, earlier_ns + window_ns, side="left")
    yield from spread(low, high, skip_own=earlier_ns is later_ns)


def spread(low: Any, high: Any, *, skip_own: bool = False) -> Iterator[tuple[Any, Any]]:
    """Each index beside every number of its range, in pieces.

    Parameters
    ----------
    low, high : numpy.ndarray
        Range of each index: from the first to before the second.
    skip_own : bool
        Whether an index is left out of its own range.

    Yields
    ------
    tuple of numpy.ndarray
        Indices, and the numbers of their ranges.
    """
    times = np.maximum(high - low, 0)
    ends = np.cumsum(times)
    begin = 0
    while begin < len(times):
        done = ends[begin - 1] if begin else 0
        until = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        count = times[begin:until]
        index = np.repeat(np.arange(begin, until), count)
        within = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
        other = low[index] + within
        if skip_own:
            kept = index != other
            index, other = index[kept], other[kept]
        if len(index):
            yield index, other
        begin = until


def by_host(hosts: Any) -> Iterator[tuple[int, Any]]:
    """Each host with the indices of its rows, in their order.

    Parameters
    ----------
    hosts : numpy.ndarray
        One number a row.
    """
    order = np.argsort(hosts, kind="stable")
    bounds = np.flatnonzero(np.diff(hosts[order])) + 1
    for rows in np.split(order, bounds):
        if len(rows):
            yield int(hosts[rows[0]]), rows
