# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that go along dependencies: paths, and who-needs, which goes against them."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from whoneeds.cli.answers import finish, observe, print_rows
from whoneeds.cli.engine import settings_of
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
    from whoneeds.pipeline import find_net
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
    paths: (
        "whoneeds paths --store found",
        "whoneeds paths nginx@web1 --store found --format json",
        "whoneeds paths web1 --store found --kind all --hops 3",
    ),
}
