# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample again and again, and close a segment when it is old or large enough.

Between samples the kernel's events are taken in, where there are any; see `whoneeds.tracer.events`.

The beat follows the monotonic clock, so that a step of the wall clock changes nothing but the segment in which it
happens: that one is closed and a new one opened. A beat that was missed is a Gap. A sample that took much CPU time
puts off the next one, and so do events, so that neither takes more than `CPU_SHARE` of one core for long.
"""

import gc
import hashlib
import os
import resource
import time
from typing import Any, Dict, Hashable, List, Mapping, NamedTuple, Optional, Set, Union

from whoneeds import __version__
from whoneeds.model.errors import HostError
from whoneeds.model.evidence import SEGMENT_SCHEMA, SegmentHeader
from whoneeds.model.identity import segment_id
from whoneeds.model.schema import is_whole_number
from whoneeds.segment.spool import Spool, open_spool
from whoneeds.tracer import clocks
from whoneeds.tracer.addresses import list_addresses
from whoneeds.tracer.bpf.listing import ListingSampler
from whoneeds.tracer.bpf.source import ProgramEvents
from whoneeds.tracer.event_sources import Events, open_any_events
from whoneeds.tracer.events import EventSource, open_events
from whoneeds.tracer.location import locate
from whoneeds.tracer.notify import ServiceNotifier
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.packets import PacketLimits, PacketSource, begin_capture
from whoneeds.tracer.privileges import give_up_privileges
from whoneeds.tracer.sampler import Sampler, Tally, choose_source, gap_reason
from whoneeds.tracer.settings import Settings
from whoneeds.tracer.signals import StopSignal
from whoneeds.tracer.socket_rows import Where
from whoneeds.tracer.status import STATUS_FILE, own_identity, read_document, write_document
from whoneeds.tracer.surroundings import Surroundings

#: Most of one core that sampling may take, and that events may take: after c CPU seconds of either, it goes on
#: c / CPU_SHARE later. Events that the kernel cannot keep until then are counted as lost.
CPU_SHARE = 0.10
#: Written bytes that a row takes on average, before a first segment teaches better.
_ROW_BYTES = 48.0
#: Rows that a reader takes are 5 million; a segment is closed long before.
_MAX_ROWS = 500_000
#: Differences between the clocks beyond this are a step, not an adjustment.
_STEP_NS = 1_000_000_000
_STATUS_EVERY_S = 1.0
#: How often events are taken in. A process that is asked within this time can still say who it is.
_EVENTS_EVERY_S = 0.5
_MAX_FAILURES = 5
_NO_PACKETS = "no packets are taken in, so that of UDP connected sockets alone are known"
_ONLY_SAMPLES = "traced by samples alone, so that connections shorter than a period are missed"


class _Pace(NamedTuple):
    """When the samples of a run begin."""

    begin_s: float
    period_s: float

    def next_after(self, now_s: float) -> float:
        """The first beat after an instant of the monotonic clock."""
        return self.begin_s + (int((now_s - self.begin_s) / self.period_s) + 1) * self.period_s


class Tracer:
    """The state of one run: its spool, its sampler, and the segment that is open.

    Parameters
    ----------
    settings : Settings
    spool : Spool
    """

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self.settings, self.spool = settings, spool
        self.boot_id = clocks.read_boot_id()
        self.source = choose_source(settings.sources)
        self.sampler: Union[Sampler, ListingSampler] = Sampler(self.source)
        self.privileged = sees_all_processes()
        self.since = clocks.now()
        self.events: Optional[Events] = None
        self.samples = 0
        self.gaps = 0
        self.tally = Tally(0, 0, 0)
        self.location: Optional[str] = None
        self.last_error: Optional[str] = None
        self._identity = own_identity()
        self._lost_before = 0
        self._row_bytes = _ROW_BYTES
        self._last: Optional[Instant] = None
        self._addresses: List[str] = []
        self._failures = 0
        self._no_events: Optional[HostError] = None
        if self.source == "table" and {"events", "tracefs"} & set(settings.sources):
            try:
                by_programs = "events" in settings.sources
                self.events = open_any_events(self._identity) if by_programs else open_events(self._identity)
            except HostError as error:
                self._no_events = error
        if isinstance(self.events, ProgramEvents):
            self.sampler, self.privileged = ListingSampler(self.events), True
        self.packets: Optional[PacketSource] = None
        self._no_packets: Optional[HostError] = None
        if "packets" in settings.sources and settings.packets != "off" and self.source == "table":
            limits = PacketLimits(settings.packets_per_s, settings.packets_bytes)
            own = self.sampler.own_namespace
            self.packets, self._no_packets = begin_capture(settings.packets, limits, own, self.since)
        self.surroundings = Surroundings() if self.source == "table" else None
        self._committed_ns = self.since.wall_ns
        self.open: Observation = self._open_segment(self.since, {})
        self._tell_of_crash(read_document(settings.dir, STATUS_FILE))

    def _open_segment(self, at: Instant, told: Mapping[Where, Set[Hashable]]) -> Observation:
        opened = Observation(self.settings.host, self.boot_id, at, told)
        opened.watch(self.events is not None and self.samples > 0)
        try:
            self._addresses = list_addresses()
        except HostError as error:
            self._addresses = []
            opened.add_gap("addresses", gap_reason(error), str(error), at, at)
        self.location = locate(self._addresses, self.settings.location_rules)
        if self._no_events is not None:
            opened.add_gap("events", gap_reason(self._no_events), f"{_ONLY_SAMPLES}: {self._no_events}", at, at)
        if self._no_packets is not None:
            opened.add_gap("packets", gap_reason(self._no_packets), f"{_NO_PACKETS}: {self._no_packets}", at, at)
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
        if self._last is not None and at.boot_ns - self._last.boot_ns > 2e9 * self.settings.period_s:
            missed = int((at.boot_ns - self._last.boot_ns) / (1e9 * self.settings.period_s)) - 1
            self.open.add_gap("sampler", "late", "samples came later than set", self._last, at, missed)
        try:
            self.take_events()
            self.take_packets()
            self.tally = self.sampler.sample(self.open, at)
            self._failures = 0
            if self.surroundings is not None:
                self.surroundings.look(self.open, at, self.sampler.doors, self.sampler.owners)
            if self.packets is not None:
                self.packets.watch(self.open, clocks.now(), self.sampler.doors)
            if self.events is not None:
                self.open.watch(True)
                if isinstance(self.events, EventSource):
                    self.events.watch(self.open, at, self.sampler.own_namespace, self.sampler.doors)
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

    def take_events(self) -> None:
        """Take in the events that came since the last time; if they fail, samples go on alone."""
        if self.surroundings is not None:
            self.surroundings.read(self.open, clocks.now())
        if self.events is None:
            return
        try:
            self.events.read(self.open, clocks.now)
        except (HostError, OSError) as error:
            at = clocks.now()
            self.last_error = str(error)
            self.open.add_gap("events", "failed", f"{_ONLY_SAMPLES}: {error}", at, at)
            self._no_events = error if isinstance(error, HostError) else HostError("events", found=str(error))
            self.events.close()
            self.events = None
            if isinstance(self.sampler, ListingSampler):  # what it lists from is closed with the events
                self.sampler, self.privileged = Sampler(self.source), sees_all_processes()
            self.open.watch(False)

    def take_packets(self) -> None:
        """Take in the packets that came since the last time; if that fails, the rest goes on."""
        if self.packets is None:
            return
        at = clocks.now()
        try:
            self.packets.read(self.open, at)
        except HostError as error:
            self.last_error = str(error)
            self.open.add_gap("packets", "failed", f"{_NO_PACKETS}: {error}", at, at)
            self._no_packets = error
            self.packets.close()
            self.packets = None

    def _is_full(self, at: Instant) -> bool:
        rows = self.open.rows + (0 if self.packets is None else self.packets.rows)
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
        self.sampler.forget_gone()
        if self.events is not None:
            self.events.forget_gone()
        gc.collect()
        self.gaps += self.open.gaps
        self.open = self._open_segment(at, self.open.told())

    def close(self, at: Instant) -> None:
        """Commit the open segment if it holds a sample or a gap."""
        observation = self.open
        if not observation.samples and not observation.gaps:
            return
        packets, capture = ({}, b"") if self.packets is None else self.packets.take(observation, at)
        tables = {**observation.records(at), **packets}
        header = SegmentHeader(
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
            period_s=self.settings.period_s,
            samples=observation.samples,
            sources=tuple(sorted(observation.sources)) or (self.source,),
            privileged=self.privileged,
            addresses=tuple(self._addresses),
            location=self.location,
            dropped_segments=self.spool.dropped_segments,
            capture_digest=hashlib.sha256(capture).hexdigest() if capture else None,
            capture_bytes=len(capture) or None,
        )
        try:
            size = self.spool.put(header, tables, observation.lives, capture)
            packed = sum(len(block.packed) for block in observation.lives)
            self._row_bytes = max((size - packed) / max(sum(map(len, tables.values())), 1), 8.0)
        finally:
            self._note_spool(at)

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
            self.last_error = "the disk does not take segments; they wait in memory"
        else:
            self._committed_ns = at.wall_ns
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
            "period_s": self.settings.period_s,
            "sources": [self.source] if self.events is None else ["events", self.source],
            "events": None if self.events is None else self.events.tally._asdict(),
            "packets": None if self.packets is None else self.packets.packets,
            "location": self.location,
            "privileged": self.privileged,
            "samples": self.samples,
            "sockets": self.tally.sockets,
            "processes": self.tally.processes,
            "waiting": self.spool.waiting,
            "gaps": self.gaps + self.open.gaps,
            "cpu_s": round(cpu_s, 3),
            "cpu_share": round(cpu_s / ran_s, 5) if ran_s > 0 else None,
            "last_error": self.last_error,
        }
        try:
            write_document(self.spool.directory, STATUS_FILE, document)
        except OSError as error:
            self.last_error = f"status file: {error.strerror}"


def sees_all_processes(root: str = "/proc") -> bool:
    """Whether the caller holds the rights to look into processes of other users (SYS_PTRACE, DAC_READ_SEARCH)."""
    try:
        with open(f"{root}/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("CapEff:"):
                    held = int(line.split()[1], 16)
                    return bool(held & 1 << 19) and bool(held & (1 << 1 | 1 << 2))
    except (OSError, ValueError, IndexError):
        pass
    return os.geteuid() == 0


def run(settings: Settings, *, say: Any = None, confine: bool = False) -> None:
    """Trace until a signal or the set time ends it; what was seen is on disk when this returns.

    Parameters
    ----------
    settings : Settings
    say : callable, optional
        Takes a line of text for the person who watches.
    confine : bool, default False
        Whether to give up every privilege of this process once what needs some is prepared. Where the kernel's
        programs cannot be had, sampling itself needs them, and they are kept.

    Raises
    ------
    WhoneedsError
    """
    _allow_descriptors()
    gc.disable()  # rows by the ten thousand are no garbage; it is collected once a segment
    stop = StopSignal()
    notifier = ServiceNotifier()
    spool = open_spool(settings.dir, settings.budget_bytes)
    tracer: Optional[Tracer] = None
    try:
        tracer = Tracer(settings, spool)
        if confine and isinstance(tracer.events, ProgramEvents):
            if tracer.surroundings is not None:
                tracer.surroundings.prepare(tracer.open, clocks.now())
            give_up_privileges()
        tracer.write_status("running")
        if say is not None:
            say(f"tracing {settings.host} every {settings.period_s:g} s into {settings.dir}")
        try:
            _beat(tracer, stop, notifier)
            tracer.take_events()
            if tracer.packets is not None:
                time.sleep(tracer.packets.finish())
                tracer.take_packets()
            if tracer.events is not None:
                tracer.events.end(tracer.open, clocks.now())
            tracer.close(clocks.now())
        except BaseException as error:
            tracer.save()
            tracer.last_error = str(error) or type(error).__name__
            tracer.write_status("failed")
            raise
        notifier.stopping()
        tracer.write_status("stopped")
        if say is not None:
            usage = spool.usage()
            say(f"{tracer.samples} samples; {usage.segments} segments, {usage.bytes} bytes in {settings.dir}")
        if spool.waiting:
            raise HostError(
                "segments could not be written",
                expected="room on the disk",
                found=f"{spool.waiting} segments left in memory",
                remedy="make room and start the tracer again",
            )
    finally:
        if tracer is not None and tracer.events is not None:
            tracer.events.close()
        if tracer is not None and tracer.packets is not None:
            tracer.packets.close()
        if tracer is not None and tracer.surroundings is not None:
            tracer.surroundings.close()
        spool.close()


def _allow_descriptors() -> None:
    """Take as many descriptors as the system lets us have: a channel is open for each network namespace."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _beat(tracer: Tracer, stop: StopSignal, notifier: ServiceNotifier) -> None:
    """Sample at every beat until the end."""
    begin_s = time.monotonic()
    pace = _Pace(begin_s, tracer.settings.period_s)
    end_s = None if tracer.settings.for_s is None else begin_s + tracer.settings.for_s
    due_s, status_s, first = begin_s, 0.0, True
    events_s = begin_s
    while not stop.received:
        cpu_s = time.process_time()
        tracer.take_sample()
        cost_s = time.process_time() - cpu_s
        now_s = time.monotonic()
        if first:
            notifier.ready()
            first, cost_s = False, 0.0  # only the first sample has to look into every process
        if now_s - status_s >= _STATUS_EVERY_S:
            tracer.write_status("running")
            status_s = now_s
        due_s = pace.next_after(max(now_s, due_s + cost_s / CPU_SHARE - pace.period_s))
        while not stop.received:
            notifier.alive()
            now_s = time.monotonic()
            wake_s = due_s if end_s is None else min(due_s, end_s)
            if now_s >= wake_s:
                break
            naps_s = [wake_s - now_s]
            if notifier.watchdog_s is not None:
                naps_s.append(notifier.watchdog_s / 3)
            if tracer.events is not None or tracer.packets is not None:
                if now_s >= events_s:
                    cpu_s = time.process_time()
                    tracer.take_events()
                    tracer.take_packets()
                    events_s = now_s + max(_EVENTS_EVERY_S, (time.process_time() - cpu_s) / CPU_SHARE)
                naps_s.append(events_s - now_s)
            stop.wait(min(naps_s))
        if end_s is not None and now_s >= end_s:
            return
