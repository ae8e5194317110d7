# SPDX-License-Identifier: GPL-3.0-or-later
"""The line: from collected segments to facts, one function an arrow, each named after what it writes.

::

    segments -> ingest -> flows -> attribute -> instances -> dependencies -> facts

Each reads tables of the store, calls a pure function, and writes its own tables. None knows the next one; the store
between them is all that they share, so that each can be run again by itself.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from whoneeds.analysis.coverage import count_ends
from whoneeds.analysis.filters import Filters
from whoneeds.analysis.macroscope import Thresholds
from whoneeds.collector import ingest as collector_ingest
from whoneeds.collector.applications import find_applications, mark_parts
from whoneeds.collector.attribution import attribute_flows
from whoneeds.collector.destinations import find_destinations, make_register, organisation_of
from whoneeds.collector.flows import build_flows
from whoneeds.collector.ingest import IngestResult
from whoneeds.collector.instances import SUMMED, find_instances, sum_service_use
from whoneeds.collector.local_uses import find_local_uses
from whoneeds.collector.owners import find_holders
from whoneeds.collector.replicas import find_replicas
from whoneeds.collector.sockets import WAITING
from whoneeds.collector.watched import join_watched
from whoneeds.facts.document import Document, build_document
from whoneeds.model.conclusions import (
    ApplicationInstance,
    Attribution,
    Dependency,
    LocalUse,
    ServiceTrait,
    ServiceUse,
    WireJoin,
)
from whoneeds.model.destinations import Destination, ReplicaSet
from whoneeds.model.evidence import (
    FlowRecord,
    Gap,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    UnixConnectionRecord,
    WireFlow,
)
from whoneeds.model.schema import columns, table_name
from whoneeds.questions import find_clock_gaps, find_naming, tell_method
from whoneeds.sources import (
    DEFAULT_METHOD,
    find_dependencies,
    find_evidence,
    find_filtered_uses,
    find_service_traits,
    find_sightings,
    read_rows,
    require,
)
from whoneeds.store.compaction import DEFAULT_ABOVE
from whoneeds.store.manifest import read_manifest
from whoneeds.store.session import Store

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Step:
    """An arrow that was walked.

    Attributes
    ----------
    name : str
    rows : dict of str to int
        Rows written, by table.
    seconds : float
    """

    name: str
    rows: dict[str, int]
    seconds: float


@dataclass
class Walk:
    """What a walk along the line did.

    Attributes
    ----------
    taken_in : IngestResult
    steps : list of Step
    """

    taken_in: IngestResult
    steps: list[Step] = field(default_factory=list)


def ingest(
    store: Store,
    folders: Iterable[Path],
    *,
    host: str | None = None,
    progress: Progress | None = None,
    compact_above: int = DEFAULT_ABOVE,
) -> IngestResult:
    """Segments -> segment, process, socket, gap."""
    return collector_ingest.ingest(store, folders, host=host, progress=progress, compact_above=compact_above)


def flows(store: Store) -> dict[str, int]:
    """Socket, exchange, capture, segment, translation, wire_flow -> flow, wire_join: both ends become one row."""
    sockets, segments, translations = find_evidence(store)
    made = build_flows(sockets, segments, keep=store.keep, translations=translations)
    wires = store.table(WireFlow)
    if not read_rows(store, wires.limit(1)):
        was_joined = table_name(WireJoin) in read_manifest(store.path).derived
        return _write(store, {FlowRecord: made, **({WireJoin: []} if was_joined else {})})

    def read(expression: Any) -> list[dict[str, Any]]:
        return read_rows(store, expression)

    made, joins = join_watched(made, wires, translations, segments, store.keep, read)
    return _write(store, {FlowRecord: made, WireJoin: joins})


def attribute(store: Store) -> dict[str, int]:
    """Flow, socket, process, segment -> attribution: flows meet processes."""
    require(store, FlowRecord, "whoneeds attribute")
    sockets, segments, _translations = find_evidence(store)
    made = attribute_flows(store.table(FlowRecord), sockets, store.table(ProcessRecord), segments, keep=store.keep)
    return _write(store, {Attribution: made})


def instances(store: Store, *, location: str | None = None) -> dict[str, int]:
    """Flow, attribution, socket, process, name, unix_connection -> application_instance, service_use, ...

    Also its traits, what is called by which name (destination), what of it stands for each other (replica_set), and
    local_use.
    """
    uses = find_filtered_uses(store, Filters(location), wanted=SUMMED)
    population = store.keep(find_instances(uses))
    used = sum_service_use(uses, population)
    marked = mark_parts(population, store.keep(find_applications(store.table(ProcessRecord), store.keep)))
    called = store.keep(find_destinations(uses, find_sightings(store), keep=store.keep))
    replicas = find_replicas(uses, called, store.keep)
    written = _write(
        store,
        {
            ApplicationInstance: marked,
            ServiceUse: used,
            Destination: _add_organisations(store.read(called)),
            ReplicaSet: replicas,
        },
    )
    unix = store.table(UnixConnectionRecord)
    traits = find_service_traits(store, store.table(ServiceUse))
    local = find_local_uses(store.table(ServiceUse), unix, store.table(ProcessRecord))
    return {**written, **_write(store, {ServiceTrait: traits, LocalUse: local})}


def _add_organisations(called: pa.Table) -> pa.Table:
    """Rows of `Destination`: whom each name belongs to is asked of the list of suffixes, which no engine knows."""
    register = cache(make_register())
    pairs = zip(called["name"].to_pylist(), called["resp_host"].to_pylist(), strict=True)
    organisations = [organisation_of(name, host, register) for name, host in pairs]
    return called.append_column("organisation", pa.array(organisations, pa.string())).select(
        [column.name for column in columns(Destination)]
    )


def dependencies(
    store: Store, *, thresholds: Thresholds = Thresholds(), method: str = DEFAULT_METHOD
) -> dict[str, int]:
    """Service_use, service_trait, application_instance -> dependency."""
    return _write(store, {Dependency: find_dependencies(store, Filters(), thresholds, method)})


def facts(store: Store) -> Document:
    """Dependency, service_use, flow, attribution, socket, process, segment, gap -> facts; who calls writes them."""
    require(store, Dependency, "whoneeds analyze")
    gap = store.table(Gap)
    return build_document(
        service_uses=store.rows(ServiceUse),
        dependencies=read_rows(store, store.table(Dependency).filter(ibis._.level == 1)),
        listeners=read_rows(store, _find_listeners(store.table(SocketRecord), store.table(ProcessRecord))),
        segments=[row for row in store.rows(SegmentHeader) if "wire" not in row["sources"]],
        gaps=read_rows(store, gap.select("host", "source", "reason", "detail").distinct()) + find_clock_gaps(store),
        ends=read_rows(store, count_ends(store.table(FlowRecord), store.table(Attribution))),
        applications=_name_applications(store),
        naming=find_naming(store),
        method=tell_method(store),
    )


def run_line(
    store: Store,
    folders: Iterable[Path],
    *,
    host: str | None = None,
    location: str | None = None,
    thresholds: Thresholds = Thresholds(),
    method: str = DEFAULT_METHOD,
    progress: Progress | None = None,
    tell: Callable[[Step], None] | None = None,
    compact_above: int = DEFAULT_ABOVE,
) -> Walk:
    """Walk the line from segments to dependencies.

    Parameters
    ----------
    store : Store
        Opened for writing.
    folders : iterable of Path
        Where the segments lie.
    host : str, optional
        Whose segments they are, for folders that hold those of one host.
    location : {"inside", "vpn", "outside", "all"}, optional
        Which flows count; by default those of hosts that were inside, or have no rules to tell.
    thresholds : Thresholds
        Of Macroscope's rule.
    method : {"macroscope", "evidence"}
        What decides the kinds.
    progress : callable, optional
        Called while segments are taken in, with files done, files in all, and the host.
    tell : callable, optional
        Called with each step when it is done.
    compact_above : int, optional
        Batches of one host, one day and like size above which they are joined; 0 for never.

    Raises
    ------
    WhoneedsError
        If a step cannot be done. What was taken in until then is kept.
    """
    begin = time.monotonic()
    walk = Walk(ingest(store, folders, host=host, progress=progress, compact_above=compact_above))
    _end_step(walk, "ingest", {"segment": len(walk.taken_in.taken)}, begin, tell)
    arrows: tuple[tuple[str, Callable[[], dict[str, int]]], ...] = (
        ("flows", lambda: flows(store)),
        ("attribute", lambda: attribute(store)),
        ("instances", lambda: instances(store, location=location)),
        ("dependencies", lambda: dependencies(store, thresholds=thresholds, method=method)),
    )
    for name, arrow in arrows:
        begin = time.monotonic()
        _end_step(walk, name, arrow(), begin, tell)
    return walk


def _write(store: Store, tables: dict[type[Any], Any]) -> dict[str, int]:
    return {table_name(record): store.write_table(record, made) for record, made in tables.items()}


def _end_step(walk: Walk, name: str, rows: dict[str, int], begin: float, tell: Callable[[Step], None] | None) -> None:
    walk.steps.append(Step(name, rows, round(time.monotonic() - begin, 3)))
    if tell is not None:
        tell(walk.steps[-1])


def _find_listeners(sockets: Any, processes: Any) -> Any:
    """Sockets that wait, with the application of each process that holds them."""
    waiting = sockets.filter(sockets.state.isin(WAITING), sockets.remote_addr.isnull())
    waiting = waiting.select("socket_id", "host", "protocol", "local_addr", "local_port", "state").distinct()
    holders = find_holders(sockets, processes)
    holders = holders.filter(holders.peer_addr == "").select(held_id="socket_id", app="app")
    return waiting.left_join(holders, waiting.socket_id == holders.held_id).drop("held_id")


def _name_applications(store: Store) -> dict[str, list[str]]:
    """The applications that were seen on each host."""
    names: dict[str, list[str]] = {}
    for row in read_rows(store, store.table(ProcessRecord).select("host", "name").distinct()):
        names.setdefault(row["host"], []).append(row["name"])
    return names
