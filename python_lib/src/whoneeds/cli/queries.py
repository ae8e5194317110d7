# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that ask: connections, deps, instances and local."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whoneeds.cli.answers import finish, observe, print_rows, tell_narrowing
from whoneeds.cli.engine import settings_of
from whoneeds.cli.narrowing import (
    DEFAULT_TIMEZONE,
    AppOption,
    HostOption,
    HoursOption,
    LocationOption,
    Narrowing,
    PlaceOption,
    RangesOption,
    Rows,
    ServiceOption,
    SinceOption,
    TimezoneOption,
    UntilOption,
    UserOption,
    read_rows,
)
from whoneeds.cli.options import (
    DEFAULT_MEMORY,
    DEFAULT_SPILL,
    DEFAULT_STORE,
    AskedMethodOption,
    FormatOption,
    GraphFormatOption,
    MemoryOption,
    SpillOption,
    StoreOption,
)
from whoneeds.cli.outcome import Format, GraphFormat
from whoneeds.cli.verbs import Examples, add_verb

if TYPE_CHECKING:
    from whoneeds.analysis.filters import Filters
    from whoneeds.render.table import Shown
    from whoneeds.store import EngineSettings
    from whoneeds.store.session import Store


class Level(StrEnum):
    """Level of detail."""

    HOST = "host"
    APP = "1"
    APP_TO_INSTANCE = "2"
    INSTANCE = "3"
    INSTANCE_TO_INSTANCE = "4"


class Kind(StrEnum):
    """Which needs to show."""

    STATIC = "static"
    TRANSIENT = "transient"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)


def connections(
    store: StoreOption = DEFAULT_STORE,
    app: AppOption = None,
    service: ServiceOption = None,
    host: HostOption = None,
    user: UserOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    hours: HoursOption = None,
    timezone: TimezoneOption = DEFAULT_TIMEZONE,
    place: PlaceOption = None,
    inside_range: RangesOption = None,
    location: LocationOption = None,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """List connections and the programs at both ends.

    An application or a host is meant at either end; a user is the caller's.
    """
    from whoneeds.model.conclusions import Connection
    from whoneeds.model.schema import columns
    from whoneeds.questions import find_connections
    from whoneeds.render.views import CONNECTION_COLUMNS, sort_connections
    from whoneeds.store.session import open_store

    shown = read_rows(app, service)
    narrowing = Narrowing(host, user, since, until, hours, timezone, place, inside_range, location)
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        seen = observe(opened)
        filters = narrowing.read(opened)
        made = shown.select(find_connections(opened, filters), ("orig_app", "resp_app"), "resp_port")
        rows = sort_connections(opened.read(made).to_pylist())
        sentences = [*tell_narrowing(opened, filters, shown), *seen.sentences]
        print_rows(rows, [column.name for column in columns(Connection)], CONNECTION_COLUMNS, form, sentences)
        finish(opened)


def deps(
    store: StoreOption = DEFAULT_STORE,
    level: Annotated[
        Level,
        typer.Option(
            "--level",
            help="host: applications on hosts. 1: application -> service. 2: application -> service instance. "
            "3: instance -> service. 4: instance -> service instance.",
        ),
    ] = Level.HOST,
    app: AppOption = None,
    service: ServiceOption = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only needs of this kind.")] = None,
    host: HostOption = None,
    user: UserOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    hours: HoursOption = None,
    timezone: TimezoneOption = DEFAULT_TIMEZONE,
    place: PlaceOption = None,
    inside_range: RangesOption = None,
    location: LocationOption = None,
    method: AskedMethodOption = None,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: GraphFormatOption = GraphFormat.TABLE,
) -> None:
    """List who needs whom.

    One row a dependent and what it depends on, with the figures that this rests on. Hosts, users, times, places and
    locations make another population, of which kinds and shares are decided anew; applications, services and kinds
    only choose rows. The formats dot, graphml and mermaid draw the rows as a graph.
    """
    from whoneeds.model.conclusions import Dependency
    from whoneeds.model.schema import columns
    from whoneeds.questions import choose_dependencies, find_naming
    from whoneeds.render.folding import (
        find_sweeps,
        fold_local_daemons,
        fold_replicas,
        fold_sweeps,
        fold_transient,
        sweep_key,
        tell_sweeps,
    )
    from whoneeds.render.views import dependency_columns, name_ends, name_service, sort_dependencies
    from whoneeds.store.session import open_store

    shown = read_rows(app, service)
    narrowing = Narrowing(host, user, since, until, hours, timezone, place, inside_range, location)
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        seen = observe(opened)
        filters = narrowing.read(opened)
        sentences = [*tell_narrowing(opened, filters, shown), *seen.sentences]
        made = choose_dependencies(opened, filters, method.value if method else None)
        made = shown.select(_at_level(made, level))
        if kind is not None:
            made = made.filter(made.kind == kind.value)
        naming = find_naming(opened)
        found: list[Any] = [name_service(row, naming) for row in sort_dependencies(opened.read(made).to_pylist())]
        sweeps = find_sweeps(found, seen.hosts) if level is Level.HOST else {}
        if form is GraphFormat.TABLE and level is Level.HOST:
            found, hidden = fold_replicas(found)
            if hidden:
                sentences.insert(0, "Services that stand for each other are one line; --format json or csv has each.")
        if form is GraphFormat.TABLE and sweeps and not shown.services:
            found = fold_sweeps(found, sweeps)
            sentences[:0] = tell_sweeps(sweeps, seen.hosts)
        if level is Level.HOST and kind is None and not shown.services:
            asked: list[Any] = _find_unix_needs(opened, shown, filters)
            if filters.is_in_time or filters.users:
                sentences.insert(0, "Needs of daemons over AF_UNIX are left out: of which time or user is not kept.")
            if form is GraphFormat.TABLE:
                asked, hidden = fold_local_daemons(asked)
                if hidden:
                    told = f"'whoneeds local' shows {hidden} more."
                    sentences.insert(0, f"A daemon that hosts have each for itself is one line; {told}")
            found += [{**row, "name": None, "any_of": None} for row in asked]
        if form is GraphFormat.TABLE and level is Level.HOST and kind is None and not shown.services:
            found, hidden = fold_transient(found)
            if hidden:
                sentences.insert(
                    0, f"Transient needs for one provider are one line each; --kind transient shows {hidden} more."
                )
        rows = [{**name_ends(row), **row} for row in found]
        if level is Level.HOST and form is GraphFormat.JSON:
            rows = [{**row, "sweep": sweep_key(row) in sweeps} for row in rows]
        names = ["dependent", "depends_on", *(column.name for column in columns(Dependency)), "name", "any_of"]
        print_rows(rows, names, dependency_columns(level.value), form, sentences)
        finish(opened)


def _find_unix_needs(store: "Store", shown: Rows, filters: "Filters") -> list[dict[str, Any]]:
    """Needs of daemons over AF_UNIX as rows of the view by host; nobody decides their kind.

    They are summed without their times and users, and are calls to the host itself.
    """
    from whoneeds.model.conclusions import LocalUse
    from whoneeds.render.views import view_unix_uses
    from whoneeds.sources import require

    require(store, LocalUse, "whoneeds analyze")
    if filters.is_in_time or filters.users or filters.place == "outside":
        return []
    uses = store.table(LocalUse)
    uses = shown.select(uses.filter(uses.service.startswith("unix:")))
    return view_unix_uses(store.read(uses.filter(uses.host.isin(filters.hosts)) if filters.hosts else uses).to_pylist())


def instances(
    store: StoreOption = DEFAULT_STORE,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """List instances of applications, and which of them are parts of one."""
    from whoneeds.model.conclusions import ApplicationInstance
    from whoneeds.render.views import INSTANCE_COLUMNS

    _list(store, ApplicationInstance, INSTANCE_COLUMNS, form, settings_of(memory, spill))


def local(
    store: StoreOption = DEFAULT_STORE,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """List who asked which daemon of its own host, over loopback or AF_UNIX."""
    from whoneeds.model.conclusions import LocalUse
    from whoneeds.render.views import LOCAL_COLUMNS

    _list(store, LocalUse, LOCAL_COLUMNS, form, settings_of(memory, spill))


def _list(path: Any, record: type[Any], shown: "list[Shown]", form: Format, settings: "EngineSettings") -> None:
    """Print a table of the store."""
    from whoneeds.model.schema import columns
    from whoneeds.sources import require
    from whoneeds.store.session import open_store

    names = [column.name for column in columns(record)]
    with open_store(path, settings=settings) as opened:
        sentences = observe(opened).sentences
        require(opened, record, "whoneeds analyze")
        rows = sorted(opened.rows(record), key=lambda row: [str(row[name]) for name in names])
        print_rows(rows, names, shown, form, sentences)
        finish(opened)


def _at_level(made: Any, level: Level) -> Any:
    if level is Level.HOST:
        from whoneeds.analysis.hosts import fold_to_hosts

        return fold_to_hosts(made)
    return made.filter(made.level == int(level.value))


EXAMPLES: Examples = {
    connections: (
        "whoneeds connections --store found",
        "whoneeds connections --store found --host web1 --since 12h",
        "whoneeds connections --store found --place outside --format csv > connections.csv",
    ),
    deps: (
        "whoneeds deps --store found",
        "whoneeds deps --store found --service tcp/5432 --kind static",
        "whoneeds deps --store found --level 2 --app nginx --app haproxy --format json",
        "whoneeds deps --store found --hours 08:00-18:00 --timezone Europe/Berlin --since 2026-11-02",
        "whoneeds deps --store found --place inside --inside-range 10.0.0.0/8 --user www-data",
        "whoneeds deps --store found --kind static --format dot | dot -Tsvg > needs.svg",
    ),
    instances: ("whoneeds instances --store found",),
    local: ("whoneeds local --store found",),
}
