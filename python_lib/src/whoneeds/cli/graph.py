# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that look at dependencies from elsewhere: from the service, along whole paths, and by names."""

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
    FormatOption,
    MemoryOption,
    SpillOption,
    StoreOption,
)
from whoneeds.cli.outcome import Format
from whoneeds.cli.verbs import Examples, add_verb
from whoneeds.model.errors import SettingsError

if TYPE_CHECKING:
    from whoneeds.cli.nodes import Node
    from whoneeds.store.session import Store


class Kinds(StrEnum):
    """Which needs paths follow."""

    STATIC = "static"
    TRANSIENT = "transient"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)


def paths(
    node: Annotated[
        str | None,
        typer.Argument(metavar="NODE", help="Only paths that begin here: an application, a host, or APP@HOST."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    kind: Annotated[Kinds, typer.Option("--kind", help="Which needs are followed.")] = Kinds.STATIC,
    hops: Annotated[int, typer.Option("--hops", metavar="N", help="Most steps of a path.")] = 8,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Most paths; what is left out is told.")] = 1000,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """Follow needs to what those need in turn.

    One row a whole path, from a program to the last thing it needs, over the programs that answered. Its share is the
    product of the shares of its steps: so many of the instances on that host use the service.
    """
    from whoneeds.analysis.paths import PathLimits, walk_paths
    from whoneeds.questions import find_net
    from whoneeds.render.paths import PATH_COLUMNS, PATH_NAMES, tell_ends, view_path
    from whoneeds.store.session import open_store

    limits = PathLimits(hops, limit)
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        sentences = observe(opened).sentences
        net = find_net(opened, None if kind is Kinds.ALL else kind.value)
        starts = None if node is None else _find_starts(node, net.members)
        found, whole = walk_paths(net.links, net.continuations, net.members, starts, limits)
        if not whole:
            sentences.insert(0, f"There are more than {limit} paths: --limit shows more, NODE those of one beginning.")
        sentences[:0] = tell_ends(found)
        print_rows([view_path(path) for path in found], PATH_NAMES, PATH_COLUMNS, form, sentences)
        finish(opened)


class By(StrEnum):
    """What makes a row of services."""

    PLACE = "place"
    SERVICE = "service"


def who_needs(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="NODE",
            help="Who needs this: a host, an application, APP@HOST, PROTOCOL/PORT or an address. All services without.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    by: Annotated[
        By, typer.Option("--by", help="Without NODE, one row a service at one place, or a service wherever it is.")
    ] = By.PLACE,
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
    """List services and who needs them, or who needs one thing.

    The view of deps turned round. Without NODE one row a service, with how many applications, hosts, users and
    instances use it; with NODE the rows of deps that need it, and those counts below the table. Options narrow who
    counts as a dependent.
    """
    from whoneeds.analysis.consumers import count_consumers, select_provider
    from whoneeds.analysis.hosts import fold_to_hosts
    from whoneeds.model.conclusions import Dependency, ServiceUse
    from whoneeds.model.schema import columns
    from whoneeds.questions import choose_dependencies, find_naming
    from whoneeds.render.consumers import CONSUMER_NAMES, consumer_columns, sort_consumers, tell_consumers
    from whoneeds.render.views import dependency_columns, name_ends, name_service, sort_dependencies
    from whoneeds.render.visible import make_visible
    from whoneeds.sources import find_population
    from whoneeds.store.session import open_store

    shown = read_rows(app, service)
    narrowing = Narrowing(host, user, since, until, hours, timezone, place, inside_range, location)
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        seen = observe(opened)
        filters = narrowing.read(opened)
        sentences = [*tell_narrowing(opened, filters, shown), *seen.sentences]
        needs = choose_dependencies(opened, filters)
        used = find_population(opened, filters)[1] if filters.changes_population else opened.table(ServiceUse)
        used = shown.select(opened.keep(used))
        if node is None:
            rows = sort_consumers(opened.read(count_consumers(used, needs, by.value)).to_pylist())
            names = [name for name in CONSUMER_NAMES if by is By.PLACE or name not in ("resp_host", "place")]
            print_rows(rows, names, consumer_columns(by.value), form, sentences)
        else:
            wanted = vars(_find_provider(opened, node))
            needs = opened.keep(needs)
            total = opened.read(count_consumers(select_provider(used, **wanted), needs, None)).to_pylist()[0]
            fine = select_provider(needs.filter(needs.level == 4), **wanted)
            folded = fold_to_hosts(fine.union(needs.filter(needs.level == 1)))
            naming = find_naming(opened)
            found = [
                name_service(row, naming) for row in sort_dependencies(opened.read(shown.select(folded)).to_pylist())
            ]
            named = [{**name_ends(row), **row} for row in found]
            names = ["dependent", "depends_on", *(column.name for column in columns(Dependency)), "name", "any_of"]
            sentences.insert(0, tell_consumers(make_visible(node), total))
            print_rows(named, names, dependency_columns("host"), form, sentences)
        finish(opened)


def destinations(
    store: StoreOption = DEFAULT_STORE,
    app: AppOption = None,
    service: ServiceOption = None,
    outside: Annotated[bool, typer.Option("--outside", help="Only hosts that are not traced.")] = False,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """List what is called by which name, which services stand for each other, and whose they are.

    Names are those that hosts saw in answers of name services and in TLS hellos. A name counts where it was the only
    one for the called address, on the host that called, when the call began.
    """
    from whoneeds.analysis.filters import Filters
    from whoneeds.model.destinations import Destination, ReplicaSet
    from whoneeds.model.schema import columns
    from whoneeds.questions import find_naming
    from whoneeds.render.consumers import DESTINATION_COLUMNS
    from whoneeds.sources import require
    from whoneeds.store.session import open_store

    shown = read_rows(app, service)
    names = [column.name for column in columns(Destination)]
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        seen = observe(opened)
        for record in (Destination, ReplicaSet):
            require(opened, record, "whoneeds analyze")
        table = shown.select(opened.table(Destination))
        rows = opened.read(table.filter(table.resp_host.isnull()) if outside else table).to_pylist()
        naming = find_naming(opened)
        rows = [
            {**row, "any_of": naming.look_up(row).any_of}
            for row in sorted(rows, key=lambda row: [str(row[name] or "") for name in names])
        ]
        sentences = [*tell_narrowing(opened, Filters(), shown), *seen.sentences]
        print_rows(rows, [*names, "any_of"], DESTINATION_COLUMNS, form, sentences)
        finish(opened)


def _find_provider(store: "Store", text: str) -> "Node":
    """What a node means among all that was used."""
    from whoneeds.cli.nodes import read_node
    from whoneeds.model.conclusions import ServiceUse
    from whoneeds.model.evidence import SegmentHeader

    used = store.table(ServiceUse)
    apps = {row["resp_app"] for row in store.read(used.select("resp_app").distinct()).to_pylist()}
    hosts = {row["host"] for row in store.read(store.table(SegmentHeader).select("host").distinct()).to_pylist()}
    return read_node(text, apps - {None}, hosts)


def _find_starts(text: str, members: Any) -> list[tuple[str, str]]:
    """Applications on hosts that a node means."""
    from whoneeds.cli.nodes import read_node

    known = sorted({(row["app"], row["host"]) for row in members})
    node = read_node(text, {app for app, _host in known}, {host for _app, host in known})
    if node.service is not None or node.address is not None:
        raise SettingsError(
            "NODE", expected="where a path begins: an application, a host, or APP@HOST", found=ascii(text)[:60],
            remedy=f"whoneeds who-needs {text} tells who needs it",
        )  # fmt: skip
    return [(app, host) for app, host in known if node.app in (None, app) and node.host in (None, host)]


EXAMPLES: Examples = {
    who_needs: (
        "whoneeds who-needs db1 --store found",
        "whoneeds who-needs --store found --by service",
        "whoneeds who-needs tcp/5432 --store found --since 7d --format json",
    ),
    paths: (
        "whoneeds paths --store found",
        "whoneeds paths nginx@web1 --store found --format json",
        "whoneeds paths web1 --store found --kind all --hops 3",
    ),
    destinations: (
        "whoneeds destinations --store found",
        "whoneeds destinations --store found --outside --format csv > external.csv",
    ),
}
