# SPDX-License-Identifier: GPL-3.0-or-later
"""The method as a function of lists of records, so that tests read as tables."""

from collections.abc import Callable
from dataclasses import astuple
from functools import cache
from typing import Any

import duckdb
import ibis
import pyarrow
import pytest

from whoneeds.analysis.hosts import fold_to_hosts
from whoneeds.analysis.macroscope import Thresholds, extract_dependencies
from whoneeds.model.conclusions import ApplicationInstance, Dependency, ServiceUse
from whoneeds.model.schema import columns

TYPES = {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}


def schema_of(record: type[Any]) -> pyarrow.Schema:
    """The columns of a record as Arrow knows them."""
    return pyarrow.schema([(column.name, TYPES[column.type]) for column in columns(record)])


def as_arrow(record: type[Any], rows: list[Any]) -> pyarrow.Table:
    """A table of records, empty ones included."""
    schema = schema_of(record)
    values = list(zip(*(astuple(row) for row in rows), strict=True)) or [()] * len(schema)
    return pyarrow.table(
        [pyarrow.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema
    )


@cache
def as_sql(thresholds: Thresholds, by_host: bool) -> str:
    """The method in the engine's language; translating takes longer than running on a few rows."""
    tables = (
        ibis.table({column.name: column.type for column in columns(record)}, name=record.__name__)
        for record in (ServiceUse, ApplicationInstance)
    )
    made = extract_dependencies(*tables, thresholds)
    return str(ibis.to_sql(fold_to_hosts(made) if by_host else made, dialect="duckdb"))


@pytest.fixture(scope="session")
def extract() -> Callable[..., list[dict[str, Any]]]:
    """Run the method on lists of records and give its rows."""
    engine = duckdb.connect(config={"threads": 1})

    def run(
        uses: list[ServiceUse],
        instances: list[ApplicationInstance],
        thresholds: Thresholds = Thresholds(),
        *,
        by_host: bool = False,
    ) -> list[dict[str, Any]]:
        engine.register("ServiceUse", as_arrow(ServiceUse, uses))
        engine.register("ApplicationInstance", as_arrow(ApplicationInstance, instances))
        return engine.sql(as_sql(thresholds, by_host)).to_arrow_table().cast(schema_of(Dependency)).to_pylist()

    return run
