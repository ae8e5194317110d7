# SPDX-License-Identifier: GPL-3.0-or-later
"""A session with the store: open it, read tables, replace tables, add batches of evidence.

Each file is compared with the manifest before its first use in a session. One that is missing or changed is left out
and reported in `Store.problems`: an answer is then partial and says so, never silently wrong.

It is longer than other modules since reading, writing and upkeep share one manifest and one record of files that were
looked at; what can be done without those lies beside it (compaction, retention, migrations, sweep).
"""

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from whoneeds.model.errors import StoreError
from whoneeds.model.schema import table_name
from whoneeds.model.vocabulary import CONCLUSIONS, EVIDENCE
from whoneeds.store.columns import arrow_schema, stored_columns, to_arrow
from whoneeds.store.compaction import Compaction, compact, plan_compaction
from whoneeds.store.durable import flush_directory, hash_file, make_directory, replace_file
from whoneeds.store.engine import EngineSettings, open_engine
from whoneeds.store.lock import StoreLock
from whoneeds.store.manifest import (
    DERIVED,
    FILE_NAME,
    STORE_SCHEMA,
    Batch,
    FileEntry,
    Manifest,
    derived_path,
    evidence_path,
    name_batch,
    read_any_manifest,
    read_manifest,
    write_manifest,
)
from whoneeds.store.migrations import Migration, migrate
from whoneeds.store.problems import Problem, find_problem
from whoneeds.store.retention import Pruned, plan_pruning
from whoneeds.store.sweep import sweep

_LOCK = "lock"
_SCRATCH = "scratch"
_FOLDERS = ("evidence", "conclusions", "quarantine", _SCRATCH)
_RECORD_BY_TABLE = {table_name(record): record for record in (*EVIDENCE, *CONCLUSIONS)}


Kept = TypeVar("Kept")


@dataclass(frozen=True)
class TakenSegment:
    """A segment that passed all checks, ready to be stored.

    Attributes
    ----------
    digest : str
    boot_id : str
    sequence : int
    tables : mapping of record class to pyarrow.Table
    """

    digest: str
    boot_id: str
    sequence: int
    tables: Mapping[type[Any], pa.Table]


class Store:
    """An open store; made by `open_store`.

    Attributes
    ----------
    path : Path
        Where it lies, absolute.
    problems : list of Problem
        Files that were left out of the tables read so far.
    migration : Migration or None
        What was done to open a store of an older schema for writing; None if it had this version's.
    """

    def __init__(self, path: Path, *, writable: bool, settings: EngineSettings) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._writable = writable
        self.migration: Migration | None = None
        self._manifest = read_any_manifest(path) if writable else read_manifest(path)
        if self._manifest.schema < STORE_SCHEMA:
            self.migration = migrate(path, self._manifest)
        self._rests_on_stale = False
        self._checked: dict[Path, Problem | None] = {}
        self._tables: dict[str, Any] = {}
        self._made: dict[str, Any] = {}
        self._scratch = path / _SCRATCH / secrets.token_hex(8)
        if writable:
            sweep(path, self._manifest)
            shutil.rmtree(self._scratch.parent, ignore_errors=True)
            self._scratch.parent.mkdir(mode=0o700, exist_ok=True)
        self._engine = open_engine(path, self._scratch, settings)

    def close(self) -> None:
        """Close the engine and remove what it spilled."""
        self._engine.close()

    # -- reading -------------------------------------------------------------------------------------------------

    def table(self, record: type[Any]) -> ibis.Table:
        """The table of a record, as an Ibis expression; empty but typed if there are no rows.

        Parameters
        ----------
        record : type
            A record of the vocabulary.

        Returns
        -------
        ibis.Table
            The record's columns; evidence out of segments also has ``segment_id``.
        """
        name = table_name(record)
        self._rests_on_stale = self._rests_on_stale or name in self._manifest.stale
        if name not in self._tables:
            good = [self.path / path for path, entry in self._files(name) if self._check(path, entry)]
            self._tables[name] = self._engine.open_files(good, arrow_schema(record))
        return self._tables[name]

    def rows(self, record: type[Any]) -> list[dict[str, Any]]:
        """All rows of a record's table, as dictionaries; lists of text come as tuples."""
        lists = [column.name for column in stored_columns(record) if column.type == "string[]"]
        rows: list[dict[str, Any]] = self.read(self.table(record)).to_pylist()
        for row in rows:
            for name in lists:
                row[name] = None if row[name] is None else tuple(row[name])
        return rows

    def read(self, expression: Any) -> pa.Table:
        """The result of an Ibis expression over this store's tables."""
        return self._engine.read(expression)

    def keep(self, expression: Any, number: str | None = None) -> ibis.Table:
        """Work an expression out now and let the engine hold its rows for as long as anybody refers to them.

        For intermediate results that are used more than once: an expression is worked out again at each use.

        Parameters
        ----------
        expression : ibis.Table
        number : str, optional
            Name of a column to add, with another whole number in every row.
        """
        return self._engine.keep(expression, number)

    def once(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What is made out of evidence, made at the first call under this name only, until other evidence is there."""
        if name not in self._made:
            self._made[name] = make()
        made: Kept = self._made[name]
        return made

    # -- writing -------------------------------------------------------------------------------------------------

    def write_table(self, record: type[Any], rows: Any) -> int:
        """Replace a derived table in one step. What is read from it afterwards is what was written.

        Parameters
        ----------
        record : type
            A conclusion of the vocabulary, or FlowRecord.
        rows : ibis.Table, pyarrow.Table or iterable of that record
            The whole new table. Columns are taken by name; others are refused.

        Returns
        -------
        int
            Number of rows written.

        Raises
        ------
        StoreError
            If the store was opened for reading, the columns differ, or a value is missing that must not be.
        """
        self._require_writable()
        name = table_name(record)
        if name not in DERIVED:
            raise StoreError(
                f"{name} is evidence", expected="a derived table", found=name, remedy="evidence comes by ingest"
            )
        schema = arrow_schema(record)
        path = derived_path(name)
        make_directory((self.path / path).parent, self.path)
        count = 0
        with (
            replace_file(self.path / path) as file,
            pq.ParquetWriter(file, schema, write_page_checksum=True, compression="zstd") as writer,
        ):
            for piece in self._pieces(record, rows):
                count += piece.num_rows
                writer.write_table(piece)
        self._manifest.derived[name] = FileEntry(hash_file(self.path / path), count)
        # what was made out of a stale table is as stale
        (self._manifest.stale.add if self._rests_on_stale else self._manifest.stale.discard)(name)
        write_manifest(self.path, self._manifest)
        self._tables.pop(name, None)
        self._checked[path] = None
        return count

    def _pieces(self, record: type[Any], rows: Any) -> Iterator[pa.Table]:
        """The rows as Arrow tables of the record's schema, in an order that depends on nothing but the rows."""
        wanted = [column.name for column in stored_columns(record)]
        if not isinstance(rows, ibis.Table):
            rows = self._engine.open_rows(rows if isinstance(rows, pa.Table) else to_arrow(record, rows))
        if set(rows.columns) != set(wanted):
            raise StoreError(
                f"columns of {table_name(record)}", expected=str(sorted(wanted)), found=str(sorted(rows.columns))
            )
        sorted_by = [column.name for column in stored_columns(record) if column.type != "string[]"]
        for piece in self._engine.stream(rows.select(wanted), sorted_by):
            yield _fit(record, piece)

    # -- evidence ------------------------------------------------------------------------------------------------

    def segments(self, host: str) -> dict[str, tuple[str, int]]:
        """Boot and sequence of each segment of a host that the store holds, by digest."""
        held: dict[str, tuple[str, int]] = {}
        for batch in self._manifest.batches.values():
            if batch.host == host:
                held.update(batch.segments)
        return held

    def segment_hosts(self) -> dict[str, str]:
        """The host of each segment that the store holds, by digest."""
        return {digest: batch.host for batch in self._manifest.batches.values() for digest in batch.segments}

    def add_batch(self, host: str, date: str, segments: Iterable[TakenSegment]) -> None:
        """Store segments of one host and one day. They become part of the store at the next `commit`.

        Parameters
        ----------
        host : str
        date : str
            ISO date (UTC) on which the segments were opened.
        segments : iterable of TakenSegment
        """
        self._require_writable()
        held = sorted(segments, key=lambda segment: segment.digest)
        name = name_batch([segment.digest for segment in held])
        batch = Batch(host, date, {one.digest: (one.boot_id, one.sequence) for one in held}, {})
        for table, record in _RECORD_BY_TABLE.items():
            parts = [segment.tables[record] for segment in held if record in segment.tables]
            rows = sum(part.num_rows for part in parts)
            if not rows:
                continue
            path = self.path / evidence_path(table, name, batch)
            make_directory(path.parent, self.path)
            with replace_file(path) as file:
                merged = _fit(record, pa.concat_tables(parts))
                pq.write_table(merged, file, write_page_checksum=True, compression="zstd")
            batch.files[table] = FileEntry(hash_file(path), rows)
        self._manifest.batches[name] = batch

    def commit(self) -> None:
        """Make all batches added since the last commit part of the store, in one step."""
        self._require_writable()
        write_manifest(self.path, self._manifest)
        self._tables.clear()
        self._made.clear()

    def damaged_batches(self) -> dict[str, frozenset[str]]:
        """Compare all evidence with the manifest; name each batch with a bad file, and its segments' digests."""
        return {
            name: frozenset(batch.segments)
            for name, batch in self._manifest.batches.items()
            if self._bad_files(name, batch)
        }

    def _bad_files(self, name: str, batch: Batch) -> list[Path]:
        paths = [(evidence_path(table, name, batch), entry) for table, entry in batch.files.items()]
        return [path for path, entry in paths if not self._check(path, entry)]

    def forget_batch(self, name: str) -> None:
        """Take a batch out of the store; with the next `commit` it is gone, and its segments are new again."""
        self._require_writable()
        batch = self._manifest.batches.pop(name)
        gone = {str(evidence_path(table, name, batch)) for table in batch.files}
        self.problems = [problem for problem in self.problems if problem.path not in gone]
        for path in gone:
            self._checked.pop(Path(path), None)

    # -- upkeep --------------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """What the store consists of; to look at."""
        return self._manifest

    def verify(self) -> list[Problem]:
        """Compare every file, evidence and derived, with the manifest.

        Returns
        -------
        list of Problem
            Also in `problems` from then on.
        """
        for table in _RECORD_BY_TABLE:
            for path, entry in self._files(table):
                self._check(path, entry)
        return self.problems

    def compact(self, *, above: int | None = None, check: bool = False) -> Compaction:
        """Join batches of one host and day, and remove the files that they were in.

        Parameters
        ----------
        above : int, optional
            Join only where more batches than this are of like size; by default all.
        check : bool, default False
            Change nothing; count what would be done.
        """
        if not check:
            self._require_writable()
        left_out: list[str] = []

        def usable(name: str) -> bool:
            bad = self._bad_files(name, self._manifest.batches[name])
            if bad:
                left_out.append(name)
            return not bad

        plan = plan_compaction(self._manifest, above=above, usable=usable)
        done = compact(self.path, self._manifest, plan, check=check)
        done.left_out = left_out
        if plan and not check:
            self.commit()
            sweep(self.path, self._manifest)
        return done

    def prune(self, before: str, *, check: bool = False) -> Pruned:
        """Let evidence of days before a date go, for good.

        Parameters
        ----------
        before : str
            ISO date; the first day that is kept.
        check : bool, default False
            Change nothing; count what would go.
        """
        pruned, manifest = plan_pruning(self.path, self._manifest, before)
        if not check:
            self._require_writable()
            self._manifest = manifest
            self.commit()
            sweep(self.path, manifest)
        return pruned

    # -- files ---------------------------------------------------------------------------------------------------

    def _require_writable(self) -> None:
        if not self._writable:
            raise StoreError("the store was opened for reading", expected="write=True", found="write=False")

    def _files(self, table: str) -> list[tuple[Path, FileEntry]]:
        if table in DERIVED:
            entry = self._manifest.derived.get(table)
            return [] if entry is None else [(derived_path(table), entry)]
        return [
            (evidence_path(table, name, batch), batch.files[table])
            for name, batch in sorted(self._manifest.batches.items())
            if table in batch.files
        ]

    def _check(self, path: Path, entry: FileEntry) -> bool:
        """Whether a file is what the manifest says; looked at once a session."""
        if path not in self._checked:
            problem = find_problem(self.path, path, entry)
            self._checked[path] = problem
            if problem is not None:
                self.problems.append(problem)
        return self._checked[path] is None


def _fit(record: type[Any], table: pa.Table) -> pa.Table:
    """The table in exactly the record's stored schema; refused if a value is missing that must not be."""
    schema = arrow_schema(record)
    for column in stored_columns(record):
        missing = table.column(column.name).null_count
        if missing and not column.nullable:
            raise StoreError(
                f"{table_name(record)}.{column.name}", expected="a value in every row", found=f"{missing} without"
            )
    return pa.Table.from_arrays([table.column(field.name).cast(field.type) for field in schema], schema=schema)


@contextmanager
def open_store(
    path: str | Path, *, create: bool = False, write: bool = False, settings: EngineSettings | None = None
) -> Iterator[Store]:
    """Open a store for reading or writing.

    Parameters
    ----------
    path : str or Path
    create : bool, default False
        Make an empty store if there is none yet.
    write : bool, default False
        Lock it for this process alone; readers share.
    settings : EngineSettings, optional

    Yields
    ------
    Store

    Raises
    ------
    StoreError
        If there is none, it is busy, damaged, of a newer schema (or an older one, to read: only a writer migrates), or
        the folder holds something else.

    Examples
    --------
    >>> import tempfile
    >>> from whoneeds.model.evidence import FlowRecord
    >>> with tempfile.TemporaryDirectory() as folder, open_store(folder, create=True) as store:
    ...     store.rows(FlowRecord)
    []
    """
    root = Path(path).absolute()
    if create:
        _prepare(root)
    elif not (root / FILE_NAME).exists():
        read_any_manifest(root)
    lock = StoreLock(root / _LOCK, exclusive=write)
    try:
        if create and not (root / FILE_NAME).exists():
            write_manifest(root, Manifest())
        store = Store(root, writable=write, settings=settings or EngineSettings())
        try:
            yield store
        finally:
            store.close()
    finally:
        lock.release()


def _prepare(root: Path) -> None:
    """Make the folder; refuse one that holds something else than a store."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        strangers = sorted(
            one.name
            for one in root.iterdir()
            if one.name not in (*_FOLDERS, _LOCK) and not one.name.startswith(f".{FILE_NAME}.")
        )
    except OSError as error:
        raise StoreError(
            "the store's folder cannot be used", expected="a folder of one's own", found=f"{root}: {error.strerror}"
        ) from error
    if FILE_NAME not in strangers and strangers:
        raise StoreError(
            "this folder is no store",
            expected="an empty folder or a store",
            found=f"{root} with {strangers[0]!a}",
            remedy="name another folder",
        )
    flush_directory(root.parent)


@contextmanager
def hold_manifest(path: str | Path, *, write: bool = False) -> Iterator[tuple[Path, Manifest]]:
    """Hold a store of this schema or an older one without opening it: to look at its manifest, or to migrate it.

    Parameters
    ----------
    path : str or Path
    write : bool, default False

    Yields
    ------
    root : Path
        Absolute.
    manifest : Manifest

    Raises
    ------
    StoreError
        If there is none, it is busy, damaged or of a newer schema.
    """
    root = Path(path).absolute()
    read_any_manifest(root)
    lock = StoreLock(root / _LOCK, exclusive=write)
    try:
        yield root, read_any_manifest(root)
    finally:
        lock.release()
