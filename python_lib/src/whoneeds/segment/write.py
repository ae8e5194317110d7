# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a segment so that it is either wholly there or not there at all."""

import hashlib
import json
import os
import sys
import zlib
from typing import Any, Dict, Iterable, Iterator, Mapping, Sequence, Type

from whoneeds.model.evidence import SegmentHeader
from whoneeds.model.schema import columns, table_name, to_row
from whoneeds.segment.layout import FIRST_LINE, SUFFIX, TABLES, TEMPORARY_SUFFIX
from whoneeds.segment.lives import LifeBlock


def segment_file_name(header: SegmentHeader) -> str:
    """File name of a segment: sorts by the time it was opened, and is unique on its host."""
    return f"{header.opened_ns:020d}-{header.boot_id[:8]}-{header.sequence:x}{SUFFIX}"


def encode_segment(
    header: SegmentHeader, tables: Mapping[Type[Any], Iterable[Any]], lives: Sequence[LifeBlock] = ()
) -> Iterator[bytes]:
    """The bytes of a segment, in pieces.

    Parameters
    ----------
    header : SegmentHeader
    tables : mapping of record class to records
        Classes outside `whoneeds.segment.layout.TABLES` are refused.
    lives : sequence of LifeBlock
        Ends of connections that were not taken apart on the host.

    Yields
    ------
    bytes
        Pieces that make the file when joined.
    """
    for record in tables:
        if record not in TABLES:
            raise TypeError(f"a segment holds no {record.__name__}")
    digest = hashlib.sha256(FIRST_LINE)
    yield FIRST_LINE
    deflate = zlib.compressobj(6)
    for line in _lines(header, tables, lives):
        piece = deflate.compress(line)
        if piece:
            digest.update(piece)
            yield piece
    for piece in (deflate.flush(), *(block.packed for block in lives)):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _lines(
    header: SegmentHeader, tables: Mapping[Type[Any], Iterable[Any]], lives: Sequence[LifeBlock]
) -> Iterator[bytes]:
    head = dict(zip((column.name for column in columns(SegmentHeader)), to_row(header)))
    names = {table_name(record): [column.name for column in columns(record)] for record in tables}
    yield _json_line({"header": head, "columns": names})
    counts: Dict[str, int] = {}
    for record, rows in tables.items():
        table = table_name(record)
        counts[table] = 0
        for row in rows:
            counts[table] += 1
            yield _json_line((table, *to_row(row)))
    foot: Dict[str, Any] = {"rows": counts}
    if lives:
        blocks = [[block.rows, len(block.packed)] for block in lives]
        foot["lives"] = {"byte_order": sys.byteorder, "ticks_per_s": os.sysconf("SC_CLK_TCK"), "blocks": blocks}
    yield _json_line(foot)


def _json_line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def write_segment(directory: str, header: SegmentHeader, tables: Mapping[Type[Any], Iterable[Any]]) -> str:
    """Write a segment into a directory and return its path; when this returns, it survives a power cut.

    Raises
    ------
    OSError
        If the disk refuses. Nothing is left behind then, and nothing that was there is lost.
    """
    name = segment_file_name(header)
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        commit_file(directory_fd, name, encode_segment(header, tables))
    finally:
        os.close(directory_fd)
    return os.path.join(directory, name)


def commit_file(directory: int, name: str, pieces: Iterable[bytes], *, durable: bool = True) -> None:
    """Put a file into an open directory in one step: it is there whole, or as it was before.

    The bytes go to a temporary name that no other process can have prepared (exclusive, links not followed), are
    flushed to disk, and the name is changed; then the directory is flushed.

    Parameters
    ----------
    directory : int
        Descriptor of the directory.
    name : str
    pieces : iterable of bytes
    durable : bool, default True
        False leaves out the flushes: after a power cut the file may be as it was before.

    Raises
    ------
    OSError
        If the disk refuses. The temporary file is gone then.
    """
    temporary = f".{name}.{os.getpid()}{TEMPORARY_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    if durable:
        os.fsync(directory)
