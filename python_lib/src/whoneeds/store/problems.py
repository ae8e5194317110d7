# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a file of the store: missing, unreadable, or not what the manifest says."""

import stat
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from whoneeds.model.schema import table_name
from whoneeds.model.vocabulary import CONCLUSIONS, EVIDENCE
from whoneeds.store.columns import arrow_schema
from whoneeds.store.durable import hash_file
from whoneeds.store.manifest import FileEntry

_RECORD_BY_TABLE = {table_name(record): record for record in (*EVIDENCE, *CONCLUSIONS)}


@dataclass(frozen=True)
class Problem:
    """A file that was left out.

    Attributes
    ----------
    path : str
        Below the store.
    message : str
        What is wrong with it.
    rows : int
        Rows that are missing because of it.
    remedy : str
        What brings them back.
    table : str
    host, date : str or None
        Whose evidence, and of which day; None for a derived table.
    """

    path: str
    message: str
    rows: int
    remedy: str
    table: str
    host: str | None
    date: str | None


def find_problem(root: Path, path: Path, entry: FileEntry, *, current: bool = True) -> Problem | None:
    """Compare a file with what the manifest says of it.

    Parameters
    ----------
    root : Path
        The store.
    path : Path
        The file, below it.
    entry : FileEntry
    current : bool, default True
        Whether it must have the columns of this version; a file that is to be migrated has not.

    Returns
    -------
    Problem or None
        None if it is what it must be.
    """
    derived = path.parts[0] == "conclusions"
    table = path.stem if derived else path.parts[1]
    day, host = (None, None) if derived else (path.parts[2].partition("=")[2], path.parts[3].partition("=")[2])
    again = (
        "run the analysis again"
        if derived
        else "ingest the collected segments again; they replace it if all of them are still there"
    )
    message = _describe(root / path, entry, arrow_schema(_RECORD_BY_TABLE[table]) if current else None)
    return None if message is None else Problem(str(path), message, entry.rows, again, table, host, day)


def _describe(path: Path, entry: FileEntry, schema: pa.Schema | None) -> str | None:
    """What is wrong, in words; None if nothing is."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            # a link may lead anywhere, and elsewhere tomorrow
            return "no regular file"
        found = hash_file(path)
        if found != entry.sha256:
            return f"damaged: expected SHA-256 {entry.sha256[:16]}..., found {found[:16]}..."
        with pq.ParquetFile(path) as file:
            rows, columns = file.metadata.num_rows, file.schema_arrow
    except FileNotFoundError:
        return "missing"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if rows != entry.rows:
        return f"expected {entry.rows} rows, found {rows}"
    if schema is not None and not columns.equals(schema):
        names = sorted(set(columns.names) ^ set(schema.names)) or ["their order or types"]
        return f"other columns than this version has: {', '.join(ascii(name)[1:-1] for name in names)[:80]}"
    return None
