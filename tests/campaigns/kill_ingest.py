# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill ``whoneeds ingest`` at random instants, run two at once, and compare the store with an undisturbed one."""

import hashlib
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from tests.campaigns import processes
from tests.campaigns.result import Result
from tests.campaigns.segments import make_fleet
from whoneeds.cli.main import main
from whoneeds.model.evidence import (
    Gap,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
)
from whoneeds.store.session import open_store

_TABLES = (SegmentHeader, ProcessRecord, SocketRecord, TranslationRecord, UnixConnectionRecord, Gap)
_HOSTS, _SEGMENTS, _SOCKETS = 4, 6, 40
#: Kills of one ingest before it is let run to its end.
_MOST_KILLS = 3
_FAILED = 1


def read_store(path: Path) -> dict[str, list[str]]:
    """All evidence of a store, by table."""
    with open_store(path) as store:
        rows = {record.__name__: sorted(map(repr, store.rows(record))) for record in _TABLES}
        rows["problems"] = [str(problem) for problem in store.problems]
    return rows


def list_files(path: Path) -> dict[str, str]:
    """Digest of every file of a store, by its path within."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


class IngestTrial:
    """Segments of a fleet, and what a store of them must come to.

    Parameters
    ----------
    place : Path
        An empty folder.
    rng : random.Random
    """

    def __init__(self, place: Path, rng: random.Random) -> None:
        self.place, self.incoming, self.log = place, place / "incoming", place / "log"
        self.segments = len(list(make_fleet(self.incoming, _HOSTS, _SEGMENTS, _SOCKETS, rng)))
        begin_s = time.monotonic()
        code = self.finish(place / "undisturbed")
        self.longest_s = time.monotonic() - begin_s
        if code:
            raise RuntimeError(f"the undisturbed ingest ended with {code}: {self.log.read_text()[-500:]}")
        self.rows, self.files = read_store(place / "undisturbed"), list_files(place / "undisturbed")

    def start(self, store: Path) -> int:
        """Start an ingest in a process of its own."""
        return processes.fork_call(lambda: main(["ingest", str(self.incoming), "--store", str(store)]), self.log)

    def finish(self, store: Path) -> int:
        """Run an ingest to its end; its exit code."""
        return processes.wait(self.start(store), 120)

    def compare(self, store: Path, what: str, result: Result) -> None:
        """Hold a store against the undisturbed one: rows and files."""
        found = read_store(store)
        for table, rows in self.rows.items():
            if found[table] != rows:
                result.violate(f"{what}: {table} has {len(found[table])} rows that differ from {len(rows)} expected")
        files = list_files(store)
        if files != self.files:
            differing = sorted(set(files.items()) ^ set(self.files.items()))
            result.violate(f"{what}: files differ: {differing[:3]}")
        result.add("stores_compared")


def kill_ingests(result: Result, count: int, rng: random.Random) -> None:
    """Kill ingests at `count` random instants, each store then finished and compared."""
    with tempfile.TemporaryDirectory(prefix="whoneeds-ingest-") as made:
        trial = IngestTrial(Path(made), rng)
        done = 0
        while done < count:
            store = trial.place / "store"
            for _ in range(min(rng.randint(1, _MOST_KILLS), count - done)):
                child = trial.start(store)
                time.sleep(rng.uniform(0, 1.1 * trial.longest_s))
                # the reader's own process must notice by itself: only the ingest is killed
                os.kill(child, 9)
                code = processes.wait(child)
                result.add("ingest_kills" if code == -9 else "ingests_that_ended_first")
                done += 1
            code = trial.finish(store)
            if code:
                result.violate(f"after {done} kills the next ingest ended with {code}: {trial.log.read_text()[-300:]}")
            else:
                trial.compare(store, f"after {done} kills", result)
            shutil.rmtree(store)


def race_ingests(result: Result, count: int, rng: random.Random) -> None:
    """Start two ingests into one store at once, `count` times: one works, the other is told that it is busy."""
    with tempfile.TemporaryDirectory(prefix="whoneeds-race-") as made:
        trial = IngestTrial(Path(made), rng)
        for number in range(count):
            store = trial.place / "store"
            first = trial.start(store)
            time.sleep(rng.uniform(0, 0.3 * trial.longest_s))
            begin_s = time.monotonic()
            trial.log.write_text("")
            second = trial.start(store)
            codes = sorted((processes.wait(second, 120), processes.wait(first, 120)))
            result.add("races")
            if codes == [0, _FAILED] and "busy" in trial.log.read_text():
                result.add("races_with_a_busy_one")
            elif codes != [0, 0]:  # both done: the first had ended before the second began
                result.violate(f"race {number}: exit codes {codes}: {trial.log.read_text()[-300:]}")
            result.note_worst("seconds_of_a_race", time.monotonic() - begin_s)
            trial.compare(store, f"race {number}", result)
            shutil.rmtree(store)
