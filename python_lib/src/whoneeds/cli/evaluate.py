# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that say how often the methods are wrong: ``whoneeds eval``."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from whoneeds.cli.options import FormatOption
from whoneeds.cli.outcome import DONE, Format, answer, is_styled, say, terminal_width
from whoneeds.cli.verbs import Examples, add_verb
from whoneeds.model.errors import SettingsError

NAME = "eval"


class Scenario(StrEnum):
    """Populations with truth."""

    LAPTOPS = "laptops"
    SERVERS = "servers"
    FEW_LAPTOPS = "few-laptops"
    FEW_SERVERS = "few-servers"


class Variant(StrEnum):
    """Whose habits."""

    DEFAULT = "default"
    HELD_OUT = "held_out"


class Part(StrEnum):
    """What of the evaluation."""

    TABLE_2 = "table2"
    TABLE_3 = "table3"
    FIG_4 = "fig4"
    FIG_5 = "fig5"
    FIG_6 = "fig6"
    FIG_9 = "fig9"
    CALIBRATION = "calibration"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the verbs, as a group of their own."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

    @group.callback()
    def _group() -> None:
        """Say how often the methods are wrong, beside the baselines, where the truth is known."""

    for verb, examples in EXAMPLES.items():
        add_verb(group, verb, examples)
    app.add_typer(group, name=NAME, help="Say how often the methods are wrong, where the truth is known.")


def macroscope(
    scenario: Annotated[Scenario, typer.Option("--scenario", help="The population.")] = Scenario.LAPTOPS,
    parts: Annotated[
        list[Part] | None, typer.Option("--part", help="Table or figure of the paper; may be given again.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, max=1000, help="Populations.")] = 5,
    seed0: Annotated[int, typer.Option("--seed0", metavar="K", min=0, help="The first seed.")] = 0,
    variant: Annotated[
        Variant, typer.Option("--variant", help="Habits; those of 'held_out' no training has seen.")
    ] = Variant.DEFAULT,
    period_s: Annotated[float, typer.Option("--period", metavar="S", help="Time between two samples.")] = 5.0,
    events: Annotated[bool, typer.Option("--events", help="Let kernels tell of every connection.")] = False,
    seen_at_least: Annotated[
        int, typer.Option("--seen-at-least", metavar="N", min=1, help="Samples from which a dependency can be missed.")
    ] = 1,
    hosts: Annotated[int | None, typer.Option("--hosts", metavar="N", help="Traced hosts.")] = None,
    days: Annotated[int | None, typer.Option("--days", metavar="N", help="Days.")] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", metavar="N", min=1, help="Seeds side by side; as processors by default."),
    ] = None,
    kept: Annotated[
        Path | None, typer.Option("--keep", metavar="FILE", help="Keep each seed's rows there, and go on from them.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="Judge on your own analysed store instead.")
    ] = None,
    known_services: Annotated[
        Path | None,
        typer.Option(
            "--known-services",
            metavar="FILE",
            help="With --store: services that are looked after, one a line: tcp/443, or tcp/5432 10.0.0.0/24.",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="With --store: what the operators say, as CSV: application,tcp/5432,static or transient.",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="With --store: open a TCP connection to what is not known, up to 500, and close each at once.",
        ),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Judge Macroscope's rule, our evidence, Orion, Sherlock and NSDMiner on populations whose truth is known.

    Found and false are shares of the number of true static dependencies, mean over seeds with the interval that holds
    the true mean with 95 %. Orion and Sherlock are given the best seed service for each application.

    With --store, what is true of your own fleet is what you know of it: an answer first, then a known service, then
    whether somebody answers a probe; what nothing speaks of is taken for transient, and counted as assumed.
    """
    if store is not None:
        _print(_judge_own(store, known_services, answers, asks=probe), "store", form)
        raise typer.Exit(DONE)
    if known_services is not None or answers is not None or probe:
        raise SettingsError(
            "--known-services, --answers and --probe", expected="--store beside them", found="none",
            remedy="populations bring their own truth",
        )  # fmt: skip
    from whoneeds.evaluation.macroscope import PARTS, Question
    from whoneeds.evaluation.repetition import sum_up, walk_seeds
    from whoneeds.scenario import preset

    if not 0.01 <= period_s <= 3600:
        raise SettingsError("--period", expected="seconds between 0.01 and 3600", found=f"{period_s:g}")
    asked = tuple(part.value for part in parts or [Part.TABLE_2])
    changes = {name: value for name, value in (("hosts", hosts), ("days", days)) if value is not None}
    question = Question(
        population=preset(scenario.value, variant=variant.value, **changes),
        period_s=period_s, events=events, seen_at_least=seen_at_least,
        parts=tuple(PARTS) if Part.ALL.value in asked else asked,
    )  # fmt: skip
    rows = walk_seeds(question, range(seed0, seed0 + seeds), processes=processes, kept=kept, progress=_Progress().tell)
    _print(sum_up(rows), scenario.value, form)
    raise typer.Exit(DONE)


def _judge_own(store: Path, known: Path | None, answers: Path | None, *, asks: bool) -> list[dict[str, Any]]:
    """Label what a store holds, and judge all methods by that."""
    from whoneeds.evaluation.known_services import label, read_answers, read_known_services
    from whoneeds.evaluation.own_data import find_called
    from whoneeds.evaluation.own_store import evaluate_store
    from whoneeds.evaluation.probe import ProbeSettings, plan_probe, probe
    from whoneeds.evaluation.repetition import sum_up
    from whoneeds.model.conclusions import ServiceUse
    from whoneeds.sources import require
    from whoneeds.store.session import open_store

    if known is None and answers is None and not asks:
        raise SettingsError(
            "truth of a store", expected="--known-services FILE, --answers FILE or --probe", found="none of them",
            remedy="write down the services that you look after, one a line: tcp/443, or tcp/5432 10.0.0.0/24",
        )  # fmt: skip
    services = read_known_services(_read_text("--known-services", known))
    said = read_answers(_read_text("--answers", answers))
    with open_store(store) as opened:
        require(opened, ServiceUse, "whoneeds analyze")
        called = find_called(opened.table, opened.read)
        reachable: frozenset[tuple[str, str, int]] = frozenset()
        if asks:
            settings = ProbeSettings()
            open_ones = [key for key, each in label(called, services, answers=said).items() if each.by == "assumed"]
            plan = plan_probe((place for key in open_ones for place in called[key]), settings)
            say(f"eval: {plan.describe(settings)}")
            reachable = probe(plan.places, settings)
        rows = evaluate_store(opened, label(called, services, reachable, said))
    return sum_up({"seed": 0, **row} for row in rows)


def _read_text(option: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            option, expected="a text file in UTF-8", found=f"{ascii(str(path))[1:-1][:200]}: {type(error).__name__}"
        ) from error


class _Progress:
    """Tells how far it is, and how long the rest will take at the rate so far."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._from: int | None = None

    def tell(self, done: int, of: int) -> None:
        """Say it."""
        if self._from is None:
            self._from = done
        new = done - self._from
        left = f", about {(time.monotonic() - self._begin) / new * (of - done):.0f} s left" if new else ""
        say(f"eval: {done} of {of} seeds{left if done < of else ''}")


def _print(rows: list[dict[str, Any]], scenario: str, form: Format) -> None:
    rows = [{"scenario": scenario, **row} for row in rows]
    if form is Format.JSON:
        from whoneeds.render.json_rows import format_json

        answer(format_json(rows))
        return
    if form is Format.CSV:
        from whoneeds.render.csv_rows import format_csv

        names = list(dict.fromkeys(name for row in rows for name in row))
        answer(format_csv(({name: row.get(name) for name in names} for row in rows), names))
        return
    from whoneeds.render.evaluations import describe_part
    from whoneeds.render.table import format_table

    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        title, columns = describe_part(part, own)
        answer(title)
        answer(format_table(own, columns, width=terminal_width(), styled=is_styled()))
        answer("")


EXAMPLES: Examples = {
    macroscope: (
        "whoneeds eval macroscope --scenario few-laptops --seeds 3",
        "whoneeds eval macroscope --part table2 --part table3 --seeds 20 --keep build/eval-laptops.jsonl",
        "whoneeds eval macroscope --scenario servers --variant held_out --format json",
        "whoneeds eval macroscope --store found --known-services known.txt --answers answers.csv",
    ),
}
