# SPDX-License-Identifier: GPL-3.0-or-later
"""What works on the store's tables: one interface, and a module for each engine behind it.

The set work is the same Ibis expressions on every engine. What engines do differently stands behind `Engine`: opening
files, holding what is used more than once, giving rows out. So that answers are equal, expressions use only what all
engines mean alike: joins on equality and ranges, no float sums, whole numbers by rounding and not by a bare cast (one
engine rounds there and another cuts), and `whoneeds.store.portable.at_highest` in the place of Ibis's argmax.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ibis
import pyarrow as pa

from whoneeds.model.errors import SettingsError

DUCKDB, SPARK = "duckdb", "spark"
ENGINES = (DUCKDB, SPARK)


@dataclass(frozen=True)
class EngineSettings:
    """Which engine, and what it may use.

    Attributes
    ----------
    name : {"duckdb", "spark"}
    memory_bytes : int
        Above it, DuckDB writes to its scratch folder in the store. Spark's memory is its own cluster's setting.
    spill_bytes : int
        Most that DuckDB may write there; above it, the query fails cleanly.
    threads : int
        Of DuckDB.
    spark_master : str
        Master URL of the Spark cluster; ``local[*]`` is this process alone.

    Raises
    ------
    SettingsError
        If there is no engine of this name.
    """

    name: str = DUCKDB
    memory_bytes: int = 1 << 30
    spill_bytes: int = 16 << 30
    threads: int = min(8, os.cpu_count() or 1)
    spark_master: str = "local[*]"

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise SettingsError("engine", expected=f"one of {ENGINES}", found=ascii(self.name)[:40])


class Engine(Protocol):
    """An engine at work on one store, until it is closed."""

    def open_files(self, paths: Sequence[Path], schema: pa.Schema) -> ibis.Table:
        """The rows of Parquet files, all of this schema; an empty table for no files."""

    def open_rows(self, rows: pa.Table) -> ibis.Table:
        """Rows in hand as a table."""

    def keep(self, expression: ibis.Table, number: str | None = None) -> ibis.Table:
        """Work an expression out now and hold its rows for as long as anybody refers to them.

        With ``number``, a column of this name is added that is another whole number in every row.
        """

    def read(self, expression: ibis.Table) -> pa.Table:
        """All rows of an expression, in memory."""

    def stream(self, expression: ibis.Table, sorted_by: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of an expression piece by piece, in order of these columns (unknown ones last)."""

    def close(self) -> None:
        """End the engine, and remove all that it wrote into its scratch folder."""


def open_engine(root: Path, scratch: Path, settings: EngineSettings) -> Engine:
    """Start an engine.

    Parameters
    ----------
    root : Path
        The store, absolute: all that the engine has to read lies in it.
    scratch : Path
        Folder below it for what the engine writes; it need not exist.
    settings : EngineSettings

    Raises
    ------
    SettingsError, StoreError
        If the engine is not installed or cannot be reached.
    """
    # only what is used is imported: either takes most of a second
    if settings.name == SPARK:
        from whoneeds.store.spark_engine import SparkEngine

        return SparkEngine(root, scratch, settings)
    from whoneeds.store.duckdb_engine import DuckDBEngine

    return DuckDBEngine(root, scratch, settings)
