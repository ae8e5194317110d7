# SPDX-License-Identifier: GPL-3.0-or-later
"""Spark through Ibis, for stores that one machine does not get through.

What this process and the cluster's workers share is the store's folder, under one path: workers read its Parquet files
and write what is kept into its scratch folder. Kept tables are files rather than Spark's own cache, so that a plan ends
there (kept tables rest on kept tables, and Spark would carry all of them along), a lost worker costs one step, and
memory does not grow with the evidence. No Python runs on workers: expressions become SQL.

What may differ from the cluster's own configuration (``spark-defaults.conf``) is set here, all else is left to it.
"""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from whoneeds.model.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from whoneeds.store.engine import EngineSettings

#: Hadoop takes these in a path for patterns.
_PATTERN = frozenset("{}[]*?\\")
_BATCH_ROWS = 1 << 17
_WORDS = {
    pa.string(): "STRING",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.list_(pa.string()): "ARRAY<STRING>",
}


class SparkEngine:
    """A Spark session on a cluster, or in this process; see `whoneeds.store.engine.Engine`.

    Parameters
    ----------
    root, scratch : Path
    settings : EngineSettings

    Raises
    ------
    SettingsError
        If Spark is not installed, or the store's path cannot be used with it.
    StoreError
        If the cluster cannot be reached.
    """

    def __init__(self, root: Path, scratch: Path, settings: "EngineSettings") -> None:
        if not _PATTERN.isdisjoint(str(root)):
            raise SettingsError(
                "Spark cannot read this store", expected="a path without any of {}[]*?\\", found=str(root),
                remedy="move the store, or use --engine duckdb",
            )  # fmt: skip
        self._scratch = scratch
        self._session = _start_session(scratch, settings.spark_master)
        self._backend: Any = ibis.pyspark.connect(self._session)

    def open_files(self, paths: Sequence[Path], schema: pa.Schema) -> ibis.Table:
        """The rows of Parquet files."""
        if not paths:
            return self.open_rows(schema.empty_table())
        # without the columns it would look into files to guess them, and take the folders' names for columns
        reader = self._session.read.schema(_describe(schema))
        return self._view(reader.parquet(*(_url(path) for path in paths)))

    def open_rows(self, rows: pa.Table) -> ibis.Table:
        """Rows in hand as a table."""
        path = self._place()
        pq.write_table(rows, path)
        return self.open_files([path], rows.schema)

    def keep(self, expression: ibis.Table, number: str | None = None) -> ibis.Table:
        """Work an expression out now and hold its rows."""
        from pyspark.sql import functions

        path = self._place()
        frame = self._frame(expression)
        if number is not None:
            # a row number over all would bring all rows to one worker
            frame = frame.withColumn(number, functions.monotonically_increasing_id())
        frame.write.parquet(_url(path))
        return self._view(self._session.read.schema(frame.schema).parquet(_url(path)))

    def read(self, expression: ibis.Table) -> pa.Table:
        """All rows of an expression."""
        made: pa.Table = self._frame(expression).toArrow()
        return made.cast(expression.schema().to_pyarrow())

    def stream(self, expression: ibis.Table, sorted_by: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of an expression piece by piece, in order."""
        from pyspark.sql import functions

        # sorted by the cluster into files one after the other, which are read here as plain Parquet: rows that come
        # through Spark's own door are made one by one, in the memory of both
        path = self._place()
        order = [functions.col(f"`{name}`").asc_nulls_last() for name in sorted_by]
        self._frame(expression).orderBy(*order).write.parquet(_url(path))
        for file in sorted(path.glob("part-*.parquet")):
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS):
                    yield pa.Table.from_batches([batch])
        shutil.rmtree(path)

    def close(self) -> None:
        """End the session, and remove what was kept."""
        self._session.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _frame(self, expression: ibis.Table) -> Any:
        """What Spark makes of an expression: not worked out yet."""
        name = f"asked_{secrets.token_hex(8)}"
        self._backend.create_view(name, expression)
        return self._session.table(name)

    def _view(self, frame: Any) -> ibis.Table:
        name = f"opened_{secrets.token_hex(8)}"
        frame.createOrReplaceTempView(name)
        return self._backend.table(name)

    def _place(self) -> Path:
        """A name in the scratch folder that is not taken."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._scratch / secrets.token_hex(8)


def _start_session(scratch: Path, master: str) -> Any:
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SettingsError(
            "Spark is not installed", expected="the library's extra 'spark', and Java 17 or newer", found=str(error),
            remedy="pip install 'whoneeds[spark]', or use --engine duckdb",
        ) from error  # fmt: skip
    from py4j.protocol import Py4JError

    if SparkSession.getActiveSession() is not None:
        raise StoreError("Spark is in use already", expected="one open store a process", found="another Spark session")
    options = {
        "spark.app.name": "whoneeds",
        "spark.master": master,
        # a number that does not fit, or a text that is none, is an error and not an unknown
        "spark.sql.ansi.enabled": "true",
        "spark.sql.caseSensitive": "true",
        "spark.sql.warehouse.dir": _url(scratch / "warehouse"),
        "spark.ui.enabled": "false",  # it would be open to all
        "spark.ui.showConsoleProgress": "false",
    }
    if _is_near(master):
        options |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    builder = SparkSession.builder
    for name, value in options.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        raise StoreError(
            "Spark does not start", expected=f"Java 17 or newer, and a master at {master}",
            found=ascii(str(error).splitlines()[0])[1:-1][:200] if str(error) else type(error).__name__,
            remedy="look at what it printed above, or use --engine duckdb",
        ) from error  # fmt: skip


def _is_near(master: str) -> bool:
    """Whether nothing outside this machine has to reach this process."""
    return master.startswith(("local", "spark://127.", "spark://localhost:"))


def _url(path: Path) -> str:
    # no Path.as_uri(): Hadoop takes percent signs as they stand
    return f"file://{path}"


def _describe(schema: pa.Schema) -> str:
    """A schema in Spark's words."""
    return ", ".join(f"`{field.name}` {_WORDS[field.type]}" for field in schema)
