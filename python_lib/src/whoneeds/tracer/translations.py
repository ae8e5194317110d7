# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow the conversations that the host's kernel translates, in each network namespace.

The kernel remembers a translated TCP connection for two minutes after its end, so that a look at its table every
minute finds nearly all of them, however short. Where a look finds one, the namespace is watched by events from then
on: those tell of the rest. Where nothing is tracked, one small file a look is all that is read, and no socket is
opened.

A conversation that is told of again has the begin that was told first. It is written down when it is found, when it
ends, and every `_AGAIN_NS` while it lasts.
"""

import errno
import socket
from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple

from whoneeds.model.errors import Denied, Gone, HostError
from whoneeds.tracer import conntrack
from whoneeds.tracer.namespaces import open_in_namespaces, own_namespace
from whoneeds.tracer.netlink import split_messages
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.sampler import gap_reason

#: A namespace is looked at in one sample of so many.
EVERY = 12
_BUFFER_BYTES = 1 << 16
_EVENT_BYTES = 4 << 20
_MAX_MESSAGES = 1 << 16
_AGAIN_NS = 600 * 10**9
#: Most conversations that are remembered for one namespace.
_MAX_KNOWN = 100_000


#: What the channel is called that a privileged loader hands over.
HANDED_NAME = "translations"


def open_to_hand_over() -> List[Tuple[str, int]]:
    """Have the kernel tell another process of the caller's own namespace, if anything is tracked there by now.

    Returns
    -------
    list of (str, int)
        For `whoneeds.tracer.handover`; empty where nothing is tracked or nothing can be had. They stay open.
    """
    if not conntrack.count_tracked():
        return []
    try:
        return [(HANDED_NAME, conntrack.open_events(_EVENT_BYTES).detach())]
    except HostError:
        return []  # the tracer itself will be refused, and say so


class _Known(NamedTuple):
    """Since when a conversation is known (time since boot), whether an event told, and when it was written down."""

    begun_ns: int
    by_event: bool
    told_ns: int


class _Place:
    """What is known of one namespace."""

    def __init__(self) -> None:
        self.known: Dict[conntrack.Translation, _Known] = {}
        #: Since when nothing can have been missed: the last look, or the last reading of events.
        self.since_ns = 0
        self.channel: Any = None


class Translations:
    """Follows translations from sample to sample.

    Parameters
    ----------
    root : str
        Where the process file system lies.
    every : int
        A look is taken in one sample of so many.
    event_bytes : int
        Room for events that were not read yet, for each namespace that is watched.
    handed : sequence of int
        The channel of `open_to_hand_over`, if somebody handed one over: it tells of the tracer's own namespace.
    """

    def __init__(
        self, root: str = "/proc", every: int = EVERY, event_bytes: int = _EVENT_BYTES, handed: Sequence[int] = ()
    ) -> None:
        self.root, self._every, self._event_bytes = root, every, event_bytes
        self._own = own_namespace(root)
        self._places: Dict[int, _Place] = {}
        self._turn = 0
        self._watch_all = False
        if handed:
            self._places[self._own] = _Place()
            self._places[self._own].channel = socket.socket(fileno=handed[0])

    @property
    def is_due(self) -> bool:
        """Whether the next sample is one to look in."""
        return self._turn % self._every == 0

    @property
    def is_watching_others(self) -> bool:
        """Whether other namespaces than the tracer's own are watched: that keeps them alive, so it must end in time."""
        return any(place.channel is not None for inode, place in self._places.items() if inode != self._own)

    def prepare(self, observation: Observation, at: Instant, doors: Dict[int, List[str]]) -> None:
        """Look, and watch every namespace in which anything is tracked: later the right to look may be gone."""
        self._watch_all = True
        self.look(observation, at, doors)
        self._watch_all = False

    def look(self, observation: Observation, at: Instant, doors: Dict[int, List[str]]) -> None:
        """Take part in a sample: look at the tables of all namespaces if it is time to.

        What may not be looked at is a gap.

        Parameters
        ----------
        observation : Observation
        at : Instant
        doors : dict of int to list of str
            Ways into other namespaces than the tracer's own.
        """
        due, self._turn = self.is_due, self._turn + 1
        for inode in [inode for inode in self._places if inode != self._own and inode not in doors]:
            self._close(self._places.pop(inode))
        if not due:
            return
        self.read(observation, at)
        opened, refused = open_in_namespaces(doors, self._open)
        closed = sum(isinstance(error, Denied) for error in refused.values())
        if closed:
            observation.add_gap(
                "translation", "permission", "network namespaces that may not be entered", at, at, closed
            )
        try:
            opened[self._own] = self._open()
        except HostError as error:
            refused[self._own] = error
        problems = [error for error in refused.values() if not isinstance(error, (Denied, Gone))]
        found: Set[int] = set()
        for inode, (channel, tracked) in opened.items():
            try:
                if self._take_table(observation, inode, channel, tracked, at):
                    found.add(inode)
            except Denied as error:
                if inode not in self._places or self._places[inode].channel is None:
                    problems.append(error)  # else events go on to tell all
            except HostError as error:
                problems.append(error)
            finally:
                channel.close()
        problems += self._watch(found, doors, at)
        for problem in problems:
            observation.add_gap("translation", gap_reason(problem), problem.message, at, at)

    def _open(self) -> Tuple[Any, int]:
        return conntrack.open_channel(self.root)

    def _take_table(self, observation: Observation, inode: int, channel: Any, tracked: int, at: Instant) -> bool:
        """Take in one namespace's table; whether it translates anything."""
        entries, whole = conntrack.list_translations(channel, tracked)
        place = self._places.get(inode)
        if place is None:
            if not entries and not self._watch_all:
                return False
            place = self._places[inode] = _Place()
        if not whole:
            detail = "the kernel's table of translations changed on the way"
            observation.add_gap("translation", "truncated", detail, at, at)
        for entry in entries:
            self._tell(observation, inode, place, entry, at.boot_ns)
        if place.channel is None:  # where events are read, they tell what is gone
            listed = set(entries)
            place.known = {entry: known for entry, known in place.known.items() if entry in listed}
            place.since_ns = at.boot_ns
        return True

    def _tell(
        self, observation: Observation, inode: int, place: _Place, entry: conntrack.Translation, now_ns: int,
        *, by_event: bool = False,
    ) -> None:  # fmt: skip
        """Write a conversation down if it is new, or was not written down for long."""
        known = place.known.get(entry)
        if known is None:
            known = _Known(place.since_ns or now_ns, by_event, 0)
        if now_ns - known.told_ns > _AGAIN_NS or not known.told_ns:
            self._write(observation, inode, entry, known, now_ns)
            known = known._replace(told_ns=now_ns)
        if len(place.known) < _MAX_KNOWN or entry in place.known:
            place.known[entry] = known

    @staticmethod
    def _write(
        observation: Observation, inode: int, entry: conntrack.Translation, known: _Known, until_ns: int
    ) -> None:
        first_ns, last_ns = (observation.opened.wall_ns + at_ns - observation.opened.boot_ns
                             for at_ns in (known.begun_ns, until_ns))  # fmt: skip
        observation.relations.add_translation(str(inode), entry, first_ns, last_ns, by_event=known.by_event)

    def _watch(self, wanted: Set[int], doors: Dict[int, List[str]], at: Instant) -> List[HostError]:
        """Have the kernel tell of what happens in these namespaces."""
        missing = {inode for inode in wanted if self._places[inode].channel is None}
        ways = {inode: doors[inode] for inode in missing if inode in doors}
        opened, refused = open_in_namespaces(ways, self._open_events)
        if self._own in missing:
            try:
                opened[self._own] = self._open_events()
            except HostError as error:
                refused[self._own] = error
        for inode, channel in opened.items():
            self._places[inode].channel = channel
            self._places[inode].since_ns = at.boot_ns
        return [error for error in refused.values() if not isinstance(error, Gone)]

    def _open_events(self) -> Any:
        return conntrack.open_events(self._event_bytes)

    def read(self, observation: Observation, at: Instant) -> None:
        """Take in what events told since the last time, without waiting."""
        for inode, place in self._places.items():
            if place.channel is not None:
                self._read_place(observation, inode, place, at)

    def _read_place(self, observation: Observation, inode: int, place: _Place, at: Instant) -> None:
        lost = 0
        for _message in range(_MAX_MESSAGES):
            try:
                buffer, _ancillary, _flags, sender = place.channel.recvmsg(_BUFFER_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    observation.add_gap("translation", "failed", str(error.strerror), at, at)
                    self._close(place)
                    break
                lost += 1
                continue
            if sender[0] != 0:  # only the kernel's own words count
                continue
            for kind, entry in conntrack.parse_translations(buffer, split_messages(buffer).runs):
                if kind == conntrack.NEW:
                    self._tell(observation, inode, place, entry, at.boot_ns, by_event=True)
                else:
                    known = place.known.pop(entry, None) or _Known(place.since_ns or at.boot_ns, True, 0)
                    self._write(observation, inode, entry, known._replace(by_event=True), at.boot_ns)
        if lost:
            observation.add_gap("translation", "dropped", "events of translated conversations", at, at, lost)
            place.known.clear()  # some may have ended unheard; the next look tells which are left
        place.since_ns = at.boot_ns

    @staticmethod
    def _close(place: _Place) -> None:
        if place.channel is not None:
            place.channel.close()
            place.channel = None

    def close(self) -> None:
        """Close all channels."""
        for place in self._places.values():
            self._close(place)
        self._places = {}
