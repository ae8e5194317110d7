# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: what is written is what is read, damage is reported, and one process writes at a time."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whoneeds.model.conclusions import Dependency, ServiceUse
from whoneeds.model.errors import StoreError
from whoneeds.model.evidence import FlowRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import columns, table_name
from whoneeds.model.vocabulary import CONCLUSIONS, EVIDENCE
from whoneeds.store import EngineSettings, Store, open_store
from whoneeds.store.columns import arrow_schema, stored_columns, to_arrow
from whoneeds.store.lock import find_holder
from whoneeds.store.manifest import fingerprint_evidence
from whoneeds.store.session import TakenSegment

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"


def use(app: str, port: int = 80, **changes: Any) -> ServiceUse:
    """One use of a service."""
    values: dict[str, Any] = {
        "app": app, "host": "web1", "pid": 1, "address": "10.0.0.1", "user": "web1/0", "protocol": "tcp", "port": port,
        "resp_addr": "10.0.0.2", "resp_host": None, "resp_app": None, "flows": 1, "samples": 1, "duration_s": 1.0,
        "period_s": 5.0, "orig_bytes": None, "resp_bytes": 0, "first_ns": 1, "last_ns": 2,
    }  # fmt: skip
    return ServiceUse(**(values | changes))


def header(**changes: Any) -> SegmentHeader:
    """A segment's header."""
    values: dict[str, Any] = {
        "segment_id": f"web1/{BOOT}/1", "host": "web1", "boot_id": BOOT, "sequence": 1, "schema": 1,
        "tracer_version": "0.1.0", "opened_ns": 1, "opened_mono_ns": 1, "closed_ns": 2, "closed_mono_ns": 2,
        "period_s": 5.0, "samples": 1, "sources": ("table",), "privileged": True, "addresses": ("10.0.0.1", "fd00::1"),
        "location": None, "dropped_segments": 0,
    }  # fmt: skip
    return SegmentHeader(**(values | changes))


def fill(path: Path) -> None:
    """A store with a batch of one segment and one derived table."""
    with open_store(path, create=True, write=True) as store:
        tables = {SegmentHeader: to_arrow(SegmentHeader, [header()])}
        store.add_batch("web1", "2024-01-01", [TakenSegment("ab" * 32, BOOT, 1, tables)])
        store.commit()
        store.write_table(ServiceUse, [use("curl")])


@pytest.mark.parametrize("record", [*EVIDENCE, *CONCLUSIONS])
def test_an_empty_table_has_the_columns_of_its_record(tmp_path: Path, record: type[Any]) -> None:
    """What nobody has written yet reads as no rows of the right columns."""
    with open_store(tmp_path, create=True) as store:
        table = store.table(record)
        assert list(table.columns) == [column.name for column in stored_columns(record)]
        assert store.rows(record) == []
        assert store.read(table).schema.types == arrow_schema(record).types


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Absent values, zeros and lists survive being written and read, from records, Arrow and expressions alike."""
    rows = [use("curl"), use("wget", 443, orig_bytes=0, resp_host="db1")]
    wanted = [{column.name: getattr(row, column.name) for column in columns(ServiceUse)} for row in rows]
    fill(tmp_path)
    with open_store(tmp_path, write=True) as store:
        for given in (rows, to_arrow(ServiceUse, rows), ibis.memtable(to_arrow(ServiceUse, rows))):
            assert store.write_table(ServiceUse, given) == 2
            assert store.rows(ServiceUse) == wanted
        (segment,) = store.rows(SegmentHeader)
        assert segment["addresses"] == ("10.0.0.1", "fd00::1")
    with open_store(tmp_path) as store:
        assert store.rows(ServiceUse) == wanted


def test_a_table_can_be_made_out_of_itself(tmp_path: Path) -> None:
    """Replacing a table by an expression over it reads the old rows and shows the new ones."""
    fill(tmp_path)
    with open_store(tmp_path, write=True) as store:
        for port in (81, 82):
            table = store.table(ServiceUse)
            store.write_table(ServiceUse, table.mutate(port=table.port + 1))
            assert [row["port"] for row in store.rows(ServiceUse)] == [port]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    """A derived file depends on its rows and not on the order in which they come."""
    rows = [use("curl", port) for port in range(50)]
    files = []
    for name, given in (("one", rows), ("two", rows[::-1])):
        with open_store(tmp_path / name, create=True, write=True) as store:
            store.write_table(ServiceUse, given)
        files.append((tmp_path / name / "conclusions" / "service_use.parquet").read_bytes())
    assert files[0] == files[1]


def test_rows_that_do_not_fit_are_refused_and_the_old_ones_stay(tmp_path: Path) -> None:
    """Wrong columns, a missing value, and evidence by the wrong door change nothing."""
    fill(tmp_path)
    with open_store(tmp_path, write=True) as store:
        good = to_arrow(ServiceUse, [use("curl")])
        nulls = good.set_column(0, "app", pa.array([None], pa.string()))
        for rows in (good.drop_columns(["app"]), good.append_column("more", pa.array([1])), nulls):
            with pytest.raises(StoreError, match="service_use"):
                store.write_table(ServiceUse, rows)
        with pytest.raises(StoreError, match="evidence"):
            store.write_table(SocketRecord, [])
        assert len(store.rows(ServiceUse)) == 1
    assert [path.name for path in (tmp_path / "conclusions").iterdir()] == ["service_use.parquet"]
    with open_store(tmp_path) as store, pytest.raises(StoreError, match="reading"):
        store.write_table(ServiceUse, [])


@pytest.mark.parametrize("spoil", ["flip", "cut", "remove", "replace"])
def test_a_file_that_is_not_what_was_written_is_left_out_and_reported(tmp_path: Path, spoil: str) -> None:
    """No byte of a file that differs from the manifest reaches an answer, and the gap is told."""
    fill(tmp_path)
    path = tmp_path / "conclusions" / "service_use.parquet"
    content = path.read_bytes()
    if spoil == "flip":
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif spoil == "cut":
        path.write_bytes(content[:-10])
    elif spoil == "remove":
        path.unlink()
    else:
        pq.write_table(to_arrow(ServiceUse, [use("forged")]), path)
    with open_store(tmp_path) as store:
        assert store.rows(ServiceUse) == []
        (problem,) = store.problems
        assert (problem.path, problem.rows) == ("conclusions/service_use.parquet", 1)
        assert problem.remedy
        assert len(store.rows(SegmentHeader)) == 1


def test_a_link_is_no_file_of_the_store(tmp_path: Path) -> None:
    """A file that is a link is left out even where it leads to the right bytes, which may be others tomorrow."""
    fill(tmp_path / "store")
    path = tmp_path / "store" / "conclusions" / "service_use.parquet"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with open_store(tmp_path / "store") as store:
        assert store.rows(ServiceUse) == []
        assert [problem.message for problem in store.problems] == ["no regular file"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"host": "web1"', '"host": "../../outside"'), ('"host": "web1"', '"host": "*"'), ('"host": "web1"', '"host": ""'),
     ('"date": "2024-01-01"', '"date": "../2024-01-01"'), ('"date": "2024-01-01"', '"date": "2024-13-01"'),
     ('"segment": {', '"../../outside": {'), ('"revision"', '"revision": "/../../x", "r"'),
     ('"horizon": null', '"horizon": "soon"'), ('"stale": []', '"stale": ["../outside"]')],
)  # fmt: skip
def test_a_forged_manifest_leads_nowhere(tmp_path: Path, old: str, new: str) -> None:
    """Names of hosts, days and tables that would lead elsewhere are refused though the manifest's digest fits."""
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text().replace('"rows": 1', '"revision": 1, "rows": 1')
    assert old in text
    body = json.loads(text.replace(old, new))
    del body["sha256"]
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(body | {"sha256": digest}))
    for write in (False, True):
        with pytest.raises(StoreError, match="damaged"), open_store(tmp_path, write=write):
            pass


def test_files_that_the_manifest_does_not_name_are_no_part_of_the_store(tmp_path: Path) -> None:
    """A file that a killed writer left behind is not read, and the next writer removes it."""
    fill(tmp_path)
    (named,) = (tmp_path / "evidence").rglob("*.parquet")
    stray = named.with_name("cd" * 32 + ".parquet")
    stray.write_bytes(named.read_bytes())
    half = tmp_path / ".manifest.json.1.tmp"
    half.write_bytes(b"{")
    with open_store(tmp_path) as store:
        assert len(store.rows(SegmentHeader)) == 1
    with open_store(tmp_path, write=True):
        assert not stray.exists()
        assert not half.exists()
        assert named.exists()


def test_a_damaged_manifest_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """Any change of the manifest's meaning is found, and the way out is named."""
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    good = json.loads(path.read_text())
    for change in ({"derived": {}}, {"sha256": "0" * 64}, {"batches": []}, {"kind": "other"}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(StoreError, match="ingest"), open_store(tmp_path):
            pass
    path.write_text("{" * 100_000)
    with pytest.raises(StoreError, match="ingest"), open_store(tmp_path):
        pass


def test_a_store_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    """A store that a version with other columns made is refused before a file is read, with what to do."""
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace(fingerprint_evidence(), "0" * 16))
    with pytest.raises(StoreError, match=r"other columns.*'0000000000000000'; use the version"), open_store(tmp_path):
        pass


def test_a_store_of_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    """A store that a later version made is neither read nor changed."""
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 3'))
    for write in (False, True):
        told = "schema; expected 1 to 2; found 3; use the version"
        with pytest.raises(StoreError, match=told), open_store(tmp_path, write=write):
            pass


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    """No store is opened where there is none, and none is made among other files."""
    with pytest.raises(StoreError, match="no store here"), open_store(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(StoreError, match="letters"), open_store(tmp_path, create=True):
        pass
    with pytest.raises(StoreError, match="folder"), open_store(tmp_path / "letters.txt", create=True):
        pass


HOLD = "import sys,time; from whoneeds.store.lock import StoreLock; from pathlib import Path; "


@pytest.mark.parametrize(("theirs", "ours", "busy"), [(True, True, True), (True, False, True), (False, True, True),
                                                      (False, False, False)])  # fmt: skip
def test_one_process_writes_or_many_read(tmp_path: Path, theirs: bool, ours: bool, busy: bool) -> None:
    """A second process is told at once who holds the store, and readers share it."""
    fill(tmp_path)
    script = (
        HOLD + f"lock = StoreLock(Path(sys.argv[1]) / 'lock', exclusive={theirs}); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        begin = time.monotonic()
        if busy:
            with pytest.raises(StoreError, match=f"busy.*process {holder.pid} "), open_store(tmp_path, write=ours):
                pass
            assert time.monotonic() - begin < 1
        else:
            with open_store(tmp_path, write=ours) as store:
                assert len(store.rows(ServiceUse)) == 1
        holder.kill()
    with open_store(tmp_path, write=True):
        """A dead holder holds nothing."""


def test_an_unknown_holder_is_still_a_holder(tmp_path: Path) -> None:
    """Where the kernel does not say who holds a lock, the message does without."""
    assert find_holder(1, tmp_path / "nothing") == "another process"


def engine_of(store: Store) -> Any:
    """The bare engine, as something that got past everything else would have it."""
    return store._engine.backend.con


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM read_text('/etc/hostname')", "SELECT * FROM '/etc/passwd'", "COPY (SELECT 1) TO '{outside}'",
     "ATTACH '{outside}'", "SET enable_external_access = true", "SET allowed_directories = ['/']",
     "SET memory_limit = '1TB'", "RESET lock_configuration", "INSTALL httpfs", "SELECT * FROM glob('/etc/*')",
     "SELECT * FROM read_text('{store}/../outside')", "SELECT * FROM glob('{store}/../*')", "LOAD httpfs",
     "SELECT * FROM read_text('{store}/link')", "SELECT * FROM read_text('{store}/folder/hostname')",
     "SELECT * FROM glob('{store}/folder/*')", "COPY (SELECT 1) TO '{store}/dangling'", "EXPORT DATABASE '{outside}'",
     "ATTACH '{store}/../new'", "SELECT * FROM read_parquet('http://192.0.2.1/x.parquet')",
     "SET temp_directory = '/tmp'", "SET max_temp_directory_size = '1TB'", "SET enable_external_file_cache = true"],
)  # fmt: skip
def test_the_engine_reaches_nothing_outside_the_store(tmp_path: Path, statement: str) -> None:
    """Even a statement of an attacker's own choice reads, writes and widens nothing outside the store's folder."""
    root = tmp_path / "it's a store"
    fill(root)
    (tmp_path / "outside").write_text("secret")
    for name, target in (("link", tmp_path / "outside"), ("folder", Path("/etc")), ("dangling", tmp_path / "new")):
        (root / name).symlink_to(target)
    with open_store(root) as store:
        assert len(store.rows(ServiceUse)) == 1
        with pytest.raises(duckdb.Error):
            engine_of(store).execute(statement.format(outside=tmp_path / "new", store=str(root).replace("'", "''")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's a store", "outside"]


def test_what_does_not_fit_into_memory_spills_within_a_bound(tmp_path: Path) -> None:
    """A query larger than memory is worked out on disk inside the store, and one beyond the bound fails cleanly."""
    fill(tmp_path)
    big = ibis.range(3_000_000).unnest().name("n").as_table()
    big = big.mutate(text=big.n.cast("string").lpad(60, "x"))
    ordered = big.order_by(big.text.substr(50, 10)).mutate(at=ibis.row_number()).filter(ibis._["at"] == 2_999_999)
    with open_store(tmp_path, settings=EngineSettings(memory_bytes=100 << 20, threads=1)) as store:
        assert store.read(ordered).num_rows == 1
    assert not list((tmp_path / "scratch").iterdir())
    small = EngineSettings(memory_bytes=100 << 20, spill_bytes=1 << 20, threads=1)
    with open_store(tmp_path, settings=small) as store, pytest.raises(duckdb.OutOfMemoryException):
        store.read(ordered)


def test_parquet_pages_carry_checksums(tmp_path: Path) -> None:
    """A reader that checks page checksums finds a changed page by itself."""
    with open_store(tmp_path, create=True, write=True) as store:
        store.write_table(ServiceUse, [use(f"app{number}") for number in range(2000)])
    path = tmp_path / "conclusions" / "service_use.parquet"
    content = bytearray(path.read_bytes())
    content[150] ^= 8
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_each_table_has_one_home() -> None:
    """Every record of the vocabulary is either evidence or derived, and flows are derived."""
    from whoneeds.store.manifest import DERIVED

    assert table_name(FlowRecord) in DERIVED
    assert table_name(Dependency) in DERIVED
    assert table_name(SocketRecord) not in DERIVED


def test_no_progress_is_drawn_into_answers(tmp_path):
    """Where DuckDB takes a program for a session with a person, it draws no bar on standard output all the same."""
    program = (
        "import sys; from pathlib import Path; from whoneeds.store import open_store\n"
        "with open_store(Path(sys.argv[1]), create=True, write=True) as store:\n"
        "    con = store._engine.backend.con\n"
        "    print(con.execute(\"SELECT current_setting('enable_progress_bar')\").fetchone()[0])\n"
    )
    # a program without a file is what DuckDB takes for one
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
