# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that ask: connections, deps, instances and local."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whoneeds.cli.engine import settings_of
from whoneeds.cli.options import (
    DEFAULT_MEMORY,
    DEFAULT_SPILL,
    DEFAULT_STORE,
    FormatOption,
    Location,
    MemoryOption,
    Method,
    MethodOption,
    SpillOption,
    StoreOption,
)
from whoneeds.cli.outcome import DONE, DONE_IN_PART, Format, answer, is_styled, say, say_paragraph, terminal_width
from whoneeds.cli.verbs import Examples, add_verb
from whoneeds.model.errors import SettingsError

if TYPE_CHECKING:
    from whoneeds.cli.evidence import Observation
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
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """List connections and the programs at both ends."""
    from whoneeds.collector.connections import join_connections
    from whoneeds.model.conclusions import Attribution, Connection
    from whoneeds.model.evidence import FlowRecord, ProcessRecord
    from whoneeds.model.schema import columns
    from whoneeds.pipeline import require
    from whoneeds.render.views import CONNECTION_COLUMNS, sort_connections
    from whoneeds.store.session import open_store

    with open_store(store, settings=settings_of(memory, spill)) as opened:
        sentences = _observe(opened).sentences
        require(opened, Attribution, "whoneeds attribute")
        made = join_connections(opened.table(FlowRecord), opened.table(Attribution), opened.table(ProcessRecord))
        rows = sort_connections(opened.read(made).to_pylist())
        _print(rows, [column.name for column in columns(Connection)], CONNECTION_COLUMNS, form, sentences)
        _finish(opened)


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
    app: Annotated[str | None, typer.Option("--app", metavar="NAME", help="Only what this application needs.")] = None,
    service: Annotated[
        str | None, typer.Option("--service", metavar="PROTOCOL/PORT", help="Only who needs this service: tcp/5432.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only needs of this kind.")] = None,
    location: Annotated[
        Location | None,
        typer.Option("--location", help="Decide anew from what hosts saw there; by default what analyze decided."),
    ] = None,
    method: MethodOption = Method.MACROSCOPE,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """List who needs whom.

    One row a dependent and what it depends on, with the figures that this rests on.
    """
    from whoneeds.model.conclusions import Dependency
    from whoneeds.model.schema import columns
    from whoneeds.pipeline import find_dependencies, require
    from whoneeds.render.folding import (
        find_sweeps,
        fold_local_daemons,
        fold_sweeps,
        fold_transient,
        sweep_key,
        tell_sweeps,
    )
    from whoneeds.render.views import dependency_columns, name_ends, sort_dependencies
    from whoneeds.store.session import open_store

    wanted = _parse_service(service)
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        seen = _observe(opened)
        sentences = seen.sentences
        require(opened, Dependency, "whoneeds analyze")
        made = opened.table(Dependency) if location is None else find_dependencies(opened, location)
        made = _at_level(made, level).filter(lambda table: table.method == method.value)
        if app is not None:
            made = made.filter(made.app == app)
        if wanted is not None:
            made = made.filter(made.protocol == wanted[0], made.port == wanted[1])
        if kind is not None:
            made = made.filter(made.kind == kind.value)
        found = sort_dependencies(opened.read(made).to_pylist())
        sweeps = find_sweeps(found, seen.hosts) if level is Level.HOST else {}
        if form is Format.TABLE and sweeps and wanted is None:
            found = fold_sweeps(found, sweeps)
            sentences[:0] = tell_sweeps(sweeps, seen.hosts)
        if level is Level.HOST and kind is None and wanted is None:
            asked: list[Any] = _find_unix_needs(opened, app)
            if form is Format.TABLE:
                asked, hidden = fold_local_daemons(asked)
                if hidden:
                    told = f"'whoneeds local' shows {hidden} more."
                    sentences.insert(0, f"A daemon that hosts have each for itself is one line; {told}")
            found += asked
        if form is Format.TABLE and level is Level.HOST and kind is None and wanted is None:
            found, hidden = fold_transient(found)
            if hidden:
                sentences.insert(
                    0, f"Transient needs for one provider are one line each; --kind transient shows {hidden} more."
                )
        rows = [{**name_ends(row), **row} for row in found]
        if level is Level.HOST and form is Format.JSON:
            rows = [{**row, "sweep": sweep_key(row) in sweeps} for row in rows]
        names = ["dependent", "depends_on", *(column.name for column in columns(Dependency))]
        _print(rows, names, dependency_columns(level.value), form, sentences)
        _finish(opened)


def _find_unix_needs(store: "Store", app: str | None) -> list[dict[str, Any]]:
    """Needs of daemons over AF_UNIX as rows of the view by host; nobody decides their kind."""
    from whoneeds.model.conclusions import LocalUse
    from whoneeds.pipeline import require
    from whoneeds.render.views import view_unix_uses

    require(store, LocalUse, "whoneeds analyze")
    uses = store.table(LocalUse)
    uses = uses.filter(uses.service.startswith("unix:"))
    return view_unix_uses(store.read(uses if app is None else uses.filter(uses.app == app)).to_pylist())


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
    from whoneeds.pipeline import require
    from whoneeds.store.session import open_store

    names = [column.name for column in columns(record)]
    with open_store(path, settings=settings) as opened:
        sentences = _observe(opened).sentences
        require(opened, record, "whoneeds analyze")
        rows = sorted(opened.rows(record), key=lambda row: [str(row[name]) for name in names])
        _print(rows, names, shown, form, sentences)
        _finish(opened)


def _at_level(made: Any, level: Level) -> Any:
    if level is Level.HOST:
        from whoneeds.analysis.hosts import fold_to_hosts

        return fold_to_hosts(made)
    return made.filter(made.level == int(level.value))


def _parse_service(text: str | None) -> tuple[str, int] | None:
    """Protocol and port of a service.

    Raises
    ------
    SettingsError
    """
    if text is None:
        return None
    protocol, slash, port = text.partition("/")
    if slash and protocol in ("tcp", "udp") and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
        return protocol, int(port)
    raise SettingsError(
        "--service", expected="protocol/port, as in tcp/5432", found=ascii(text)[:40], remedy="ports go from 1 to 65535"
    )


def _observe(store: "Store") -> "Observation":
    from whoneeds.cli.evidence import describe

    return describe(store)


def _print(
    rows: Sequence[Mapping[str, Any]], names: list[str], shown: "list[Shown]", form: Format, sentences: list[str]
) -> None:
    """Print rows in the form that was asked; under a table stands what it rests on."""
    if form is Format.JSON:
        from whoneeds.render.json_rows import format_json

        answer(format_json(rows))
    elif form is Format.CSV:
        from whoneeds.render.csv_rows import format_csv

        answer(format_csv(rows, names))
    else:
        from whoneeds.render.table import format_table

        if rows:
            answer(format_table(rows, shown, width=terminal_width(), styled=is_styled()))
        else:
            say("nothing to show")
        say("")
        for sentence in sentences:
            say_paragraph(sentence)


def _finish(store: "Store") -> None:
    from whoneeds.cli.store import name_problems

    name_problems(store.problems)
    raise typer.Exit(DONE_IN_PART if store.problems else DONE)


EXAMPLES: Examples = {
    connections: (
        "whoneeds connections --store found",
        "whoneeds connections --store found --format csv > connections.csv",
    ),
    deps: (
        "whoneeds deps --store found",
        "whoneeds deps --store found --service tcp/5432 --kind static",
        "whoneeds deps --store found --level 2 --app nginx --format json",
    ),
    instances: ("whoneeds instances --store found",),
    local: ("whoneeds local --store found",),
}
