# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify and read a segment without trusting anything that it says."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, NoReturn, Tuple, Type

from whoneeds.model.errors import CorruptSegment, InvalidRecord, LimitExceeded, UnknownSchema
from whoneeds.model.evidence import SEGMENT_SCHEMA, SegmentHeader, SocketRecord
from whoneeds.model.schema import check_names, check_value, columns, from_mapping, is_whole_number
from whoneeds.segment.layout import DIGEST_BYTES, MAGIC, RECORD_BY_TABLE
from whoneeds.segment.life_rows import LifeReader
from whoneeds.segment.lives import LIFE_BYTES, MAX_BLOCK, LifeBlock

_PIECE_BYTES = 1 << 16
_REFETCH = "collect it again; if it comes back the same, the host's copy is damaged"


@dataclass(frozen=True)
class ReadLimits:
    """What a reader is willing to hold. A real segment is far below each of these.

    Attributes
    ----------
    file_bytes : int
        Largest file.
    text_bytes : int
        Largest size after decompression.
    ratio : int
        Largest decompressed size as a multiple of the compressed one, once more than 1 MiB has come out.
    rows : int
        Most rows, all tables together.
    line_bytes : int
        Longest line.
    """

    file_bytes: int = 64 << 20
    text_bytes: int = 512 << 20
    ratio: int = 200
    rows: int = 5_000_000
    line_bytes: int = 1 << 20


@dataclass(frozen=True)
class Segment:
    """A segment that passed every check.

    Attributes
    ----------
    header : SegmentHeader
    digest : str
        SHA-256 of its content in hexadecimal: equal for the same segment wherever it was copied.
    tables : dict of record class to list of records
    """

    header: SegmentHeader
    digest: str
    tables: Dict[Type[Any], List[Any]]


def verify_digest(file: BinaryIO, limits: ReadLimits) -> Tuple[str, int]:
    """Check first line, size and digest of an open file; leave it at the first byte after the first line.

    Returns
    -------
    digest : str
        Hexadecimal.
    body_bytes : int
        Length of the compressed part.

    Raises
    ------
    CorruptSegment, UnknownSchema, LimitExceeded
    """
    first = file.readline(64)
    if not first.startswith(MAGIC) or not first.endswith(b"\n"):
        raise CorruptSegment(
            "not a segment",
            expected="a first line 'whoneeds-segment <number>'",
            found=ascii(first[:40]),
            remedy=_REFETCH,
        )
    number = first[len(MAGIC) : -1]
    if number != str(SEGMENT_SCHEMA).encode("ascii"):
        raise UnknownSchema(
            "segment schema",
            expected=str(SEGMENT_SCHEMA),
            found=ascii(number.decode("latin-1"))[:20],
            remedy="use the same version of whoneeds on host and controller",
        )
    size = file.seek(0, 2)
    if size > limits.file_bytes:
        raise LimitExceeded("segment too large", expected=f"at most {limits.file_bytes} bytes", found=f"{size} bytes")
    body = size - len(first) - DIGEST_BYTES
    if body <= 0:
        raise CorruptSegment(
            "segment cut short", expected="a body and a digest", found=f"{size} bytes", remedy=_REFETCH
        )
    file.seek(0)
    running, left = hashlib.sha256(), size - DIGEST_BYTES
    while left:
        piece = file.read(min(_PIECE_BYTES, left))
        if not piece:
            raise CorruptSegment("segment shrank while being read", remedy=_REFETCH)
        running.update(piece)
        left -= len(piece)
    stored = file.read(DIGEST_BYTES)
    if stored != running.digest():
        raise CorruptSegment(
            "segment damaged or cut short",
            expected=f"SHA-256 {stored.hex()[:16]}...",
            found=f"{running.hexdigest()[:16]}...",
            remedy=_REFETCH,
        )
    file.seek(len(first))
    return stored.hex(), body


def read_segment(path: str, limits: ReadLimits = ReadLimits()) -> Segment:
    """Read a segment whole, or refuse it whole.

    Parameters
    ----------
    path : str
    limits : ReadLimits

    Raises
    ------
    CorruptSegment
        The bytes are not those that were written, or are not a segment.
    UnknownSchema
        The segment has another schema number.
    LimitExceeded
        It is larger than the limits.
    InvalidRecord
        A value does not fit its column.
    """
    with open(path, "rb") as file:
        digest, body = verify_digest(file, limits)
        text = _Text(file, body, limits)
        lines = text.lines()
        header, names = _read_head(_parse(next(lines, b"")))
        tables: Dict[Type[Any], List[Any]] = {RECORD_BY_TABLE[table]: [] for table in names}
        foot: Any = None
        rows = 0
        makers = {table: _row_maker(RECORD_BY_TABLE[table], tuple(names[table])) for table in names}
        for line in lines:
            if foot is not None:
                raise CorruptSegment("text after the end of the segment", remedy=_REFETCH)
            value = _parse(line)
            if isinstance(value, dict):
                foot = value
                continue
            rows += 1
            _check_rows(rows, limits)
            if not isinstance(value, list) or not value or not isinstance(value[0], str) or value[0] not in names:
                raise InvalidRecord(
                    "row", expected=f"an array that begins with one of {sorted(names)}", found=ascii(value)[:60]
                )
            tables[RECORD_BY_TABLE[value[0]]].append(makers[value[0]](value[1:]))
    counts = {table: len(tables[RECORD_BY_TABLE[table]]) for table in names}
    if not isinstance(foot, dict) or foot.get("rows") != counts or not set(foot) <= {"rows", "lives"}:
        raise CorruptSegment("row counts", expected=ascii(foot)[:120], found=str(counts), remedy=_REFETCH)
    if "lives" in foot or text.rest:
        reader, blocks = _read_lives(header, foot.get("lives"), text.rest, limits, rows)
        sockets = tables.setdefault(SocketRecord, [])
        for block in blocks:
            made = list(reader.read(block))
            rows += len(made)
            _check_rows(rows, limits)
            sockets += made
    return Segment(header=header, digest=digest, tables=tables)


class _Text:
    """The lines of a segment, and what comes behind them.

    Attributes
    ----------
    rest : bytes
        What follows the text; known when all lines were given.
    """

    def __init__(self, file: BinaryIO, body: int, limits: ReadLimits) -> None:
        self._file, self._body, self._limits = file, body, limits
        self.rest = b""

    def lines(self) -> Iterator[bytes]:
        """Decompress line by line, never holding more than one piece and one line."""
        inflate, pending, taken, given = zlib.decompressobj(), b"", 0, 0
        body, limits = self._body, self._limits
        while taken < body or inflate.unconsumed_tail:
            source = inflate.unconsumed_tail
            if not source:
                source = self._file.read(min(_PIECE_BYTES, body - taken))
                taken += len(source)
            try:
                text = inflate.decompress(source, _PIECE_BYTES)
            except zlib.error as error:
                raise CorruptSegment("segment does not decompress", found=str(error), remedy=_REFETCH) from error
            given += len(text)
            if given > limits.text_bytes or (given > 1 << 20 and given > limits.ratio * taken):
                raise LimitExceeded(
                    "segment expands too far",
                    expected=f"at most {limits.text_bytes} bytes and {limits.ratio} times its size",
                    found=f"{given} bytes out of {taken}",
                )
            *lines, pending = (pending + text).split(b"\n")
            if len(pending) > limits.line_bytes:
                raise LimitExceeded(
                    "segment has too long a line", expected=f"at most {limits.line_bytes} bytes", found="more"
                )
            yield from lines
            if inflate.eof:
                break
        if not inflate.eof or pending:
            raise CorruptSegment("segment's text does not end where it should", remedy=_REFETCH)
        self.rest = inflate.unused_data + self._file.read(body - taken)


def _read_lives(
    header: SegmentHeader, said: Any, packed: bytes, limits: ReadLimits, rows: int
) -> Tuple[LifeReader, List[LifeBlock]]:
    """The blocks behind the text, as the last line says that they are."""
    blocks = said.get("blocks") if isinstance(said, dict) else None
    if (
        not isinstance(said, dict)
        or set(said) != {"byte_order", "ticks_per_s", "blocks"}
        or said["byte_order"] not in ("little", "big")
        or not is_whole_number(said["ticks_per_s"])
        or not 0 < said["ticks_per_s"] <= 1_000_000
        or not isinstance(blocks, list)
        or not all(
            isinstance(block, list)
            and len(block) == 2
            and all(map(is_whole_number, block))
            and 0 < block[0] <= MAX_BLOCK
            and block[1] > 0
            for block in blocks
        )
        or sum(block[1] for block in blocks) != len(packed)
    ):
        raise CorruptSegment(
            "blocks of connections",
            expected=f"{len(packed)} bytes as the last line describes them",
            found=ascii(said)[:120],
            remedy=_REFETCH,
        )
    total = sum(block[0] for block in blocks)
    _check_rows(rows + total, limits)
    size = total * LIFE_BYTES
    if size > limits.text_bytes or (size > 1 << 20 and size > limits.ratio * len(packed)):
        raise LimitExceeded(
            "segment expands too far",
            expected=f"at most {limits.text_bytes} bytes and {limits.ratio} times its size",
            found=f"{size} bytes out of {len(packed)}",
        )
    made, at = [], 0
    for count, length in blocks:
        made.append(LifeBlock(count, packed[at : at + length]))
        at += length
    return LifeReader(header, said["byte_order"], said["ticks_per_s"]), made


def _check_rows(rows: int, limits: ReadLimits) -> None:
    if rows > limits.rows:
        raise LimitExceeded("segment has too many rows", expected=f"at most {limits.rows}", found=f"{rows} or more")


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord("line", expected="JSON", found=ascii(line[:60]), remedy=str(error)[:100]) from error


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _read_head(value: Any) -> Tuple[SegmentHeader, Dict[str, List[str]]]:
    if not isinstance(value, dict) or set(value) != {"header", "columns"} or not isinstance(value["header"], dict):
        raise InvalidRecord("first line", expected="an object with header and columns", found=ascii(value)[:60])
    header = from_mapping(SegmentHeader, {**_absent(SegmentHeader, value["header"]), **value["header"]})
    if header.schema != SEGMENT_SCHEMA:
        raise UnknownSchema("segment schema in the header", expected=str(SEGMENT_SCHEMA), found=str(header.schema))
    names = value["columns"]
    if not isinstance(names, dict) or any(table not in RECORD_BY_TABLE for table in names):
        raise InvalidRecord("tables", expected=f"some of {sorted(RECORD_BY_TABLE)}", found=ascii(names)[:60])
    for table, listed in names.items():
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise InvalidRecord(f"columns of {table}", expected="a list of names", found=ascii(listed)[:60])
        check_names(RECORD_BY_TABLE[table], [*listed, *_absent(RECORD_BY_TABLE[table], listed)])
    return header, names


def _absent(record: Type[Any], names: Iterable[str]) -> Dict[str, None]:
    """Columns that an older tracer did not have yet. They are those that may be absent: it recorded nothing of them."""
    known = set(names)
    return {column.name: None for column in columns(record) if column.nullable and column.name not in known}


def _row_maker(record: Type[Any], names: Tuple[str, ...]) -> Any:
    """A function from a row's values to a checked record; the column list is resolved once, not for every row."""
    by_name = {column.name: column for column in columns(record)}
    wanted = [by_name[name] for name in names]
    absent = _absent(record, names)

    def make(values: List[Any]) -> Any:
        if len(values) != len(wanted):
            raise InvalidRecord(record.__name__, expected=f"{len(wanted)} values", found=str(len(values)))
        made: Dict[str, Any] = dict(absent)
        for column, value in zip(wanted, values):
            check_value(column, value)
            made[column.name] = tuple(value) if column.type == "string[]" and value is not None else value
        return record(**made)

    return make
