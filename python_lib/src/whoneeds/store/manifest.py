# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: which files the store consists of, what they must contain, and which segments they came from.

A file that is not in the manifest is not part of the store. No path is written in it: paths follow from table, date,
host and batch, so that a changed manifest cannot point anywhere else.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from whoneeds.model.errors import StoreError, WhoneedsError
from whoneeds.model.identity import check_host_name
from whoneeds.model.schema import columns, is_whole_number, table_name
from whoneeds.model.vocabulary import CONCLUSIONS, EVIDENCE
from whoneeds.segment.layout import TABLES
from whoneeds.store.durable import replace_file

#: Schema number of the manifest and of the columns of evidence: any change of either raises it by one and comes with
#: a module in `whoneeds.store.migrations` (docs/store.md says how).
STORE_SCHEMA = 2
KIND = "whoneeds-store"
FILE_NAME = "manifest.json"

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
#: Flows are evidence in kind, but made here out of sockets, and so replaced as a whole like a conclusion.
DERIVED = frozenset(table_name(record) for record in CONCLUSIONS) | {"flow"}
_EVIDENCE = frozenset(table_name(record) for record in EVIDENCE) - DERIVED


@dataclass(frozen=True)
class FileEntry:
    """What a file must be.

    Attributes
    ----------
    sha256 : str
        Hexadecimal.
    rows : int
    revision : int
        How often a migration wrote it anew. It is part of the file's name, so that the old file and the new one lie
        side by side until the manifest names the new one.
    """

    sha256: str
    rows: int
    revision: int = 0


@dataclass(frozen=True)
class Batch:
    """Segments of one host and one day that were taken in together: one file a table.

    Attributes
    ----------
    host : str
    date : str
        ISO date (UTC) on which the segments were opened.
    segments : dict of str to (str, int)
        Boot and sequence of each segment, by its digest.
    files : dict of str to FileEntry
        By table; a table without rows has no file.
    """

    host: str
    date: str
    segments: dict[str, tuple[str, int]]
    files: dict[str, FileEntry]


@dataclass
class Manifest:
    """What the store consists of.

    Attributes
    ----------
    batches : dict of str to Batch
        By name: the SHA-256 of the digests of the batch's segments.
    derived : dict of str to FileEntry
        By table.
    horizon : str or None
        ISO date: evidence of days before it was pruned, and is not taken in again.
    stale : set of str
        Derived tables that rest on evidence that was pruned since they were made.
    schema : int
        Schema number that was read; below `STORE_SCHEMA` for a store that has to be migrated.
    columns : str or None
        What `fingerprint_evidence` gave when it was written; None before there was such a thing.
    """

    batches: dict[str, Batch] = field(default_factory=dict)
    derived: dict[str, FileEntry] = field(default_factory=dict)
    horizon: str | None = None
    stale: set[str] = field(default_factory=set)
    schema: int = STORE_SCHEMA
    columns: str | None = None


def evidence_path(table: str, batch: str, entry: Batch) -> Path:
    """Where a batch's file of a table lies, below the store."""
    file = entry.files.get(table)
    name = batch if file is None or not file.revision else f"{batch}-{file.revision}"
    return Path("evidence", table, f"date={entry.date}", f"host={entry.host}", f"{name}.parquet")


def derived_path(table: str) -> Path:
    """Where a derived table's file lies, below the store."""
    return Path("conclusions", f"{table}.parquet")


def name_batch(digests: list[str]) -> str:
    """Name of a batch: depends on which segments are in it, not on their order."""
    return hashlib.sha256("\n".join(sorted(digests)).encode("ascii")).hexdigest()


def fingerprint_evidence() -> str:
    """Sixteen digits that change with any stored column of evidence: files of other columns are not read together."""
    return _fingerprint([record for record in EVIDENCE if table_name(record) not in DERIVED])


def fingerprint_derived() -> str:
    """The same of derived tables, which are made again where it differs."""
    return _fingerprint([record for record in (*EVIDENCE, *CONCLUSIONS) if table_name(record) in DERIVED])


def _fingerprint(records: list[type[Any]]) -> str:
    made = [
        (table_name(record), record in TABLES, [(one.name, one.type, one.nullable) for one in columns(record)])
        for record in records
    ]
    return hashlib.sha256(repr(made).encode("ascii")).hexdigest()[:16]


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest in one step; from then on it is what the store is."""
    body: dict[str, Any] = {
        "kind": KIND,
        "schema": STORE_SCHEMA,
        "columns": fingerprint_evidence(),
        "derived_columns": fingerprint_derived(),
        "horizon": manifest.horizon,
        "stale": sorted(manifest.stale),
        "batches": {
            name: {
                "host": batch.host,
                "date": batch.date,
                "segments": {digest: list(place) for digest, place in sorted(batch.segments.items())},
                "files": _entries_as_json(batch.files),
            }
            for name, batch in sorted(manifest.batches.items())
        },
        "derived": _entries_as_json(manifest.derived),
    }
    body["sha256"] = _digest(body)
    with replace_file(root / FILE_NAME) as file:
        file.write(json.dumps(body, indent=1, ensure_ascii=True).encode("ascii") + b"\n")


def read_manifest(root: Path) -> Manifest:
    """Read and check the manifest of a store of this version's schema.

    Raises
    ------
    StoreError
        If there is none, it is damaged, or it has another schema number.
    """
    manifest = read_any_manifest(root)
    if manifest.schema < STORE_SCHEMA:
        raise StoreError(
            "the store has an older schema",
            expected=str(STORE_SCHEMA),
            found=str(manifest.schema),
            remedy=f"run whoneeds store migrate --store {root}, then whoneeds attribute and whoneeds analyze",
        )
    return manifest


def read_any_manifest(root: Path) -> Manifest:
    """Read and check the manifest of a store of this version's schema or an older one.

    Raises
    ------
    StoreError
        If there is none, it is damaged, or a newer version made it.
    """
    path = root / FILE_NAME
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(
            "no store here", expected=str(path), found="nothing", remedy="make one with whoneeds ingest"
        ) from None
    except OSError as error:
        raise StoreError("the manifest cannot be read", expected=str(path), found=str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise _damaged(path, "a file of another kind")
    schema = body.get("schema")
    if not is_whole_number(schema) or not 1 <= schema <= STORE_SCHEMA:
        raise StoreError(
            "the store has another schema",
            expected=f"1 to {STORE_SCHEMA}",
            found=ascii(schema)[:20],
            remedy="use the version of whoneeds that made it, or ingest the segments into a new store",
        )
    made_of = body.get("columns")
    if schema == STORE_SCHEMA and made_of != fingerprint_evidence():
        raise StoreError(
            "the store's tables have other columns",
            expected=f"columns {fingerprint_evidence()}",
            found=ascii(made_of)[:20],
            remedy="use the version of whoneeds that made it, or ingest the segments into a new store",
        )
    stored = body.pop("sha256", None)
    if stored != _digest(body):
        raise _damaged(path, "another digest than its own")
    try:
        manifest = Manifest(
            batches={_digest_text(name): _read_batch(entry) for name, entry in body["batches"].items()},
            schema=schema,
            columns=made_of if made_of is None else str(made_of),
        )
        if schema == STORE_SCHEMA:
            manifest.horizon = None if body["horizon"] is None else check_date(body["horizon"])
        if schema == STORE_SCHEMA and body["derived_columns"] == fingerprint_derived():
            manifest.derived = _read_entries(body["derived"], DERIVED)
            manifest.stale = {_known(table, DERIVED) for table in body["stale"]}
    except (KeyError, TypeError, ValueError, AttributeError, WhoneedsError) as error:
        raise _damaged(path, ascii(str(error))[:120]) from error
    return manifest


def check_date(text: Any) -> str:
    """The text, if it is a day as YYYY-MM-DD.

    Raises
    ------
    ValueError
    """
    if not isinstance(text, str) or _DATE.match(text) is None:
        raise ValueError(f"{ascii(text)[:40]} is no date as 2026-01-31")
    return date.fromisoformat(text).isoformat()


def _damaged(path: Path, found: str) -> StoreError:
    return StoreError(
        "the store's manifest is damaged",
        expected=f"an undamaged {path}",
        found=found,
        remedy="move the store aside and ingest the collected segments into a new one",
    )


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _entries_as_json(entries: dict[str, FileEntry]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for table, entry in sorted(entries.items()):
        made[table] = {"sha256": entry.sha256, "rows": entry.rows}
        if entry.revision:
            made[table]["revision"] = entry.revision
    return made


def _known(table: Any, tables: frozenset[str]) -> str:
    if table not in tables:
        raise ValueError(f"unknown table {ascii(table)[:60]}")
    return str(table)


def _digest_text(text: Any) -> str:
    if not isinstance(text, str) or _DIGEST.match(text) is None:
        raise ValueError(f"{ascii(text)[:40]} is no SHA-256")
    return text


def _count(value: Any) -> int:
    if not is_whole_number(value) or value < 0:
        raise ValueError(f"{ascii(value)[:40]} is no count")
    return value


def _read_entries(entries: dict[str, Any], tables: frozenset[str]) -> dict[str, FileEntry]:
    return {
        _known(table, tables): FileEntry(
            _digest_text(entry["sha256"]), _count(entry["rows"]), _count(entry.get("revision", 0))
        )
        for table, entry in entries.items()
    }


def _read_batch(entry: dict[str, Any]) -> Batch:
    segments = {
        _digest_text(digest): (str(boot), _count(sequence)) for digest, (boot, sequence) in entry["segments"].items()
    }
    return Batch(
        check_host_name(entry["host"]), check_date(entry["date"]), segments, _read_entries(entry["files"], _EVIDENCE)
    )
