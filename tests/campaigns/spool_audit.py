# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a tracer's folder to its promises, from outside: what was committed stays, and what was lost is told."""

import itertools
from pathlib import Path
from typing import NamedTuple

from tests.campaigns.result import Result
from whoneeds.collector.captures import find_capture_problem
from whoneeds.model.errors import EvidenceError
from whoneeds.model.evidence import Gap, SegmentHeader
from whoneeds.segment.read import read_segment
from whoneeds.tracer.status import STATUS_FILE, read_document

#: The two clocks of a host drift apart a little between two readings.
_CLOCKS_NS = 20_000_000
#: One segment and one state file may be half-written at a time.
_MOST_TEMPORARIES = 2


class Life(NamedTuple):
    """One run of a tracer: when it was started (UTC), and whether it was killed rather than asked to end.

    One that was killed before it had said that it runs, or after it had said that it ended, lost nothing. ``since_ns``
    is when it said that it runs.
    """

    begun_ns: int
    killed: bool
    since_ns: int = 0


def committed(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and inode of every segment in a tracer's folder, by name."""
    found = {}
    for path in sorted((folder / "segments").glob("*.seg")):
        seen = path.stat()
        found[path.name] = (seen.st_size, seen.st_ino)
    return found


def count_temporaries(folder: Path) -> int:
    """Half-written files in a tracer's folder."""
    return sum(1 for _path in folder.rglob(".*.tmp"))


class SpoolAudit:
    """The audit of one folder over many lives of its tracer.

    Parameters
    ----------
    folder : Path
    result : Result
    """

    def __init__(self, folder: Path, result: Result) -> None:
        self.folder, self.result = folder, result
        self.lives: list[Life] = []
        self._known: dict[str, tuple[int, int]] = {}
        self._read: dict[str, tuple[SegmentHeader, list[Gap]]] = {}

    def after_life(self, life: Life, listed: dict[str, tuple[int, int]]) -> None:
        """Check the folder after the end of a life.

        Parameters
        ----------
        life : Life
        listed : dict
            From `committed`, at an instant at which the tracer still ran.
        """
        status = read_document(str(self.folder), STATUS_FILE) or {}
        since_ns = status.get("since_ns", 0)
        lost = life.killed and since_ns >= life.begun_ns and status.get("state") != "stopped"
        self.lives.append(life._replace(killed=lost, since_ns=since_ns))
        now = committed(self.folder)
        for name, seen in {**self._known, **listed}.items():
            if now.get(name) != seen:
                self.result.violate(f"life {len(self.lives)}: committed {name} is {now.get(name)}, was {seen}")
        for name in now.keys() - self._known.keys():
            try:
                segment = read_segment(str(self.folder / "segments" / name))
                self._read[name] = (segment.header, segment.tables[Gap])
                self.result.add("segments_verified")
                if segment.header.capture_digest is not None:
                    self._check_capture(name, segment.header)
            except EvidenceError as error:
                self.result.violate(f"life {len(self.lives)}: {name} does not verify: {error}")
        self._known = now
        temporaries = count_temporaries(self.folder)
        self.result.note_worst("temporary_files", temporaries)
        if temporaries > (_MOST_TEMPORARIES if life.killed else 0):
            self.result.violate(f"life {len(self.lives)}: {temporaries} half-written files lie about")
        if temporaries and life.killed:
            self.result.add("half_written_files")

    def _check_capture(self, name: str, header: SegmentHeader) -> None:
        """The capture file that a segment names must be beside it, whole."""
        path = self.folder / "segments" / name
        problem = find_capture_problem(path, header.capture_digest or "", header.capture_bytes or 0)
        self.result.add("capture_files_verified")
        if problem is not None:
            self.result.violate(f"life {len(self.lives)}: the capture file of {name}: {problem}")

    def check_gaps(self) -> None:
        """Between two segments with a kill between them, a Gap must cover the time from the one to the other."""
        ordered = sorted((header.opened_ns, name) for name, (header, _) in self._read.items())
        names = [name for _, name in ordered]
        for before, after in itertools.pairwise(names):
            header, gaps = self._read[after]
            ended = self._ended_between(self._read[before][0].opened_ns, header.opened_ns)
            lost = [life.since_ns for life in ended if life.killed]
            if not lost:
                continue
            begin_ns = max(self._read[before][0].closed_ns, min(lost))
            self.result.add("losses_told")
            if not any(
                gap.source == "tracer"
                and gap.reason == "failed"
                and gap.first_ns <= begin_ns + _CLOCKS_NS
                and gap.last_ns >= header.opened_ns - _CLOCKS_NS
                for gap in gaps
            ):
                self.result.violate(f"no Gap in {after} tells of the loss since {before}: {ended}, {gaps}")

    def _ended_between(self, first_ns: int, last_ns: int) -> list[Life]:
        """The lives that ended after one segment was opened and before another was."""
        starts = [life.begun_ns for life in self.lives] + [2**63]
        return [life for life, next_ns in zip(self.lives, starts[1:], strict=True) if first_ns < next_ns <= last_ns]
