# SPDX-License-Identifier: GPL-3.0-or-later
"""Elephants and mice, by hand."""

import duckdb
import ibis
import pyarrow as pa
from attempts_world import SCHEMAS, attempt, nullable_schema

from whoneeds.analysis.population import COLUMNS, describe_population
from whoneeds.analysis.ranges import AddressRanges


def described(needs, attempts, own=()):
    """The rows of a population of needs (application, port, kind) and calls (application, address)."""
    dependency = [{"level": 1, "app": app, "protocol": "tcp", "port": port, "kind": kind} for app, port, kind in needs]
    rows = {
        "dependency": dependency + [{**row, "level": 2} for row in dependency],
        "attempt": [attempt(app=app, resp_addr=address) for app, address in attempts],
    }
    with duckdb.connect() as engine:
        tables = []
        for name, held in rows.items():
            engine.register(name, pa.Table.from_pylist(held, schema=SCHEMAS[name]))
            tables.append(ibis.table(ibis.Schema.from_pyarrow(SCHEMAS[name]), name=name))
        engine.register("own", pa.table({"address": pa.array(own, pa.string())}))
        listed = ibis.table({"address": "string"}, name="own")

        def read(expression):
            made = engine.sql(str(ibis.to_sql(expression, dialect="duckdb"))).to_arrow_table()
            return made.cast(nullable_schema(expression)).to_pylist()

        return describe_population(*tables, read, AddressRanges(), listed)


def values(rows):
    """Single figures by name."""
    return {row["figure"]: row["value"] for row in rows if row["value"] is not None}


def test_figures_of_a_population_are_those_counted_by_hand():
    """Four applications and five services give the figures that can be counted on paper."""
    needs = [
        ("a", 1, "static"), ("a", 2, "static"), ("a", 3, "static"), ("b", 1, "static"), ("c", 1, "static"),
        ("a", 40001, "transient"), ("b", 40001, "transient"), ("b", 40002, "transient"), ("d", 40001, "transient"),
    ]  # fmt: skip
    calls = [
        ("a", "10.0.0.1"), ("a", "8.8.8.8"), ("b", "192.168.1.1"), ("c", "203.0.113.9"), ("d", "203.0.113.8"),
        ("e", "no address"),
    ]  # fmt: skip
    rows = described(needs, calls, own=["203.0.113.8"])
    assert all(tuple(row) == COLUMNS for row in rows)
    assert values(rows) == {
        "applications": 4,
        "static services of an application, mean": 1.25, "static services of an application, median": 1.0,
        "static services of an application, most": 3, "static services of an application, those with one": 2,
        "static services": 3,
        "applications of a static service, mean": 5 / 3, "applications of a static service, median": 1.0,
        "applications of a static service, most": 3, "applications of a static service, those with one": 2,
        "applications with transient relations": 3, "transient services that several applications share": 1,
        "applications that talk inside only": 2, "applications that talk outside only": 1,
        "applications that talk inside and outside": 1, "applications that talk nobody knows where": 1,
    }  # fmt: skip
    spread = [(row["services"], row["applications"]) for row in rows if row["figure"] == "fig. 6a"]
    assert spread == [(0, 1), (1, 2), (3, 1)]
    assert [(row["services"], row["applications"]) for row in rows if row["figure"] == "fig. 6b"] == [(2, 1), (1, 3)]
    ranked = [(row["rank"], row["app"], row["services"]) for row in rows if row["figure"] == "table 4"]
    assert ranked == [(1, "a", 3), (2, "b", 1), (3, "c", 1)]
    shared = [(row["rank"], row["port"], row["applications"]) for row in rows if row["figure"] == "table 5"]
    assert shared == [(1, 1, 3), (2, 2, 1), (3, 3, 1)]
    (transient,) = [row for row in rows if row["figure"] == "shared transient services"]
    assert (transient["port"], transient["applications"]) == (40001, 3)


def test_no_more_than_ten_are_ranked():
    """Tables hold the ten with the most, however many there are."""
    needs = [(f"app{at}", port, "static") for at in range(12) for port in range(at + 1)]
    rows = described(needs, [])
    assert [row["services"] for row in rows if row["figure"] == "table 4"] == list(range(12, 2, -1))


def test_without_dependencies_there_are_no_figures():
    """An empty population has no rows, and no mean of nothing."""
    assert described([], [("a", "10.0.0.1")]) == []
