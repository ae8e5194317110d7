# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a running lab lives, who holds it, and what it says about itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .failure import LabError

# Fixed, since the inventory in git names it.
RUN = Path("/run/whoneeds-lab")
REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "lab"
CGROUP = "whoneeds-lab"

STATE = "state.json"
TRUTH = "truth.json"
LOG = "keeper.log"
# The keeper's own view of these folders holds the hosts' roots; everybody else sees them empty.
PRIVATE = "private"


@dataclass
class LabState:
    """What a running lab writes down about itself.

    Attributes
    ----------
    schema : int
    phase : {"starting", "up"}
    keeper_pid, keeper_start_ticks : int
        The process that keeps the lab, and proof that the pid is still its.
    anchor_pid : int
        PID 1 of the lab's outer PID namespace, in the controller's network namespace; 0 until it lives.
    ends_at_s : float
        Wall-clock time at which the lab stops by itself, seconds since 1970.
    hosts : dict of str to int
        PID of each host's systemd, seen from outside.
    """

    schema: int
    phase: str
    keeper_pid: int
    keeper_start_ticks: int
    anchor_pid: int
    ends_at_s: float
    hosts: dict[str, int] = field(default_factory=dict)


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def write_state(state: LabState, run: Path = RUN) -> None:
    """Replace the state file in one step."""
    handle, name = tempfile.mkstemp(dir=run)
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(state), file, indent=1)
    Path(name).rename(run / STATE)


def read_state(run: Path = RUN) -> LabState | None:
    """The state of the lab whose keeper lives; None when there is none."""
    try:
        state = LabState(**json.loads((run / STATE).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as wrong:
        raise LabError(f"{run / STATE} cannot be read ({wrong}); `down` removes it") from wrong
    return state if start_ticks(state.keeper_pid) == state.keeper_start_ticks else None


def take_run_folder(run: Path = RUN) -> int:
    """Make the run folder this process' own.

    The lock is on the folder itself: it ends with its last holder, and leaves no file of its own.

    Returns
    -------
    int
        Descriptor that holds the lock.

    Raises
    ------
    LabError
        When another lab holds it.
    """
    while True:
        run.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LabError(
                f"a lab is already up (it holds {run}); use it, or take it down with `python -m tests.lab down`"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if run.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def empty_run_folder(run: Path = RUN) -> None:
    """Remove what an earlier lab left; only for the holder of the lock."""
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_run_folder(run: Path = RUN) -> None:
    """Remove the folder and all in it; only for the holder of the lock."""
    empty_run_folder(run)
    run.rmdir()
