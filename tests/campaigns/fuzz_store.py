# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged files of a store: not one row of a damaged file reaches an answer, and each is named."""

import hashlib
import random
import shutil
import tempfile
from pathlib import Path

from tests.campaigns.mutation import damage_bytes
from tests.campaigns.result import Result
from tests.campaigns.segments import make_fleet
from whoneeds import pipeline
from whoneeds.model.evidence import FlowRecord, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import table_name
from whoneeds.store.session import open_store

_HOSTS, _SEGMENTS, _SOCKETS = 12, 1, 8
_TABLES = (SegmentHeader, ProcessRecord, SocketRecord, FlowRecord)
#: Share of a store's files that is damaged at a time.
_SHARE = 0.5
_BLOCK = 4096


class StoreFuzz:
    """A store of a small fleet, and what each of its files holds.

    Parameters
    ----------
    result : Result
    rng : random.Random
    place : Path
        A folder for the trials.
    """

    def __init__(self, result: Result, rng: random.Random, place: Path) -> None:
        self.result, self.rng, self.store = result, rng, place / "store"
        list(make_fleet(place / "incoming", _HOSTS, _SEGMENTS, _SOCKETS, rng))
        with open_store(self.store, create=True, write=True) as store:
            pipeline.ingest(store, [place / "incoming"])
            pipeline.flows(store)
        with open_store(self.store) as store:
            self.rows = {record: store.rows(record) for record in _TABLES}
        known = {table_name(record) for record in _TABLES}
        files = [*(self.store / "evidence").rglob("*.parquet"), *(self.store / "conclusions").rglob("*.parquet")]
        self.files = [path for path in sorted(files) if self._table(path) in known]
        self.contents = {path: path.read_bytes() for path in self.files}
        if not all(self.rows.values()):
            raise RuntimeError(f"a table of the store is empty: {[len(rows) for rows in self.rows.values()]}")

    def _table(self, path: Path) -> str:
        parts = path.relative_to(self.store).parts
        return path.stem if parts[0] == "conclusions" else parts[1]

    def _host(self, path: Path) -> str | None:
        folder = path.parent.name
        return folder.partition("=")[2] if folder.startswith("host=") else None

    def turn(self) -> None:
        """Damage some files, ask, and put everything right again."""
        chosen = self.rng.sample(self.files, max(1, int(len(self.files) * _SHARE)))
        damaged = {path for path in chosen if self._damage(path)}
        with open_store(self.store) as store:
            found = {record: store.rows(record) for record in _TABLES}
            named = {self.store / problem.path for problem in store.problems}
        self.result.add("damaged_store_files", len(damaged))
        for path in damaged ^ named:
            self._violate("a damaged file was not named" if path in damaged else "a good file was named", path)
        for record in _TABLES:
            bad = {self._host(path) for path in damaged if self._table(path) == table_name(record)}
            wanted = [row for row in self.rows[record] if None not in bad and row.get("host") not in bad]
            if sorted(map(repr, found[record])) != sorted(map(repr, wanted)):
                self.result.violate(
                    f"{table_name(record)}: {len(found[record])} rows that differ from the {len(wanted)} of good files"
                )
        for path in chosen:
            path.unlink(missing_ok=True)
            path.write_bytes(self.contents[path])

    def _damage(self, path: Path) -> bool:
        """Damage a file in one of the ways in which files are; whether it differs then."""
        content, way = self.contents[path], self.rng.randrange(6)
        if way == 0:
            path.unlink()
            return True
        if way == 1:
            other = self.contents[self.rng.choice([one for one in self.files if self._table(one) == self._table(path)])]
        elif way == 2:
            begin = self.rng.randrange(len(content) // _BLOCK + 1) * _BLOCK
            end = min(begin + _BLOCK, len(content))
            other = content[:begin] + bytes(end - begin) + content[end:]
        elif way == 3:
            path.unlink()
            aside = self.store.parent / hashlib.sha256(str(path).encode()).hexdigest()
            aside.write_bytes(content)
            path.symlink_to(aside)
            return True
        else:
            other = damage_bytes(content, list(self.contents.values()), self.rng)
        path.write_bytes(other)
        return other != content

    def _violate(self, what: str, path: Path) -> None:
        kept = Path("build/campaigns") / f"store-{hashlib.sha256(path.name.encode()).hexdigest()[:12]}.parquet"
        kept.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            shutil.copy(path, kept)
        self.result.violate(f"{what}: {path.relative_to(self.store)} ({kept})")


def fuzz_store(result: Result, count: int, rng: random.Random) -> None:
    """Damage at least `count` files of a store."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="whoneeds-store-", dir=memory if memory.is_dir() else None) as made:
        fuzz = StoreFuzz(result, rng, Path(made))
        before = result.figures["damaged_store_files"]
        while result.figures["damaged_store_files"] - before < count:
            fuzz.turn()
