# SPDX-License-Identifier: GPL-3.0-or-later
"""Compaction: the batches of one host and day become one, so that a query opens few files instead of many.

Rows and segments stay what they are; only the files change. The new files are written beside the old ones under the
name of the joined batch, the manifest names them in one step, and the old ones are swept. Until that step the store is
what it was. Batches are joined where they are of like size, so that a day that is taken in by a thousand pieces is
not written anew a thousand times.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from whoneeds.store.durable import hash_file, make_directory, replace_file
from whoneeds.store.manifest import Batch, FileEntry, Manifest, evidence_path, name_batch

#: Batches of one host, one day and like size above which they are joined after an ingest.
DEFAULT_ABOVE = 16
#: Rows that a joined batch has at most; larger ones gain nothing.
_MOST_ROWS = 4_000_000
#: Rows that are held in memory and written together.
_ROW_GROUP = 100_000
#: Sizes are alike within this power of two.
_ALIKE_BITS = 4


@dataclass
class Compaction:
    """What a compaction did, or would do.

    Attributes
    ----------
    partitions : int
        Days of hosts that it touched.
    batches_before, batches_after : int
        Batches that were joined, and into how many.
    files_before, files_after : int
    rows : int
        Rows in them.
    left_out : list of str
        Batches with a file that is damaged or gone; they stay as they are.
    """

    partitions: int = 0
    batches_before: int = 0
    batches_after: int = 0
    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    left_out: list[str] = field(default_factory=list)


def count_rows(batch: Batch) -> int:
    """Rows of a batch, all tables together."""
    return sum(entry.rows for entry in batch.files.values())


def plan_compaction(
    manifest: Manifest, *, above: int | None = None, most_rows: int = _MOST_ROWS, usable: Callable[[str], bool]
) -> list[list[str]]:
    """Which batches to join.

    Parameters
    ----------
    manifest : Manifest
    above : int, optional
        Join only where more batches than this are of like size; by default all that fit together.
    most_rows : int
        Rows that a joined batch has at most.
    usable : callable
        Whether a batch's files are all as they must be. Asked only of batches that would be joined.

    Returns
    -------
    list of list of str
        Names of batches, each list two or more of one host and day.
    """
    groups: dict[tuple[str, str, int], list[str]] = {}
    for name, batch in manifest.batches.items():
        size = 0 if above is None else count_rows(batch).bit_length() // _ALIKE_BITS
        groups.setdefault((batch.host, batch.date, size), []).append(name)
    plan = []
    for _key, names in sorted(groups.items()):
        if len(names) > (1 if above is None else max(above, 1)):
            good = sorted((count_rows(manifest.batches[name]), name) for name in names if usable(name))
            plan += _fill(good, most_rows)
    return plan


def _fill(ordered: list[tuple[int, str]], most_rows: int) -> list[list[str]]:
    """Groups in order of size, each as full as it may be: a second look then finds nothing to join."""
    made: list[list[str]] = [[]]
    rows = 0
    for more, name in ordered:
        if made[-1] and rows + more > most_rows:
            made.append([])
            rows = 0
        made[-1].append(name)
        rows += more
    return [group for group in made if len(group) > 1]


def compact(root: Path, manifest: Manifest, plan: Iterable[list[str]], *, check: bool = False) -> Compaction:
    """Join batches. The manifest is changed in memory; writing it is what makes the new files part of the store.

    Parameters
    ----------
    root : Path
        The store, held for writing.
    manifest : Manifest
    plan : iterable of list of str
        What `plan_compaction` gave.
    check : bool, default False
        Only count.
    """
    done = Compaction()
    touched = set()
    for names in plan:
        parts = {name: manifest.batches[name] for name in sorted(names)}
        first = next(iter(parts.values()))
        joined = Batch(first.host, first.date, {}, {})
        for part in parts.values():
            joined.segments.update(part.segments)
        name = name_batch(list(joined.segments))
        tables = sorted({table for part in parts.values() for table in part.files})
        if not check:
            for table in tables:
                sources = [
                    root / evidence_path(table, each, part) for each, part in parts.items() if table in part.files
                ]
                joined.files[table] = _join(sources, root, evidence_path(table, name, joined))
            for each in parts:
                del manifest.batches[each]
            manifest.batches[name] = joined
        touched.add((first.host, first.date))
        done.batches_before += len(parts)
        done.batches_after += 1
        done.files_before += sum(len(part.files) for part in parts.values())
        done.files_after += len(tables)
        done.rows += sum(map(count_rows, parts.values()))
    done.partitions = len(touched)
    return done


def _join(sources: list[Path], root: Path, path: Path) -> FileEntry:
    """Write the rows of several files into one, so many rows at a time."""
    make_directory((root / path).parent, root)
    rows = 0
    schema = pq.read_schema(sources[0])
    with (
        replace_file(root / path) as file,
        pq.ParquetWriter(file, schema, write_page_checksum=True, compression="zstd") as writer,
    ):
        waiting: list[pa.Table] = []
        for source in sources:
            with pq.ParquetFile(source, page_checksum_verification=True) as old:
                for batch in old.iter_batches(_ROW_GROUP):
                    waiting.append(pa.Table.from_batches([batch], schema))
                    if sum(piece.num_rows for piece in waiting) >= _ROW_GROUP:
                        rows += _write(waiting, writer)
        rows += _write(waiting, writer)
    return FileEntry(hash_file(root / path), rows)


def _write(waiting: list[pa.Table], writer: pq.ParquetWriter) -> int:
    """Write what waits as one group of rows, and let go of it; how many rows it was."""
    count: int = sum(piece.num_rows for piece in waiting)
    if count:
        writer.write_table(pa.concat_tables(waiting).combine_chunks())
    waiting.clear()
    return count
