# SPDX-License-Identifier: GPL-3.0-or-later
"""A step from one schema of the store to the next, written down once and not changed afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class Step:
    """What a schema lacks of the next one.

    Attributes
    ----------
    known : frozenset of (str or None)
        The fingerprints of columns that stores of the older schema carry.
    added : mapping of table to mapping of column to pyarrow.DataType
        New columns. What an older version did not record is not known, and so None.
    renamed : mapping of table to mapping of old name to new name
    """

    known: frozenset[str | None]
    added: Mapping[str, Mapping[str, pa.DataType]] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def apply(self, table: str, piece: pa.Table) -> pa.Table:
        """Rows of a table as the next schema has them.

        Parameters
        ----------
        table : str
        piece : pyarrow.Table
            Rows with the columns of the older schema.
        """
        names = self.renamed.get(table, {})
        piece = piece.rename_columns([names.get(name, name) for name in piece.column_names])
        for name, kind in self.added.get(table, {}).items():
            if name not in piece.column_names:
                piece = piece.append_column(name, pa.nulls(piece.num_rows, kind))
        return piece
