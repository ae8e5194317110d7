# SPDX-License-Identifier: GPL-3.0-or-later
"""From older schemas of the store to this one: one module a step, each knowing what one schema lacks of the next.

A step says which columns are new (all of them may be absent: what was not recorded is not known) and which have
another name. A store is migrated over all steps at once: every file of evidence that lacks something is written anew
beside the old one, and the new manifest makes them the store. Derived tables are dropped; the line makes them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whoneeds.model.errors import StoreError
from whoneeds.model.schema import table_name
from whoneeds.model.vocabulary import EVIDENCE
from whoneeds.store.columns import arrow_schema
from whoneeds.store.durable import hash_file, replace_file
from whoneeds.store.manifest import STORE_SCHEMA, FileEntry, Manifest, evidence_path, write_manifest
from whoneeds.store.migrations import from_1
from whoneeds.store.problems import Problem, find_problem
from whoneeds.store.step import Step

#: By the schema that a step leads away from.
STEPS: Mapping[int, Step] = {1: from_1.STEP}
#: What `fingerprint_evidence` gives for the schema of this version.
COLUMNS = "b7f76f4370ce6ad4"

_SCHEMA_BY_TABLE = {table_name(record): arrow_schema(record) for record in EVIDENCE}


@dataclass(frozen=True)
class Migration:
    """What a migration did, or would do.

    Attributes
    ----------
    source, target : int
        Schema numbers.
    files : int
        Files of evidence that are written anew.
    rows : int
        Rows in them.
    problems : list of Problem
        Files that are damaged or gone. They stay as they are, and are left out of answers as before.
    """

    source: int
    target: int
    files: int
    rows: int
    problems: list[Problem]


def migrate(root: Path, manifest: Manifest, *, check: bool = False) -> Migration:
    """Bring a store to the schema of this version; nothing is done where it has it.

    Parameters
    ----------
    root : Path
        The store, held for writing (for reading, to check only).
    manifest : Manifest
        As it was read; it is changed into what the store is then.
    check : bool, default False
        Change nothing.

    Raises
    ------
    StoreError
        If no step knows the columns of the store, or a file does not fit after all steps. The store is as it was.
    """
    source = manifest.schema
    steps = [STEPS[number] for number in range(source, STORE_SCHEMA)]
    if steps and manifest.columns not in steps[0].known:
        raise StoreError(
            "the store has columns that no version had which counted as this schema",
            expected=f"columns of a version of schema {source}",
            found=ascii(manifest.columns)[:20],
            remedy="use the version of whoneeds that made it, or ingest the segments into a new store",
        )
    files = rows = 0
    problems = []
    migrated = {}
    for name, batch in sorted(manifest.batches.items()) if steps else ():
        new = replace(batch, files=dict(batch.files))
        for table, entry in sorted(batch.files.items()):
            path = evidence_path(table, name, batch)
            problem = find_problem(root, path, entry, current=False)
            if problem is not None:
                problems.append(problem)
            elif not pq.read_schema(root / path).equals(_SCHEMA_BY_TABLE[table]):
                files, rows = files + 1, rows + entry.rows
                if not check:
                    new.files[table] = replace(entry, revision=entry.revision + 1)
                    target = root / evidence_path(table, name, new)
                    new.files[table] = _rewrite(root / path, target, table, new.files[table], steps)
        migrated[name] = new
    if steps and not check:
        manifest.batches, manifest.derived, manifest.stale = migrated, {}, set()
        manifest.schema, manifest.columns = STORE_SCHEMA, COLUMNS
        write_manifest(root, manifest)
    return Migration(source, STORE_SCHEMA, files, rows, problems)


def _rewrite(source: Path, target: Path, table: str, entry: FileEntry, steps: list[Step]) -> FileEntry:
    """Write a file of evidence anew with the columns of this version, a piece at a time."""
    schema = _SCHEMA_BY_TABLE[table]
    rows = 0
    with (
        pq.ParquetFile(source, page_checksum_verification=True) as old,
        replace_file(target) as file,
        pq.ParquetWriter(file, schema, write_page_checksum=True, compression="zstd") as writer,
    ):
        for batch in old.iter_batches():
            piece = pa.Table.from_batches([batch])
            for step in steps:
                piece = step.apply(table, piece)
            writer.write_table(_fit(piece, schema, source))
            rows += piece.num_rows
    if rows != entry.rows:
        raise StoreError("a file changed while it was read", expected=f"{entry.rows} rows", found=f"{rows}: {source}")
    return replace(entry, sha256=hash_file(target))


def _fit(piece: pa.Table, schema: pa.Schema, source: Path) -> pa.Table:
    if set(piece.column_names) != set(schema.names):
        found = sorted(set(piece.column_names) ^ set(schema.names))
        raise StoreError(
            "a file does not have the columns of its schema", expected="those of docs/vocabulary.md",
            found=f"{source} differs by {', '.join(found)[:80]}", remedy="ingest the segments into a new store",
        )  # fmt: skip
    values: list[Any] = []
    for field in schema:
        column = piece.column(field.name)
        if column.null_count and not field.nullable:
            raise StoreError(f"{field.name} in {source}", expected="a value in every row", found="rows without")
        values.append(column.cast(field.type))
    return pa.Table.from_arrays(values, schema=schema)
