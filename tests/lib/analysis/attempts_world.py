# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that applications tried, one by one and by the dozen, and expressions on them as functions of lists."""

from collections.abc import Callable
from functools import cache
from typing import Any

import duckdb
import ibis
import pyarrow as pa
from hypothesis import strategies as st

from whoneeds.model.conclusions import Dependency
from whoneeds.model.evidence import FlowRecord, SegmentHeader
from whoneeds.store.columns import arrow_schema

SECOND = 10**9
#: What the profiles read of an attempt; the pipeline's rows have all columns of a flow.
ATTEMPT = pa.schema(
    [
        ("flow_id", pa.string()), ("app", pa.string()), ("host", pa.string()), ("pid", pa.int64()),
        ("address", pa.string()), ("user", pa.string()), ("protocol", pa.string()), ("resp_addr", pa.string()),
        ("resp_port", pa.int64()), ("first_ns", pa.int64()), ("last_ns", pa.int64()), ("period_s", pa.float64()),
        ("end", pa.string()), ("failed", pa.bool_()), ("orig_bytes", pa.int64()), ("resp_bytes", pa.int64()),
        ("kind", pa.string()), ("port", pa.int64()),
    ]
)  # fmt: skip
SCHEMAS = {
    "attempt": ATTEMPT,
    "dependency": arrow_schema(Dependency),
    "segment": arrow_schema(SegmentHeader),
    "flow": pa.schema([field for field in arrow_schema(FlowRecord) if field.name in ATTEMPT.names]),
}


def attempt(**chosen: Any) -> dict[str, Any]:
    """One connection with unremarkable values where none are given; ``failed`` follows from how it ended."""
    row = {
        "flow_id": "f", "app": "web", "host": "h1", "pid": 1, "address": "10.0.0.1", "user": "h1/0", "protocol": "tcp",
        "resp_addr": "10.0.0.9", "resp_port": 5432, "first_ns": 0, "last_ns": SECOND, "period_s": 0.0, "end": "fin",
        "orig_bytes": 10, "resp_bytes": 100, "kind": "static",
    } | chosen  # fmt: skip
    row["failed"] = row["end"] in ("rejected", "unanswered")
    row.setdefault("port", row["resp_port"])
    return row


def run(build: Callable[..., ibis.Table], **tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an expression that a function builds on tables, by the names of its parameters."""
    with duckdb.connect(config={"threads": 1}) as engine:
        for name, rows in tables.items():
            engine.register(name, pa.Table.from_pylist(rows, schema=SCHEMAS[name]))
        statement, schema = _as_sql(build, tuple(tables))
        rows: list[dict[str, Any]] = engine.sql(statement).to_arrow_table().cast(schema).to_pylist()
        return rows


def unbound(name: str) -> ibis.Table:
    """A table by name."""
    return ibis.table(ibis.Schema.from_pyarrow(SCHEMAS[name]), name=name)


@cache
def _as_sql(build: Callable[..., ibis.Table], names: tuple[str, ...]) -> tuple[str, pa.Schema]:
    """An expression in the engine's language, and its columns; translating takes longer than running on a few rows."""
    expression = build(**{name: unbound(name) for name in names})
    return str(ibis.to_sql(expression, dialect="duckdb")), nullable_schema(expression)


def nullable_schema(expression: ibis.Table) -> pa.Schema:
    """The columns of an expression, any of which may hold what is not known."""
    return pa.schema([field.with_nullable(True) for field in expression.schema().to_pyarrow()])


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in an order that depends on nothing but the rows."""
    return sorted(rows, key=lambda row: repr(sorted(row.items())))


#: Few names, few instants, and many connections, so that they meet. Some end before they begin.
ATTEMPTS = st.lists(
    st.builds(
        lambda begin, lasts, **chosen: attempt(
            first_ns=begin * SECOND // 4, last_ns=(begin + lasts) * SECOND // 4, **chosen
        ),
        begin=st.integers(4, 60),
        lasts=st.integers(-1, 12),
        app=st.sampled_from(["a", "b"]),
        host=st.sampled_from(["h1", "h2"]),
        pid=st.integers(1, 2),
        user=st.sampled_from(["h1/0", "h2/0", None]),
        protocol=st.sampled_from(["tcp", "udp"]),
        resp_addr=st.sampled_from(["10.0.0.8", "10.0.0.9", "192.0.2.1"]),
        resp_port=st.sampled_from([53, 80, 443]),
        period_s=st.sampled_from([0.0, 0.0, 0.25, 5.0]),
        end=st.sampled_from(["fin", "fin", None, "active", "rejected", "unanswered"]),
        orig_bytes=st.one_of(st.none(), st.integers(0, 9)),
        resp_bytes=st.one_of(st.none(), st.integers(0, 9)),
    ),
    max_size=30,
).map(lambda rows: [{**row, "flow_id": f"f{at}"} for at, row in enumerate(rows)])  # fmt: skip
