# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that walk the line: ingest, attribute, analyze, and run for the whole."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whoneeds.cli.engine import settings_of
from whoneeds.cli.options import (
    DEFAULT_MEMORY,
    DEFAULT_SPARK_MASTER,
    DEFAULT_SPILL,
    DEFAULT_STORE,
    CheckOption,
    EngineName,
    EngineOption,
    InstancesOption,
    Location,
    MemoryOption,
    Method,
    MethodOption,
    SparkMasterOption,
    SpillOption,
    StoreOption,
    SummaryOption,
    TransientOption,
    UsersOption,
)
from whoneeds.cli.outcome import DONE, DONE_IN_PART, SummaryFormat, answer, say, say_paragraph
from whoneeds.cli.verbs import Examples, add_verb
from whoneeds.model.errors import EvidenceError, SettingsError

if TYPE_CHECKING:
    from whoneeds.collector.ingest import IngestResult
    from whoneeds.pipeline import Progress, Step
    from whoneeds.store.session import Store

HostOption = Annotated[
    str | None,
    typer.Option("--host", metavar="NAME", help="Whose segments they are, for a folder that holds those of one host."),
]
LocationOption = Annotated[
    Location | None,
    typer.Option(
        "--location", help="Where hosts must have been. By default inside, and hosts without rules that would tell."
    ),
]
CompactOption = Annotated[
    int,
    typer.Option(
        "--compact-above",
        metavar="N",
        min=0,
        help="Join files of one host and day afterwards where more than N pieces are of like size; 0 for never.",
    ),
]
#: The same as in `whoneeds.store.compaction`, which is not loaded for a word of help.
_COMPACT_ABOVE = 16

_TOLD_AT_MOST = 20


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)


def ingest(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Folders of segments.")],
    store: StoreOption = DEFAULT_STORE,
    host: HostOption = None,
    compact_above: CompactOption = _COMPACT_ABOVE,
    check: CheckOption = False,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Take segments into the store.

    Each good one once, each bad one into quarantine with its reason. A folder holds one folder a host, named as in
    the inventory, or the segments of one host.
    """
    from whoneeds import pipeline
    from whoneeds.cli.rehearsal import fingerprint, rehearse
    from whoneeds.cli.store import tell_opening
    from whoneeds.store.session import open_store

    _require_segments(folders)
    with rehearse(store, check=check) as place:
        before = fingerprint(place)
        with open_store(place, create=True, write=True) as opened:
            tell_opening(opened, store)
            result = pipeline.ingest(opened, folders, host=host, progress=_progress(), compact_above=compact_above)
        _tell_ingest(result)
        _finish(form, {"changed": before != fingerprint(place), **_summary(result)}, _problems(opened), result)


def attribute(
    store: StoreOption = DEFAULT_STORE,
    engine: EngineOption = EngineName.DUCKDB,
    spark_master: SparkMasterOption = DEFAULT_SPARK_MASTER,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Pair both ends of connections and name their processes."""
    from whoneeds import pipeline
    from whoneeds.cli.evidence import require_segments
    from whoneeds.cli.store import tell_opening
    from whoneeds.store.session import open_store

    with open_store(store, write=True, settings=settings_of(memory, spill, engine, spark_master)) as opened:
        tell_opening(opened, store)
        require_segments(opened)
        rows = pipeline.flows(opened) | pipeline.attribute(opened)
    _tell_rows(rows)
    _finish(form, {"rows": rows}, _problems(opened))


def analyze(
    store: StoreOption = DEFAULT_STORE,
    location: LocationOption = None,
    method: MethodOption = Method.MACROSCOPE,
    transient_share: TransientOption = 0.85,
    users_share: UsersOption = 0.10,
    instances_share: InstancesOption = 0.10,
    engine: EngineOption = EngineName.DUCKDB,
    spark_master: SparkMasterOption = DEFAULT_SPARK_MASTER,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Decide which applications need which services.

    Static needs are built in, transient ones are of the moment.
    """
    from whoneeds import pipeline
    from whoneeds.analysis.macroscope import Thresholds
    from whoneeds.cli.evidence import require_segments
    from whoneeds.cli.store import tell_opening
    from whoneeds.store.session import open_store

    thresholds = Thresholds(transient_share, users_share, instances_share)
    with open_store(store, write=True, settings=settings_of(memory, spill, engine, spark_master)) as opened:
        tell_opening(opened, store)
        require_segments(opened)
        rows = pipeline.instances(opened, location=location)
        rows |= pipeline.dependencies(opened, thresholds=thresholds, method=method.value)
    _tell_rows(rows)
    _finish(form, {"method": method.value, "rows": rows}, _problems(opened))


def run(
    folders: Annotated[
        list[Path], typer.Option("--from", metavar="DIR", help="Folder of segments; may be given several times.")
    ],
    store: StoreOption = DEFAULT_STORE,
    host: HostOption = None,
    location: LocationOption = None,
    method: MethodOption = Method.MACROSCOPE,
    transient_share: TransientOption = 0.85,
    users_share: UsersOption = 0.10,
    instances_share: InstancesOption = 0.10,
    facts: Annotated[
        Path | None, typer.Option("--facts", metavar="FILE", help="Write the facts document here at the end.")
    ] = None,
    compact_above: CompactOption = _COMPACT_ABOVE,
    engine: EngineOption = EngineName.DUCKDB,
    spark_master: SparkMasterOption = DEFAULT_SPARK_MASTER,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    check: CheckOption = False,
    form: SummaryOption = SummaryFormat.TABLE,
) -> None:
    """Walk the whole line, from segments to dependencies.

    Ingest, flows, attribute, instances, dependencies; and facts, where a file for them is given.
    """
    from whoneeds import pipeline
    from whoneeds.analysis.macroscope import Thresholds
    from whoneeds.cli.evidence import describe, require_segments
    from whoneeds.cli.rehearsal import fingerprint, rehearse
    from whoneeds.cli.store import tell_opening
    from whoneeds.facts.publish import publish
    from whoneeds.render.quantity import tell_count
    from whoneeds.store.session import open_store

    thresholds = Thresholds(transient_share, users_share, instances_share)
    _require_segments(folders)
    with rehearse(store, check=check) as place:
        before = fingerprint(place)
        with open_store(
            place, create=True, write=True, settings=settings_of(memory, spill, engine, spark_master)
        ) as opened:
            tell_opening(opened, store)
            walk = pipeline.run_line(
                opened,
                folders,
                host=host,
                location=location,
                thresholds=thresholds,
                method=method.value,
                progress=_progress(),
                tell=_tell_step,
                compact_above=compact_above,
            )
            _tell_ingest(walk.taken_in)
            require_segments(opened)
            published: dict[str, Any] = {"changed": False}
            if facts is not None:
                published = publish(pipeline.facts(opened), out=facts, check=check)
                outcome = _changed(published["changed"], check)
                say(f"{'facts':<14}{tell_count(published['hosts'], 'host')}, {facts} {outcome}")
            seen = describe(opened)
        say("")
        for sentence in seen.sentences:
            say_paragraph(sentence)
        changed = before != fingerprint(place) or published["changed"] or bool(walk.taken_in.restored)
        summary = {
            "changed": changed,
            "method": method.value,
            "steps": [{"step": step.name, "rows": step.rows, "seconds": step.seconds} for step in walk.steps],
            "statement": seen.sentences,
            **_summary(walk.taken_in),
        }
        _finish(form, summary, _problems(opened), walk.taken_in)


def _require_segments(folders: list[Path]) -> None:
    """Refuse folders in which nothing can be found, before a store is made for it.

    Raises
    ------
    EvidenceError, SettingsError
    """
    for folder in folders:
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise SettingsError(
                "segments cannot be read",
                expected="a folder of segments",
                found=f"{folder}: {error.strerror}",
                remedy="check the path and its permissions",
            ) from error
    for folder in folders:
        for pattern in ("*.seg", "*/*.seg"):
            if next(folder.glob(pattern), None) is not None:
                return
    raise EvidenceError(
        "no segments to take in",
        expected="files DIR/<host>/*.seg or DIR/*.seg",
        found=f"none in {', '.join(str(folder) for folder in folders)}",
        remedy="collect first, or trace this machine: whoneeds trace run --for 60 --dir traced",
    )


def _progress() -> "Progress | None":
    """A line on the terminal that is written over; nothing where standard error is a file."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int, host: str) -> None:
        if done == total or done % 50 == 0:
            end = "\n" if done == total else "\r"
            print(f"taking in segments: {done} of {total}  {host[:40]:<40}", end=end, file=sys.stderr, flush=True)

    return show


def _tell_step(step: "Step") -> None:
    rows = ", ".join(f"{count} {table}" for table, count in step.rows.items())
    say(f"{step.name:<14}{rows:<50}{step.seconds:6.1f} s")


def _tell_rows(rows: dict[str, int]) -> None:
    say(", ".join(f"{count} {table}" for table, count in rows.items()))


def _tell_ingest(result: "IngestResult") -> None:
    """What became of the segments; those that were not taken in are named with their reason."""
    from whoneeds.cli.store import tell_compaction
    from whoneeds.render.quantity import tell_count
    from whoneeds.render.visible import make_visible

    words = [f"{tell_count(len(result.taken), 'segment')} taken in", f"{len(result.known)} held already"]
    words += [f"{len(result.quarantined)} put into quarantine"] if result.quarantined else []
    words += [f"{tell_count(len(result.refused), 'folder')} refused"] if result.refused else []
    words += (
        [f"{tell_count(len(result.restored), 'damaged batch', 'damaged batches')} made anew"] if result.restored else []
    )
    words += [f"{len(result.before_horizon)} of days that were pruned, and left out"] if result.before_horizon else []
    say(", ".join(words))
    if result.compacted is not None:
        tell_compaction(result.compacted)
    for entry in result.quarantined[:_TOLD_AT_MOST]:
        say(f"  quarantined: {entry.host}/{entry.file}: {entry.reason}: {make_visible(entry.message)}")
    for folder, reason in result.refused[:_TOLD_AT_MOST]:
        say(f"  refused: {folder}: {make_visible(reason)}")
    for host, file, reason in result.captures[:_TOLD_AT_MOST]:
        say(f"  capture file of {host}/{ascii(file)[1:-1]}: {make_visible(reason)}; the segment is used without it")
    told = (result.quarantined, result.refused, result.captures)
    more = sum(max(0, len(one) - _TOLD_AT_MOST) for one in told)
    if more:
        say(f"  ... and {more} more; --format json names all")


def _summary(result: "IngestResult") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "complete": result.complete,
        "taken": len(result.taken),
        "known": len(result.known),
        "quarantined": [{"name": entry.file, **asdict(entry)} for entry in result.quarantined],
        "refused": [{"folder": folder, "reason": reason} for folder, reason in result.refused],
        "captures": [{"host": host, "file": file, "reason": reason} for host, file, reason in result.captures],
        "restored": len(result.restored),
        "before_horizon": len(result.before_horizon),
        "compacted": None if result.compacted is None else asdict(result.compacted),
    }


def _problems(store: "Store") -> list[dict[str, Any]]:
    from dataclasses import asdict

    from whoneeds.cli.store import name_problems

    name_problems(store.problems)
    return [asdict(problem) for problem in store.problems]


def _changed(changed: bool, check: bool) -> str:
    return ("would change" if check else "changed") if changed else "unchanged"


def _finish(
    form: SummaryFormat, summary: dict[str, Any], problems: list[dict[str, Any]], result: "IngestResult | None" = None
) -> None:
    """Print the summary and end with the code that says whether everything was used."""
    complete = not problems and (result is None or result.complete)
    if form is SummaryFormat.JSON:
        from whoneeds.render.json_rows import format_document

        answer(format_document({**summary, "complete": complete, "problems": problems}))
    raise typer.Exit(DONE if complete else DONE_IN_PART)


EXAMPLES: Examples = {
    ingest: (
        "whoneeds ingest incoming --store found",
        "whoneeds ingest /var/lib/whoneeds --host web1 --store found",
    ),
    attribute: (
        "whoneeds attribute --store found",
        "whoneeds attribute --store /shared/found --engine spark --spark-master spark://spark1:7077",
    ),
    analyze: (
        "whoneeds analyze --store found",
        "whoneeds analyze --store found --location all --users-share 0.05",
    ),
    run: (
        "whoneeds run --from incoming --store found",
        "whoneeds run --from /var/lib/whoneeds --host web1 --store found --facts facts.json",
        "whoneeds run --from incoming --store found --check --format json",
    ),
}
