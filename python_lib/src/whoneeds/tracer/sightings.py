# SPDX-License-Identifier: GPL-3.0-or-later
"""Sum the sockets of samples up: who held each, in which samples, with how many bytes. Pure.

Most sockets of a sample are as they were in the one before. Such a *standing* socket is not looked at again: samples
and instants are put down to it (`Sightings.settle`) when its row changes or is gone, its holders change, or the segment
ends. That makes a sample as dear as its changes, not as the number of its sockets.
"""

from itertools import compress
from operator import itemgetter, ne
from typing import (
    Any,
    Callable,
    Dict,
    Hashable,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.sighting import NOBODY, Sighting, Span
from whoneeds.tracer.socket_rows import Batch, Ended, Ends, Row, Where

TUPLE_ONLY, EVENT = "tuple_only", "event"
_SYN_RECV, _FIN_WAIT2, _TIME_WAIT, _CLOSE = 3, 5, 6, 7


class _Place:
    """One protocol in one namespace: the sockets of the segment there, and the raw rows of the last sample."""

    __slots__ = ("rows", "sockets", "told")

    def __init__(self, told: Iterable[Hashable]) -> None:
        self.sockets: Dict[Hashable, Sighting] = {}
        #: Sockets that earlier segments told of, and whether they were in the last sample.
        self.told: Dict[Hashable, bool] = dict.fromkeys(told, False)
        self.rows: Dict[Hashable, Tuple[Any, ...]] = {}


class Standing(NamedTuple):
    """The way to the rows of a listing that is told by its changes.

    Attributes
    ----------
    rows : callable
        All rows as they are now, in batches.
    number : callable
        How many these are.
    holders : mapping of int to tuple of Holder
        Processes by socket inode, as they are now.
    """

    rows: Callable[[], Iterable[Batch]]
    number: Callable[[], int]
    holders: Mapping[int, Holders]


class Sightings:
    """The sockets of a segment.

    Parameters
    ----------
    told : mapping of (str, str) to set of hashable
        Sockets, by namespace and protocol, that earlier segments told of: if they come up as closed now, they are
        nothing new.

    Attributes
    ----------
    samples : int
        Samples so far.
    new_holders : set of Holder
        Processes that were seen with a socket that they were not seen with before; whoever takes them empties it.
    watched : bool
        Whether events told of all that came since an earlier sample: a tuple that is new then is no news.
    """

    def __init__(self, told: Mapping[Where, Set[Hashable]]) -> None:
        self.samples = 0
        self.watched = False
        self.new_holders: Set[Holder] = set()
        self._places: Dict[Where, _Place] = {where: _Place(keys) for where, keys in told.items()}
        self._by_inode: Dict[int, Sighting] = {}
        self._instants_ns: List[int] = []
        self._standing: Optional[Standing] = None

    def __len__(self) -> int:
        standing = 0 if self._standing is None else self._standing.number()
        return max(standing, 0) + sum(len(place.sockets) for place in self._places.values())

    def sockets(self) -> Iterator[Tuple[str, Sighting]]:
        """Every socket with its namespace, all samples put down to it."""
        for (netns, _protocol), place in self._places.items():
            for socket in place.sockets.values():
                if socket.standing:
                    self.settle(socket, self.samples)
                yield netns, socket
        if self._standing is not None:
            yield from self._untouched(self._standing)

    def _untouched(self, standing: "Standing") -> Iterator[Tuple[str, Sighting]]:
        """Sockets that were in every sample as they were in the first, made one by one."""
        made: Set[int] = set()  # there is a row for each holder, and for each time that it holds the socket
        for batch in standing.rows():
            place = self._places.get((batch.netns, batch.protocol))
            for raw in batch.rows:
                key = raw[batch.key]
                number = hash(key)  # of 64 bits; the keys themselves would take much more room
                if number in made or (place is not None and key in place.sockets):
                    continue
                made.add(number)
                socket = self._make_standing(batch, raw, standing.holders)
                self.settle(socket, self.samples)
                yield batch.netns, socket

    def _make_standing(self, batch: Batch, raw: Any, holders: Mapping[int, Holders]) -> Sighting:
        """A socket that stands since the first sample, seen in that alone so far."""
        key, state, inode, uid, sent, received, family = batch.read(raw)
        socket = Sighting(batch.protocol, batch.decode(family, key), batch.source, self._instants_ns[0])
        socket.state, socket.inode, socket.uid, socket.sent, socket.received = state, inode, uid, sent, received
        socket.standing = socket.counted = True
        socket.turn = socket.settled = socket.span.samples = 1
        socket.holders = holders.get(inode, NOBODY)
        return socket

    def stand(self, now_ns: int, standing: "Standing") -> None:
        """Take in a first sample of which nothing is kept but the way to its rows, for as long as they stand.

        Parameters
        ----------
        now_ns : int
            When it was taken, as the segment counts.
        standing : Standing
        """
        self.samples += 1
        self._instants_ns.append(now_ns)
        self._standing = standing
        for holders in set(standing.holders.values()):
            self.new_holders.update(holders)

    def touch(self, batches: Iterable[Batch]) -> None:
        """These rows stood up to the last sample and are about to change; called before their holders do."""
        if self._standing is None:
            return
        for batch in batches:
            place = self._places.setdefault((batch.netns, batch.protocol), _Place(()))
            for raw in batch.rows:
                key = raw[batch.key]
                if key in place.sockets:
                    continue
                socket = place.sockets[key] = self._make_standing(batch, raw, self._standing.holders)
                place.rows[key] = ()
                self.settle(socket, self.samples)
                if socket.inode:
                    self._by_inode[socket.inode] = socket

    def add_sample(
        self,
        now_ns: int,
        batches: Iterable[Batch],
        holders: Mapping[int, Holders],
        moved: Optional[Iterable[int]] = None,
        *,
        partial: bool = False,
    ) -> None:
        """Take in one sample.

        Parameters
        ----------
        now_ns : int
            When it was taken, as the segment counts.
        batches : iterable of Batch
        holders : mapping of int to tuple of Holder
            Processes by socket inode.
        moved : iterable of int, optional
            Inodes whose holders may have changed since the last sample; any by default.
        partial : bool, default False
            Whether the batches hold what changed only: all else is as it was.
        """
        self.samples += 1
        self._instants_ns.append(now_ns)
        listed = set()
        for batch in batches:
            self._add_batch(batch, holders, partial)
            listed.add((batch.netns, batch.protocol))
        for where, place in self._places.items():
            if where not in listed and not partial:  # it could not be listed this time
                self._end_rows(place, list(place.rows))
        for inode in list(self._by_inode) if moved is None else moved:
            socket = self._by_inode.get(inode)
            if socket is not None and socket.turn != self.samples:
                self._move(socket, holders.get(inode, NOBODY))

    def _add_batch(self, batch: Batch, holders: Mapping[int, Holders], partial: bool) -> None:
        place = self._places.get((batch.netns, batch.protocol))
        if place is None:
            place = self._places[batch.netns, batch.protocol] = _Place(())
        if partial:
            for raw in batch.rows:
                self._look_at(place, batch, raw, holders)
                place.rows[raw[batch.key]] = ()  # what changes is told: there is nothing to compare with
            self._end_rows(place, [key for key in dict.fromkeys(batch.gone) if key in place.rows])
            return
        # whatever is done for each row here is done by the interpreter's own loops: there may be a hundred thousand
        keys = list(map(itemgetter(batch.key), batch.rows))
        changed = map(ne, map(place.rows.get, keys), batch.rows)
        for raw in list(compress(batch.rows, changed)):
            self._look_at(place, batch, raw, holders)
        seen = set(keys)
        if len(seen) < len(place.rows):
            self._end_rows(place, [key for key in place.rows if key not in seen])

    def _look_at(self, place: _Place, batch: Batch, raw: Any, holders: Mapping[int, Holders]) -> None:
        """Take in a row that is not as in the last sample."""
        turn, now_ns = self.samples, self._instants_ns[-1]
        key, state, inode, uid, sent, received, family = batch.read(raw)
        closed = _is_tuple_only(batch.protocol, state, inode, sent)
        socket = place.sockets.get(key)
        if socket is None:
            if key in place.told:
                place.told[key] = closed
            if closed and (self.watched or key in place.told):
                place.rows[key] = raw
                return  # its life is told of by events, or in an earlier segment
            socket = place.sockets[key] = Sighting(batch.protocol, batch.decode(family, key), TUPLE_ONLY, now_ns)
        elif socket.turn == turn:
            return  # listed twice, because the table moved while it was listed
        elif socket.standing:
            self.settle(socket, turn - 1)
        place.rows[key] = raw
        socket.turn = socket.settled = turn
        socket.standing, socket.state = True, state
        socket.counted = not closed or socket.source == TUPLE_ONLY
        span = socket.span
        if not closed:
            socket.source, socket.uid = batch.source, uid
            if sent is not None and (socket.sent is None or sent > socket.sent):
                socket.sent = sent
            if received is not None and (socket.received is None or received > socket.received):
                socket.received = received
            if inode:
                socket.inode = inode
                self._by_inode[inode] = socket
                held = holders.get(inode, NOBODY)
                if held is not socket.holders and held != socket.holders:
                    span = self._hand_over(socket, held, now_ns)
        if not inode and self._by_inode.get(socket.inode) is socket:
            del self._by_inode[socket.inode]  # nobody holds it any more; the number may become another one's
        if socket.counted:  # of a closed one it counts when it was last open
            span.last_ns = now_ns
            span.samples += 1

    def settle(self, socket: Sighting, turn: int) -> None:
        """Put the samples up to this one down to a standing socket."""
        if socket.settled < turn:
            if socket.counted:
                socket.span.samples += turn - socket.settled
                socket.span.last_ns = self._instants_ns[turn - 1]
            socket.settled = turn

    def _end_rows(self, place: _Place, keys: Iterable[Hashable]) -> None:
        """These are not listed any more."""
        for key in keys:
            del place.rows[key]
            socket = place.sockets.get(key)
            if socket is None:
                if key in place.told:
                    place.told[key] = False
                continue
            self.settle(socket, self.samples - 1)
            socket.standing = False
            if self._by_inode.get(socket.inode) is socket:
                del self._by_inode[socket.inode]

    def _move(self, socket: Sighting, holders: Holders) -> None:
        """The holders of a standing socket changed with this sample."""
        if holders != socket.holders and holders:
            self.settle(socket, self.samples - 1)
            self._hand_over(socket, holders, self._instants_ns[-1])
            self.settle(socket, self.samples)

    def _hand_over(self, socket: Sighting, holders: Holders, now_ns: int) -> Span:
        """From now on others hold the socket. Who is not known any more stays known: a lost race is no change."""
        if not holders:
            return socket.span
        if socket.span.samples or socket.earlier is not None:
            earlier = socket.earlier = socket.earlier or {}
            earlier[socket.holders] = socket.span
            socket.span = earlier.pop(holders) if holders in earlier else Span(now_ns)
        else:
            socket.span = Span(now_ns)
        socket.holders = holders
        self.new_holders.update(holders)
        return socket.span

    def add_ended(
        self, now_ns: int, netns: str, row: Row, ended: Ended, decode: Callable[[int, Any], Ends]
    ) -> Optional[Sighting]:
        """Take in a TCP socket that the kernel destroyed, with its last byte counts.

        Parameters
        ----------
        now_ns : int
            When, as the segment counts.
        netns : str
        row : Row
        ended : Ended
        decode : callable
            As in `Batch`.

        Returns
        -------
        Sighting or None
            None if it was never a connection.
        """
        key, _state, _inode, uid, sent, received, family = row
        place = self._places.get((netns, "tcp"))
        if place is None:
            place = self._places[netns, "tcp"] = _Place(())
        socket = place.sockets.get(key)
        if socket is None:
            ends = decode(family, key)
            if not ends.remote_port or not ends.local_port:
                return None
            socket = place.sockets[key] = Sighting("tcp", ends, EVENT, now_ns)
            socket.uid = uid
        elif socket.source == TUPLE_ONLY:
            socket.source = EVENT
        socket.state, socket.ended = _CLOSE, ended
        if sent is not None and (socket.sent is None or sent > socket.sent):
            socket.sent = sent
        if received is not None:
            received -= ended.after_peer and received > 0
            if socket.received is None or received > socket.received:
                socket.received = received
        self.new_holders.update(ended.holders)
        return socket

    def told(self) -> Dict[Where, Set[Hashable]]:
        """Sockets of the last sample that this segment or an earlier one tells of, by namespace and protocol."""
        return {
            where: {key for key, socket in place.sockets.items() if socket.standing and socket.source != TUPLE_ONLY}
            | {key for key, standing in place.told.items() if standing}
            for where, place in self._places.items()
        }


def _is_tuple_only(protocol: str, state: int, inode: int, sent: Optional[int]) -> bool:
    """Whether the kernel keeps no more than the tuple: closed, or not yet open. No process can own such a one."""
    return inode == 0 and sent is None and protocol == "tcp" and state in (_TIME_WAIT, _FIN_WAIT2, _SYN_RECV)
