# SPDX-License-Identifier: GPL-3.0-or-later
"""DuckDB through Ibis, shut in: it may touch the store's own folder and nothing else, and its limits are set.

The settings are made on the bare connection before anything untrusted is read, and then locked, so that no later
statement can widen them. Values never enter SQL text here: what is asked comes as Ibis expressions.
"""

import secrets
import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow as pa

if TYPE_CHECKING:
    from whoneeds.store.engine import EngineSettings


class DuckDBEngine:
    """DuckDB in this process; see `whoneeds.store.engine.Engine`.

    Parameters
    ----------
    root, scratch : Path
    settings : EngineSettings
    """

    def __init__(self, root: Path, scratch: Path, settings: "EngineSettings") -> None:
        self._scratch = scratch
        self._forgotten: list[str] = []
        self.backend: Any = ibis.duckdb.connect(":memory:")
        options: list[tuple[str, Any]] = [
            ("memory_limit", f"{settings.memory_bytes}B"),
            ("max_temp_directory_size", f"{settings.spill_bytes}B"),
            ("temp_directory", str(scratch)),
            ("threads", settings.threads),
            ("preserve_insertion_order", False),
            ("enable_progress_bar", False),  # it would be drawn into answers on standard output
            ("enable_external_file_cache", False),  # a file of this store may be replaced under its name
            ("autoinstall_known_extensions", False),
            ("autoload_known_extensions", False),
            ("allow_community_extensions", False),
            ("python_enable_replacements", False),
            ("allowed_directories", [str(root)]),
            ("enable_external_access", False),
            ("lock_configuration", True),
        ]
        for name, value in options:
            self.backend.con.execute(f"SET {name} = {_literal(value)}")

    def open_files(self, paths: Sequence[Path], schema: pa.Schema) -> ibis.Table:
        """The rows of Parquet files."""
        name = f"opened_{secrets.token_hex(8)}"
        if not paths:
            return self.backend.create_table(name, schema=ibis.Schema.from_pyarrow(schema), temp=True)
        # the folders' names repeat what the columns say; they must not take the columns' place
        return self.backend.read_parquet([str(path) for path in paths], table_name=name, hive_partitioning=False)

    def open_rows(self, rows: pa.Table) -> ibis.Table:
        """Rows in hand as a table."""
        return ibis.memtable(rows)

    def keep(self, expression: ibis.Table, number: str | None = None) -> ibis.Table:
        """Work an expression out now and hold its rows."""
        self._drop_forgotten()
        if number is not None:
            expression = expression.mutate(**{number: ibis.row_number()})
        name = f"kept_{secrets.token_hex(8)}"
        kept = self.backend.create_table(name, expression, temp=True)
        # what nobody can ask for any more goes before the next table is made: not at once, since an expression may be
        # let go while the engine is at work
        weakref.finalize(kept.op(), self._forgotten.append, name).atexit = False
        return kept

    def read(self, expression: ibis.Table) -> pa.Table:
        """All rows of an expression."""
        return self.backend.to_pyarrow(expression)

    def stream(self, expression: ibis.Table, sorted_by: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of an expression piece by piece, in order."""
        # by Arrow's own interface, since the way Ibis streams does not exist in DuckDB 2 any more; what is sorted lies
        # in the engine, which may spill it
        self._drop_forgotten()
        name = f"making_{secrets.token_hex(4)}"
        made = self.backend.create_view(name, expression)
        try:
            ordered = self.backend.con.sql(str(ibis.to_sql(made.order_by(list(sorted_by)), dialect="duckdb")))
            for batch in pa.RecordBatchReader.from_stream(ordered):
                yield pa.Table.from_batches([batch])
        finally:
            self.backend.con.execute(f"DROP VIEW {name}")  # Ibis 12 writes this so that DuckDB 2 refuses it

    def _drop_forgotten(self) -> None:
        while self._forgotten:
            self.backend.con.execute(f"DROP TABLE {self._forgotten.pop()}")

    def close(self) -> None:
        """Close the engine and remove what it spilled."""
        self.backend.disconnect()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _literal(value: Any) -> str:
    """A setting's value as SQL: settings take no bound parameters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return "'" + str(value).replace("'", "''") + "'"
