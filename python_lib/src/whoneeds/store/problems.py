# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a file of the store: missing, unreadable, or not what the manifest says."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from whoneeds.store.durable import hash_file
from whoneeds.store.manifest import FileEntry


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
    """

    path: str
    message: str
    rows: int
    remedy: str


def find_problem(root: Path, path: Path, entry: FileEntry) -> Problem | None:
    """Compare a file with what the manifest says of it.

    Parameters
    ----------
    root : Path
        The store.
    path : Path
        The file, below it.
    entry : FileEntry

    Returns
    -------
    Problem or None
        None if it is what it must be.
    """
    again = (
        "run the analysis again"
        if path.parts[0] == "conclusions"
        else "ingest the collected segments again; they replace it if all of them are still there"
    )
    try:
        found = hash_file(root / path)
        if found != entry.sha256:
            message = f"damaged: expected SHA-256 {entry.sha256[:16]}..., found {found[:16]}..."
            return Problem(str(path), message, entry.rows, again)
        rows = pq.read_metadata(root / path).num_rows
    except FileNotFoundError:
        return Problem(str(path), "missing", entry.rows, again)
    except OSError as error:
        return Problem(str(path), f"cannot be read: {error.strerror or error}", entry.rows, again)
    if rows != entry.rows:
        return Problem(str(path), f"expected {entry.rows} rows, found {rows}", entry.rows, again)
    return None
