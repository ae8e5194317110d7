# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's programs as a source of events. Needs no privilege: descriptors of what was loaded are enough.

Ends of connections are not looked at one by one: they are taken out of the ring by the thousand, packed, and put
into the segment. Only which processes acted on them is read off, so that each can be named while it lives.
"""

import mmap
import os
import struct
from typing import Callable, List, Set, Tuple

from whoneeds.model.errors import HostError
from whoneeds.segment.lives import LIFE_BYTES, MAX_ACTORS, MAX_BLOCK, OFFSETS, pack_lives
from whoneeds.tracer.bpf import machine
from whoneeds.tracer.bpf.layout import LOST_LIVES, LOST_TASKS, NOT_REMEMBERED
from whoneeds.tracer.bpf.load import LIVES_BYTES, TASKS_BYTES, Loaded
from whoneeds.tracer.bpf.ring import HEAD_BYTES, KernelRing
from whoneeds.tracer.bpf.tasks import ToldTasks
from whoneeds.tracer.event_tally import EventTally
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder

#: Numbers and starts of the processes that acted, out of a record with its head.
_ACTORS = struct.Struct(
    f"={HEAD_BYTES + OFFSETS.pids}x{MAX_ACTORS}I{OFFSETS.starts - OFFSETS.pids - 4 * MAX_ACTORS}x{MAX_ACTORS}Q"
)
_STRIDE = HEAD_BYTES + LIFE_BYTES
_COUNTER = struct.Struct("=Q")
_LOSSES = (
    (LOST_LIVES, "ends of connections that the ring had no room for"),
    (LOST_TASKS, "processes that the ring had no room for"),
    (NOT_REMEMBERED, "changes of connections beyond what is remembered at once"),
)


class ProgramEvents:
    """Reads what the programs tell.

    Parameters
    ----------
    loaded : Loaded
        Closed with this.
    root : str
        Where the process file system lies.
    """

    def __init__(self, loaded: Loaded, root: str = "/proc") -> None:
        self._loaded = loaded
        self.tally = EventTally("programs", 0, 0, 0)
        self._tasks = ToldTasks(root)
        self._used: Set[Holder] = set()
        self._lives = KernelRing(loaded.lives, LIVES_BYTES)
        self._told = KernelRing(loaded.tasks, TASKS_BYTES)
        self._counters = mmap.mmap(loaded.counters, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self._lost: List[int] = [0] * (len(_LOSSES) + 1)

    def read(self, observation: Observation, clock: Callable[[], Instant]) -> None:
        """Take in everything that is there by now.

        Parameters
        ----------
        observation : Observation
        clock : callable
            Tells the time.

        Raises
        ------
        HostError
        """
        at = clock()
        lives = 0
        while True:
            records = self._lives.take_alike(LIFE_BYTES, MAX_BLOCK)
            # a process is told of before the first connection that it acts on ends: so it is read after that
            self.take_told(observation)
            if records:
                holders = self._holders(records)
                observation.add_lives(pack_lives(records, _STRIDE, HEAD_BYTES), holders, at)
                for holder in holders:
                    attributes = self._tasks.attributes_of(holder)
                    if attributes is not None:
                        observation.name(holder, attributes)
                self._used |= holders
            lives += len(records) // _STRIDE
            if len(records) < MAX_BLOCK * _STRIDE:
                break
        self.tally = self.tally._replace(ends=self.tally.ends + lives)
        self._tell_losses(observation, at)

    def take_told(self, observation: Observation) -> None:
        """Take in what was told of processes by now."""
        told = self._told.take()
        for record in told:
            change = self._tasks.take(record)
            if change.before is not None and change.before.name != change.now.name:
                observation.rename(change.holder, change.before, change.since_ns)
            observation.name(change.holder, change.now)
        self.tally = self.tally._replace(processes=self.tally.processes + len(told))

    def name_holders(self, observation: Observation) -> None:
        """Name the processes that a listing found, as far as they are known."""
        for holder in list(observation.unnamed()):
            self._used.add(holder)
            attributes = self._tasks.attributes_of(holder)
            if attributes is not None:
                observation.name(holder, attributes)

    @property
    def listing(self) -> int:
        """The descriptor that listings are made from."""
        return self._loaded.listing

    @property
    def ticks_per_s(self) -> int:
        """Unit of the start of processes."""
        return self._tasks.ticks_per_s

    def _holders(self, records: bytes) -> Set[Holder]:
        """The processes that acted, each once."""
        seconds, ticks = 1_000_000_000, self._tasks.ticks_per_s
        acted: Set[Tuple[int, int]] = set()
        for pids_and_starts in set(_ACTORS.iter_unpack(records)):
            acted.update(zip(pids_and_starts[:MAX_ACTORS], pids_and_starts[MAX_ACTORS:]))
        return {Holder(pid, start_ns * ticks // seconds) for pid, start_ns in acted if pid}

    def _tell_losses(self, observation: Observation, at: Instant) -> None:
        found = [_COUNTER.unpack_from(self._counters, counter)[0] for counter, _words in _LOSSES]
        found.append(sum(machine.count_misses(program) for program in self._loaded.programs))
        words = [words for _counter, words in _LOSSES]
        words.append("changes that came while the kernel's program was busy on the same processor")
        for before, now, detail in zip(self._lost, found, words):
            if now > before:
                observation.add_gap("events", "dropped", detail, at, at, now - before)
        self.tally = self.tally._replace(lost=sum(found))
        self._lost = found

    def end(self, observation: Observation, clock: Callable[[], Instant]) -> None:
        """Nothing can be added at the end of a run.

        What is open is in the last sample. A connection that its process has closed, and whose last packets are still
        on their way, is told when it is over, and then nobody listens any more.
        """

    def forget_gone(self) -> None:
        """Drop what is remembered of processes that are gone; called when a segment is closed."""
        self._tasks.forget_gone(self._used)
        self._used = set()

    def close(self) -> None:
        """Take the programs out of the kernel."""
        for descriptor in self._loaded.links:
            os.close(descriptor)
        self._loaded._replace(links=()).close()
        self._lives.close()
        self._told.close()
        self._counters.close()


def open_programs(loaded: Loaded) -> ProgramEvents:
    """Read what was loaded.

    Raises
    ------
    HostError
        If the rings cannot be mapped; what was loaded is closed then.
    """
    try:
        return ProgramEvents(loaded)
    except OSError as error:
        loaded.close()
        raise HostError("rings of the kernel's programs", found=str(error.strerror)) from error
