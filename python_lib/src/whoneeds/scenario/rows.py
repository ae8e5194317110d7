# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns as tables in the store's schemas, and identities by the million."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whoneeds.store.columns import arrow_schema


def fill(record: type[Any], rows: int, values: Mapping[str, Any]) -> pa.Table:
    """A table of the record's schema.

    Parameters
    ----------
    record : type
    rows : int
    values : mapping of str to numpy.ndarray, pyarrow array or single value
        By column; a single value stands in every row, and what is left out is not known.
    """
    if not rows:
        return arrow_schema(record).empty_table()
    made = []
    for field in arrow_schema(record):
        value = values.get(field.name)
        if value is None:
            column = pa.nulls(rows, field.type)
        elif isinstance(value, np.ndarray):
            column = pa.array(value).cast(field.type)
        elif isinstance(value, (pa.Array, pa.ChunkedArray)):
            column = value.cast(field.type)
        else:
            column = pa.repeat(pa.scalar(value, type=field.type), rows)
        made.append(column)
    return pa.Table.from_arrays(made, schema=arrow_schema(record))


def text(words: Sequence[str] | Any, numbers: Any) -> pa.Array:
    """The words that numbers stand for; -1 is not known."""
    held = words if isinstance(words, pa.Array) else pa.array(list(words), type=pa.string())
    indices = pa.array(numbers, type=pa.int64(), mask=numbers < 0)
    return held.take(indices)


def join_text(*parts: Any) -> pa.Array:
    """Texts and whole numbers put together, row by row; unknown if any of them is."""
    columns = [pc.cast(pa.array(part), pa.string()) if isinstance(part, np.ndarray) else part for part in parts]
    return pc.binary_join_element_wise(*columns, "")


def known(values: Any, where: Any) -> pa.Array:
    """Values where they are known, and nothing elsewhere."""
    return pa.array(values, mask=~where)
