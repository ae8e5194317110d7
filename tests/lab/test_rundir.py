# SPDX-License-Identifier: GPL-3.0-or-later
"""The run folder: one holder at a time, a state that proves its keeper, nothing left."""

import os
from pathlib import Path

import pytest

from .failure import LabError
from .rundir import (
    STATE,
    LabState,
    empty_run_folder,
    read_state,
    remove_run_folder,
    start_ticks,
    take_run_folder,
    write_state,
)


def own_state(**changes: object) -> LabState:
    """The state of a lab that this very process keeps."""
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    values: dict[str, object] = {
        "schema": 1,
        "phase": "up",
        "keeper_pid": os.getpid(),
        "keeper_start_ticks": ticks,
        "anchor_pid": 1,
        "ends_at_s": 0.0,
        "hosts": {"web1": 2},
    }
    return LabState(**{**values, **changes})  # type: ignore[arg-type]


def test_a_second_lab_is_refused_while_the_first_holds_the_folder(tmp_path: Path):
    """The folder has one holder, the refusal says what to do, and the next one gets it when the holder lets go."""
    run = tmp_path / "run"
    first = take_run_folder(run)
    with pytest.raises(LabError, match="already up"):
        take_run_folder(run)
    os.close(first)
    second = take_run_folder(run)
    remove_run_folder(run)
    third = take_run_folder(run)
    assert run.exists()
    os.close(second)
    os.close(third)


def test_the_state_comes_back_while_its_keeper_lives(tmp_path: Path):
    """What was written is read again."""
    state = own_state()
    write_state(state, tmp_path)
    assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_the_state_of_a_dead_keeper_or_of_a_reused_pid_is_no_state(tmp_path: Path):
    """A pid alone proves nothing: the start time must agree."""
    assert read_state(tmp_path) is None
    write_state(own_state(keeper_start_ticks=1), tmp_path)
    assert read_state(tmp_path) is None
    write_state(own_state(keeper_pid=2**22 + 1), tmp_path)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"unknown": 1}'])
def test_a_damaged_state_is_told(tmp_path: Path, text: str):
    """A state file that cannot be read is an error that names it, not a guess."""
    (tmp_path / STATE).write_text(text)
    with pytest.raises(LabError, match=STATE):
        read_state(tmp_path)


def test_emptying_leaves_the_folder_and_follows_no_link(tmp_path: Path):
    """What an earlier lab left is removed, but not what its links point to."""
    run, precious = tmp_path / "run", tmp_path / "precious"
    (run / "deep" / "deeper").mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("keep")
    (run / "link").symlink_to(precious)
    (run / "file").write_text("drop")
    empty_run_folder(run)
    assert list(run.iterdir()) == []
    assert (precious / "file").read_text() == "keep"
