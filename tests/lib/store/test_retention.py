# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention: what is older than a day goes, nothing else does, and what rests on it says so."""

from datetime import date
from pathlib import Path

import pytest
from filled import fill_store, list_evidence, read_evidence, snapshot
from fixtures.make import rows_of

from whoneeds.model.conclusions import ServiceUse
from whoneeds.model.errors import SettingsError, StoreError
from whoneeds.model.evidence import FlowRecord, SegmentHeader
from whoneeds.store import open_store
from whoneeds.store.retention import find_limit

OLD, LAST = "2026-01-01", "2026-01-02"
PLACES = {("web1", OLD): 2, ("db1", OLD): 1, ("web1", LAST): 1}


def test_evidence_of_older_days_goes(tmp_path: Path) -> None:
    """What is older than the day goes with its files, the rest stays, and check mode tells the same beforehand."""
    fill_store(tmp_path, PLACES)
    before = snapshot(tmp_path)
    size = sum(len(content) for name, content in before.items() if f"date={OLD}" in name)
    with open_store(tmp_path) as store:
        kept = [row for row in store.rows(SegmentHeader) if row["sequence"] == 4]
        dry = store.prune(LAST, check=True)
    assert snapshot(tmp_path) == before
    with open_store(tmp_path, write=True) as store:
        done = store.prune(LAST)
        assert done == dry
        assert (done.days, done.hosts, done.segments, done.bytes) == (1, 2, 3, size)
        assert store.rows(SegmentHeader) == kept
    with open_store(tmp_path) as store:
        assert store.rows(SegmentHeader) == kept
        assert store.verify() == []
        assert store.manifest.horizon == LAST
    assert all(f"date={LAST}" in str(path) for path in list_evidence(tmp_path))
    assert not list((tmp_path / "evidence").rglob(f"date={OLD}"))


def test_derived_tables_say_that_they_rest_on_what_is_gone(tmp_path: Path) -> None:
    """A table is stale until it is made again from what is not, and one made from a stale one is stale as well."""
    fill_store(tmp_path, PLACES)
    with open_store(tmp_path, write=True) as store:
        assert store.prune(LAST).stale == ["flow", "service_use"]
    with open_store(tmp_path, write=True) as store:
        store.table(FlowRecord)
        store.write_table(ServiceUse, rows_of(ServiceUse, 1))
    with open_store(tmp_path, write=True) as store:
        assert store.manifest.stale == {"flow", "service_use"}
        store.write_table(FlowRecord, rows_of(FlowRecord, 1))
        store.table(FlowRecord)
        store.write_table(ServiceUse, rows_of(ServiceUse, 1))
    with open_store(tmp_path) as store:
        assert store.manifest.stale == set()


def test_pruning_nothing_makes_nothing_stale(tmp_path: Path) -> None:
    """The horizon moves on, never back, and tables that lost nothing stay good."""
    fill_store(tmp_path, PLACES)
    with open_store(tmp_path, write=True) as store:
        assert store.prune(OLD).files == 0
        assert (store.manifest.horizon, store.manifest.stale) == (OLD, set())
        assert store.prune("2025-01-01").horizon == OLD


def test_only_the_stores_own_files_go(tmp_path: Path) -> None:
    """What somebody else put into the store's folders stays, and so does what a folder that is a link leads to."""
    root, outside = tmp_path / "store", tmp_path / "outside"
    fill_store(root, PLACES)
    (root / "evidence" / "notes.txt").write_text("dear")
    folder = root / "evidence" / "socket" / f"date={OLD}"
    folder.rename(outside)
    folder.symlink_to(outside)
    stranger = outside / "host=web1" / ("0" * 64 + ".parquet")
    stranger.write_text("mine")
    held = snapshot(outside)
    with open_store(root, write=True) as store:
        store.prune(LAST)
    assert snapshot(outside) == held
    assert (root / "evidence" / "notes.txt").read_text() == "dear"
    with open_store(root) as store:
        assert read_evidence(store)["SegmentHeader"]
        assert store.problems == []


def test_only_a_writer_prunes(tmp_path: Path) -> None:
    """A store that was opened for reading is not changed."""
    fill_store(tmp_path, PLACES)
    with open_store(tmp_path) as store:
        with pytest.raises(StoreError, match="reading"):
            store.prune(LAST)
        assert len(store.rows(SegmentHeader)) == 4


def test_the_first_day_that_is_kept() -> None:
    """Days are counted with today, and a date that is none, lies ahead, or is given twice is refused."""
    today = date(2026, 3, 1)
    assert find_limit(None, 1, today) == "2026-03-01"
    assert find_limit(None, 30, today) == "2026-01-31"
    assert find_limit("2026-02-01", None, today) == "2026-02-01"
    for before, days in ((None, None), ("2026-01-01", 3), (None, 0), ("2026-03-02", None), ("2026-02-30", None),
                         ("yesterday", None), ("2026-01-01/../x", None)):  # fmt: skip
        with pytest.raises(SettingsError):
            find_limit(before, days, today)
