# SPDX-License-Identifier: GPL-3.0-or-later
"""How full a store is: what the manifest says, and the room that its files take."""

from dataclasses import dataclass, field
from pathlib import Path

from whoneeds.store.compaction import plan_compaction
from whoneeds.store.manifest import Manifest, derived_path, evidence_path


@dataclass
class Held:
    """What of one table is held.

    Attributes
    ----------
    files, rows, bytes : int
    """

    files: int = 0
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Account:
    """What a store holds.

    Attributes
    ----------
    schema : int
    hosts, days, batches, segments : int
    first_date, last_date : str or None
        ISO dates of the first and last day with evidence.
    horizon : str or None
        Evidence of before this day was pruned.
    stale : list of str
        Derived tables that rest on evidence that was pruned since.
    joinable : int
        Batches that compaction would join.
    bytes : int
        All files of the tables together.
    quarantine_files, quarantine_bytes : int
    tables : dict of str to Held
    """

    schema: int
    hosts: int
    days: int
    batches: int
    segments: int
    first_date: str | None
    last_date: str | None
    horizon: str | None
    stale: list[str]
    joinable: int
    bytes: int
    quarantine_files: int
    quarantine_bytes: int
    tables: dict[str, Held] = field(default_factory=dict)


def take_account(root: Path, manifest: Manifest) -> Account:
    """Count what a store holds; a file that is gone takes no room.

    Parameters
    ----------
    root : Path
        The store, held for reading.
    manifest : Manifest
    """
    batches = manifest.batches.values()
    dates = sorted({batch.date for batch in batches})
    tables: dict[str, Held] = {}
    named = [(table, derived_path(table), entry) for table, entry in manifest.derived.items()]
    for name, batch in manifest.batches.items():
        named += [(table, evidence_path(table, name, batch), entry) for table, entry in batch.files.items()]
    for table, path, entry in named:
        held = tables.setdefault(table, Held())
        held.files += 1
        held.rows += entry.rows
        held.bytes += _size_of(root / path)
    put_away = [path for path in (root / "quarantine").glob("*/*") if path.is_file()]
    return Account(
        schema=manifest.schema,
        hosts=len({batch.host for batch in batches}),
        days=len(dates),
        batches=len(batches),
        segments=sum(len(batch.segments) for batch in batches),
        first_date=dates[0] if dates else None,
        last_date=dates[-1] if dates else None,
        horizon=manifest.horizon,
        stale=sorted(manifest.stale),
        joinable=sum(map(len, plan_compaction(manifest, usable=lambda _name: True))),
        bytes=sum(held.bytes for held in tables.values()),
        quarantine_files=len(put_away),
        quarantine_bytes=sum(map(_size_of, put_away)),
        tables=dict(sorted(tables.items())),
    )


def _size_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
