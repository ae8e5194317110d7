# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own store is judged by what the user knows, through the command."""

import json
from pathlib import Path

import pytest

from whoneeds.cli.main import main
from whoneeds.pipeline import run_line
from whoneeds.scenario import make_population, observe, preset
from whoneeds.scenario.storing import write_evidence
from whoneeds.store.session import open_store


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of one laptop's day that went through the line, and its truth as the operators' answers."""
    folder = tmp_path_factory.mktemp("own")
    population = make_population(preset("few-laptops", applications=12), 3)
    with open_store(folder / "store", create=True, write=True) as store:
        write_evidence(store, observe(population))
        run_line(store, [])
    answers = folder / "answers.csv"
    answers.write_text("".join(f"{app},{protocol}/{port},static\n" for app, protocol, port in sorted(population.truth)))
    return folder / "store", answers


def test_answers_label_what_was_seen(analysed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """With the truth as answers every method is judged, what nobody spoke of is assumed, and macroscope misses none."""
    store, answers = analysed
    words = ["eval", "macroscope", "--store", str(store), "--answers", str(answers), "--format", "json"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    by = {(row["part"], row["method"]): row for row in rows}
    macroscope, evidence = by["table2", "macroscope"], by["table2", "evidence"]
    assert macroscope["scenario"] == "store"
    assert macroscope["found_share"] == 1.0
    assert macroscope["false_share"] > 0
    assert evidence["precision"] > macroscope["precision"]
    assert by["labels", "answer"]["count"] == by["labels", "answer"]["true"] > 10
    assert by["labels", "assumed"]["count"] > 0
    assert by["labels", "assumed"]["true"] == 0


def test_a_store_without_truth_is_not_judged(analysed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Without any truth, with a list that is none, and with truth but no store, the command says what it needs."""
    store, answers = analysed
    assert main(["eval", "macroscope", "--store", str(store)]) == 2
    assert main(["eval", "macroscope", "--store", str(store), "--known-services", str(store / "none")]) == 2
    assert main(["eval", "macroscope", "--answers", str(answers)]) == 2
    told = capsys.readouterr().err
    assert "--known-services FILE" in told
    assert "--store beside them" in told
