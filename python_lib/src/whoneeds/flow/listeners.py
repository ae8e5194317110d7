# SPDX-License-Identifier: GPL-3.0-or-later
"""Who waits for connections, as a capture itself shows it, and flows that are told by it.

An end that answered an opening waits on that port. So where the beginning of a flow was not seen, and exactly one of
its ends did so elsewhere in the same capture, that end was called. This goes before what ports make likely, and behind
what the flow's own packets say. Zeek has no such rule: it goes by ports and by who spoke first.

Evidence is that of connections that were over before, or at the same time; at the end of the capture all is over. The
same address in another VLAN or another kind of tunnel is another end.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from whoneeds.flow.compiled.endings import OUTCOME
from whoneeds.flow.compiled.packet import TCP
from whoneeds.model.evidence import CLOSED_BY, ENDS, HANDSHAKES, WIRE_DIRECTIONS

#: Ends that are remembered; of those beyond it is not known that they wait.
MOST_ENDS = 1 << 16
_HANDSHAKE, _LISTENER = WIRE_DIRECTIONS.index("handshake"), WIRE_DIRECTIONS.index("listener")
_FULL = HANDSHAKES.index("full")
_REJECTED, _RST, _UNANSWERED = ENDS.index("rejected"), ENDS.index("rst"), ENDS.index("unanswered")
_SIDES = ("orig", "resp")
#: Where an end is, besides its address and port.
_PLACE = ("vlan", "inner_vlan", "tunnel")
_SPREAD, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


class Listeners:
    """What is known of the ends of one capture.

    Parameters
    ----------
    most : int
        Ends that are remembered.
    """

    def __init__(self, most: int = MOST_ENDS) -> None:
        self._most = most
        self._waits: dict[tuple[int, ...], bool] = {}  # false of an end that both answered and began
        self._marks = np.empty(0, np.uint64)
        self._held: list[Any] | None = None

    def settle(self, done: Any) -> Any:
        """Learn from flows that are over, and tell who began those whose beginning was not seen.

        Parameters
        ----------
        done : array of OUTCOME
            Changed in place.

        Returns
        -------
        array of OUTCOME
            All of them, or after `hold` those about which nothing more can be learned.
        """
        self._learn(done)
        asked = _is_asked(done)
        if self._held is None:
            self._tell(done, asked)
            return done
        if not asked.any():
            return done
        self._held.append(done[asked])
        return done[~asked]

    def hold(self) -> None:
        """Keep from now on what later flows may still tell of, for `release`: the capture has ended."""
        self._held = []

    def release(self) -> Iterator[Any]:
        """The flows that were kept, told by all that is known."""
        held, self._held = self._held or [], None
        for done in held:
            self._tell(done, np.ones(len(done), np.bool_))
            yield done

    def _learn(self, done: Any) -> None:
        opened = (done["protocol"] == TCP) & (done["direction"] == _HANDSHAKE)
        # of one that was reset it is not always known whether it had been answered before
        whole = (done["handshake"] == _FULL) & (done["end"] != _RST) & (done["end"] != _REJECTED)
        answered = np.flatnonzero(opened & whole)
        marks = _marks_of(done[answered], "resp")
        where = answered[_first_of_each(marks) & ~_is_among(marks, self._marks)]
        for end in _ends_of(done[where], "resp"):
            if len(self._waits) < self._most:
                self._waits.setdefault(end, True)
        if len(where):
            self._marks = np.sort(np.concatenate((self._marks, _marks_of(done[where], "resp"))))
        callers = done[opened]
        for end in _ends_of(callers[_is_among(_marks_of(callers, "orig"), self._marks)], "orig"):
            if end in self._waits:
                self._waits[end] = False

    def _tell(self, done: Any, asked: Any) -> None:
        near = _is_among(_marks_of(done, "orig"), self._marks) | _is_among(_marks_of(done, "resp"), self._marks)
        places = np.flatnonzero(asked & near)
        rows = done[places]
        origs, resps = (map(self._waits.get, _ends_of(rows, side)) for side in _SIDES)
        for at, orig, resp in zip(places.tolist(), origs, resps, strict=True):
            if (orig, resp) == (True, None):
                _turn(done[at])
                done[at]["direction"] = _LISTENER
            elif (orig, resp) == (None, True):
                done[at]["direction"] = _LISTENER


def _is_asked(done: Any) -> Any:
    """Flows of TCP whose beginning was not seen; one that nobody answered begins with a SYN all the same."""
    return (done["protocol"] == TCP) & (done["direction"] != _HANDSHAKE) & (done["end"] != _UNANSWERED)


def _first_of_each(marks: Any) -> Any:
    """Which of some numbers are the first of their kind."""
    order = np.argsort(marks, kind="stable")
    first = np.ones(len(marks), np.bool_)
    first[order[1:]] = marks[order[1:]] != marks[order[:-1]]
    return first


def _is_among(marks: Any, known: Any) -> Any:
    """Which of some numbers are among others, which are sorted."""
    if not len(known):
        return np.zeros(len(marks), np.bool_)
    return known[np.minimum(np.searchsorted(known, marks), len(known) - 1)] == marks


def _marks_of(done: Any, side: str) -> Any:
    """A number for each end; two ends may have the same."""
    marks = np.zeros(len(done), np.uint64)
    for name in _names(side):
        marks = (marks ^ done[name].astype(np.uint64)) * _SPREAD
        marks ^= marks >> _SHIFT
    return marks


def _ends_of(done: Any, side: str) -> Iterator[tuple[int, ...]]:
    return zip(*(done[name].tolist() for name in _names(side)), strict=True)


def _names(side: str) -> tuple[str, ...]:
    return (f"{side}_high", f"{side}_low", f"{side}_port", *_PLACE)


def _turn(row: Any) -> None:
    """Let the two sides of a flow change places."""
    for name in OUTCOME.names or ():
        if name.startswith("orig_"):
            other = f"resp_{name[5:]}"
            row[name], row[other] = row[other], row[name]
    row["handshake"] = _mirrored(HANDSHAKES, row["handshake"])
    row["closed_by"] = _mirrored(CLOSED_BY, row["closed_by"])
    if row["end"] == _REJECTED:  # by whom was not called, after all
        row["end"] = _RST


def _mirrored(words: tuple[str, ...], number: Any) -> int:
    word = words[number]
    return words.index({"orig": "resp", "resp": "orig"}.get(word, word))
