# SPDX-License-Identifier: GPL-3.0-or-later
"""The evaluation on populations with truth: what it counts, that it goes on where it was, and how it is told."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from whoneeds.cli.main import main
from whoneeds.evaluation import macroscope
from whoneeds.evaluation.macroscope import PARTS, Question, evaluate
from whoneeds.evaluation.methods import Verdict
from whoneeds.evaluation.repetition import sum_up, walk_seeds
from whoneeds.evaluation.rows import tell_calibration
from whoneeds.model.errors import SettingsError
from whoneeds.scenario import make_population, observe, preset

_FEW = Question(
    population=preset("few-laptops", applications=20, activity=0.5), parts=("table2", "fig6", "fig9", "calibration")
)


def test_counts_add_up_to_what_is_true() -> None:
    """What macroscope found and missed on one host and day is what is true of what was seen there, ports once each."""
    population = make_population(_FEW.population, 3)
    uses = observe(population).tables
    seen = {
        (row["app"], row["port"])
        for row in next(table for record, table in uses.items() if record.__name__ == "ServiceUse").to_pylist()
        if (row["app"], row["protocol"], row["port"]) in population.truth
    }
    rows = evaluate(Question(population=_FEW.population), 3)
    (row,) = [row for row in rows if row["method"] == "macroscope" and row["scope"] == "all"]
    assert len(seen) > 5
    assert row["found"] + row["missed"] == len(seen)


def test_what_was_seen_too_seldom_is_neither_missed_nor_false() -> None:
    """Asked for what was seen in many samples only, a true dependency seen in fewer is left out of all counts."""
    every, often = (evaluate(Question(population=_FEW.population, seen_at_least=least), 3) for least in (1, 20))
    all_of, often_of = (
        next(row for row in rows if row["method"] == "macroscope" and row["scope"] == "all") for rows in (every, often)
    )
    assert 0 < often_of["found"] + often_of["missed"] < all_of["found"] + all_of["missed"]
    assert (often_of["false"], often_of["refused"]) == (all_of["false"], all_of["refused"])


def test_sure_probabilities_cannot_hide_the_middle() -> None:
    """Beside all probabilities those from 0.05 to 0.95 are judged by themselves, and methods without any are not."""
    verdicts = {("a", "tcp", port): Verdict(True, p) for port, p in enumerate((0.01, 0.05, 0.5, 0.95, 0.99))}
    rows = list(tell_calibration("m", verdicts, frozenset()))
    counts = {scope: sum(row["count"] for row in rows if row["scope"] == scope) for scope in ("all", "0.05 to 0.95")}
    assert counts == {"all": 5, "0.05 to 0.95": 3}
    assert list(tell_calibration("m", {("a", "tcp", 1): Verdict(True)}, frozenset())) == []


def test_every_table_and_figure_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part that can be asked for has rows of its own, whichever steps are taken in it."""
    for steps, values in {"_PERIODS_S": (5.0,), "_SHARES": (0.1,), "_TRACES": (1,), "_SWEEP": (0.1,)}.items():
        monkeypatch.setattr(macroscope, steps, values)
    monkeypatch.setattr(macroscope, "_STEP_1", (0.85,))
    asked = tuple(part for part in PARTS if part != "calibration")
    rows = evaluate(replace(_FEW, parts=asked), 0)
    assert {row["part"] for row in rows} == set(asked)


def test_an_evaluation_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation that is asked for again takes from its file what is there, and sums it up alike."""
    kept = tmp_path / "kept.jsonl"
    told: list[tuple[int, int]] = []
    rows = walk_seeds(_FEW, [0, 1], processes=2, kept=kept, progress=lambda done, of: told.append((done, of)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    monkeypatch.setattr("whoneeds.evaluation.repetition.evaluate", None)
    assert walk_seeds(_FEW, [0, 1], kept=kept) == json.loads(json.dumps(rows))
    summed = sum_up(rows)
    (row,) = [row for row in summed if (row["part"], row["method"], row["scope"]) == ("table2", "macroscope", "all")]
    assert row["seeds"] == 2
    assert row["found_share_low"] <= row["found_share"] <= row["found_share_high"]


def test_workers_end_with_who_started_them() -> None:
    """Killed at once, an evaluation leaves no process behind that works on."""
    words = ["-m", "whoneeds", "eval", "macroscope", "--scenario", "servers", "--seeds", "2", "--processes", "2"]
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL) as begun:
        started = psutil.Process(begun.pid)
        until_s = time.monotonic() + 60
        while sum(child.cpu_times().user > 0.5 for child in started.children()) < 2 and time.monotonic() < until_s:
            time.sleep(0.1)
        workers = started.children()
        begun.kill()
    assert len(workers) >= 2
    _ended, alive = psutil.wait_procs(workers, timeout=20)
    for worker in alive:
        worker.kill()
    assert not alive


def test_answers_to_another_question_are_not_taken(tmp_path: Path) -> None:
    """A file that holds other settings' rows, or none at all, is refused by name and left as it is."""
    kept = tmp_path / "kept.jsonl"
    kept.write_text(json.dumps({"question": {"period_s": 30}, "seed": 0, "rows": []}) + "\n")
    with pytest.raises(SettingsError, match="another question"):
        walk_seeds(_FEW, [0], kept=kept)
    kept.write_text("not json\n")
    with pytest.raises(SettingsError, match="line 1"):
        walk_seeds(_FEW, [0], kept=kept)
    assert kept.read_text() == "not json\n"


def test_the_verb_prints_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """`whoneeds eval macroscope` prints the figures that the design names, and refuses a period that is none."""
    words = ["eval", "macroscope", "--scenario", "few-laptops", "--seeds", "1"]
    assert main([*words, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in rows} >= {"macroscope", "orion (fewest misses)", "nsdminer (best threshold)"}
    assert {"scenario", "found_share", "false_share", "precision", "recall", "f1"} <= rows[0].keys()
    assert main([*words, "--period", "0"]) == 2
    assert "between 0.01 and 3600" in capsys.readouterr().err
