# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a TCP stream came, and what is missing.

Of each end it is known up to where its stream came without a gap (`read_to`); pieces that came early wait in a list.
When the peer acknowledges what did not come, that is a gap: it was sent, and is not in what was read. Gaps count only
where both ends are established or closed in order; elsewhere numbers cannot be believed.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.table import CLOSED, ESTABLISHED, HOLE_FREE, HOLES_LOST

#: A piece of a stream that came early: from, up to, and the next one of the same stream.
PIECE = np.dtype([("begin", "i8"), ("end", "i8"), ("following", "i4")], align=True)


@part
def take_piece(end, begin, upto, pieces, numbers):
    """Bytes came, from one number up to another; what the peer has acknowledged by now is not waited for."""
    begin = max(begin, end["acked"], end["trimmed"])
    if upto <= begin or upto <= end["read_to"]:
        return
    if begin <= end["read_to"]:
        end["read_to"] = upto
        _absorb(end, pieces, numbers)
        return
    free = numbers[HOLE_FREE]
    if free < 0:
        numbers[HOLES_LOST] += 1
        return
    numbers[HOLE_FREE] = pieces[free]["following"]
    pieces[free]["begin"], pieces[free]["end"] = begin, upto
    before, at = -1, end["beyond"]
    while at >= 0 and pieces[at]["begin"] < begin:
        before, at = at, pieces[at]["following"]
    pieces[free]["following"] = at
    if before < 0:
        end["beyond"] = free
    else:
        pieces[before]["following"] = free


@part
def _absorb(end, pieces, numbers):
    """Go on over pieces that follow without a gap by now."""
    while end["beyond"] >= 0 and pieces[end["beyond"]]["begin"] <= end["read_to"]:
        at = end["beyond"]
        end["read_to"] = max(end["read_to"], pieces[at]["end"])
        end["beyond"] = pieces[at]["following"]
        pieces[at]["following"] = numbers[HOLE_FREE]
        numbers[HOLE_FREE] = at


@part
def drop_pieces(end, pieces, numbers):
    """Give the places of a stream's pieces back."""
    while end["beyond"] >= 0:
        at = end["beyond"]
        end["beyond"] = pieces[at]["following"]
        pieces[at]["following"] = numbers[HOLE_FREE]
        numbers[HOLE_FREE] = at


@part
def take_acknowledgement(end, peer, fin_at, place, upto, is_partial, pieces, numbers):
    """The peer says that it has all up to a number; how many bytes of that were missing."""
    if end["fins"]:
        upto = min(upto, fin_at[place] - 1)
    if upto <= end["trimmed"]:
        return 0
    if upto > end["read_to"]:
        if upto <= 2 and is_partial:
            return 0
        missing = 0
        while end["read_to"] < upto:
            at = end["beyond"]
            until = upto if at < 0 else min(upto, pieces[at]["begin"])
            missing += max(until - end["read_to"], 0)
            end["read_to"] = max(until, end["read_to"])
            _absorb(end, pieces, numbers)
        end["trimmed"] = upto
        return missing if _is_orderly(end) and _is_orderly(peer) else 0
    end["trimmed"] = upto
    return 0


@part
def _is_orderly(end):
    return end["state"] == ESTABLISHED or (end["state"] == CLOSED and end["before"] == ESTABLISHED)


def make_pieces(most: int) -> np.ndarray:
    """Room for so many pieces, in one list of free places that begins with 0."""
    pieces = np.zeros(most, PIECE)
    pieces["following"] = np.arange(1, most + 1)
    pieces["following"][-1] = -1
    return pieces
