# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures to damage, and their damage: each trial follows from a seed and its number alone."""

import random
import struct
from dataclasses import dataclass
from functools import lru_cache

from tests.campaigns.mutation import damage_bytes
from tests.lib.flow.forge import FRAMES, on_wire, pcap, pcapng
from tests.lib.flow.forged_cases import CASES

#: Longer than any flow is kept without a packet, so that what one capture holds ended long before its end.
APART_MS = 400_000
_CASES_EACH = 7
_NUMBERS = (0, 1, 7, 15, 16, 255, 262_144, 262_145, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1)


@dataclass(frozen=True)
class Forged:
    """A capture that is whole, and where its records end."""

    name: str
    content: bytes
    head_bytes: int
    ends: tuple[int, ...]

    def whole_before(self, offset: int) -> int:
        """Where the last record ends that lies before an offset; 0 if none does."""
        return max((end for end in self.ends if end <= offset), default=0)


@lru_cache
def forged_captures() -> tuple[Forged, ...]:
    """Captures of all forged conversations, a few in each, in every kind of frame and of file."""
    names, made = sorted(CASES), []
    frames = sorted(FRAMES)
    for number in range(0, len(names), _CASES_EACH):
        chosen = names[number : number + _CASES_EACH]
        timed, begin_ms = [], 0.0
        for name in chosen:
            timed += [(begin_ms + at, packet) for at, packet in CASES[name]]
            begin_ms = timed[-1][0] + APART_MS
        turn = number // _CASES_EACH
        link_type, frame = FRAMES[frames[turn % len(frames)]]
        sent = on_wire(timed, frame, 300)
        if turn % 2:
            content, lengths = (
                pcap(sent, link_type, "<>"[turn // 2 % 2], bool(turn % 3)),
                [16 + len(e.data) for e in sent],
            )
        else:
            content = pcapng(sent, link_type, "<>"[turn // 2 % 2])
            lengths = [32 + len(each.data) + -len(each.data) % 4 for each in sent]
        at = len(content) - sum(lengths)
        ends = [at := at + length for length in lengths]
        assert ends[-1] == len(content)
        made.append(Forged(f"{chosen[0]} to {chosen[-1]}", content, len(content) - sum(lengths), tuple(ends)))
    return tuple(made)


def damaged(seed: int, number: int) -> tuple[Forged, bytes]:
    """One trial: a capture, and what damage made of it."""
    rng = random.Random(f"{seed}/{number}")
    captures = forged_captures()
    whole = rng.choice(captures)
    way = rng.randrange(4)
    if way == 0:
        return whole, whole.content[: rng.randrange(len(whole.content))]
    if way == 1:
        made = bytearray(whole.content)
        for _turn in range(rng.choice((1, 1, 2))):
            _damage_head(made, whole, rng)
        return whole, bytes(made)
    if way == 2:
        return whole, _splice(whole, captures, rng)
    return whole, damage_bytes(whole.content, [each.content for each in captures], rng)


def _damage_head(made: bytearray, whole: Forged, rng: random.Random) -> None:
    """Another number in the head of a record, where its time and its lengths are."""
    begin = rng.choice((0, *whole.ends[:-1]))
    at = begin + 4 * rng.randrange(8)
    number = rng.choice((*_NUMBERS, rng.randrange(2**32)))
    made[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)


def _splice(whole: Forged, captures: tuple[Forged, ...], rng: random.Random) -> bytes:
    """Records of one capture within another, left out, twice, or in another order."""
    other = rng.choice(captures)
    a, b = sorted(rng.choice((0, *other.ends)) for _each in range(2))
    at, on = sorted(rng.choice((0, *whole.ends)) for _each in range(2))
    return whole.content[:at] + other.content[a:b] + whole.content[rng.choice((at, on)) :]
