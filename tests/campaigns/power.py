# SPDX-License-Identifier: GPL-3.0-or-later
"""The power campaign: cut the power of a real file system while segments and stores are committed on it."""

import hashlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.campaigns import processes
from tests.campaigns.kill_ingest import IngestTrial, read_store
from tests.campaigns.loop_disk import LoopDisk, Unavailable, enter_mount_namespace
from tests.campaigns.result import Result
from tests.campaigns.segments import Tables, make_segment
from whoneeds.collector.captures import find_capture_problem
from whoneeds.collector.ingest import ingest
from whoneeds.model.errors import EvidenceError, WhoneedsError
from whoneeds.model.evidence import SegmentHeader
from whoneeds.segment.read import read_segment
from whoneeds.segment.spool import open_spool
from whoneeds.store.session import open_store

_LONGEST_WRITE_S = 0.12
_BUDGET_BYTES = 1 << 30
#: Power cuts on one disk before it is emptied.
_EPOCH = 50


def run(result: Result) -> None:
    """Run it in a process of its own, since it moves into another mount namespace: `result.count` cuts."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _report(result, send)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        text = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        name, _, number = rest.rpartition(" ")
        if kind == "figure":
            result.add(name, int(number))
        elif kind == "skip":
            result.skip(rest)
        elif kind == "violation":
            result.violate(rest)
    if code:
        result.violate(f"the campaign itself ended with {code}")


def _report(result: Result, send: int) -> None:
    """In the child: run the trials and write what they found to a pipe. Never returns."""
    code = 1
    try:
        with os.fdopen(send, "w", encoding="utf-8", errors="backslashreplace") as pipe:
            found = Result(result.campaign, result.seed, result.count)
            found.violate = found.violations.append  # type: ignore[method-assign]
            found.skip = found.skipped.append  # type: ignore[method-assign]
            try:
                enter_mount_namespace()
                with tempfile.TemporaryDirectory(prefix="whoneeds-power-") as made:
                    _cut_all(Path(made), found, random.Random(result.seed))
            except Unavailable as error:
                found.skip(f"power cuts: {error}")
            lines = [f"figure {name} {number}" for name, number in found.figures.items()]
            lines += [f"violation {what}".replace("\n", " ") for what in found.violations]
            lines += [f"skip {what}".replace("\n", " ") for what in found.skipped]
            pipe.write("\n".join(lines))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _cut_all(place: Path, result: Result, rng: random.Random) -> None:
    disk = LoopDisk(place)
    try:
        for number in range(result.count):
            _cut_spool(disk, place / "log", number, rng, result)
        trial_place = place / "trial"
        trial_place.mkdir()
        trial = IngestTrial(trial_place, rng)
        for number in range(max(result.count // 25, 1)):
            _cut_store(disk, trial, number, rng, result)
    finally:
        disk.remove()


def _write_until_cut(
    disk: LoopDisk, log: Path, call: Callable[[int], None], after_s: float, acknowledged: int
) -> list[str]:
    """Let a process write and acknowledge, cut the power, start anew; what it had acknowledged before the cut.

    The clock begins with the first acknowledgement, if there is to be one.
    """
    receive, send = os.pipe()

    def write() -> int:
        call(send)
        return 0

    child = processes.fork_call(write, log)
    os.close(send)
    with os.fdopen(receive, "rb", buffering=0) as pipe:
        before = b"".join(pipe.readline() for _ in range(acknowledged))
        time.sleep(after_s)
        disk.cut_power()
        # an acknowledgement that is in the pipe by now was written before the child could notice the cut
        processes.kill_group(child)
        processes.wait(child)
        return (before + pipe.read()).decode().split()


def _cut_spool(disk: LoopDisk, log: Path, number: int, rng: random.Random, result: Result) -> None:
    """Cut the power while a spool commits segments."""
    folder = disk.path / f"trace-{number}"
    seed = rng.random()

    def commit(send: int) -> None:
        own = random.Random(seed)
        spool = open_spool(str(folder), _BUDGET_BYTES)
        for turn in range(1_000_000):
            header, tables = make_segment("h1", turn, own.randrange(0, 60), own)
            before = _names(folder)
            spool.put(*_with_capture(header, tables, own.randbytes(own.randrange(1, 30_000))))
            if spool.waiting:  # the disk refused, as it must after the cut
                return
            (name,) = _names(folder) - before
            os.write(send, f"{name}\n".encode())

    told = _write_until_cut(disk, log, commit, rng.uniform(0, _LONGEST_WRITE_S), rng.randrange(3))
    disk.restart()
    result.add("power_cuts")
    result.add("segments_acknowledged", len(told))
    there = _names(folder)
    for name in sorted(set(told) - there):
        result.violate(f"cut {number}: acknowledged {name} is gone")
    for name in sorted(there):
        try:
            path = folder / "segments" / name
            header = read_segment(str(path)).header
            problem = find_capture_problem(path, header.capture_digest or "", header.capture_bytes or 0)
            if problem is not None:
                result.violate(f"cut {number}: the capture file of {name}: {problem}")
        except EvidenceError as error:
            result.violate(f"cut {number}: {name} is there and not whole: {error}")
    if folder.is_dir():
        spool = open_spool(str(folder), _BUDGET_BYTES)
        spool.put(*make_segment("h1", 2_000_000, 3, rng))
        for path in folder.glob("segments/*.pcap"):
            if not path.with_suffix(".seg").exists():
                result.violate(f"cut {number}: {path.name} stays without its segment")
        if spool.waiting or any(folder.rglob(".*.tmp")):
            result.violate(f"cut {number}: the next tracer cannot go on, or half-written files stay")
        spool.close()
    if number % _EPOCH == _EPOCH - 1:
        for old in disk.path.glob("trace-*"):
            shutil.rmtree(old)


def _with_capture(
    header: SegmentHeader, tables: Tables, capture: bytes
) -> tuple[SegmentHeader, Tables, tuple[()], bytes]:
    """A segment that names a capture file, as a spool takes both."""
    digest = hashlib.sha256(capture).hexdigest()
    return replace(header, capture_digest=digest, capture_bytes=len(capture)), tables, (), capture


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("segments/*.seg")}


def _cut_store(disk: LoopDisk, trial: IngestTrial, number: int, rng: random.Random, result: Result) -> None:
    """Cut the power while hosts are taken into a store, one after another; the next ingest must complete it."""
    store = disk.path / f"store-{number}"
    folders = sorted(trial.incoming.iterdir())

    def take(send: int) -> None:
        for folder in folders:
            with open_store(store, create=True, write=True) as opened:
                ingest(opened, [folder], host=folder.name)
            os.write(send, f"{folder.name}\n".encode())

    wait_s = rng.uniform(0, 0.5 * trial.longest_s)
    told = _write_until_cut(disk, trial.log, take, wait_s, rng.randrange(len(folders)))
    disk.restart()
    result.add("store_power_cuts")
    result.add("hosts_acknowledged", len(told))
    if told:
        try:
            _check_told(store, told, trial, f"store cut {number}", result)
        except WhoneedsError as error:
            result.violate(f"store cut {number}: after {told} were acknowledged: {error}")
    if trial.finish(store):
        result.violate(f"store cut {number}: the next ingest failed: {trial.log.read_text()[-300:]}")
    else:
        trial.compare(store, f"store cut {number}", result)
    shutil.rmtree(store)


def _check_told(store: Path, told: list[str], trial: IngestTrial, what: str, result: Result) -> None:
    """Every row of the hosts that were acknowledged is in the store."""
    found = read_store(store)
    if found["problems"]:
        result.violate(f"{what}: {found['problems'][:2]}")
    for table, rows in trial.rows.items():
        wanted = {row for row in rows for host in told if f"'host': '{host}'" in row}
        if not wanted <= set(found[table]):
            result.violate(f"{what}: {len(wanted - set(found[table]))} acknowledged rows of {table} are gone")
