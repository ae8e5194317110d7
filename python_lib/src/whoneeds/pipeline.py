# SPDX-License-Identifier: GPL-3.0-or-later
"""The line: from collected segments to facts, one function an arrow, each named after what it writes.

::

    segments -> ingest -> flows -> attribute -> instances -> dependencies -> facts

Each reads tables of the store, calls a pure function, and writes its own tables. None knows the next one; the store
between them is all that they share, so that each can be run again by itself.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from whoneeds.analysis.coverage import count_ends
from whoneeds.analysis.evidence import weigh_dependencies
from whoneeds.analysis.features import FEATURES
from whoneeds.analysis.filters import EVERYWHERE, Filters, find_users, select_flows
from whoneeds.analysis.macroscope import Thresholds, extract_dependencies
from whoneeds.analysis.naming import Names
from whoneeds.analysis.paths import (
    count_members,
    find_answerers,
    find_continuations,
    find_links,
    group_instances,
)
from whoneeds.analysis.scorecard import Scorecard, read_scorecard
from whoneeds.collector import ingest as collector_ingest
from whoneeds.collector.applications import find_applications, mark_parts
from whoneeds.collector.attribution import attribute_flows
from whoneeds.collector.clocks import (
    STEP_NS,
    Boot,
    ClockOffset,
    compare_clocks,
    find_shifts,
    find_steps,
    settle_clocks,
    shift_times,
)
from whoneeds.collector.connections import join_connections
from whoneeds.collector.destinations import find_destinations, make_register, organisation_of
from whoneeds.collector.exchanges import join_exchanges
from whoneeds.collector.flows import build_flows
from whoneeds.collector.ingest import IngestResult
from whoneeds.collector.instances import SUMMED, find_instances, find_uses, is_failed, select_location, sum_service_use
from whoneeds.collector.local_uses import find_local_uses
from whoneeds.collector.owners import find_holders
from whoneeds.collector.replicas import find_replicas
from whoneeds.collector.sockets import WAITING
from whoneeds.collector.traits import find_traits
from whoneeds.collector.watched import join_watched, of_hosts, tell_wire_clocks
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
from whoneeds.model.errors import StoreError
from whoneeds.model.evidence import (
    CaptureRecord,
    ExchangeRecord,
    FlowRecord,
    Gap,
    NameRecord,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
    WireFlow,
)
from whoneeds.model.schema import columns, table_name
from whoneeds.store.compaction import DEFAULT_ABOVE
from whoneeds.store.manifest import read_manifest
from whoneeds.store.session import Store

Progress = Callable[[int, int, str], None]
#: How kinds are decided where nothing else is asked for.
DEFAULT_METHOD = "macroscope"


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


def find_clocks(store: Store) -> tuple[Any, dict[Boot, ClockOffset]]:
    """Steps of clocks during runs, as an expression, and clocks that are wrong all the time."""

    def find() -> tuple[Any, dict[Boot, ClockOffset]]:
        steps = store.keep(find_steps(store.table(SegmentHeader)))
        return steps, settle_clocks(_rows(store, compare_clocks(store.table(SocketRecord), steps, store.keep)))

    return store.once("clocks", find)


def find_evidence(store: Store) -> tuple[Any, Any, Any]:
    """Sockets and whom those of UDP spoke to, segments, and translations: all on one clock, as expressions."""
    shifts = store.once("shifts", lambda: store.keep(find_shifts(*find_clocks(store))))
    made = find_sockets(store), of_hosts(store.table(SegmentHeader)), store.table(TranslationRecord)
    if not _rows(store, shifts.limit(1)):
        return made
    times = ("first_ns", "last_ns"), ("opened_ns", "closed_ns"), ("first_ns", "last_ns")
    sockets, segments, translations = (
        shift_times(rows, shifts, *names) for rows, names in zip(made, times, strict=True)
    )
    return sockets, segments, translations


def find_clock_gaps(store: Store) -> list[dict[str, Any]]:
    """Wrong clocks in the form of gaps: what a host says of times is not to be taken as it is."""
    _steps, offsets = find_clocks(store)
    return [
        {
            "host": boot.host,
            "source": "clock",
            "reason": "ambiguous",
            "detail": _describe_clock(offset),
        }
        for boot, offset in sorted(offsets.items())
    ] + tell_wire_clocks(_rows(store, store.table(WireJoin)), STEP_NS)


def _describe_clock(offset: ClockOffset) -> str:
    """How a host's clock stands to others, in words."""
    apart = f"{abs(offset.ahead_ns) / 1e9:.1f} s {'ahead of' if offset.ahead_ns > 0 else 'behind'}"
    hosts = f"{offset.agreeing} other host{'' if offset.agreeing == 1 else 's'}"
    if offset.by_most:
        told = f"the host's clock is {apart} the one that {hosts} agree on: set it"
    else:
        told = f"the host's clock is {apart} that of {hosts}, and which is right cannot be told: set both"
    return f"{told}; connections were put in order all the same"


def find_sockets(store: Store) -> Any:
    """Sockets, and whom those of UDP spoke to, as an expression."""

    def join() -> Any:
        return join_exchanges(
            store.table(SocketRecord),
            store.table(ExchangeRecord),
            store.table(CaptureRecord),
            store.table(SegmentHeader),
            store.keep,
        )

    return store.once("sockets", join)


def flows(store: Store) -> dict[str, int]:
    """Socket, exchange, capture, segment, translation, wire_flow -> flow, wire_join: both ends become one row."""
    sockets, segments, translations = find_evidence(store)
    made = build_flows(sockets, segments, keep=store.keep, translations=translations)
    wires = store.table(WireFlow)
    if not _rows(store, wires.limit(1)):
        was_joined = table_name(WireJoin) in read_manifest(store.path).derived
        return _write(store, {FlowRecord: made, **({WireJoin: []} if was_joined else {})})

    def read(expression: Any) -> list[dict[str, Any]]:
        return _rows(store, expression)

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
    traits = _find_traits(store, store.table(ServiceUse))
    local = find_local_uses(store.table(ServiceUse), unix, store.table(ProcessRecord))
    return {**written, **_write(store, {ServiceTrait: traits, LocalUse: local})}


def find_sightings(store: Store) -> Any:
    """Names that hosts saw, on the common clock, as an expression."""
    shifts = store.once("shifts", lambda: store.keep(find_shifts(*find_clocks(store))))
    names = store.table(NameRecord)
    return shift_times(names, shifts, "first_ns", "last_ns") if _rows(store, shifts.limit(1)) else names


def _add_organisations(called: pa.Table) -> pa.Table:
    """Rows of `Destination`: whom each name belongs to is asked of the list of suffixes, which no engine knows."""
    register = cache(make_register())
    pairs = zip(called["name"].to_pylist(), called["resp_host"].to_pylist(), strict=True)
    organisations = [organisation_of(name, host, register) for name, host in pairs]
    return called.append_column("organisation", pa.array(organisations, pa.string())).select(
        [column.name for column in columns(Destination)]
    )


def find_naming(store: Store) -> Names:
    """Names and sets of services; none where the store was analysed before there were any."""
    derived = read_manifest(store.path).derived
    known = all(table_name(record) in derived for record in (Destination, ReplicaSet))
    return Names(store.rows(Destination), store.rows(ReplicaSet)) if known else Names((), ())


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
        dependencies=_rows(store, store.table(Dependency).filter(ibis._.level == 1)),
        listeners=_rows(store, _find_listeners(store.table(SocketRecord), store.table(ProcessRecord))),
        segments=[row for row in store.rows(SegmentHeader) if "wire" not in row["sources"]],
        gaps=_rows(store, gap.select("host", "source", "reason", "detail").distinct()) + find_clock_gaps(store),
        ends=_rows(store, count_ends(store.table(FlowRecord), store.table(Attribution))),
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


def find_population(store: Store, filters: Filters) -> tuple[Any, Any]:
    """Instances and what they used, of the flows that filters leave, as expressions.

    Returns
    -------
    application_instance, service_use : ibis.Table
    """
    uses = find_filtered_uses(store, filters, wanted=SUMMED)
    population = store.keep(find_instances(uses))
    return population, sum_service_use(uses, population)


def find_filtered_uses(
    store: Store, filters: Filters, *, failed: bool = False, wanted: Iterable[str] | None = None
) -> Any:
    """Flows that filters leave and whose application is known, each with its instance, as an expression."""
    require(store, Attribution, "whoneeds attribute")
    processes = store.table(ProcessRecord)
    uses = find_uses(
        select_flows(store.table(FlowRecord), filters, store.table(SegmentHeader)),
        store.table(Attribution),
        find_sockets(store),
        processes,
        filters.location,
        store.keep,
        failed=failed,
        wanted=wanted,
    )
    return uses.semi_join(find_users(processes, filters.users), "user") if filters.users else uses


def find_attempts(store: Store, filters: Filters) -> tuple[Any, Any]:
    """What applications tried, answered or not, and all that was seen beside it, as expressions.

    Returns
    -------
    attempts : ibis.Table
        Flows with their instances, and ``failed``; see `whoneeds.analysis.attempts`.
    flow : ibis.Table
        All flows that the filters leave; where they tell users apart, those of the attempts alone.
    """
    uses = find_filtered_uses(store, filters, failed=True)
    attempts = uses.mutate(failed=is_failed(uses))
    seen = select_flows(store.table(FlowRecord), filters, store.table(SegmentHeader))
    seen = select_location(seen, filters.location)
    return attempts, seen.semi_join(attempts.select("flow_id"), "flow_id") if filters.users else seen


def find_connections(store: Store, filters: Filters) -> Any:
    """Flows that filters leave, with the programs at both ends, as an expression.

    A host is meant at either end. What a host saw counts wherever it was, unless a location is asked for.
    """
    require(store, Attribution, "whoneeds attribute")
    found, named = store.table(FlowRecord), store.table(Attribution)
    processes, segments = store.table(ProcessRecord), store.table(SegmentHeader)
    if filters.location not in (None, EVERYWHERE):
        found = found.filter((found.location == filters.location).fill_null(False))
    if filters.hosts:
        at_either = found.orig_host.isin(filters.hosts).fill_null(False) | found.resp_host.isin(filters.hosts)
        found = found.filter(at_either.fill_null(False))
    found = select_flows(found, replace(filters, hosts=()), segments)
    if filters.users:
        by_user = processes.select("process_id", user=processes.host + ibis.literal("/") + processes.uid.cast("string"))
        by_user = by_user.semi_join(find_users(processes, filters.users), "user")
        callers = named.filter(named.side == "orig").semi_join(by_user, "process_id")
        found = found.semi_join(callers.select("flow_id"), "flow_id")
    return join_connections(found, named, processes)


def find_dependencies(
    store: Store, filters: Filters, thresholds: Thresholds = Thresholds(), method: str = DEFAULT_METHOD
) -> Any:
    """Dependencies of the flows that filters leave, decided anew and without writing them, as an expression."""
    if filters.changes_population:
        population, used = find_population(store, filters)
    else:
        require(store, ServiceUse, "whoneeds analyze")
        population, used = store.table(ApplicationInstance), store.table(ServiceUse)
    if method == "macroscope":
        return extract_dependencies(used, population, thresholds)
    if filters.changes_population:
        used = store.keep(used)
        traits = store.keep(_find_traits(store, used))
    else:
        require(store, ServiceTrait, "whoneeds analyze")
        traits = store.table(ServiceTrait)
    return weigh_dependencies(used, traits, read_shipped_scorecard())


def choose_dependencies(store: Store, filters: Filters, method: str | None = None) -> Any:
    """Dependencies as they are stored, or decided anew where filters or a method ask for others, as an expression."""
    require(store, Dependency, "whoneeds analyze")
    stored = tell_method(store)
    if not filters.changes_population and method in (None, stored):
        return store.table(Dependency)
    return find_dependencies(store, filters, method=method or stored)


def tell_method(store: Store) -> str:
    """The method that decided the stored dependencies; the default one where there are none."""
    found = _rows(store, store.table(Dependency).select("method").limit(1))
    return str(found[0]["method"]) if found else DEFAULT_METHOD


@cache
def read_shipped_scorecard() -> Scorecard:
    """The scorecard that this version decides by.

    Raises
    ------
    SettingsError
        If it was tampered with so that it is none.
    """
    text = files("whoneeds.analysis").joinpath("scorecard.json").read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    return read_scorecard(document, [feature.name for feature in FEATURES])


def _find_traits(store: Store, used: Any) -> Any:
    return find_traits(
        used,
        store.table(FlowRecord),
        store.table(SocketRecord),
        store.table(ProcessRecord),
        store.table(NameRecord),
        store.keep,
    )


@dataclass(frozen=True)
class Net:
    """Links between programs, and where they lead on to, as rows.

    Attributes
    ----------
    links, continuations, members : list of dict
        Of `whoneeds.analysis.paths`.
    """

    links: list[dict[str, Any]]
    continuations: list[dict[str, Any]]
    members: list[dict[str, Any]]


def find_net(store: Store, kind: str | None = "static") -> Net:
    """Links that paths go along.

    Parameters
    ----------
    store : Store
    kind : {"static", "transient"}, optional
        Which needs count; None for all.
    """
    require(store, Dependency, "whoneeds analyze")
    grouped = store.keep(group_instances(store.table(ApplicationInstance)))
    applications = store.keep(find_applications(store.table(ProcessRecord), store.keep))
    used = store.table(ServiceUse)
    answerers = find_answerers(store.table(FlowRecord), store.table(Attribution), applications)
    links = find_links(used, grouped, store.table(Dependency))
    return Net(
        _rows(store, links if kind is None else links.filter(links.kind == kind)),
        _rows(store, find_continuations(used, grouped, answerers)),
        _rows(store, count_members(grouped)),
    )


def require(store: Store, record: type[Any], command: str) -> None:
    """Refuse to go on from a table that was never made: it would look like an empty one.

    Raises
    ------
    StoreError
    """
    name = table_name(record)
    if name not in read_manifest(store.path).derived:
        raise StoreError(
            "the analysis has not come this far", expected=f"the table {name} in {store.path}", found="none",
            remedy=f"run {command} --store {store.path}",
        )  # fmt: skip


def _write(store: Store, tables: dict[type[Any], Any]) -> dict[str, int]:
    return {table_name(record): store.write_table(record, made) for record, made in tables.items()}


def _end_step(walk: Walk, name: str, rows: dict[str, int], begin: float, tell: Callable[[Step], None] | None) -> None:
    walk.steps.append(Step(name, rows, round(time.monotonic() - begin, 3)))
    if tell is not None:
        tell(walk.steps[-1])


def _rows(store: Store, expression: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.read(expression).to_pylist()
    return rows


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
    for row in _rows(store, store.table(ProcessRecord).select("host", "name").distinct()):
        names.setdefault(row["host"], []).append(row["name"])
    return names
