# SPDX-License-Identifier: GPL-3.0-or-later
"""Sum samples up into the records of one segment. Pure: clocks and kernel answers are arguments.

Within a segment every instant is the wall clock's reading at its opening plus the time that has passed since boot,
so that a step of the wall clock never makes an interval negative.
"""

from typing import (
    Any,
    Callable,
    Dict,
    Hashable,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
)

from whoneeds.model.evidence import STATES, Gap, ProcessRecord, SocketRecord
from whoneeds.model.identity import process_id, socket_id
from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.processes import Attributes

_DETAIL_LENGTH = 255
_NOBODY: Holders = ()
_TUPLE = "tuple_only"
_NOT_ALLOWED = "sockets whose processes the tracer may not look into"
_NOT_FOUND = "sockets that no process was found for: it ended before it could be asked, or they are the kernel's own"
#: Most different gaps in one segment; what goes beyond is summed up in one.
_MAX_GAPS = 1000

#: A sample's view of one socket: key, state, inode, uid, sent_bytes, received_bytes, family. A bare tuple, since
#: tens of thousands are made a sample. The key is equal for the same socket with the same ends.
Row = Tuple[Hashable, int, int, Optional[int], Optional[int], Optional[int], int]


class Instant(NamedTuple):
    """One instant by two clocks: UTC, and since boot with suspended time included."""

    wall_ns: int
    boot_ns: int


class Ends(NamedTuple):
    """What of a socket does not change."""

    local_addr: str
    local_port: int
    remote_addr: Optional[str]
    remote_port: Optional[int]
    cookie: Optional[int]


class Batch(NamedTuple):
    """The sockets of one listing.

    Attributes
    ----------
    netns : str
    protocol : str
    source : str
        'table' or 'psutil'.
    rows : sequence of Row
    decode : callable
        From family and key to `Ends`; called once for each new socket.
    """

    netns: str
    protocol: str
    source: str
    rows: Sequence[Row]
    decode: Callable[[int, Any], Ends]


class _Span:
    """Samples in which the same processes held a socket."""

    __slots__ = ("first_ns", "last_ns", "samples")

    def __init__(self, now_ns: int) -> None:
        self.first_ns = self.last_ns = now_ns
        self.samples = 0


class _Socket:
    """A socket of this segment."""

    __slots__ = (
        "ends", "holders", "inode", "protocol", "received", "sent", "source", "span", "spans", "state", "turn", "uid",
    )  # fmt: skip

    def __init__(self, protocol: str, ends: Ends, source: str, now_ns: int) -> None:
        self.protocol, self.ends, self.source = protocol, ends, source
        self.state, self.inode, self.turn = 0, 0, -1
        self.uid: Optional[int] = None
        self.sent: Optional[int] = None
        self.received: Optional[int] = None
        self.holders = _NOBODY
        self.span = _Span(now_ns)
        self.spans: Dict[Holders, _Span] = {_NOBODY: self.span}


class Observation:
    """What was observed since a segment was opened.

    Parameters
    ----------
    host, boot_id : str
        Begin of every identity.
    opened : Instant
    told : mapping of str to set of hashable
        Sockets, by namespace and key, that earlier segments told of: if they come up as closed now, they are
        nothing new.
    """

    def __init__(
        self, host: str, boot_id: str, opened: Instant, told: Optional[Mapping[str, Set[Hashable]]] = None
    ) -> None:
        self.host, self.boot_id, self.opened = host, boot_id, opened
        self.samples = 0
        self.sources: Set[str] = set()
        self.denied = 0
        self._told: Dict[str, Dict[Hashable, int]] = {
            netns: dict.fromkeys(keys, 0) for netns, keys in (told or {}).items()
        }
        self._sockets: Dict[str, Dict[Hashable, _Socket]] = {}
        self._unnamed: Set[Holder] = set()
        self._attributes: Dict[Holder, Attributes] = {}
        self._gaps: Dict[Tuple[str, str, str], List[Any]] = {}

    def instant_ns(self, at: Instant) -> int:
        """UTC of an instant as this segment counts it: never before its opening."""
        return self.opened.wall_ns + max(at.boot_ns - self.opened.boot_ns, 0)

    @property
    def rows(self) -> int:
        """Rows that the segment would have now, at least."""
        return sum(map(len, self._sockets.values())) + len(self._attributes) + len(self._gaps)

    def add_sample(self, at: Instant, batches: Iterable[Batch], holders: Mapping[int, Holders]) -> None:
        """Take in one sample.

        Parameters
        ----------
        at : Instant
            When it was taken.
        batches : iterable of Batch
        holders : mapping of int to tuple of Holder
            Processes by socket inode.
        """
        self.samples += 1
        now_ns = self.instant_ns(at)
        for batch in batches:
            self.sources.add(batch.source)
            self._add_batch(now_ns, batch, holders)

    def _add_batch(self, now_ns: int, batch: Batch, holders: Mapping[int, Holders]) -> None:
        known = self._sockets.setdefault(batch.netns, {})
        told = self._told.get(batch.netns, {})
        find, held_by, turn = known.get, holders.get, self.samples
        for key, state, inode, uid, sent, received, family in batch.rows:
            socket = find(key)
            if socket is None:
                if key in told and _is_tuple_only(batch.protocol, state, inode, sent):
                    told[key] = turn
                    continue  # its life is told of in an earlier segment
                socket = _Socket(batch.protocol, batch.decode(family, key), _TUPLE, now_ns)
                known[key] = socket
            elif socket.turn == turn:
                continue  # listed twice, because the table moved while it was listed
            socket.turn = turn
            socket.state = state
            if _is_tuple_only(batch.protocol, state, inode, sent):
                if socket.source == _TUPLE:
                    socket.span.last_ns = now_ns
                    socket.span.samples += 1
                continue  # closed: what counts is when it was last open
            socket.source, socket.uid = batch.source, uid
            if sent is not None and (socket.sent is None or sent > socket.sent):
                socket.sent = sent
            if received is not None and (socket.received is None or received > socket.received):
                socket.received = received
            span = socket.span
            if inode:
                socket.inode = inode
                now_held = held_by(inode, _NOBODY)
                if now_held is not socket.holders and now_held != socket.holders:
                    span = self._hand_over(socket, now_held, now_ns)
            span.last_ns = now_ns
            span.samples += 1

    def _hand_over(self, socket: _Socket, holders: Holders, now_ns: int) -> _Span:
        """From now on others hold the socket. Who is not known any more stays known: a lost race is no change."""
        if not holders:
            return socket.span
        socket.holders = holders
        span = socket.spans.get(holders)
        if span is None:
            span = socket.spans[holders] = _Span(now_ns)
        socket.span = span
        self._unnamed.update(holder for holder in holders if holder not in self._attributes)
        return span

    def unnamed(self) -> Set[Holder]:
        """Processes that hold sockets and whose attributes are still to be told by `name`."""
        return self._unnamed

    def name(self, holder: Holder, attributes: Attributes) -> None:
        """Say what a process is; said again, the last word counts."""
        self._attributes[holder] = attributes
        self._unnamed.discard(holder)

    def add_gap(
        self, source: str, reason: str, detail: str, first: Instant, last: Instant, lost: Optional[int] = None
    ) -> None:
        """Say that something was not seen. The same gap again extends the first one and adds to its count."""
        key = (source, reason, detail[:_DETAIL_LENGTH])
        if key not in self._gaps and len(self._gaps) >= _MAX_GAPS:
            key = ("tracer", "dropped", "further gaps, not listed one by one")
        first_ns, last_ns = self.instant_ns(first), self.instant_ns(last)
        if first.boot_ns < self.opened.boot_ns:
            first_ns = max(self.opened.wall_ns - (self.opened.boot_ns - first.boot_ns), 0)
        gap = self._gaps.setdefault(key, [first_ns, last_ns, None])
        gap[0], gap[1] = min(gap[0], first_ns), max(gap[1], last_ns)
        if lost is not None:
            gap[2] = (gap[2] or 0) + lost

    @property
    def gaps(self) -> int:
        """Different gaps so far."""
        return len(self._gaps)

    def told(self) -> Dict[str, Set[Hashable]]:
        """Sockets of the last sample that this segment or an earlier one tells of, by namespace and key."""
        return {
            netns: {key for key, socket in known.items() if socket.turn == self.samples and socket.source != _TUPLE}
            | {key for key, turn in self._told.get(netns, {}).items() if turn == self.samples}
            for netns, known in self._sockets.items()
        }

    def records(self, closed: Instant) -> Dict[Type[Any], List[Any]]:
        """The rows of the segment, by record class."""
        spans: Dict[Holder, List[int]] = {}
        sockets: List[SocketRecord] = []
        unowned = 0
        for netns, known in self._sockets.items():
            for socket in known.values():
                made = list(self._socket_records(netns, socket, spans))
                unowned += socket.inode != 0 and made[0].process_id is None
                sockets += made
        if unowned:
            reason = "permission" if self.denied else "vanished"
            detail = _NOT_ALLOWED if self.denied else _NOT_FOUND
            self.add_gap("owners", reason, detail, self.opened, closed, unowned)
        processes = [
            ProcessRecord(
                process_id=process_id(self.host, self.boot_id, holder.pid, holder.start_ticks),
                host=self.host,
                pid=holder.pid,
                start_ticks=holder.start_ticks,
                first_ns=first_ns,
                last_ns=last_ns,
                **self._attributes[holder]._asdict(),
            )
            for holder, (first_ns, last_ns) in sorted(spans.items())
        ]
        gaps = [
            Gap(self.host, source, reason, detail, first_ns, last_ns, lost)
            for (source, reason, detail), (first_ns, last_ns, lost) in sorted(self._gaps.items())
        ]
        return {ProcessRecord: processes, SocketRecord: sockets, Gap: gaps}

    def _socket_records(self, netns: str, socket: _Socket, spans: Dict[Holder, List[int]]) -> Iterable[SocketRecord]:
        """One row for each process that held the socket, or one without; widens `spans` of those processes."""
        held: Dict[Optional[Holder], List[int]] = {}
        for holders, span in socket.spans.items():
            if not span.samples:
                continue
            # one that ended before it could be named cannot be told of
            named: List[Optional[Holder]] = [holder for holder in holders if holder in self._attributes]
            for holder in named or [None]:
                row = held.setdefault(holder, [span.first_ns, span.last_ns, 0])
                row[0], row[1] = min(row[0], span.first_ns), max(row[1], span.last_ns)
                row[2] += span.samples
        nobody = held.get(None)
        if nobody is not None and len(held) > 1:
            # not yet accepted, or not yet readable: that time belongs to those who held it otherwise
            del held[None]
            for row in held.values():
                row[0], row[1], row[2] = min(row[0], nobody[0]), max(row[1], nobody[1]), row[2] + nobody[2]
        owners: Optional[int] = 0
        if socket.inode:  # psutil names one of several owners, so that it cannot say how many there are
            most = max(len(holders) for holders in socket.spans)
            owners = most if most and socket.source == "table" else None
        ends = socket.ends
        first_ns = min((row[0] for row in held.values()), default=self.opened.wall_ns)
        flow = f"{socket.protocol}:{ends.local_addr}:{ends.local_port}>{ends.remote_addr}:{ends.remote_port}"
        identity = socket_id(self.host, self.boot_id, netns, ends.cookie, flow, first_ns)
        for holder, (begin_ns, end_ns, samples) in sorted(held.items(), key=lambda item: item[0] or Holder(0, 0)):
            owner = None
            if holder is not None:
                owner = process_id(self.host, self.boot_id, holder.pid, holder.start_ticks)
                whole = spans.setdefault(holder, [begin_ns, end_ns])
                whole[0], whole[1] = min(whole[0], begin_ns), max(whole[1], end_ns)
            yield SocketRecord(
                socket_id=identity,
                host=self.host,
                netns=netns,
                protocol=socket.protocol,
                local_addr=ends.local_addr,
                local_port=ends.local_port,
                remote_addr=ends.remote_addr,
                remote_port=ends.remote_port,
                state=_state_name(socket.protocol, socket.state),
                inode=max(socket.inode, 0),
                uid=socket.uid,
                process_id=owner,
                owners=owners,
                sent_bytes=_possible(socket.sent),
                received_bytes=_possible(socket.received),
                first_ns=begin_ns,
                last_ns=end_ns,
                samples=samples,
                source=socket.source,
            )


_ESTABLISHED, _SYN_RECV, _FIN_WAIT2, _TIME_WAIT = 1, 3, 5, 6


def _is_tuple_only(protocol: str, state: int, inode: int, sent: Optional[int]) -> bool:
    """Whether the kernel keeps no more than the tuple: closed, or not yet open. No process can own such a one."""
    return inode == 0 and sent is None and protocol == "tcp" and state in (_TIME_WAIT, _FIN_WAIT2, _SYN_RECV)


def _possible(count: Optional[int]) -> Optional[int]:
    """The count, or None if no column holds it: one wrong number must not cost the whole segment."""
    return count if count is not None and count < 1 << 63 else None


def _state_name(protocol: str, state: int) -> str:
    """Name of a kernel state; a UDP socket is either connected or bound."""
    if protocol == "udp":
        return "established" if state == _ESTABLISHED else "bound"
    return STATES[state - 1] if 1 <= state <= len(STATES) else "close"
