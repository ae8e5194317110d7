# SPDX-License-Identifier: GPL-3.0-or-later
"""From a record to the columns it is stored in, for Arrow and for Ibis.

The dataclass is the only schema. Evidence that came inside a segment is stored with one column more,
``segment_id``: which segment carried the row. That is what lets a row be joined with the header of its own segment,
and two rows of one segment be told from rows of two.
"""

from collections.abc import Iterable
from typing import Any

import ibis
import pyarrow as pa

from whoneeds.model.evidence import SegmentHeader
from whoneeds.model.schema import Column, columns
from whoneeds.segment.layout import TABLES

_ARROW = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string[]": pa.list_(pa.string()),
}


def stored_columns(record: type[Any]) -> tuple[Column, ...]:
    """Columns of a record's table in the store: its own, and ``segment_id`` where a segment carried it.

    Parameters
    ----------
    record : type
        One of the records of the vocabulary.
    """
    if record not in TABLES:
        return columns(record)
    carried_by = next(column for column in columns(SegmentHeader) if column.name == "segment_id")
    return (*columns(record), carried_by)


def arrow_schema(record: type[Any]) -> pa.Schema:
    """Arrow schema of a record's table in the store."""
    return pa.schema([pa.field(column.name, _ARROW[column.type], column.nullable) for column in stored_columns(record)])


def ibis_schema(record: type[Any]) -> ibis.Schema:
    """Ibis schema of a record's table in the store."""
    return ibis.Schema.from_pyarrow(arrow_schema(record))


def to_arrow(record: type[Any], rows: Iterable[Any], segment_id: str | None = None) -> pa.Table:
    """Records of one class as an Arrow table.

    Parameters
    ----------
    record : type
    rows : iterable of that record
    segment_id : str, optional
        The segment that carried them; needed for evidence out of segments.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    ValueError
        If the segment is missing where one is needed, or given where none is.
    """
    if (record in TABLES) != (segment_id is not None):
        raise ValueError(f"{record.__name__}: a segment is named for evidence out of segments, and only for it")
    held = list(rows)
    values: dict[str, list[Any]] = {
        column.name: [getattr(row, column.name) for row in held] for column in columns(record)
    }
    if segment_id is not None:
        values["segment_id"] = [segment_id] * len(held)
    return pa.Table.from_pydict(values, schema=arrow_schema(record))
