# SPDX-License-Identifier: GPL-3.0-or-later
"""Up, down and status of the lab, as seen by the one who calls; the keeper does the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import rundir
from .failure import LabError, MirrorError
from .fleet import FLEET
from .keeper import GOOD, STAY
from .readiness import await_hosts
from .tree import build_tree, require_tools
from .truth import LOAD_S, PERIOD_S, truth_document

LIFETIME_S = 1800.0
UP_LIMIT_S = 180.0
DOWN_LIMIT_S = 60.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Lab:
    """A lab that is up.

    Attributes
    ----------
    state : LabState
    truth : Path
        The truth file.
    tie : int or None
        Descriptor at whose closing the lab ends; None when it stays on its own.
    """

    state: rundir.LabState
    truth: Path
    tie: int | None


def require_root() -> None:
    """LabError for anybody but root."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes namespaces, mounts and networks; run it as root")


def why_not(progress: Progress) -> str | None:
    """Why no lab can be made on this machine now; None where it can, and then the hosts' tree is there."""
    try:
        require_root()
        require_tools(rundir.CACHE)
        require_namespaces()
        lock = rundir.take_run_folder()
    except LabError as reason:
        return str(reason)
    try:
        build_tree(rundir.CACHE, progress)
    except MirrorError as reason:
        return str(reason)
    finally:
        rundir.remove_run_folder()
        os.close(lock)
    return None


def require_namespaces() -> None:
    """LabError where the kernel, or a container that this runs in, does not allow what hosts are made of."""
    kinds = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
    done = subprocess.run(
        ["unshare", "--fork", *kinds, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise LabError(f"the lab needs namespaces and mounts, which are not allowed here: {done.stderr.strip()[-200:]}")


def bring_up(
    progress: Progress,
    lifetime_s: float = LIFETIME_S,
    load_s: float = LOAD_S,
    period_s: float = PERIOD_S,
    *,
    tied: bool = False,
) -> Lab:
    """Start the lab and return when every host answers by ssh, its services are active and its load flows.

    Parameters
    ----------
    progress : callable
        Told what happens, line by line.
    lifetime_s : float
        After this time the lab takes itself down, seconds from now.
    load_s, period_s : float
        Time under load and sampling period that the truth file reckons with, seconds.
    tied : bool
        Whether the lab ends with the calling process, however that ends.

    Returns
    -------
    Lab

    Raises
    ------
    LabError
        When it cannot start, or is not up in time; what had been made is gone then.
    """
    require_root()
    if lifetime_s <= 0 or load_s <= 0 or period_s <= 0:
        raise LabError(f"expected times above 0 s, found lifetime {lifetime_s}, load {load_s}, period {period_s}")
    require_tools(rundir.CACHE)
    require_namespaces()
    lock = rundir.take_run_folder()
    caller_end: int | None = None
    try:
        rundir.empty_run_folder()
        tree = build_tree(rundir.CACHE, progress)
        keeper_end, caller_end = os.pipe()
        keeper = _start_keeper(lock, keeper_end, lifetime_s, tree)
        os.close(keeper_end)
    except BaseException:
        rundir.remove_run_folder()
        raise
    finally:
        # From here on the keeper alone holds the lock, and the run folder is its to remove.
        os.close(lock)
    try:
        _await_phase(keeper, progress, "all hosts boot", "starting")
        truth = rundir.RUN / rundir.TRUTH
        truth.write_text(json.dumps(truth_document(FLEET, load_s, period_s), indent=1) + "\n")
        await_hosts(FLEET, UP_LIMIT_S, lambda: keeper.poll() is None, progress)
        os.write(caller_end, GOOD if tied else STAY)
        state = _await_phase(keeper, lambda _: None, "", "up")
    except BaseException:
        os.close(caller_end)
        keeper.wait(DOWN_LIMIT_S)
        if rundir.RUN.exists():
            sweep(progress)
        raise
    if not tied:
        os.close(caller_end)
    return Lab(state, truth, caller_end if tied else None)


def _start_keeper(lock: int, caller: int, lifetime_s: float, tree: Path) -> subprocess.Popen[bytes]:
    """Start the keeper in a session and a mount namespace of its own, with its log in the run folder."""
    package = __package__ or "tests.lab"
    top = Path(__file__).resolve().parents[package.count(".") + 1]
    with (rundir.RUN / rundir.LOG).open("wb") as log:
        return subprocess.Popen(
            [
                "unshare", "--mount", "--propagation", "private", "--", sys.executable, "-m", f"{package}.keeper",
                str(lock), str(caller), str(lifetime_s), str(tree),
            ],
            cwd=top, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock, caller), start_new_session=True,
        )  # fmt: skip


def _await_phase(keeper: subprocess.Popen[bytes], progress: Progress, word: str, phase: str) -> rundir.LabState:
    """Follow the keeper's log until its last line ends with a word and its state is in a phase."""
    lines: list[str] = []
    deadline_s = time.monotonic() + UP_LIMIT_S
    with (rundir.RUN / rundir.LOG).open() as log:
        while True:
            ended = keeper.poll() is not None
            for line in log.read().splitlines():
                lines.append(line)
                progress(line.partition(" ")[2])
            state = rundir.read_state()
            if lines and lines[-1].endswith(word) and state is not None and state.phase == phase:
                return state
            if ended:
                raise LabError("the lab did not start: " + " / ".join(lines[-12:]))
            if time.monotonic() > deadline_s:
                raise LabError(f"the hosts did not boot within {UP_LIMIT_S:.0f} s; last word: {lines[-1:] or 'none'}")
            time.sleep(0.1)


def take_down(progress: Progress) -> bool:
    """Take the lab down, and sweep up what a killed one left.

    Returns
    -------
    bool
        Whether there was anything to take down.
    """
    require_root()
    if not rundir.RUN.exists():
        return False
    state = rundir.read_state()
    if state is not None:
        progress(f"stopping the lab (keeper {state.keeper_pid})")
        os.kill(state.keeper_pid, signal.SIGTERM)
        deadline_s = time.monotonic() + DOWN_LIMIT_S
        while rundir.start_ticks(state.keeper_pid) == state.keeper_start_ticks and not _is_zombie(state.keeper_pid):
            if time.monotonic() > deadline_s:
                raise LabError(f"the keeper {state.keeper_pid} did not end within {DOWN_LIMIT_S:.0f} s; see its log")
            time.sleep(0.05)
    if rundir.RUN.exists():
        sweep(progress)
    return True


def sweep(progress: Progress) -> None:
    """Remove what a lab left whose keeper was killed: cgroups without processes, and the run folder."""
    progress("sweeping up after a lab that was killed")
    lock = rundir.take_run_folder()
    try:
        script = (
            'mount -t cgroup2 cgroup2 "$1" && cd "$1" && '
            'if [ -d "$2" ]; then find "$2" -depth -type d -exec rmdir {} +; fi'
        )
        place = rundir.RUN / rundir.PRIVATE
        place.mkdir(exist_ok=True)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(place), rundir.CGROUP], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise LabError(f"the lab's cgroups could not be removed: {done.stderr.strip()}")
        rundir.remove_run_folder()
    finally:
        os.close(lock)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def describe() -> dict[str, object]:
    """What runs now, for ``status``."""
    require_root()
    state = rundir.read_state()
    if state is None:
        return {"up": False}
    return {
        "up": state.phase == "up",
        "phase": state.phase,
        "keeper_pid": state.keeper_pid,
        "stops_in_s": round(state.ends_at_s - time.time()),
        "hosts": {
            name: {"address": FLEET.host(name).address, "pid": pid, "alive": not _is_zombie(pid)}
            for name, pid in state.hosts.items()
        },
        "truth": str(rundir.RUN / rundir.TRUTH),
    }
