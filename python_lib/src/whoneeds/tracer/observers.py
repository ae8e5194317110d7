# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a tracer looks with: samples, events, packets, and what lies beside sockets.

Whatever cannot be opened, or fails later, is left out from then on; each segment says what is missing by it.
"""

import os
from typing import Dict, List, Optional, Tuple, Union

from whoneeds.model.errors import HostError
from whoneeds.tracer import clocks, translations
from whoneeds.tracer.bpf.listing import ListingSampler
from whoneeds.tracer.bpf.source import ProgramEvents
from whoneeds.tracer.event_sources import Events, open_any_events
from whoneeds.tracer.events import EventSource, open_events
from whoneeds.tracer.handover import handed_descriptors
from whoneeds.tracer.namespaces import NamespaceFinder, own_namespace
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import list_pids
from whoneeds.tracer.packets import HANDED_NAME, PacketLimits, PacketSource, begin_capture
from whoneeds.tracer.privileges import give_up_privileges
from whoneeds.tracer.sampler import Sampler, Tally, choose_source, gap_reason
from whoneeds.tracer.settings import Settings
from whoneeds.tracer.status import Identity
from whoneeds.tracer.surroundings import Surroundings

_NO_PACKETS = "no packets are taken in, so that of UDP connected sockets alone are known"
_ONLY_SAMPLES = "traced by samples alone, so that connections shorter than a period are missed"
_TOO_DEAR = "left out to keep within the tracer's budget"


class Observers:
    """Opens what there is, and looks.

    Parameters
    ----------
    settings : Settings
    identity : Identity
        The tracer's own process.
    at : Instant

    Attributes
    ----------
    source : str
        'table' or 'psutil'.
    sampler : Sampler or ListingSampler
    events : ProgramEvents, EventSource or None
    packets : PacketSource or None
    surroundings : Surroundings or None
    privileged : bool
        Whether processes of other users can be looked into.
    last_error : str or None
    """

    def __init__(self, settings: Settings, identity: Identity, at: Instant) -> None:
        self.source = choose_source(settings.sources)
        self.sampler: Union[Sampler, ListingSampler] = Sampler(self.source)
        self.privileged = sees_all_processes()
        self.events: Optional[Events] = None
        self.packets: Optional[PacketSource] = None
        self.surroundings: Optional[Surroundings] = None
        self.last_error: Optional[str] = None
        #: What is missing, by source: why, and what that means.
        self._missing: Dict[str, Tuple[str, str]] = {}
        if self.source != "table":
            return
        if {"events", "tracefs"} & set(settings.sources):
            try:
                by_programs = "events" in settings.sources
                self.events = open_any_events(identity) if by_programs else open_events(identity)
            except HostError as error:
                self._miss("events", error, _ONLY_SAMPLES)
        if isinstance(self.events, ProgramEvents):
            self.sampler, self.privileged = ListingSampler(self.events), True
        if "packets" in settings.sources and settings.packets != "off":
            limits = PacketLimits(settings.packets_per_s, settings.packets_bytes)
            handed = handed_descriptors(os.environ).get(HANDED_NAME, ())
            self.packets, refused = begin_capture(settings.packets, limits, self.sampler.own_namespace, at, handed)
            if refused is not None:
                self._miss("packets", refused, _NO_PACKETS)
        self.surroundings = Surroundings(handed=handed_descriptors(os.environ).get(translations.HANDED_NAME, ()))

    def _miss(self, source: str, error: Exception, meaning: str) -> None:
        reason = gap_reason(error) if isinstance(error, HostError) else "failed"
        self._missing[source] = (reason, f"{meaning}: {error}")

    def tell_missing(self, observation: Observation, at: Instant) -> None:
        """Say in a segment that begins what is not looked at."""
        for source, (reason, detail) in sorted(self._missing.items()):
            observation.add_gap(source, reason, detail, at, at)

    def confine(self, observation: Observation, at: Instant) -> None:
        """Give up every privilege, if what is open needs none any more.

        Raises
        ------
        HostError
        """
        if not isinstance(self.events, ProgramEvents):
            return  # samples need to look into other processes
        if self.surroundings is not None:
            self.surroundings.prepare(observation, at)
        if self.packets is not None:
            found = NamespaceFinder().find(list_pids(), set()).doors
            self.packets.watch(observation, at, {n: ways for n, ways in found.items() if n != own_namespace()})
        give_up_privileges()

    def sample(self, observation: Observation, at: Instant) -> Tally:
        """Take a sample of everything.

        Raises
        ------
        HostError, OSError
            If sockets cannot be listed.
        """
        self.take_events(observation)
        self.take_packets(observation)
        tally = self.sampler.sample(observation, at)
        if self.surroundings is not None:
            self.surroundings.look(observation, at, self.sampler.doors, self.sampler.owners)
        if self.packets is not None and not isinstance(self.sampler, ListingSampler):
            self.packets.watch(observation, clocks.now(), self.sampler.doors)
        if isinstance(self.sampler, ListingSampler) and self.packets is not None:
            unseen = self.sampler.others - self.packets.namespaces
            detail = "packets of network namespaces that are newer than the tracer are not taken in"
            if unseen:
                observation.add_gap("packets", "unsupported", detail, at, at)
        if self.events is not None:
            observation.watch(True)
            if isinstance(self.events, EventSource):
                self.events.watch(observation, at, self.sampler.own_namespace, self.sampler.doors)
        return tally

    def take_events(self, observation: Observation) -> None:
        """Take in the events that came since the last time; if they fail, samples go on alone."""
        if self.surroundings is not None:
            self.surroundings.read(observation, clocks.now())
        if self.events is None:
            return
        try:
            self.events.read(observation, clocks.now)
        except (HostError, OSError) as error:
            self.last_error = str(error)
            self._miss("events", error if isinstance(error, HostError) else OSError(str(error)), _ONLY_SAMPLES)
            observation.add_gap("events", "failed", f"{_ONLY_SAMPLES}: {error}", clocks.now(), clocks.now())
            self.events.close()
            self.events = None
            if isinstance(self.sampler, ListingSampler):  # what it lists from is closed with the events
                self.sampler, self.privileged = Sampler(self.source), sees_all_processes()
            observation.watch(False)

    def take_packets(self, observation: Observation) -> None:
        """Take in the packets that came since the last time; if that fails, the rest goes on."""
        if self.packets is None:
            return
        at = clocks.now()
        try:
            self.packets.read(observation, at)
        except HostError as error:
            self.last_error = str(error)
            observation.add_gap("packets", "failed", f"{_NO_PACKETS}: {error}", at, at)
            self._miss("packets", error, _NO_PACKETS)
            self._close_packets()

    def drop_packets(self, observation: Observation, at: Instant) -> None:
        """Take in no packets from now on, because they cost too much."""
        if self.packets is not None:
            self._missing["packets"] = ("dropped", f"{_NO_PACKETS}: {_TOO_DEAR}")
            observation.add_gap("packets", *self._missing["packets"], at, at)
            self._close_packets()

    def _close_packets(self) -> None:
        if self.packets is not None:
            self.packets.close()
            self.packets = None

    def forget_gone(self) -> None:
        """Drop what is remembered of processes that are gone; called when a segment is closed."""
        self.sampler.forget_gone()
        if self.events is not None:
            self.events.forget_gone()

    @property
    def hears(self) -> bool:
        """Whether anything is told between samples."""
        return self.events is not None or self.packets is not None

    @property
    def sources(self) -> List[str]:
        """Words for what is looked with."""
        named = (("events", self.events), ("packets", self.packets))
        return [*(word for word, source in named if source is not None), self.source]

    def close(self) -> None:
        """Close all that is open."""
        if self.events is not None:
            self.events.close()
        self._close_packets()
        if self.surroundings is not None:
            self.surroundings.close()


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
