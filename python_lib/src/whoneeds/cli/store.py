# SPDX-License-Identifier: GPL-3.0-or-later
"""``whoneeds store``: look after what the controller keeps. Verbs: status, verify, compact, prune, migrate."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whoneeds.cli.options import DEFAULT_STORE, CheckOption, StoreOption, SummaryOption
from whoneeds.cli.outcome import DONE, DONE_IN_PART, SummaryFormat, answer, say
from whoneeds.cli.verbs import Examples, add_verb

if TYPE_CHECKING:
    from whoneeds.store.problems import Problem
    from whoneeds.store.session import Store

#: The word before the verbs of this module.
NAME = "store"


def register(app: typer.Typer) -> None:
    """Add the verbs, as a group of their own."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    for verb, examples in EXAMPLES.items():
        add_verb(group, verb, examples)
    app.add_typer(group, name=NAME, help="Look after the store: how full it is, whether it is whole, what may go.")


def status(store: StoreOption = DEFAULT_STORE, form: SummaryOption = SummaryFormat.TABLE) -> None:
    """Tell what the store holds and how much room it takes.

    Files are counted and not read; `whoneeds store verify` reads them.
    """
    from whoneeds.render.quantity import tell_bytes, tell_count
    from whoneeds.store.account import take_account
    from whoneeds.store.manifest import STORE_SCHEMA
    from whoneeds.store.session import hold_manifest

    with hold_manifest(store) as (root, manifest):
        account = take_account(root, manifest)
    if form is SummaryFormat.JSON:
        _answer(asdict(account))
        raise typer.Exit(DONE)
    days = f", {account.first_date} to {account.last_date}" if account.first_date else ""
    say(
        f"schema {account.schema}" + (f": run whoneeds store migrate --store {store}" * (account.schema < STORE_SCHEMA))
    )
    say(
        f"{tell_count(account.hosts, 'host')}, {tell_count(account.days, 'day')}{days}; "
        f"{tell_count(account.segments, 'segment')} in {tell_count(account.batches, 'batch', 'batches')}"
    )
    for table, held in account.tables.items():
        files, size = tell_count(held.files, "file"), tell_bytes(held.bytes)
        say(f"  {table:<22}{tell_count(held.rows, 'row'):>16}{files:>14}{size:>12}")
    files, size = tell_count(account.quarantine_files, "file"), tell_bytes(account.quarantine_bytes)
    say(f"  {'quarantine':<22}{'':>16}{files:>14}{size:>12}")
    if account.horizon is not None:
        say(f"evidence of before {account.horizon} was pruned, and is not taken in again")
    tell_stale(account.stale, store)
    if account.joinable:
        joinable = tell_count(account.joinable, "batch", "batches")
        say(f"{joinable} could be joined: whoneeds store compact --store {store}")
    raise typer.Exit(DONE)


def verify(store: StoreOption = DEFAULT_STORE, form: SummaryOption = SummaryFormat.TABLE) -> None:
    """Compare every file with the manifest, and name each that is damaged or gone.

    Answers leave such files out and say so; this looks at all of them at once. Exit code 4 if there is any.
    """
    from whoneeds.render.quantity import tell_count
    from whoneeds.store.session import open_store
    from whoneeds.store.sweep import named_paths

    with open_store(store) as opened:
        problems = opened.verify()
        files = len(named_paths(opened.manifest))
    name_problems(problems)
    say(f"{tell_count(files, 'file')} compared, {len(problems)} damaged or gone")
    if form is SummaryFormat.JSON:
        _answer({"files": files, "complete": not problems, "problems": [asdict(problem) for problem in problems]})
    raise typer.Exit(DONE_IN_PART if problems else DONE)


def compact(
    store: StoreOption = DEFAULT_STORE,
    above: Annotated[
        int | None,
        typer.Option(
            "--above", metavar="N", min=1, help="Join only where more than N batches are of like size; by default all."
        ),
    ] = None,
    check: CheckOption = False,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Join the many small files of one host and day into few.

    Rows and segments stay what they are. Ingest does this by itself where a day comes in many pieces.
    """
    from whoneeds.store.session import open_store

    with open_store(store, write=not check) as opened:
        done = opened.compact(above=above, check=check)
    _tell_upkeep(opened, store)
    tell_compaction(done, check=check)
    if form is SummaryFormat.JSON:
        _answer({
            "changed": done.batches_before > 0, **asdict(done), "complete": not opened.problems,
            "problems": [asdict(problem) for problem in opened.problems],
        })  # fmt: skip
    raise typer.Exit(DONE_IN_PART if opened.problems else DONE)


def prune(
    store: StoreOption = DEFAULT_STORE,
    keep_days: Annotated[
        int | None,
        typer.Option("--keep-days", metavar="N", help="Keep the last N days (UTC), today among them."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="DATE", help="Let go what is older than this day (2026-01-31, UTC)."),
    ] = None,
    check: CheckOption = False,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Let old evidence go, for good.

    The date becomes the store's horizon: segments of older days are not taken in again. Give --keep-days or --before.
    """
    from whoneeds.render.quantity import tell_bytes, tell_count
    from whoneeds.store.retention import find_limit
    from whoneeds.store.session import open_store

    limit = find_limit(before, keep_days, datetime.now(UTC).date())
    with open_store(store, write=not check) as opened:
        earlier = opened.manifest.horizon
        done = opened.prune(limit, check=check)
    _tell_upkeep(opened, store)
    goes, freed = ("would go", "would be freed") if check else ("gone", "freed")
    say(
        f"evidence of before {limit} {goes}: {tell_count(done.segments, 'segment')} of "
        f"{tell_count(done.hosts, 'host')} and {tell_count(done.days, 'day')}, {tell_count(done.rows, 'row')} in "
        f"{tell_count(done.files, 'file')}; {tell_bytes(done.bytes)} {freed}"
    )
    tell_stale(done.stale, store)
    if form is SummaryFormat.JSON:
        _answer({"changed": done.files > 0 or done.horizon != earlier, **asdict(done)})
    raise typer.Exit(DONE)


def migrate(
    store: StoreOption = DEFAULT_STORE, check: CheckOption = False, form: SummaryOption = SummaryFormat.TABLE
) -> None:
    """Bring a store that an older version made to the schema of this one.

    Evidence is kept; what it did not record is not known. Derived tables go, and are made again by attribute and
    analyze. Whatever writes to the store does this first, by itself.
    """
    from whoneeds.store.migrations import migrate as migrate_store
    from whoneeds.store.session import hold_manifest
    from whoneeds.store.sweep import sweep

    with hold_manifest(store, write=not check) as (root, manifest):
        done = migrate_store(root, manifest, check=check)
        if not check:
            sweep(root, manifest)
    _tell_migration(done, store, check=check)
    name_problems(done.problems)
    if form is SummaryFormat.JSON:
        _answer({"changed": done.source != done.target, **asdict(done), "complete": not done.problems})
    raise typer.Exit(DONE_IN_PART if done.problems else DONE)


def tell_opening(opened: "Store", store: Path) -> None:
    """Say what was done to open a store of an older schema, if anything was."""
    if opened.migration is not None:
        _tell_migration(opened.migration, store, check=False)


def tell_compaction(done: Any, *, check: bool = False) -> None:
    """Say what was joined."""
    from whoneeds.render.quantity import tell_count

    if not done.batches_before:
        say("nothing to join")
        return
    say(
        f"{tell_count(done.batches_before, 'batch', 'batches')} of {tell_count(done.partitions, 'day')} of hosts "
        f"{'would be ' if check else ''}joined into {done.batches_after}: {done.files_before} files into "
        f"{done.files_after}"
    )


def _tell_migration(done: Any, store: Path, *, check: bool) -> None:
    from whoneeds.render.quantity import tell_count

    if done.source == done.target:
        say(f"the store has schema {done.target} already")
        return
    say(
        f"the store {'would be' if check else 'was'} brought from schema {done.source} to {done.target}: "
        f"{tell_count(done.files, 'file')} of evidence written anew, {tell_count(done.rows, 'row')}"
    )
    say(f"  derived tables {'would go' if check else 'are gone'}: whoneeds attribute and whoneeds analyze "
        f"--store {store} make them again")  # fmt: skip


def _tell_upkeep(opened: "Store", store: Path) -> None:
    tell_opening(opened, store)
    name_problems(opened.problems)


def name_problems(problems: "list[Problem]") -> None:
    """Name each file that was left out, whose evidence is missing with it, and what brings it back."""
    for problem in problems:
        whose = f"{problem.table} of {problem.host}, {problem.date}: " if problem.host is not None else ""
        say(f"left out: {whose}{problem.path}: {problem.message} ({problem.rows} rows); {problem.remedy}")


def tell_stale(stale: list[str], store: Path) -> None:
    """Say which derived tables rest on evidence that was pruned since they were made, if any do."""
    if stale:
        say(f"made from evidence that is gone in part, until made again: {', '.join(stale)}")
        say(f"  whoneeds attribute and whoneeds analyze --store {store} make them again")


def _answer(summary: dict[str, Any]) -> None:
    from whoneeds.render.json_rows import format_document

    answer(format_document(summary))


EXAMPLES: Examples = {
    status: ("whoneeds store status --store found",),
    verify: ("whoneeds store verify --store found",),
    compact: ("whoneeds store compact --store found", "whoneeds store compact --store found --check"),
    prune: (
        "whoneeds store prune --store found --keep-days 30 --check",
        "whoneeds store prune --store found --before 2026-01-31",
    ),
    migrate: ("whoneeds store migrate --store found --check", "whoneeds store migrate --store found"),
}
