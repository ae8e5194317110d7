# SPDX-License-Identifier: GPL-3.0-or-later
"""What was observed of a population, as tables that the methods work on: the same expressions as on a user's store."""

import tempfile
from typing import Any, Self

import ibis
import pyarrow as pa

from whoneeds.model.conclusions import ApplicationInstance, Attribution, ServiceUse
from whoneeds.model.evidence import FlowRecord, NameRecord, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import table_name
from whoneeds.scenario import Observed

_RECORDS: tuple[type[Any], ...] = (
    ServiceUse, ApplicationInstance, FlowRecord, Attribution, SocketRecord, ProcessRecord, NameRecord, SegmentHeader,
)  # fmt: skip


class Observation:
    """Tables of what was observed, in memory; to be closed.

    Parameters
    ----------
    observed : Observed
    threads : int
        That DuckDB may use.
    """

    def __init__(self, observed: Observed, threads: int = 1) -> None:
        self.observed = observed
        # what does not fit into memory goes there and away again; by default it would stay where the user stands
        self._spill = tempfile.TemporaryDirectory(prefix="whoneeds-eval-")
        self._connection = ibis.duckdb.connect(":memory:", threads=threads, temp_directory=self._spill.name)
        # it would be drawn into the answer on standard output
        self._connection.con.execute("SET enable_progress_bar = false")
        self._tables: dict[type[Any], Any] = {}
        self._kept = 0

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_problem: object) -> None:
        """Let go of it."""
        self._connection.disconnect()
        self._spill.cleanup()

    def table(self, record: type[Any]) -> Any:
        """The table of a record.

        Raises
        ------
        KeyError
            If there is none of it.
        """
        if record not in _RECORDS:
            raise KeyError(record)
        if record not in self._tables:
            name = table_name(record)
            # held by the engine in its own form: columns of words as numbers are read much faster than Arrow's
            self._connection.con.register(f"given_{name}", self.observed.tables[record])
            self._connection.raw_sql(f'CREATE TEMP TABLE "{name}" AS FROM "given_{name}"')
            self._connection.con.unregister(f"given_{name}")
            self._tables[record] = self._connection.table(name)
        return self._tables[record]

    def keep(self, expression: Any, number: str | None = None) -> Any:
        """Work an expression out once; see `whoneeds.collector.sockets.Keep`."""
        self._kept += 1
        if number is not None:
            expression = expression.mutate(**{number: ibis.row_number()})
        return self._connection.create_table(f"kept_{self._kept}", expression, temp=True)

    def read(self, expression: Any) -> list[dict[str, Any]]:
        """Rows of an expression."""
        rows: list[dict[str, Any]] = self._connection.to_pyarrow(expression).to_pylist()
        return rows

    def only(self, places: list[tuple[str, str]]) -> tuple[Any, Any]:
        """Uses and instances of some (host, address) only, as expressions.

        Parameters
        ----------
        places : list of (str, str)
            On laptops an address lasts a day, so that each is a trace of a day.
        """
        wanted = ibis.memtable(
            pa.table({"host": [host for host, _address in places], "address": [address for _host, address in places]})
        )
        uses, instances = self.table(ServiceUse), self.table(ApplicationInstance)
        return uses.semi_join(wanted, ["host", "address"]), instances.semi_join(wanted, ["host", "address"])
