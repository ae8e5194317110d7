# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged and forged blocks of connections: what is not as it was written is refused, and nothing dies of it."""

import json
import random
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

from tests.campaigns.fuzz_segments import seal
from tests.campaigns.mutation import damage_bytes, damage_document
from tests.campaigns.result import Result
from tests.campaigns.segments import BEGIN_NS, MINUTE_NS, make_segment
from whoneeds.collector.worker import answer
from whoneeds.model.errors import EvidenceError
from whoneeds.model.evidence import SocketRecord
from whoneeds.model.schema import check_value, columns
from whoneeds.segment.layout import DIGEST_BYTES, FIRST_LINE
from whoneeds.segment.lives import LIFE_BYTES, LIFE_FIELDS, MAX_ACTORS, LifeBlock, pack_lives
from whoneeds.segment.read import read_segment
from whoneeds.segment.write import encode_segment

_NOW_NS = BEGIN_NS + 86_400 * 10**9
_SIZES = ((1,), (3, 1), (40,), (200, 7))


def make_records(count: int, number: int, rng: random.Random) -> bytes:
    """Ends of connections as the kernel's programs write them, within the minute of a segment."""
    made = []
    for at in range(count):
        ended_ns = (number + 1) * MINUTE_NS + rng.randrange(MINUTE_NS)
        pids = [rng.randrange(1, 1 << 22) for _actor in range(rng.randrange(MAX_ACTORS + 1))]
        rest = [0] * (MAX_ACTORS - len(pids))
        local, remote = (rng.choice((bytes(10) + b"\xff\xff" + rng.randbytes(4), rng.randbytes(16))) for _ in range(2))
        made.append(
            struct.pack(
                "=" + LIFE_FIELDS, at + 1, rng.choice((0, ended_ns - 1000)), ended_ns, rng.randrange(1 << 40), 7,
                4026531840, 33, local, remote, rng.randrange(1 << 16), 443, 6, rng.randrange(32), rng.randrange(5),
                len(pids), *pids, *rest, 7, *(1 << 40 for _pid in pids), *rest,
            )
        )  # fmt: skip
    return b"".join(made)


class LifeFuzz:
    """Trials with segments that hold blocks.

    Parameters
    ----------
    result : Result
    rng : random.Random
    place : Path
        A folder for the trials.
    """

    def __init__(self, result: Result, rng: random.Random, place: Path) -> None:
        self.result, self.rng, self.path = result, rng, place / "trial.seg"
        self._columns = columns(SocketRecord)
        self.records = [[make_records(count, number, rng) for count in counts] for number, counts in enumerate(_SIZES)]
        self.segments = [make_segment("h1", number, 2, rng) for number in range(len(_SIZES))]
        self.files = [
            b"".join(encode_segment(header, tables, [pack_lives(records, LIFE_BYTES, 0) for records in blocks]))
            for (header, tables), blocks in zip(self.segments, self.records, strict=True)
        ]
        self.bodies = [content[len(FIRST_LINE) : -DIGEST_BYTES] for content in self.files]
        self.whole = []
        for content in self.files:
            self.path.write_bytes(content)
            self.whole.append(read_segment(str(self.path)).tables)

    def damage_bodies(self, count: int) -> None:
        """Damage what is under the digest, and forge the digest: refused, or the very same rows."""
        for number in range(count):
            content = seal(damage_bytes(self.bodies[number % len(self.bodies)], self.bodies, self.rng))
            self.result.add("forged_blocks")
            self.path.write_bytes(content)
            try:
                found = read_segment(str(self.path))
            except EvidenceError:
                continue
            except Exception as error:
                self.result.violate(f"a forged block {content.hex()[:600]}: {type(error).__name__}: {error}")
                continue
            if found.tables not in self.whole:
                self.result.violate(f"a forged block gave other rows: {content.hex()[:600]}")

    def forge_records(self, count: int) -> None:
        """Forge records, and the line that describes them: refused, or rows that fit; the reader never dies of it."""
        for number in range(count):
            which = number % len(self.bodies)
            blocks = [
                pack_lives(self._whole_records(damage_bytes(records, [records], self.rng)), LIFE_BYTES, 0)
                for records in self.records[which]
            ]
            content = self._forge(self.bodies[which], blocks)
            self.result.add("forged_records")
            self.path.write_bytes(content)
            try:
                reply = answer({"path": str(self.path), "host": "db1", "now_ns": _NOW_NS})[0]
                rows = read_segment(str(self.path)).tables[SocketRecord] if reply["ok"] else []
            except Exception as error:
                self.result.violate(f"forged records {content.hex()[:600]}: {type(error).__name__}: {error}")
                continue
            self.result.add("forged_records_taken" if reply["ok"] else "forged_records_refused")
            for row in rows:
                for column in self._columns:
                    check_value(column, getattr(row, column.name))

    def _whole_records(self, damaged: bytes) -> bytes:
        return damaged[: len(damaged) // LIFE_BYTES * LIFE_BYTES] or bytes(LIFE_BYTES)

    def _forge(self, body: bytes, blocks: list[LifeBlock]) -> bytes:
        *lines, last = zlib.decompressobj().decompress(body).splitlines()
        foot: Any = json.loads(last)
        foot["lives"]["blocks"] = [[block.rows, len(block.packed)] for block in blocks]
        if self.rng.random() < 0.4:
            foot = damage_document([foot], self.rng)
            foot = foot[0] if foot else {}
        text = b"".join(line + b"\n" for line in (*lines, json.dumps(foot).encode()))
        return seal(zlib.compress(text, 1) + b"".join(block.packed for block in blocks))


def fuzz_lives(result: Result, count: int, rng: random.Random) -> None:
    """Run both trials, half of `count` each."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="whoneeds-fuzz-", dir=memory if memory.is_dir() else None) as made:
        fuzz = LifeFuzz(result, rng, Path(made))
        fuzz.damage_bodies((count + 1) // 2)
        fuzz.forge_records((count + 1) // 2)
