# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's events as a source: every TCP connection from its begin to its end, and the processes that held it.

Three streams are read together: state changes of sockets and what becomes of processes (two rings of tracefs), and
destroyed sockets (netlink). A change is taken in when nothing that happened before it can still be unread: rings of
several processors are read one after the other, so what is newer than the beginning of their reading waits for the
next.
"""

import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple, cast

from whoneeds.model.errors import HostError, Unsupported
from whoneeds.tracer import tracepoints
from whoneeds.tracer.clocks import in_time_namespace
from whoneeds.tracer.destroyed import DestroyedSockets
from whoneeds.tracer.event_tally import EventTally
from whoneeds.tracer.lives import FILTER, Lives, Talk
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.ring import split_page
from whoneeds.tracer.sampler import gap_reason
from whoneeds.tracer.sock_diag import IPV6, address_text, decode_ends
from whoneeds.tracer.socket_rows import Ended, Ends, Row
from whoneeds.tracer.status import Identity, identity_of
from whoneeds.tracer.tasks import Tasks
from whoneeds.tracer.tracefs import TraceInstance, open_tracefs, remove_stale
from whoneeds.tracer.tracepoints import SocketDecoder, SocketDestroyed, StateChange, TaskDecoder

#: Kernel memory for each ring. A connection makes some 450 bytes of events, a process some 200.
_STATE_BYTES, _TASK_BYTES = 16 << 20, 4 << 20
_MAX_PAGES = 4096
#: How long an ended connection waits for the word that its socket is destroyed. It can stay that long when the peer
#: does not answer a FIN, or the program keeps it open after a reset.
_PATIENCE_NS = 60_000_000_000
#: The kernel sends word of destroyed sockets from a queue of its own, a moment after the event itself.
_LAST_LOOKS, _WORD_UNDER_WAY_S = 5, 0.02

_OUTERMOST_PID_NAMESPACE = 0xEFFFFFFC


def open_events(owner: Identity, root: str = "/proc") -> "EventSource":
    """Open the kernel's events; the rings that tracers which are gone left behind are removed.

    Parameters
    ----------
    owner : Identity
        The tracer's own process.

    Raises
    ------
    Denied, Unsupported
        Where there are no kernel events, or not for this user, or not in a container: they carry the outermost
        numbers of processes, and the kernel's own time.
    """
    if not _sees_every_process(root):
        raise Unsupported("kernel events", expected="the host's own pid namespace", found="a container's")
    if in_time_namespace(root):
        raise Unsupported("kernel events", expected="the kernel's own time", found="a time namespace")
    return EventSource(owner, lambda pid, start: identity_of(pid, root) == (pid, start), root)


class EventSource:
    """Reads the streams and puts them together.

    Parameters
    ----------
    owner : Identity
        The tracer's process.
    is_alive : callable
        From number and start of a process to whether it runs: instances of those that do not are removed.
    root : str
        Where the process file system lies.

    Raises
    ------
    Denied, Unsupported
        Where there are no kernel events, or not for this user.
    """

    def __init__(self, owner: Identity, is_alive: Callable[[int, int], bool], root: str = "/proc") -> None:
        self._tracefs = open_tracefs()
        self._instances: List[TraceInstance] = []
        self.destroyed = DestroyedSockets()
        self.tally = EventTally("tracefs", 0, 0, 0)
        self._tasks, self._lives = Tasks(root), Lives()
        self._later: List[Any] = []
        self._forgotten = 0
        try:
            remove_stale(self._tracefs, is_alive)
            states = self._make("state", owner, _STATE_BYTES)
            tasks = self._make("task", owner, _TASK_BYTES)
            of_sockets = (tracepoints.STATE, tracepoints.DESTROYED)
            self._decode_socket = SocketDecoder(*(states.read_format(event) for event in of_sockets)).decode
            events = (tracepoints.TASK, tracepoints.EXEC, tracepoints.EXIT)
            self._decode_task = TaskDecoder(*(tasks.read_format(event) for event in events)).decode
            for event in events:
                tasks.enable(event)
            states.enable(tracepoints.DESTROYED)
            states.enable(tracepoints.STATE, FILTER)
        except BaseException:
            self.close()
            raise

    def _make(self, name: str, owner: Identity, size: int) -> TraceInstance:
        made = TraceInstance(self._tracefs, name, owner, size)
        self._instances.append(made)
        return made

    def watch(self, observation: Observation, at: Instant, own: int, doors: Dict[int, List[str]]) -> None:
        """Follow the network namespaces of the host; what cannot be followed is a gap."""
        for error in self.destroyed.watch(own, doors):
            observation.add_gap("destroyed", gap_reason(error), error.message, at, at)

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
        told = self.destroyed.read()
        # read after the destroyed sockets, before the rings: whatever ended those sockets is older than this
        at = clock()
        if told.lost:
            observation.add_gap("destroyed", "dropped", "messages about destroyed sockets", at, at, told.lost)
        changes, lost_changes = _read_ring(self._instances[0], self._decode_socket)
        tasks, lost_tasks = _read_ring(self._instances[1], self._decode_task)
        for source, lost in (("what became of sockets", lost_changes), ("what became of processes", lost_tasks)):
            if lost:
                observation.add_gap("events", "dropped", source, at, at, lost)
        before = self.tally
        self.tally = EventTally(
            before.kind,
            before.ends + len(told.rows),
            before.processes + len(tasks),
            before.lost + told.lost + lost_changes + lost_tasks,
        )
        self._take(sorted([*self._later, *changes, *tasks], key=_time), at.boot_ns)
        for netns, row in told.rows:
            self._end(observation, netns, row, at)
        unfollowed = self._lives.collect_older(at.boot_ns - _PATIENCE_NS)
        if unfollowed:
            detail = "connections of which it is not known in which network namespace they were"
            observation.add_gap("events", "vanished", detail, at, at, unfollowed)
        if self._lives.forgotten > self._forgotten:
            lost, self._forgotten = self._lives.forgotten - self._forgotten, self._lives.forgotten
            observation.add_gap("events", "dropped", "connections beyond what is remembered at once", at, at, lost)

    def _take(self, events: List[Any], until_ns: int) -> None:
        tasks, lives = self._tasks, self._lives
        for index, event in enumerate(events):
            if event.at_ns > until_ns:
                self._later = events[index:]
                break
            if isinstance(event, StateChange):
                holder = None if event.in_interrupt else tasks.find_holder(event.tid, event.at_ns)
                lives.take_change(event, holder)
            elif isinstance(event, SocketDestroyed):
                lives.take_destroyed(event)
            else:
                tasks.take(event)
        else:
            self._later = []
        tasks.drop_ended(until_ns)

    def _end(self, observation: Observation, netns: str, row: Row, at: Instant) -> None:
        """Put a destroyed socket and what is known of its connections together."""
        key, state, inode, uid, _sent, _received, family = row
        last = decode_ends(family, cast(bytes, key))
        talks = self._lives.collect(last.cookie) if last.cookie is not None else []
        for talk in talks:
            ends = _ends(talk, last.cookie)
            if ends == last:
                observation.add_ended(netns, row, talk.ended, decode_ends)
            else:  # one that did not come about: the socket has forgotten its peer, and counts for the last one
                failed: Row = ((key, ends), state, inode, uid, None, None, family)
                observation.add_ended(netns, failed, talk.ended, lambda _family, key: key[1])
            for holder in talk.ended.holders:
                attributes = self._tasks.attributes_of(holder)
                if attributes is not None:
                    observation.name(holder, attributes)
        if not talks:
            observation.add_ended(netns, row, Ended(None, at.boot_ns, None, (), 0, None), decode_ends)

    def end(self, observation: Observation, clock: Callable[[], Instant]) -> None:
        """Wait a moment for what is still under way, and say what was told of and cannot be placed any more."""
        for _look in range(_LAST_LOOKS):
            self.read(observation, clock)
            if not self._later and not self._lives.waiting:
                break
            time.sleep(_WORD_UNDER_WAY_S)
        left, at = self._lives.forget_rest(), clock()
        if left:
            detail = "connections that ended with the tracer: in which network namespace is not known"
            observation.add_gap("events", "vanished", detail, at, at, left)

    def forget_gone(self) -> None:
        """Drop what is remembered of processes that are gone; called when a segment is closed."""
        self._tasks.forget_gone()

    def close(self) -> None:
        """Remove the rings and close the channels."""
        for instance in self._instances:
            instance.close()
        self._instances = []
        self.destroyed.close()
        if self._tracefs >= 0:
            os.close(self._tracefs)
            self._tracefs = -1


def _time(event: Any) -> int:
    at_ns: int = event.at_ns
    return at_ns


def _number(page: bytes, begin: int) -> int:
    """The event's number: the first two bytes of a record."""
    return int.from_bytes(page[begin : begin + 2], sys.byteorder)


def _read_ring(instance: TraceInstance, decode: Callable[..., Any]) -> Tuple[List[Any], int]:
    """All events of a ring, and how many the kernel wrote over."""
    events: List[Any] = []
    lost = 0
    for page in instance.read_pages(_MAX_PAGES):
        places, missed = split_page(page)
        lost += missed
        for at_ns, begin, end in places:
            event = decode(_number(page, begin), at_ns, page, begin, end)
            if event is not None:
                events.append(event)
    return events, lost


def _ends(talk: Talk, cookie: Optional[int]) -> Ends:
    local, remote = address_text(IPV6, talk.local), address_text(IPV6, talk.remote)
    return Ends(local, talk.local_port, remote, talk.remote_port, cookie)


def remove_left_rings(root: str = "/proc") -> List[str]:
    """Remove the rings of tracers that were killed; where there is no tracefs, or no right to it, there are none.

    In a container nothing is removed: whose a ring is cannot be told there.

    Returns
    -------
    list of str
        Names of the rings that are gone now.
    """
    if not _sees_every_process(root):
        return []
    try:
        tracefs = open_tracefs()
    except HostError:
        return []
    try:
        return remove_stale(tracefs, lambda pid, start: identity_of(pid, root) == (pid, start))
    finally:
        os.close(tracefs)


def _sees_every_process(root: str) -> bool:
    """Whether process numbers mean here what they mean to the kernel."""
    try:
        return os.stat(f"{root}/self/ns/pid").st_ino == _OUTERMOST_PID_NAMESPACE
    except OSError:
        return False
