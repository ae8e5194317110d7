# SPDX-License-Identifier: GPL-3.0-or-later
"""The collector's line on lists of records: every step by the engine, in the order of the pipeline."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import duckdb
import ibis
import pyarrow as pa
from fleet import Host

from whoneeds.collector.attribution import attribute_flows
from whoneeds.collector.connections import join_connections
from whoneeds.collector.exchanges import join_exchanges
from whoneeds.collector.flows import FlowSettings, build_flows
from whoneeds.collector.instances import find_instances, find_uses, sum_service_use
from whoneeds.model.conclusions import ApplicationInstance, Attribution, Connection, ServiceUse
from whoneeds.model.evidence import (
    CaptureRecord,
    ExchangeRecord,
    FlowRecord,
    Gap,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
)
from whoneeds.model.schema import table_name
from whoneeds.store.columns import arrow_schema, ibis_schema, to_arrow

EVIDENCE = (
    SegmentHeader, ProcessRecord, SocketRecord, TranslationRecord, UnixConnectionRecord, CaptureRecord, ExchangeRecord,
    Gap,
)  # fmt: skip
DERIVED = (FlowRecord, Attribution, ApplicationInstance, ServiceUse, Connection)
SCHEMAS = {table_name(record): arrow_schema(record) for record in DERIVED}


def expressions(settings: FlowSettings, location: str | None) -> list[tuple[str, ibis.Table]]:
    """Each table of the line and its expression, in order; ``kept_<number>`` are those in between."""
    made: list[tuple[str, ibis.Table]] = []

    def keep(expression: ibis.Table, number: str | None = None, /) -> ibis.Table:
        name = f"kept_{len(made)}"
        if number is not None:
            expression = expression.mutate(**{number: ibis.row_number()})
        made.append((name, expression))
        return ibis.table(expression.schema(), name=name)

    known = (
        SegmentHeader, ProcessRecord, SocketRecord, TranslationRecord, CaptureRecord, ExchangeRecord, FlowRecord,
        Attribution,
    )  # fmt: skip
    table = {record: ibis.table(ibis_schema(record), name=table_name(record)) for record in known}
    flows, named = table[FlowRecord], table[Attribution]
    processes, segments = table[ProcessRecord], table[SegmentHeader]
    sockets = keep(join_exchanges(table[SocketRecord], table[ExchangeRecord], table[CaptureRecord], segments, keep))
    made.append(("flow", build_flows(sockets, segments, settings, keep, table[TranslationRecord])))
    made.append(("attribution", attribute_flows(flows, sockets, processes, segments, settings, keep)))
    uses = find_uses(flows, named, sockets, processes, location, keep)
    instances = find_instances(uses)
    made.append(("application_instance", instances))
    made.append(("service_use", sum_service_use(uses, instances)))
    made.append(("connection", join_connections(flows, named, processes)))
    return made


@cache
def _statements(settings: FlowSettings, location: str | None) -> tuple[tuple[str, str], ...]:
    """The same in the engine's language: translating takes longer than running on a few rows."""
    made = expressions(settings, location)
    return tuple((name, str(ibis.to_sql(expression, dialect="duckdb"))) for name, expression in made)


def evidence_of(hosts: Iterable[Host]) -> dict[type[Any], pa.Table]:
    """All records of the hosts' segments as tables."""
    tables = {record: [arrow_schema(record).empty_table()] for record in EVIDENCE}
    for host in hosts:
        for header, records in host.segments:
            tables[SegmentHeader].append(to_arrow(SegmentHeader, [header]))
            for record, rows in records.items():
                tables[record].append(to_arrow(record, rows, header.segment_id))
    return {record: pa.concat_tables(parts) for record, parts in tables.items()}


def run_line(
    hosts: Iterable[Host], settings: FlowSettings = FlowSettings(), location: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """All derived tables, as sorted rows."""
    made: dict[str, list[dict[str, Any]]] = {}
    with duckdb.connect(config={"threads": 1}) as engine:
        for record, rows in evidence_of(hosts).items():
            engine.register(table_name(record), rows)
        for name, statement in _statements(settings, location):
            if name.startswith("kept_"):
                engine.execute(f"CREATE TEMP TABLE {name} AS {statement}")
                continue
            result = engine.sql(statement).to_arrow_table()
            if name in SCHEMAS:
                assert set(result.column_names) == set(SCHEMAS[name].names)
                result = result.select(SCHEMAS[name].names).cast(SCHEMAS[name])
                engine.register(name, result)
            made[name] = sorted(result.to_pylist(), key=repr)
    return made


def connections_of(hosts: Iterable[Host], settings: FlowSettings = FlowSettings()) -> list[dict[str, Any]]:
    """The connections that the line makes."""
    return run_line(hosts, settings)["connection"]
