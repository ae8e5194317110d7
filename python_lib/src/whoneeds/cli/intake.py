# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb that takes in what others wrote: import."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whoneeds.cli.options import DEFAULT_STORE, StoreOption, SummaryOption
from whoneeds.cli.outcome import DONE, DONE_IN_PART, SummaryFormat, answer, say
from whoneeds.cli.verbs import Examples, add_verb

if TYPE_CHECKING:
    from whoneeds.intake.take import ImportedFile


class Kind(StrEnum):
    """What is imported; the same words as `whoneeds.intake.take.KINDS`."""

    PCAP = "pcap"
    ZEEK = "zeek"
    SURICATA = "suricata"
    SYSMON = "sysmon"
    NETFLOW_CSV = "netflow-csv"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)


def import_(
    kind: Annotated[Kind, typer.Argument(help="What the files are.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The files; packed by gzip or not.")],
    store: StoreOption = DEFAULT_STORE,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="NAME",
            help="Who watched: a monitor's name, or that of the host on which packets were taken in. Of sysmon: whose "
            "log it is, where its events do not name the host as the inventory does.",
        ),
    ] = None,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Take captures, and logs of other meters and of security agents, into the store.

    Each file once. Lines that cannot be read are named and left out; then the exit code is 4. `whoneeds attribute`
    joins what came in with what the hosts saw themselves.
    """
    from whoneeds.intake.take import import_files
    from whoneeds.store.session import open_store

    with open_store(store, create=True, write=True) as opened:
        made = import_files(opened, kind.value, files, host=host)
    _tell(made)
    complete = all(one.complete for one in made)
    if form is SummaryFormat.JSON:
        from dataclasses import asdict

        from whoneeds.render.json_rows import format_document

        changed = any(one.rows for one in made)
        answer(format_document({"changed": changed, "complete": complete, "files": [asdict(one) for one in made]}))
    raise typer.Exit(DONE if complete else DONE_IN_PART)


# what users type is a word of Python's own
import_.__name__ = "import"


def _tell(made: "list[ImportedFile]") -> None:
    """What became of each file."""
    from whoneeds.render.quantity import tell_count
    from whoneeds.render.visible import make_visible

    for one in made:
        if one.state == "known":
            say(f"{one.file}: held already, nothing changed")
        elif one.state == "refused":
            say(f"{one.file}: refused")
        else:
            rows = ", ".join(f"{count} {table}" for table, count in sorted(one.rows.items())) or "no rows"
            whose = f", of {', '.join(one.hosts[:5])}" if one.hosts else ""
            more = f" and {len(one.hosts) - 5} more" if len(one.hosts) > 5 else ""
            say(f"{one.file}: {rows}{whose}{more}")
        for problem in one.problems:
            say(f"  left out: {make_visible(problem)}")
        if one.bad_lines > len(one.problems):
            say(f"  ... and {tell_count(one.bad_lines - len(one.problems), 'more line')}")
        if one.before_horizon:
            say(f"  left out: {tell_count(one.before_horizon, 'row')} of days that the store has pruned")
        if one.untold:
            say(f"  left out: {tell_count(one.untold, 'connection')} of which it is not told which end is the host's")


EXAMPLES: Examples = {
    import_: (
        "whoneeds import zeek conn.log dns.log --host monitor1 --store found",
        "whoneeds import pcap capture.pcap --host web1 --store found",
        "whoneeds import sysmon events.json --store found",
        "whoneeds import netflow-csv flows.csv --host router1 --store found --format json",
    ),
}
