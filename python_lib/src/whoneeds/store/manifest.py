# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: which files the store consists of, what they must contain, and which segments they came from.

A file that is not in the manifest is not part of the store. No path is written in it: paths follow from table, date,
host and batch, so that a changed manifest cannot point anywhere else.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoneeds.model.errors import StoreError, WhoneedsError
from whoneeds.model.identity import check_host_name
from whoneeds.model.schema import columns, is_whole_number, table_name
from whoneeds.model.vocabulary import CONCLUSIONS, EVIDENCE
from whoneeds.store.durable import replace_file

#: Schema number of the store's layout.
STORE_SCHEMA = 1
KIND = "whoneeds-store"
FILE_NAME = "manifest.json"

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_EVIDENCE = frozenset(table_name(record) for record in EVIDENCE)
#: Flows are evidence in kind, but made here out of sockets, and so replaced as a whole like a conclusion.
DERIVED = frozenset(table_name(record) for record in CONCLUSIONS) | {"flow"}


@dataclass(frozen=True)
class FileEntry:
    """What a file must be.

    Attributes
    ----------
    sha256 : str
        Hexadecimal.
    rows : int
    """

    sha256: str
    rows: int


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
    """

    batches: dict[str, Batch] = field(default_factory=dict)
    derived: dict[str, FileEntry] = field(default_factory=dict)


def evidence_path(table: str, batch: str, entry: Batch) -> Path:
    """Where a batch's file of a table lies, below the store."""
    return Path("evidence", table, f"date={entry.date}", f"host={entry.host}", f"{batch}.parquet")


def derived_path(table: str) -> Path:
    """Where a derived table's file lies, below the store."""
    return Path("conclusions", f"{table}.parquet")


def name_batch(digests: list[str]) -> str:
    """Name of a batch: depends on which segments are in it, not on their order."""
    return hashlib.sha256("\n".join(sorted(digests)).encode("ascii")).hexdigest()


def fingerprint_columns() -> str:
    """Sixteen digits that change with any column of any record: files of other columns are not read together."""
    made = [
        (table_name(record), [(column.name, column.type, column.nullable) for column in columns(record)])
        for record in (*EVIDENCE, *CONCLUSIONS)
    ]
    return hashlib.sha256(repr(made).encode("ascii")).hexdigest()[:16]


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest in one step; from then on it is what the store is."""
    body: dict[str, Any] = {
        "kind": KIND,
        "schema": STORE_SCHEMA,
        "columns": fingerprint_columns(),
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
    """Read and check the manifest.

    Raises
    ------
    StoreError
        If there is none, it is damaged, or it has another schema number.
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
    if body.get("schema") != STORE_SCHEMA:
        raise StoreError(
            "the store has another schema",
            expected=str(STORE_SCHEMA),
            found=ascii(body.get("schema"))[:20],
            remedy="use the version of whoneeds that made it, or ingest the segments into a new store",
        )
    if body.get("columns") != fingerprint_columns():
        raise StoreError(
            "the store's tables have other columns",
            expected=f"columns {fingerprint_columns()}",
            found=ascii(body.get("columns"))[:20],
            remedy="use the version of whoneeds that made it, or ingest the segments into a new store",
        )
    stored = body.pop("sha256", None)
    if stored != _digest(body):
        raise _damaged(path, "another digest than its own")
    try:
        return Manifest(
            batches={_digest_text(name): _read_batch(entry) for name, entry in body["batches"].items()},
            derived=_read_entries(body["derived"], DERIVED),
        )
    except (KeyError, TypeError, ValueError, AttributeError, WhoneedsError) as error:
        raise _damaged(path, ascii(str(error))[:120]) from error


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
    return {table: {"sha256": entry.sha256, "rows": entry.rows} for table, entry in sorted(entries.items())}


def _digest_text(text: Any) -> str:
    if not isinstance(text, str) or _DIGEST.match(text) is None:
        raise ValueError(f"{ascii(text)[:40]} is no SHA-256")
    return text


def _count(value: Any) -> int:
    if not is_whole_number(value) or value < 0:
        raise ValueError(f"{ascii(value)[:40]} is no count")
    return value


def _read_entries(entries: dict[str, Any], tables: frozenset[str]) -> dict[str, FileEntry]:
    unknown = set(entries) - tables
    if unknown:
        raise ValueError(f"unknown tables {ascii(sorted(unknown))[:60]}")
    return {table: FileEntry(_digest_text(entry["sha256"]), _count(entry["rows"])) for table, entry in entries.items()}


def _read_batch(entry: dict[str, Any]) -> Batch:
    if _DATE.match(entry["date"]) is None:
        raise ValueError(f"{ascii(entry['date'])[:40]} is no date")
    segments = {
        _digest_text(digest): (str(boot), _count(sequence)) for digest, (boot, sequence) in entry["segments"].items()
    }
    return Batch(check_host_name(entry["host"]), entry["date"], segments, _read_entries(entry["files"], _EVIDENCE))
