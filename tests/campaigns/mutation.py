# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage bytes and documents, in the ways in which they are damaged or forged."""

import copy
import random
from collections.abc import Sequence
from typing import Any

_INTERESTING = (0, 1, 3, 4, 15, 16, 127, 128, 255, 2**15 - 1, 2**16 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**40, 0.0, -0.0, 1.5, 1e308, [],
    {}, [[]], [None], "", "a", "\ud800", "\x00", "\x1b[2J", "{{ 1 }}", "../../x", "h1", "127.0.0.1", "::ffff:1.2.3.4",
    "%eth0", "x" * 300, "x" * 5000, ["x"] * 5000, {"a": 1}, "0", "1", "-1", "\u00e9", "\u202e", "\u0663", "tcp",
    "listen",
)  # fmt: skip


def damage_bytes(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Damage some bytes: bits, cuts, zeros, length fields, pieces of others."""
    made = bytearray(content)
    for _turn in range(rng.choice((1, 1, 1, 2, 4))):
        _damage_once(made, others, rng)
    return bytes(made)


def _damage_once(made: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    if not made:
        made += bytes(rng.randrange(256) for _each in range(4))
        return
    way, at = rng.randrange(8), rng.randrange(len(made))
    length = min(rng.choice((1, 2, 4, 8, 16, 64, 512)), len(made) - at)
    if way == 0:
        made[at] ^= 1 << rng.randrange(8)
    elif way == 1:
        made[at] = rng.randrange(256)
    elif way == 2:
        del made[at:]
    elif way == 3:
        made[at : at + length] = bytes(length)
    elif way == 4:
        width = rng.choice((2, 4, 8))
        number = rng.choice(_INTERESTING) + rng.choice((-1, 0, 0, 1))
        made[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    elif way == 5:
        del made[at : at + length]
    elif way == 6:
        made[at:at] = made[at : at + length]
    else:
        other = rng.choice(others)
        begin = rng.randrange(len(other) + 1)
        made[at : at + length] = other[begin : begin + rng.choice((length, len(other)))]


def damage_document(document: Any, rng: random.Random) -> Any:
    """A copy of a document of JSON with one to three of its values replaced, removed, doubled or renamed."""
    made = copy.deepcopy(document)
    for _turn in range(rng.choice((1, 1, 2, 3))):
        _damage_value(made, rng)
    return made


def _damage_value(document: Any, rng: random.Random) -> None:
    """Walk down to some place and change what is there."""
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.85:
            place = inner
            continue
        break
    way = rng.randrange(6)
    if way == 0:
        del place[key]
    elif way == 1 and isinstance(place, list):
        place.insert(key, inner)
    elif way == 1:
        place[str(rng.choice(_VALUES))] = place.pop(key)
    elif way == 2 and isinstance(inner, int):
        place[key] = inner + rng.choice((-1, 1, 2**32, -(2**63)))
    else:
        place[key] = copy.deepcopy(rng.choice(_VALUES))
