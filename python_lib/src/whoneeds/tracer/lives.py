# SPDX-License-Identifier: GPL-3.0-or-later
"""From events to lives of TCP connections: when each began and ended, which end began it, and who held its socket.

The kernel's address of a socket stays the same from connect to close; ports and addresses do not, since the local
port is still unknown when a connection begins. When the socket is destroyed, an event tells its cookie, by which the
rest of the project knows it. Whoever acts on a socket (connects, shuts down, closes) holds it; so does whoever an
event names *unless the kernel was serving an interrupt*, for then it names who happened to run. That is why the
process at a passive ``established`` is never taken: it is the caller's, or anybody's.

Pure: times and processes are arguments.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.socket_rows import Ended
from whoneeds.tracer.tracepoints import SocketDestroyed, StateChange

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, CLOSE, CLOSE_WAIT, LAST_ACK = 1, 2, 3, 4, 7, 8, 9

#: The changes that are needed, as a filter in the kernel's words. The rest (every socket makes some more) would cost
#: as much again and tell nothing new.
FILTER = (
    f"protocol == 6 && (newstate == {SYN_SENT} || newstate == {FIN_WAIT1} || newstate == {LAST_ACK}"
    f" || (newstate == {ESTABLISHED} && oldstate == {SYN_RECV})"
    f" || (newstate == {CLOSE} && (oldstate == {SYN_SENT} || oldstate == {ESTABLISHED} || oldstate == {CLOSE_WAIT})))"
)

#: The kernel repeats an unanswered SYN after a second.
_FIRST_REPEAT_NS = 1_000_000_000


class Talk(NamedTuple):
    """One connection of a socket; a socket whose connection did not come about may try another one.

    Attributes
    ----------
    local_port, remote_port : int
    local, remote : bytes
        Addresses in 16 bytes, IPv4 mapped.
    ended : Ended
    """

    local_port: int
    remote_port: int
    local: bytes
    remote: bytes
    ended: Ended


class _Open(NamedTuple):
    begun_ns: Optional[int]
    initiated: Optional[bool]
    holders: Holders
    unknown_holders: int


_UNSEEN = _Open(None, None, (), 0)


class Lives:
    """Sockets whose events are being put together.

    Parameters
    ----------
    most : int
        Most sockets that are remembered in each stage: open, ended, destroyed.

    Attributes
    ----------
    forgotten : int
        Connections that went beyond it, or whose end was never told.
    """

    def __init__(self, most: int = 1 << 18) -> None:
        self._most = most
        self._open: Dict[int, _Open] = {}
        self._ended: Dict[int, List[Talk]] = {}
        self._destroyed: Dict[int, Tuple[int, List[Talk]]] = {}
        self.forgotten = 0

    def take_change(self, change: StateChange, holder: Optional[Holder]) -> None:
        """Take in one change of state; events come in the order of their times.

        Parameters
        ----------
        change : StateChange
        holder : Holder or None
            The process of the thread that the change names, if it is known. It is not used where the kernel was
            serving an interrupt.
        """
        if change.old_state == change.state:
            return  # said again (MPTCP does)
        known = self._open.pop(change.socket, _UNSEEN)
        if change.state == SYN_SENT:
            known = _Open(change.at_ns, True, (), 0)
        elif change.state == ESTABLISHED:
            known = _Open(change.at_ns, False, (), 0)
            # the kernel used the place of a socket again whose destruction was not told
            self.forgotten += len(self._ended.pop(change.socket, ()))
        if not change.in_interrupt and change.state != ESTABLISHED:
            if holder is None:
                known = known._replace(unknown_holders=known.unknown_holders + 1)
            elif holder not in known.holders:
                known = known._replace(holders=(*known.holders, holder))
        if change.state in (SYN_SENT, ESTABLISHED):
            self._make_room(self._open)
            self._open[change.socket] = known
            return
        ended = Ended(
            begun_ns=known.begun_ns,
            ended_ns=change.at_ns,
            initiated=known.initiated,
            holders=known.holders,
            unknown_holders=known.unknown_holders,
            end=_end_of(change, known.begun_ns),
            after_peer=change.old_state == CLOSE_WAIT,
        )
        self._make_room(self._ended)
        talk = Talk(change.local_port, change.remote_port, change.local, change.remote, ended)
        self._ended.setdefault(change.socket, []).append(talk)

    def take_destroyed(self, event: SocketDestroyed) -> None:
        """Take in the destruction of a socket: from now on it is known by its cookie."""
        known = self._open.pop(event.socket, None)
        talks = self._ended.pop(event.socket, [])
        if known is not None and not talks:
            # nobody ever acted on it: it was not accepted, or its end was lost
            ended = Ended(known.begun_ns, event.at_ns, known.initiated, known.holders, known.unknown_holders, None)
            talks = [Talk(event.local_port, event.remote_port, event.local, event.remote, ended)]
        elif talks and talks[-1].ended.end == "fin":
            # one end may be shut long before the other: it is over when the socket is gone
            last = talks[-1]
            talks[-1] = last._replace(ended=last.ended._replace(ended_ns=max(last.ended.ended_ns, event.at_ns)))
        if talks:
            self._make_room(self._destroyed)
            self._destroyed[event.cookie] = (event.at_ns, talks)

    def collect(self, cookie: int) -> List[Talk]:
        """The connections of a destroyed socket; each is given once."""
        return self._destroyed.pop(cookie, (0, []))[1]

    def collect_older(self, before_ns: int) -> int:
        """How many destroyed connections nobody asked for, although that was long ago; they are forgotten."""
        count = 0
        for cookie, (at_ns, talks) in list(self._destroyed.items()):
            if at_ns >= before_ns:
                break  # in the order of their destruction
            del self._destroyed[cookie]
            count += len(talks)
        return count

    @property
    def waiting(self) -> bool:
        """Whether a destroyed socket's connections still wait to be asked for."""
        return bool(self._destroyed)

    def forget_rest(self) -> int:
        """How many ended connections nobody asked for yet; they are forgotten. For the end of a run."""
        count = sum(len(talks) for _at_ns, talks in self._destroyed.values()) + sum(map(len, self._ended.values()))
        self._destroyed, self._ended = {}, {}
        return count

    def _make_room(self, remembered: Dict[int, Any]) -> None:
        if len(remembered) >= self._most:
            del remembered[next(iter(remembered))]
            self.forgotten += 1


def _end_of(change: StateChange, begun_ns: Optional[int]) -> str:
    """How it ended.

    The kernel does not say why a connection did not come about. Within the second in which it waits before it asks
    again, somebody answered no (or the caller gave up at once); later nobody answered.
    """
    if change.state != CLOSE:
        return "fin"
    if change.old_state != SYN_SENT:
        return "rst"
    return "rejected" if begun_ns is not None and change.at_ns - begun_ns < _FIRST_REPEAT_NS else "unanswered"
