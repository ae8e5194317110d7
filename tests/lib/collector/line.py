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
from whoneeds.collector.flows import FlowSettings, build_flows, count_ambiguous
from whoneeds.collector.instances import find_instances, find_uses, sum_service_use
from whoneeds.model.conclusions import ApplicationInstance, Attribution, Connection, ServiceUse
from whoneeds.model.evidence import FlowRecord, Gap, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import table_name
from whoneeds.store.columns import arrow_schema, ibis_schema, to_arrow

EVIDENCE = (SegmentHeader, ProcessRecord, SocketRecord, Gap)


@cache
def _statements(settings: FlowSettings, location: str | None) -> dict[str, str]:
    """Each step in the engine's language: translating takes longer than running on a few rows."""
    known = (SegmentHeader, ProcessRecord, SocketRecord, FlowRecord, Attribution)
    table = {record: ibis.table(ibis_schema(record), name=table_name(record)) for record in known}
    flows, named = table[FlowRecord], table[Attribution]
    sockets, processes, segments = table[SocketRecord], table[ProcessRecord], table[SegmentHeader]
    uses = find_uses(flows, named, sockets, processes, location)
    steps = {
        "flow": build_flows(sockets, segments, settings),
        "ambiguous": count_ambiguous(sockets, segments, settings),
        "attribution": attribute_flows(flows, sockets, processes, segments, settings),
        "application_instance": find_instances(uses),
        "service_use": sum_service_use(uses),
        "connection": join_connections(flows, named),
    }
    return {name: str(ibis.to_sql(step, dialect="duckdb")) for name, step in steps.items()}


def evidence_of(hosts: Iterable[Host]) -> dict[type[Any], pa.Table]:
    """All records of the hosts' segments as tables."""
    tables: dict[type[Any], list[pa.Table]] = {
        record: [to_arrow(SegmentHeader, [])] if record is SegmentHeader else [arrow_schema(record).empty_table()]
        for record in EVIDENCE
    }
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
    statements = _statements(settings, location)
    made: dict[str, list[dict[str, Any]]] = {}
    kinds = {table_name(r): r for r in (FlowRecord, Attribution, ApplicationInstance, ServiceUse, Connection)}
    with duckdb.connect(config={"threads": 1}) as engine:
        for record, rows in evidence_of(hosts).items():
            engine.register(table_name(record), rows)
        for name, statement in statements.items():
            result = engine.sql(statement).to_arrow_table()
            if name in kinds:
                result = result.select(arrow_schema(kinds[name]).names).cast(arrow_schema(kinds[name]))
                engine.register(name, result)
            made[name] = sorted(result.to_pylist(), key=repr)
    return made
