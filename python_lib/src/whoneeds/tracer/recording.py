# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a run: what is looked with, the segment that is open, and where segments go.

A step of the wall clock changes nothing but the segment in which it happens: that one is closed and a new one opened.
A sample that was missed is a Gap, and so is what was left out to keep within the budget.
"""

import gc
import hashlib
import resource
import time
from typing import Any, Dict, Hashable, List, Mapping, Optional, Set, Type

from whoneeds import __version__
from whoneeds.model.errors import HostError
from whoneeds.model.evidence import SEGMENT_SCHEMA, SegmentHeader
from whoneeds.model.identity import segment_id
from whoneeds.model.schema import is_whole_number
from whoneeds.segment.spool import Spool
from whoneeds.tracer import clocks
from whoneeds.tracer.addresses import list_addresses
from whoneeds.tracer.budget import WITHOUT_PACKETS, Budget, period_at, words_of
from whoneeds.tracer.event_sources import Events
from whoneeds.tracer.location import locate
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.observers import Observers
from whoneeds.tracer.sampler import Tally, gap_reason
from whoneeds.tracer.settings import Settings
from whoneeds.tracer.socket_rows import Where
from whoneeds.tracer.status import STATUS_FILE, own_identity, read_document, write_document

#: Written bytes that a row takes on average, before a first segment teaches better.
_ROW_BYTES = 48.0
#: Rows that a reader takes are 5 million; a segment is closed long before.
_MAX_ROWS = 500_000
#: Differences between the clocks beyond this are a step, not an adjustment.
_STEP_NS = 1_000_000_000
_MAX_FAILURES = 5
_DISK_REFUSES = "the disk does not take segments; they wait in memory"


class Tracer:
    """The state of one run.

    Parameters
    ----------
    settings : Settings
    spool : Spool
    """

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self.settings, self.spool = settings, spool
        self.boot_id = clocks.read_boot_id()
        self.since = clocks.now()
        self.samples = 0
        self.gaps = 0
        self.tally = Tally(0, 0, 0)
        self.location: Optional[str] = None
        self.last_error: Optional[str] = None
        self._identity = own_identity()
        self._budget = Budget(settings.cpu_share, settings.memory_bytes, time.monotonic(), time.process_time())
        self._segment_period_s = settings.period_s
        self._status_error: Optional[str] = None
        self._lost_before = 0
        self._row_bytes = _ROW_BYTES
        self._last: Optional[Instant] = None
        self._addresses: List[str] = []
        self._failures = 0
        self.observers = Observers(settings, self._identity, self.since)
        self._committed_ns = self.since.wall_ns
        self.open: Observation = self._open_segment(self.since, {})
        self._tell_of_crash(read_document(settings.dir, STATUS_FILE))

    @property
    def events(self) -> Optional[Events]:
        """Where the kernel tells of connections; None where it does not."""
        return self.observers.events

    @property
    def period_s(self) -> float:
        """Time between two samples at present: as set, or longer to keep within the budget."""
        return period_at(self.settings.period_s, self._budget.step)

    def confine(self) -> None:
        """Give up every privilege, if what is open needs none any more.

        Raises
        ------
        HostError
        """
        self.observers.confine(self.open, clocks.now())

    def _open_segment(self, at: Instant, told: Mapping[Where, Set[Hashable]]) -> Observation:
        opened = Observation(self.settings.host, self.boot_id, at, told)
        self._segment_period_s = self.period_s
        opened.watch(self.events is not None and self.samples > 0)
        try:
            self._addresses = list_addresses()
        except HostError as error:
            self._addresses = []
            opened.add_gap("addresses", gap_reason(error), str(error), at, at)
        self.location = locate(self._addresses, self.settings.location_rules)
        self.observers.tell_missing(opened, at)
        return opened

    def _tell_of_crash(self, before: Optional[Dict[str, Any]]) -> None:
        """If the last tracer here did not end well, what it had not written yet is a gap."""
        if before is None or not is_whole_number(before.get("committed_ns")):
            return
        if before.get("state") not in ("running", "failed") and not before.get("waiting"):
            return
        first = Instant(0, self.since.boot_ns - max(self.since.wall_ns - before["committed_ns"], 0))
        # until the gap is on disk, the next tracer must find where it begins: this one may be killed as well
        self._committed_ns = min(before["committed_ns"], self.since.wall_ns)
        detail = "the tracer or the host did not end as it should; what was not on disk yet is lost"
        self.open.add_gap("tracer", "failed", detail, first, self.since)

    def take_sample(self) -> None:
        """Take one sample; a failure of the host becomes a gap, and too many in a row end the run.

        Raises
        ------
        HostError
        """
        at = clocks.now()
        opened = self.open.opened
        if abs((at.wall_ns - opened.wall_ns) - (at.boot_ns - opened.boot_ns)) > _STEP_NS and self.open.samples:
            step_s = ((at.wall_ns - opened.wall_ns) - (at.boot_ns - opened.boot_ns)) / 1e9
            self.open.add_gap("clock", "ambiguous", f"the wall clock was set by {step_s:+.1f} s", at, at)
            self.rotate(at)
        if self._last is not None and at.boot_ns - self._last.boot_ns > 2e9 * self.period_s:
            missed = int((at.boot_ns - self._last.boot_ns) / (1e9 * self.period_s)) - 1
            self.open.add_gap("sampler", "late", "samples came later than set", self._last, at, missed)
        try:
            self.tally = self.observers.sample(self.open, at)
            self._failures = 0
        except (HostError, OSError) as error:
            self._failures += 1
            self.last_error = str(error)
            if self._failures >= _MAX_FAILURES:
                raise
            reason = gap_reason(error) if isinstance(error, HostError) else "failed"
            self.open.add_gap("sampler", reason, str(error), at, at, 1)
        self._last = at
        self.samples += 1
        if self._is_full(at):
            self.rotate(clocks.now())
        elif self.spool.waiting:
            self._flush(at)
        self._keep_budget()

    def take_between(self) -> None:
        """Take in what came between two samples: events and packets."""
        self.observers.take_events(self.open)
        self.observers.take_packets(self.open)

    def take_last(self) -> None:
        """Take in the last of what came, at the end of a run."""
        self.observers.take_events(self.open)
        if self.observers.packets is not None:
            time.sleep(self.observers.packets.finish())
            self.observers.take_packets(self.open)
        if self.events is not None:
            self.events.end(self.open, clocks.now)

    def _keep_budget(self) -> None:
        """Do less where the run costs more than it may; a segment has one period, and says why it is not as set."""
        judgement = self._budget.judge(time.monotonic(), time.process_time(), _held_bytes())
        if judgement is None:
            return
        at = clocks.now()
        self.rotate(at)  # a segment has one period, and closing it gives its memory back
        if judgement.reason is not None:
            words = words_of(judgement.step, self.settings.period_s)
            self.open.add_gap("budget", "late", f"from now on {words}: {judgement.reason}", at, at)
        if judgement.step == WITHOUT_PACKETS:
            self.observers.drop_packets(self.open, at)

    def _is_full(self, at: Instant) -> bool:
        packets = self.observers.packets
        rows = self.open.rows + (0 if packets is None else packets.rows)
        packed = sum(len(block.packed) for block in self.open.lives)
        return (
            at.boot_ns - self.open.opened.boot_ns >= 1e9 * self.settings.rotate_s
            or rows * self._row_bytes + packed >= self.settings.rotate_bytes
            or rows + self.open.ends >= _MAX_ROWS
        )

    def rotate(self, at: Instant) -> None:
        """Close the open segment, commit it, and open the next one."""
        self.close(at)
        self.write_status("running")  # up to when all is on disk is what the next tracer goes by if this one is killed
        self.observers.forget_gone()
        self.gaps += self.open.gaps
        told = self.open.told()
        del self.open  # before the next one takes memory
        gc.collect()
        self.open = self._open_segment(at, told)

    def close(self, at: Instant) -> None:
        """Commit the open segment if it holds anything: events may have told something before its first sample."""
        observation = self.open
        heard = 0 if self.observers.packets is None else self.observers.packets.rows
        if not observation.samples and not observation.rows and not observation.ends and not heard:
            return
        packets: Dict[Type[Any], List[Any]] = {}
        capture = b""
        if self.observers.packets is not None:
            packets, capture = self.observers.packets.take(observation, at)
        rows = observation.rows + sum(map(len, packets.values()))
        header = self._header(observation, at, capture)
        try:
            size = self.spool.put(header, {**observation.stream(at), **packets}, observation.lives, capture)
            packed = sum(len(block.packed) for block in observation.lives)
            self._row_bytes = max((size - packed) / max(rows, 1), 8.0)
        finally:
            self._note_spool(at)

    def _header(self, observation: Observation, at: Instant, capture: bytes) -> SegmentHeader:
        return SegmentHeader(
            segment_id=segment_id(self.settings.host, self.boot_id, observation.opened.boot_ns),
            host=self.settings.host,
            boot_id=self.boot_id,
            sequence=observation.opened.boot_ns,
            schema=SEGMENT_SCHEMA,
            tracer_version=__version__,
            opened_ns=observation.opened.wall_ns,
            opened_mono_ns=observation.opened.boot_ns,
            closed_ns=observation.instant_ns(at),
            closed_mono_ns=max(at.boot_ns, observation.opened.boot_ns),
            period_s=self._segment_period_s,
            samples=observation.samples,
            sources=tuple(sorted(observation.sources)) or (self.observers.source,),
            privileged=self.observers.privileged,
            addresses=tuple(self._addresses),
            location=self.location,
            dropped_segments=self.spool.dropped_segments,
            capture_digest=hashlib.sha256(capture).hexdigest() if capture else None,
            capture_bytes=len(capture) or None,
        )

    def release(self) -> None:
        """Close all that the run looks with."""
        self.observers.close()

    def save(self) -> None:
        """Commit what was seen before the run failed, if that can be done; the failure itself counts, not this."""
        try:
            self.close(clocks.now())
        except Exception as error:
            self.last_error = str(error)

    def _flush(self, at: Instant) -> None:
        self.spool.flush()
        self._note_spool(at)

    def _note_spool(self, at: Instant) -> None:
        if self.spool.waiting:
            self.last_error = _DISK_REFUSES
        else:
            self._committed_ns = at.wall_ns
            if self.last_error == _DISK_REFUSES:
                self.last_error = None
        lost = self.spool.lost_segments - self._lost_before
        if lost:
            self._lost_before += lost
            self.open.add_gap("spool", "dropped", "segments that the disk did not take in time", at, at, lost)

    def write_status(self, state: str) -> None:
        """Write the state file; a full disk is no reason to stop."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = usage.ru_utime + usage.ru_stime
        ran_s = (clocks.boot_ns() - self.since.boot_ns) / 1e9
        document = {
            "state": state,
            "pid": self._identity.pid,
            "start_ticks": self._identity.start_ticks,
            "version": __version__,
            "host": self.settings.host,
            "boot_id": self.boot_id,
            "since_ns": self.since.wall_ns,
            "committed_ns": self._committed_ns,
            "period_s": self.period_s,
            "sources": self.observers.sources,
            "events": None if self.events is None else self.events.tally._asdict(),
            "packets": None if self.observers.packets is None else self.observers.packets.packets,
            "budget": words_of(self._budget.step, self.settings.period_s),
            "location": self.location,
            "privileged": self.observers.privileged,
            "samples": self.samples,
            "sockets": self.tally.sockets,
            "processes": self.tally.processes,
            "waiting": self.spool.waiting,
            "gaps": self.gaps + self.open.gaps,
            "cpu_s": round(cpu_s, 3),
            "cpu_share": round(cpu_s / ran_s, 5) if ran_s > 0 else None,
            "last_error": self.last_error or self.observers.last_error or self._status_error,
        }
        try:
            write_document(self.spool.directory, STATUS_FILE, document)
        except OSError as error:
            self._status_error = f"status file: {error.strerror}"
        else:
            self._status_error = None


def _held_bytes(root: str = "/proc") -> int:
    """Memory of this process; 0 where that cannot be known."""
    try:
        with open(f"{root}/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
