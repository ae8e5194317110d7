# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample again and again, and take in between what is told meanwhile, until a signal or the set time ends it.

The beat follows the monotonic clock. A sample that took much CPU time puts off the next one, and so do events, so that
neither takes more than `CPU_SHARE` of one core for long.
"""

import gc
import resource
import time
from typing import Any, NamedTuple, Optional

from whoneeds.model.errors import HostError
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import clocks
from whoneeds.tracer.notify import ServiceNotifier
from whoneeds.tracer.recording import Tracer
from whoneeds.tracer.settings import Settings
from whoneeds.tracer.signals import StopSignal

#: Most of one core that sampling may take, and that events may take: after c CPU seconds of either, it goes on
#: c / CPU_SHARE later. Events that the kernel cannot keep until then are counted as lost.
CPU_SHARE = 0.10
_STATUS_EVERY_S = 1.0
#: How often events are taken in. A process that is asked within this time can still say who it is.
_EVENTS_EVERY_S = 0.5


class _Pace(NamedTuple):
    """When the samples of a run begin."""

    begin_s: float
    period_s: float

    def next_after(self, now_s: float) -> float:
        """The first beat after an instant of the monotonic clock."""
        return self.begin_s + (int((now_s - self.begin_s) / self.period_s) + 1) * self.period_s


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
        if confine:
            tracer.confine()
        tracer.write_status("running")
        if say is not None:
            say(f"tracing {settings.host} every {settings.period_s:g} s into {settings.dir}")
        try:
            _beat(tracer, stop, notifier)
            tracer.take_last()
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
            segments = "1 segment" if usage.segments == 1 else f"{usage.segments} segments"
            samples = "1 sample" if tracer.samples == 1 else f"{tracer.samples} samples"
            say(f"{samples}; {segments}, {usage.bytes} bytes in {settings.dir}")
        if spool.waiting:
            raise HostError(
                "segments could not be written",
                expected="room on the disk",
                found=f"{spool.waiting} segments left in memory",
                remedy="make room and start the tracer again",
            )
    finally:
        if tracer is not None:
            tracer.release()
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
        if tracer.period_s != pace.period_s:
            pace = _Pace(now_s, tracer.period_s)
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
            if tracer.observers.hears:
                if now_s >= events_s:
                    cpu_s = time.process_time()
                    tracer.take_between()
                    events_s = now_s + max(_EVENTS_EVERY_S, (time.process_time() - cpu_s) / CPU_SHARE)
                naps_s.append(events_s - now_s)
            stop.wait(min(naps_s))
        if end_s is not None and now_s >= end_s:
            return
