# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged and forged segments: damage is found every time, a forgery is refused or fits its columns, nothing dies."""

import hashlib
import json
import random
import resource
import tempfile
import zlib
from pathlib import Path
from typing import Any

from tests.campaigns.mutation import damage_bytes, damage_document
from tests.campaigns.result import Result
from tests.campaigns.segments import BEGIN_NS, make_segment
from whoneeds.collector.reader import ReaderLimits, ReadSegment, SegmentReader
from whoneeds.collector.worker import answer
from whoneeds.model.errors import EvidenceError
from whoneeds.segment.layout import DIGEST_BYTES, FIRST_LINE
from whoneeds.segment.read import read_segment
from whoneeds.segment.write import encode_segment

_SIZES = (0, 1, 2, 5, 12, 40)
_NOW_NS = BEGIN_NS + 86_400 * 10**9
_READER = ReaderLimits(memory_bytes=1 << 30, cpu_s=60, wall_s=120.0)
#: One forgery in so many also goes through the reader's own process.
_IN_CHILD = 100


def seal(body: bytes) -> bytes:
    """A segment file around a compressed body, with the digest that fits."""
    content = FIRST_LINE + body
    return content + hashlib.sha256(content).digest()


class SegmentFuzz:
    """Trials with segments.

    Parameters
    ----------
    result : Result
    rng : random.Random
    place : Path
        A folder for the trials.
    """

    def __init__(self, result: Result, rng: random.Random, place: Path) -> None:
        self.result, self.rng, self.path = result, rng, place / "trial.seg"
        self.made = [make_segment("h1", number, size, rng) for number, size in enumerate(_SIZES)]
        self.files = [b"".join(encode_segment(header, tables)) for header, tables in self.made]
        self.bodies = [content[len(FIRST_LINE) : -DIGEST_BYTES] for content in self.files]
        self.texts = [zlib.decompress(body) for body in self.bodies]

    def damage_files(self, count: int) -> None:
        """Damage whole files: each must be refused."""
        for number in range(count):
            content = damage_bytes(self.files[number % len(self.files)], self.files, self.rng)
            if content in self.files:
                continue  # pieces of another file can come to that file
            self.path.write_bytes(content)
            self.result.add("damaged_segments")
            try:
                read_segment(str(self.path))
            except EvidenceError:
                continue
            except Exception as error:
                self._violate("a damaged segment", content, error)
                continue
            self._violate("damage was not noticed", content)

    def damage_bodies(self, count: int) -> None:
        """Damage what is under the digest, and forge the digest: refused, or the very same rows."""
        for number in range(count):
            which = number % len(self.bodies)
            content = seal(damage_bytes(self.bodies[which], self.bodies, self.rng))
            self.path.write_bytes(content)
            self.result.add("forged_bodies")
            try:
                segment = read_segment(str(self.path))
            except EvidenceError:
                continue
            except Exception as error:
                self._violate("a forged body", content, error)
                continue
            if (segment.header, segment.tables) not in self.made:
                self._violate("a forged body gave other rows", content)

    def forge_texts(self, count: int, reader: SegmentReader) -> None:
        """Forge the text of a segment: refused with a reason, or rows that fit; the reader never dies of it."""
        for number in range(count):
            text = self._forge_text(self.texts[number % len(self.texts)])
            content = seal(zlib.compress(text, 1))
            self.path.write_bytes(content)
            self.result.add("forged_texts")
            try:
                reply = answer({"path": str(self.path), "host": "db1", "now_ns": _NOW_NS})[0]
            except Exception as error:
                self._violate("a forged text would end its reader", content, error)
                continue
            self.result.add("forged_texts_taken" if reply["ok"] else "forged_texts_refused")
            if number % _IN_CHILD == 0:
                read = reader.read(self.path, "db1", _NOW_NS)
                self.result.add("read_in_child")
                if isinstance(read, ReadSegment) != reply["ok"] or getattr(read, "reason", None) == "crashed":
                    self._violate(
                        f"the reader's process said {read!r:.200}, the same code here {reply!r:.200}", content
                    )

    def _forge_text(self, text: bytes) -> bytes:
        if self.rng.random() < 0.3:
            return damage_bytes(text, self.texts, self.rng)
        lines = [json.loads(line) for line in text.splitlines()]
        return b"".join(json.dumps(line).encode() + b"\n" for line in damage_document(lines, self.rng))

    def swell(self, reader: SegmentReader) -> None:
        """Small files that grow large when they are read: refused, within the reader's memory."""
        head = self.texts[0].splitlines()[0] + b"\n"
        row = next(line for line in self.texts[-1].splitlines() if line.startswith(b'["socket"')) + b"\n"
        swollen = {
            "zeros": bytes(600 << 20),
            "one long line": head + b"[" * (600 << 20),
            "many empty lines": head + b"\n" * (64 << 20),
            "nested lists": head + b"[" * 900_000 + b"\n",
            "long number": head + b'["gap",' + b"9" * 1_000_000 + b"]\n",
            "many rows": head + row * 300_000,
        }
        for name, text in swollen.items():
            self.path.write_bytes(seal(zlib.compress(text, 9)))
            read: Any = reader.read(self.path, "db1", _NOW_NS)
            self.result.add("swollen_segments")
            if isinstance(read, ReadSegment) or read.reason == "crashed":
                self.result.violate(f"swollen by {name}: {read!r:.200}")

    def _violate(self, what: str, content: bytes, error: Exception | None = None) -> None:
        said = "" if error is None else f": {type(error).__name__}: {ascii(str(error))[:200]}"
        kept = Path("build/campaigns") / f"segment-{hashlib.sha256(content).hexdigest()[:12]}.seg"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
        self.result.violate(f"{what}{said} ({kept})")


def fuzz_segments(result: Result, count: int, rng: random.Random) -> None:
    """Run all trials: `count` damaged files, and forgeries in proportion."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="whoneeds-fuzz-", dir=memory if memory.is_dir() else None) as made,
        SegmentReader(_READER) as reader,
    ):
        fuzz = SegmentFuzz(result, rng, Path(made))
        fuzz.damage_files(count)
        fuzz.damage_bodies(count // 2)
        fuzz.forge_texts(count // 4, reader)
        fuzz.swell(reader)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    result.note_worst("reader_mib", peak_mib)
    if peak_mib > _READER.memory_bytes / (1 << 20):
        result.violate(f"a reader took {peak_mib:.0f} MiB, more than its bound")
