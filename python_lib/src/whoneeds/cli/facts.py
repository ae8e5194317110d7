# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb that publishes: facts."""

from pathlib import Path
from typing import Annotated

import typer

from whoneeds.cli.engine import settings_of
from whoneeds.cli.options import (
    DEFAULT_MEMORY,
    DEFAULT_SPILL,
    DEFAULT_STORE,
    CheckOption,
    MemoryOption,
    SpillOption,
    StoreOption,
    SummaryOption,
)
from whoneeds.cli.outcome import DONE, DONE_IN_PART, SummaryFormat, answer, say
from whoneeds.cli.verbs import Examples, add_verb


def register(app: typer.Typer) -> None:
    """Add the verb."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)


def facts(
    store: StoreOption = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The facts document; by default facts.json beside the store."),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", metavar="DIR", help="Also write plain inventory files into this folder.")
    ] = None,
    local: Annotated[
        Path | None, typer.Option("--local", metavar="DIR", help="Also write each host's own facts, DIR/<host>.fact.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove overlay files of hosts that are known no longer.")
    ] = False,
    check: CheckOption = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show contents before and after.")] = False,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Write the facts that the inventory plugin reads.

    One document says of each host what it needs, offers and runs, and how well it was looked at.
    """
    from whoneeds import pipeline
    from whoneeds.cli.evidence import require_segments
    from whoneeds.cli.store import name_problems, tell_stale
    from whoneeds.facts.publish import publish
    from whoneeds.render.quantity import tell_count
    from whoneeds.store.session import open_store

    target = out if out is not None else store.parent / "facts.json"
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        require_segments(opened)
        document = pipeline.facts(opened)
    done = publish(document, out=target, overlay=overlay, local=local, check=check, diff=diff, prune=prune)
    if form is SummaryFormat.JSON:
        from whoneeds.render.json_rows import format_document

        answer(format_document(done))
    else:
        if diff:
            _show(done["diff"])
        changed = [entry["path"] for entry in done["files"] if entry["changed"]]
        verb = "would change" if check else "changed"
        say(f"{tell_count(done['hosts'], 'host')}; {len(changed)} of {tell_count(len(done['files']), 'file')} {verb}")
        for path in changed:
            say(f"  {path}")
    tell_stale(sorted(opened.manifest.stale), store)
    name_problems(opened.problems)
    raise typer.Exit(DONE_IN_PART if opened.problems else DONE)


def _show(changes: list[dict[str, str]]) -> None:
    """Print changes as unified diffs."""
    import difflib

    for change in changes:
        before, after = change["before"].splitlines(), change["after"].splitlines()
        headers = (change["before_header"], change["after_header"])
        answer("\n".join(difflib.unified_diff(before, after, *headers, lineterm="")))


EXAMPLES: Examples = {
    facts: (
        "whoneeds facts --store found --out facts.json",
        "whoneeds facts --store found --out facts.json --overlay overlay",
        "whoneeds facts --store found --out facts.json --check --diff",
    ),
}
