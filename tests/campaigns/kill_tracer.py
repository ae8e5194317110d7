# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill the real tracer: at random instants, and at every change that it makes on disk."""

import json
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.campaigns import processes
from tests.campaigns.result import Result
from tests.campaigns.spool_audit import Life, SpoolAudit, committed
from whoneeds.tracer import command
from whoneeds.tracer.status import STATUS_FILE, read_document

#: Lives in one folder before it is given up for a fresh one: an audit reads every segment.
_EPOCH = 40
_LONGEST_LIFE_S = 0.5
#: One life in so many is asked to end instead, and one in so many is a program started anew instead of a fork.
_ASKED, _SPAWNED = 10, 20
_PATIENCE_S = 30.0
_SOCKETS = 60
#: Calls by which something on disk changes; between two of them all instants are alike.
_CHANGES = (
    "write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,ftruncate,flock,link,"
    "linkat,fchmod,fchmodat"
)
_CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?([a-z_0-9]+)\(")


def _configure(place: Path) -> Path:
    """Settings under which every sample is committed as a segment of its own."""
    path = place / "tracer.json"
    path.write_text(json.dumps({"schema": 1, "host": "h1", "period_s": 0.1, "rotate_s": 1.0, "rotate_bytes": 1024}))
    return path


def _start(folder: Path, settings: Path, log: Path, *options: str, anew: bool = False) -> int:
    words = ["trace", "run", "--dir", str(folder), "--config", str(settings), *options]
    return (
        processes.spawn(processes.python_words(*words), log)
        if anew
        else processes.fork_call(lambda: command.main(words), log)
    )


def _await(folder: Path, child: int, condition: str) -> float:
    """Wait until a tracer samples, or has committed a segment; the seconds that it took.

    Raises
    ------
    TimeoutError
    """
    begin_s = time.monotonic()
    before = set(committed(folder))
    while time.monotonic() - begin_s < _PATIENCE_S:
        if condition == "sample":
            status = read_document(str(folder), STATUS_FILE) or {}
            if status.get("pid") == child and status.get("samples"):
                return time.monotonic() - begin_s
        elif set(committed(folder)) - before:
            return time.monotonic() - begin_s
        time.sleep(0.002)
    raise TimeoutError(f"no {condition} within {_PATIENCE_S} s")


def kill_at_random(result: Result, count: int, rng: random.Random) -> None:
    """Kill `count` tracers, one after another in the same folder."""
    done = 0
    with processes.open_sockets(_SOCKETS):
        while done < count:
            with tempfile.TemporaryDirectory(prefix="whoneeds-kill-") as made:
                place = Path(made)
                folder, settings, log = place / "trace", _configure(place), place / "log"
                audit = SpoolAudit(folder, result)
                for _ in range(min(_EPOCH, count - done)):
                    _one_life(audit, settings, log, done, rng, result)
                    done += 1
                _last_life(audit, settings, log, result)
                audit.check_gaps()


def _one_life(audit: SpoolAudit, settings: Path, log: Path, number: int, rng: random.Random, result: Result) -> None:
    folder = audit.folder
    begun_ns = time.time_ns()
    child = _start(folder, settings, log, anew=number % _SPAWNED == 1)
    killed = number % _ASKED != 9
    try:
        if number % 4 == 3:
            result.note_worst("seconds_to_first_sample", _await(folder, child, "sample"))
        time.sleep(rng.uniform(0, _LONGEST_LIFE_S))
        listed = committed(folder)
    except TimeoutError as error:
        listed = {}
        result.violate(f"life {number}: {error}: {log.read_text()[-300:]}")
    if killed:
        processes.kill_group(child)
        result.add("random_kills")
    else:
        os.kill(child, signal.SIGTERM)
    code = processes.wait(child)
    # asked before it had set up its signals, the default ends it: as good as a kill
    audit.after_life(Life(begun_ns, killed or code != 0), listed)


def _last_life(audit: SpoolAudit, settings: Path, log: Path, result: Result) -> None:
    """A tracer that is let work: it must commit, end cleanly and leave nothing half-written."""
    begun_ns = time.time_ns()
    child = _start(audit.folder, settings, log)
    listed = {}
    try:
        _await(audit.folder, child, "segment")
        listed = committed(audit.folder)
    except TimeoutError as error:
        result.violate(f"after {len(audit.lives)} lives: {error}: {log.read_text()[-300:]}")
    os.kill(child, signal.SIGTERM)
    code = processes.wait(child)
    if code:
        result.violate(f"a tracer that was asked to end after {len(audit.lives)} lives did so with {code}")
    audit.after_life(Life(begun_ns, killed=False), listed)


def kill_at_changes(result: Result, points: int | None, rng: random.Random) -> None:
    """Kill a tracer on entering each call that changes something on disk, from its start to its end.

    Parameters
    ----------
    result : Result
    points : int or None
        How many of the calls, drawn at random; None for every one.
    rng : random.Random
    """
    strace = processes.find_strace()
    if strace is None:
        result.skip("kills at every change on disk: there is no strace 5.3 or newer that can trace here")
        return
    with processes.open_sockets(_SOCKETS), tempfile.TemporaryDirectory(prefix="whoneeds-points-") as made:
        place = Path(made)
        settings = _configure(place)
        calls = _list_changes(strace, place, settings)
        result.note_worst("changes_in_a_run", len(calls))
        chosen = calls if points is None else sorted(rng.sample(calls, min(points, len(calls))))
        for number, (name, ordinal) in enumerate(chosen):
            folder = place / f"trace-{number}"
            _kill_at(strace, folder, settings, place / "log", name, ordinal, result)


def _words(strace: str, folder: Path, settings: Path, *options: str) -> list[str]:
    run = processes.python_words("trace", "run", "--for", "0.6", "--dir", str(folder), "--config", str(settings))
    return [strace, "-f", "-qq", "-e", f"trace={_CHANGES}", *options, *run]


def _list_changes(strace: str, place: Path, settings: Path) -> list[tuple[str, int]]:
    """The calls of a whole run, each with how many of its name there were by then."""
    log = place / "calls"
    child = processes.spawn(_words(strace, place / "counted", settings, "-o", str(log)), place / "log")
    if processes.wait(child):
        raise RuntimeError(f"the counted run failed: {(place / 'log').read_text()[-500:]}")
    seen: Counter[str] = Counter()
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        found = _CALL.match(line)
        if found:
            seen[found.group(1)] += 1
            calls.append((found.group(1), seen[found.group(1)]))
    return calls


def _kill_at(strace: str, folder: Path, settings: Path, log: Path, name: str, ordinal: int, result: Result) -> None:
    audit = SpoolAudit(folder, result)
    begun_ns = time.time_ns()
    inject = f"inject={name}:signal=KILL:when={ordinal}"
    code = processes.wait(processes.spawn(_words(strace, folder, settings, "-o", "/dev/null", "-e", inject), log))
    killed = code == -signal.SIGKILL
    result.add("kills_at_changes" if killed else "changes_not_reached")
    if code not in (0, -signal.SIGKILL):
        result.violate(f"killed at {name} {ordinal}: exit code {code}: {log.read_text()[-300:]}")
    audit.after_life(Life(begun_ns, killed), {})
    _last_life(audit, settings, log, result)
    audit.check_gaps()
