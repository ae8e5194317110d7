# SPDX-License-Identifier: GPL-3.0-or-later
"""Compaction: fewer files, the same rows and segments, and never a moment without a good store."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filled import add_segment, fill_store, list_evidence, read_evidence, snapshot, spoil

from whoneeds.model.errors import StoreError
from whoneeds.segment.layout import TABLES
from whoneeds.store import open_store
from whoneeds.store.compaction import count_rows, plan_compaction
from whoneeds.store.manifest import Batch, FileEntry, Manifest

DAY, NEXT = "2026-01-01", "2026-01-02"
PLACES = {("web1", DAY): 3, ("web1", NEXT): 1, ("db1", DAY): 2}
#: Files of one batch: every table that a segment can hold, and the segments themselves.
FILES = len(TABLES) + 1


def test_batches_of_a_host_and_day_become_one(tmp_path: Path) -> None:
    """Rows, segments and derived tables stay, files become few, and doing it again does nothing."""
    fill_store(tmp_path, PLACES)
    with open_store(tmp_path) as store:
        rows, segments = read_evidence(store), store.segment_hosts()
        dry = store.compact(check=True)
    assert len(list_evidence(tmp_path)) == 6 * FILES
    with open_store(tmp_path, write=True) as store:
        done = store.compact()
        assert done == dry
        assert (done.partitions, done.batches_before, done.batches_after) == (2, 5, 2)
        assert (done.files_before, done.files_after) == (5 * FILES, 2 * FILES)
        assert read_evidence(store) == rows
    assert len(list_evidence(tmp_path)) == 3 * FILES
    before = snapshot(tmp_path)
    with open_store(tmp_path, write=True) as store:
        assert store.compact().batches_before == 0
        assert store.verify() == []
        assert (read_evidence(store), store.segment_hosts()) == (rows, segments)
        assert set(store.manifest.derived) == {"flow", "service_use"}
    assert snapshot(tmp_path) == before


def test_the_same_batches_make_the_same_files_in_any_order(tmp_path: Path) -> None:
    """A compacted store depends on what is in it and not on when it came."""
    for name, numbers in (("one", (1, 2, 3, 4)), ("two", (3, 1, 4, 2))):
        with open_store(tmp_path / name, create=True, write=True) as store:
            for number in numbers:
                add_segment(store, "web1", DAY, number)
            store.commit()
            store.compact()
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_a_damaged_batch_is_left_as_it_is(tmp_path: Path) -> None:
    """A batch with a bad file is joined with nothing, and is named; the others are joined."""
    fill_store(tmp_path, PLACES)
    bad = list_evidence(tmp_path)[0]
    spoil(bad)
    with open_store(tmp_path, write=True) as store:
        kept = read_evidence(store)
        done = store.compact()
        assert done.left_out == [bad.stem]
        assert [problem.path for problem in store.problems] == [str(bad.relative_to(tmp_path))]
        assert done.batches_before == 3
        assert read_evidence(store) == kept
        assert bad.stem in store.damaged_batches()
    assert bad.exists()


def test_batches_are_joined_where_more_than_so_many_are_alike(tmp_path: Path) -> None:
    """A large batch is not written anew for the sake of small ones, and few small ones are left alone."""
    with open_store(tmp_path, create=True, write=True) as store:
        add_segment(store, "web1", DAY, 1, rows=2000)
        for number in range(2, 5):
            add_segment(store, "web1", DAY, number)
        store.commit()
        assert store.compact(above=3).batches_before == 0
        add_segment(store, "web1", DAY, 5)
        store.commit()
        done = store.compact(above=3)
        assert (done.batches_before, done.batches_after) == (4, 1)
        assert len(store.manifest.batches) == 2


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [9, 1, 1, 1], [10, 10], [1] * 25, [4, 7, 2, 9, 5, 1, 8]])
def test_a_second_look_finds_nothing_to_join(sizes: list[int]) -> None:
    """Joined batches hold no more rows than they may, and none of them fits to another one."""
    manifest = Manifest(
        {
            f"{number:064x}": Batch("web1", DAY, {f"{number:064x}": ("b", number)}, {"gap": FileEntry("0" * 64, size)})
            for number, size in enumerate(sizes)
        }
    )
    plan = plan_compaction(manifest, most_rows=10, usable=lambda _name: True)
    joined = [sum(count_rows(manifest.batches[name]) for name in names) for names in plan]
    alone = [count_rows(batch) for name, batch in manifest.batches.items() if not any(name in one for one in plan)]
    assert sum(joined) + sum(alone) == sum(sizes)
    left = sorted(joined + alone)
    assert max(left) <= 10
    assert len(left) < 2 or left[0] + left[1] > 10


def test_only_a_writer_compacts(tmp_path: Path) -> None:
    """A store that was opened for reading is not changed."""
    fill_store(tmp_path, PLACES)
    with open_store(tmp_path) as store, pytest.raises(StoreError, match="reading"):
        store.compact()


def test_a_killed_compaction_leaves_a_good_store(tmp_path: Path) -> None:
    """Killed at any step on disk, the store has all its rows, and the next writer sweeps what was left behind."""
    fill_store(tmp_path / "store", PLACES)
    with open_store(tmp_path / "store") as store:
        rows, segments = read_evidence(store), store.segment_hosts()
    program = (
        "import os, sys; from whoneeds.store import durable, open_store, session; left = int(sys.argv[2])\n"
        "def hook(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.remove', 'os.rmdir'):\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), 9)\n"
        "with open_store(sys.argv[1], write=True) as store:\n"
        "    sys.addaudithook(hook); store.compact()\n"
    )
    codes = []
    for step in (1, 2 * FILES, 2 * FILES + 1, 1000):
        place = tmp_path / f"killed-{step}"
        subprocess.run(["cp", "-r", str(tmp_path / "store"), str(place)], check=True)
        codes.append(subprocess.run([sys.executable, "-c", program, str(place), str(step)], check=False).returncode)
        with open_store(place) as store:
            assert (read_evidence(store), store.segment_hosts(), store.problems) == (rows, segments, [])
        with open_store(place, write=True) as store:
            store.compact()
            assert read_evidence(store) == rows
        assert len(list_evidence(place)) == 3 * FILES
    assert codes == [-signal.SIGKILL] * 3 + [0]
