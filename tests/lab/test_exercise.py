# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line on real hosts, as `make lab` walks it, with less load and a shorter period."""

import json
import subprocess
import sys
from typing import Any

import pytest

from .fleet import FLEET
from .rundir import REPOSITORY

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("possible")]

LOAD_S, PERIOD_S = 45, 1
# Second runs and check runs on three hosts: a web server, the database, and one without IPv4.
REPEAT_ON = "web1,db1,v6a"


@pytest.fixture(scope="module")
def walked(possible: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    """The exit code of a walk on a lab of its own, and what it wrote."""
    out = tmp_path_factory.mktemp("lab") / "out"
    lab = [sys.executable, "-m", "tests.lab", "run", "--lifetime", "900", "--"]
    walk = [sys.executable, "-m", "tests.lab.exercise", "--out", str(out), "--repeat-on", REPEAT_ON]
    done = subprocess.run(
        [*lab, *walk, "--load", str(LOAD_S), "--period", str(PERIOD_S)], cwd=REPOSITORY, stdin=subprocess.DEVNULL
    )
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return done.returncode, result


def test_every_step_of_the_walk_passes(walked: tuple[int, dict[str, Any]]):
    """Tracing, collecting, analysing, publishing, refusing and removing do on real hosts what is promised of them."""
    code, result = walked
    assert result["failed"] == []
    assert result["passed"] is True
    assert code == 0
    assert len(result["steps"]) >= 32


def test_what_is_published_is_what_is_declared(walked: tuple[int, dict[str, Any]]):
    """All static dependencies that live long enough are found, none is false and no name is wrong."""
    figures = walked[1]["figures"]
    edges = [edge for edge in FLEET.edges() if edge.kind == "static"]
    counted = [edge for edge in edges if edge.expected_samples(LOAD_S, PERIOD_S) >= 5]
    assert figures["counted"] == len(counted) >= 20
    assert figures["found"] >= figures["counted"]
    assert (figures["missed"], figures["false"], figures["wrong_names"], figures["unnamed"]) == (0, 0, 0, 0)
    assert (figures["precision"], figures["recall"], figures["f1"]) == (1.0, 1.0, 1.0)
