# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations: every older schema is read, as stores that older versions really made, and no change goes uncounted."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filled import list_evidence, snapshot, spoil

from whoneeds.cli.main import main
from whoneeds.model.conclusions import ServiceUse
from whoneeds.model.errors import StoreError
from whoneeds.model.schema import table_name
from whoneeds.model.vocabulary import EVIDENCE
from whoneeds.store import open_store
from whoneeds.store.columns import arrow_schema
from whoneeds.store.manifest import STORE_SCHEMA, fingerprint_evidence, read_any_manifest
from whoneeds.store.migrations import COLUMNS, STEPS
from whoneeds.store.step import Step

FIXTURES = Path(__file__).parent / "fixtures"
OLDER = sorted(path for number in STEPS for path in FIXTURES.glob(f"schema-{number}/*"))
RECORDS = {table_name(record): record for record in EVIDENCE}
NAMES = [f"{path.parent.name}/{path.name}" for path in OLDER]


def copy(fixture: Path, to: Path) -> Path:
    """A copy of a fixture's store."""
    shutil.copytree(fixture / "store", to)
    return to


def expect(fixture: Path) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """What the version that made a store said of it: rows by table, in this version's columns, and segments' hosts."""
    said = json.loads((fixture / "expected.json").read_text())
    rows = {}
    for table, old in said["rows"].items():
        names = arrow_schema(RECORDS[table]).names
        rows[table] = [
            {name: tuple(row[name]) if isinstance(row.get(name), list) else row.get(name) for name in names}
            for row in old
        ]
    return rows, dict(said["segments"])


def test_no_change_of_columns_goes_uncounted() -> None:
    """Columns of evidence are those that this schema number stands for: change them as docs/store.md says."""
    assert fingerprint_evidence() == COLUMNS
    assert sorted(STEPS) == list(range(1, STORE_SCHEMA))
    for number in range(1, STORE_SCHEMA + 1):
        assert list(FIXTURES.glob(f"schema-{number}/*/expected.json"))
    (current,) = FIXTURES.glob(f"schema-{STORE_SCHEMA}/*")
    assert current.name == COLUMNS


@pytest.mark.parametrize("fixture", [*OLDER, *FIXTURES.glob(f"schema-{STORE_SCHEMA}/*")], ids=lambda path: path.name)
def test_every_schema_is_read(tmp_path: Path, fixture: Path) -> None:
    """A store of every version holds the rows that this version said, with None for what it did not record."""
    path = copy(fixture, tmp_path / "store")
    older = read_any_manifest(path).schema < STORE_SCHEMA
    rows, segments = expect(fixture)
    with open_store(path, write=True) as store:
        assert (store.migration is not None) == older
        for table, wanted in rows.items():
            assert sorted(store.rows(RECORDS[table]), key=repr) == sorted(wanted, key=repr)
        assert store.segment_hosts() == segments
        assert ("service_use" in store.manifest.derived) == (not older)
        assert store.verify() == []
    before = snapshot(path)
    with open_store(path) as store:
        assert {table: len(store.rows(RECORDS[table])) for table in rows} == {
            table: len(wanted) for table, wanted in rows.items()
        }
    with open_store(path, write=True) as store:
        assert store.migration is None
    assert snapshot(path) == before


def test_fixtures_hold_what_migrations_change() -> None:
    """For each column that a step adds there is a fixture without it, and for each table one that has rows."""
    step = STEPS[1]
    for table, names in step.added.items():
        for name in names:
            files = [file for path in OLDER for file in (path / "store" / "evidence" / table).rglob("*.parquet")]
            assert any(name not in pq.read_schema(file).names for file in files), (table, name)


def test_a_reader_refuses_an_older_store_and_says_what_to_do(tmp_path: Path) -> None:
    """Reading changes nothing on disk, so that an older store is refused with the command that migrates it."""
    path = copy(OLDER[0], tmp_path / "store")
    before = snapshot(path)
    told = "older schema; expected 2; found 1; run whoneeds store migrate"
    with pytest.raises(StoreError, match=told), open_store(path):
        pass
    before["lock"] = b""
    assert snapshot(path) == before


def test_check_tells_and_does_not_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rehearsal of a migration and the migration say the same numbers; only the second one acts."""
    path = copy(OLDER[0], tmp_path / "store")
    before = snapshot(path) | {"lock": b""}
    told = []
    for words in (["--check"], [], ["--check"]):
        capsys.readouterr()
        assert main(["store", "migrate", "--store", str(path), "--format", "json", *words]) == 0
        told.append(json.loads(capsys.readouterr().out))
        if len(told) == 1:
            assert snapshot(path) == before
    assert told[0] == told[1]
    assert told[0]["changed"]
    assert told[0]["files"] > 0
    assert not told[2]["changed"]
    assert len(list_evidence(path)) == len(list_evidence(OLDER[0] / "store"))


def test_a_damaged_file_of_an_older_store_stays_named(tmp_path: Path) -> None:
    """What cannot be migrated is left out and told, then and later, and everything else is there."""
    path = copy(OLDER[-1], tmp_path / "store")
    bad = next(file for file in list_evidence(path) if "/socket/" in str(file))
    spoil(bad)
    with open_store(path, write=True) as store:
        assert store.migration is not None
        assert [problem.path for problem in store.migration.problems] == [str(bad.relative_to(path))]
        assert [problem.path for problem in store.verify()] == [str(bad.relative_to(path))]
        assert len(store.rows(RECORDS["socket"])) == 3
        assert len(store.rows(RECORDS["process"])) == 6


def test_a_killed_migration_is_done_again(tmp_path: Path) -> None:
    """Killed at any step on disk, the store is the old one or the new one, and the next writer makes it the new one."""
    fixture = OLDER[-1]
    rows, _segments = expect(fixture)
    program = (
        "import os, sys; from whoneeds.store import open_store; left = int(sys.argv[2])\n"
        "def hook(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.remove'):\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(hook)\n"
        "with open_store(sys.argv[1], write=True): pass\n"
    )
    schemas = []
    for step in (1, 6, 7):
        path = copy(fixture, tmp_path / str(step))
        done = subprocess.run([sys.executable, "-c", program, str(path), str(step)], check=False)
        assert done.returncode == -signal.SIGKILL
        schemas.append(read_any_manifest(path).schema)
        with open_store(path, write=True) as store:
            for table, wanted in rows.items():
                assert sorted(store.rows(RECORDS[table]), key=repr) == sorted(wanted, key=repr)
        assert len(list_evidence(path)) == len(list_evidence(fixture / "store"))
    assert schemas[0] == 1
    assert schemas[-1] == STORE_SCHEMA


def test_columns_that_no_version_had_are_refused(tmp_path: Path) -> None:
    """A store that says an older number with columns of its own is left alone."""
    path = copy(OLDER[0], tmp_path / "store")
    manifest = read_any_manifest(path)
    manifest.columns = "f" * 16
    from whoneeds.store.migrations import migrate

    before = snapshot(path)
    with pytest.raises(StoreError, match="ffffffffffffffff"):
        migrate(path, manifest)
    assert snapshot(path) == before


def test_a_step_renames_and_adds() -> None:
    """A column that was renamed keeps its values, and a new one has none, also where the table is another one."""
    step = Step(frozenset(), {"socket": {"new": pa.int64()}}, {"socket": {"old": "name"}})
    piece = pa.table({"old": ["a"], "kept": [1]})
    assert step.apply("socket", piece).to_pylist() == [{"name": "a", "kept": 1, "new": None}]
    assert step.apply("process", piece) == piece


def test_derived_tables_of_other_columns_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only derived tables differ, evidence is used as it is, and they read as tables that nobody made yet."""
    (fixture,) = FIXTURES.glob(f"schema-{STORE_SCHEMA}/*")
    path = copy(fixture, tmp_path / "store")
    with monkeypatch.context() as patched:
        patched.setattr("whoneeds.store.manifest.fingerprint_derived", lambda: "0" * 16)
        with open_store(path, write=True) as store:
            assert store.manifest.derived == {}
            store.commit()
    with open_store(path, write=True) as store:
        assert store.rows(ServiceUse) == []
        assert len(store.rows(RECORDS["socket"])) == 6
    assert not list(path.glob("conclusions/*"))
