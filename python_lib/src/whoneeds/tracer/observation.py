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
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Type,
)

from whoneeds.model.evidence import (
    STATES,
    Gap,
    ProcessRecord,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
)
from whoneeds.model.identity import process_id, socket_id
from whoneeds.model.schema import table_name
from whoneeds.segment.lives import LifeBlock
from whoneeds.tracer.ancestors import Ancestors
from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.processes import Attributes
from whoneeds.tracer.relations import Relations
from whoneeds.tracer.sighting import Sighting
from whoneeds.tracer.sightings import EVENT, Sightings, Standing
from whoneeds.tracer.socket_rows import Batch, Ended, Ends, Row, Where

_DETAIL_LENGTH = 255
_NOT_ALLOWED = "sockets whose processes the tracer may not look into"
_NOT_FOUND = "sockets that no process was found for: it ended before it could be asked, or they are the kernel's own"
#: Most different gaps in one segment; what goes beyond is summed up in one.
_MAX_GAPS = 1000


class Instant(NamedTuple):
    """One instant by two clocks: UTC, and since boot with suspended time included."""

    wall_ns: int
    boot_ns: int


class Observation:
    """What was observed since a segment was opened.

    Parameters
    ----------
    host, boot_id : str
        Begin of every identity.
    opened : Instant
    told : mapping of (str, str) to set of hashable
        Sockets, by namespace and protocol, that earlier segments told of: if they come up as closed now, they are
        nothing new.
    """

    def __init__(
        self, host: str, boot_id: str, opened: Instant, told: Optional[Mapping[Where, Set[Hashable]]] = None
    ) -> None:
        self.host, self.boot_id, self.opened = host, boot_id, opened
        self.sources: Set[str] = set()
        self.denied = 0
        self._sightings = Sightings(told or {})
        self._unnamed: Set[Holder] = set()
        self._attributes: Dict[Holder, Attributes] = {}
        self.ancestors = Ancestors()
        self._gaps: Dict[Tuple[str, str, str], List[Any]] = {}
        #: Ends of connections as the kernel's programs told of them, and when their processes were first and last told.
        self.lives: List[LifeBlock] = []
        #: Translated conversations, and connections over AF_UNIX.
        self.relations = Relations()
        self._acted: Dict[Holder, List[int]] = {}
        #: What processes were before they executed another program, and until when.
        self._earlier: Dict[Holder, List[Tuple[Attributes, int]]] = {}

    def instant_ns(self, at: Instant) -> int:
        """UTC of an instant as this segment counts it: never before its opening."""
        return self.opened.wall_ns + max(at.boot_ns - self.opened.boot_ns, 0)

    @property
    def samples(self) -> int:
        """Samples so far."""
        return self._sightings.samples

    @property
    def rows(self) -> int:
        """Rows that the segment would have now, at least."""
        return len(self._sightings) + len(self._attributes) + len(self._gaps) + len(self.relations)

    @property
    def ends(self) -> int:
        """Ends of connections so far that the kernel's programs told of."""
        return sum(block.rows for block in self.lives)

    def add_sample(
        self,
        at: Instant,
        batches: Iterable[Batch],
        holders: Mapping[int, Holders],
        moved: Optional[Iterable[int]] = None,
        *,
        partial: bool = False,
    ) -> None:
        """Take in one sample.

        Parameters
        ----------
        at : Instant
            When it was taken.
        batches : iterable of Batch
        holders : mapping of int to tuple of Holder
            Processes by socket inode.
        moved : iterable of int, optional
            Inodes whose holders may have changed since the last sample; any by default.
        partial : bool, default False
            Whether the batches hold what changed only.
        """
        self._sightings.add_sample(self.instant_ns(at), self._noted(batches), holders, moved, partial=partial)
        self._note_holders()

    def stand(self, at: Instant, standing: Standing) -> None:
        """Take in the first sample of a listing that is told by its changes."""
        self.sources.add("table")
        self._sightings.stand(self.instant_ns(at), standing)
        self._note_holders()

    def touch(self, batches: Iterable[Batch]) -> None:
        """Rows of such a listing are about to change, or their holders."""
        self._sightings.touch(batches)

    def _noted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.sources.add(batch.source)
            yield batch

    def add_ended(self, netns: str, row: Row, ended: Ended, decode: Callable[[int, Any], Ends]) -> None:
        """Take in a TCP socket that the kernel destroyed, with its last byte counts.

        Parameters
        ----------
        netns : str
        row : Row
        ended : Ended
        decode : callable
            As in `whoneeds.tracer.sightings.Batch`.
        """
        made = self._sightings.add_ended(self._boot_to_utc(ended.ended_ns), netns, row, ended, decode)
        if made is not None and made.source == EVENT:
            self.sources.add(EVENT)
        self._note_holders()

    def add_lives(self, block: LifeBlock, holders: Set[Holder], at: Instant) -> None:
        """Take in ends of connections as they are, and the processes that acted on them."""
        self.lives.append(block)
        self.sources.add(EVENT)
        now_ns = self.instant_ns(at)
        for holder in holders:
            self._acted.setdefault(holder, [now_ns, now_ns])[1] = now_ns

    def _note_holders(self) -> None:
        self._unnamed.update(holder for holder in self._sightings.new_holders if holder not in self._attributes)
        self._sightings.new_holders.clear()

    def note_relations(self) -> None:
        """Ask for the names of the processes at the ends of connections over AF_UNIX."""
        self._unnamed.update(holder for holder in self.relations.holders() if holder not in self._attributes)

    def watch(self, watched: bool) -> None:
        """Whether events tell, from now on, of all that samples see closed."""
        self._sightings.watched = watched

    def _boot_to_utc(self, boot_ns: int) -> int:
        """UTC of a time since boot, not before the segment."""
        return self.opened.wall_ns + max(boot_ns - self.opened.boot_ns, 0)

    def unnamed(self) -> Set[Holder]:
        """Processes that hold sockets and whose attributes are still to be told by `name`."""
        return self._unnamed

    def name(self, holder: Holder, attributes: Attributes) -> None:
        """Say what a process is; said again, the last word counts."""
        self._attributes[holder] = attributes
        self._unnamed.discard(holder)
        self.ancestors.want_parent(attributes, self._attributes)

    def name_ancestor(self, holder: Holder, attributes: Optional[Attributes], at: Instant) -> None:
        """Say what one of `ancestors` is; None if that cannot be known any more."""
        self.ancestors.tell(holder, attributes, self.instant_ns(at), self._attributes)

    def rename(self, holder: Holder, before: Attributes, until_boot_ns: int) -> None:
        """Say that a process was something else up to an instant: it executed another program since."""
        self._earlier.setdefault(holder, []).append((before, self._boot_to_utc(until_boot_ns)))

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

    def told(self) -> Dict[Where, Set[Hashable]]:
        """Sockets of the last sample that this segment or an earlier one tells of, by namespace and protocol."""
        return self._sightings.told()

    def records(self, closed: Instant) -> Dict[Type[Any], List[Any]]:
        """The rows of the segment, by record class."""
        return {record: list(rows) for record, rows in self.stream(closed).items()}

    def stream(self, closed: Instant) -> Dict[Type[Any], Iterable[Any]]:
        """The rows of the segment, made one by one as they are taken; to be taken in this order, and once."""
        spans: Dict[Holder, List[int]] = {}
        made: Dict[Type[Any], Iterable[Any]] = {
            SocketRecord: self._sockets(spans, closed),
            TranslationRecord: self.relations.translations(self.host),
            UnixConnectionRecord: self.relations.unix_connections(self.host, self.boot_id, self._attributes),
            ProcessRecord: self._processes(spans),
            Gap: self._told_gaps(closed),
        }
        return made

    def _sockets(self, spans: Dict[Holder, List[int]], closed: Instant) -> Iterator[SocketRecord]:
        """Rows of sockets; widens `spans` of the processes that held them."""
        unowned = 0
        for netns, socket in self._sightings.sockets():
            made = list(self._socket_records(netns, socket, spans))
            unowned += socket.inode != 0 and made[0].process_id is None
            yield from made
        if unowned:
            reason = "permission" if self.denied else "vanished"
            detail = _NOT_ALLOWED if self.denied else _NOT_FOUND
            self.add_gap("owners", reason, detail, self.opened, closed, unowned)

    def _processes(self, spans: Dict[Holder, List[int]]) -> Iterator[ProcessRecord]:
        for holder, (first_ns, last_ns) in sorted(self._widen(spans).items()):
            for before, until_ns in self._earlier.get(holder, ()):
                yield self._process(holder, before, min(first_ns, until_ns), until_ns)
                first_ns, last_ns = until_ns, max(last_ns, until_ns)
            yield self._process(holder, self._attributes[holder], first_ns, last_ns)
        for ancestor in self.ancestors.without(spans):
            yield self._process(*ancestor, ancestor.asked_ns)

    def _process(self, holder: Holder, attributes: Attributes, first_ns: int, last_ns: int) -> ProcessRecord:
        values = attributes._asdict()
        parent = values.pop("parent")
        return ProcessRecord(
            process_id=process_id(self.host, self.boot_id, *holder),
            host=self.host,
            pid=holder.pid,
            start_ticks=holder.start_ticks,
            parent_id=None if parent is None else process_id(self.host, self.boot_id, *parent),
            first_ns=first_ns,
            last_ns=last_ns,
            **values,
        )

    def _told_gaps(self, closed: Instant) -> Iterator[Gap]:
        for record, left_out in self.relations.left_out.items():
            detail = f"rows of {table_name(record)} beyond what one segment holds"
            self.add_gap("relations", "dropped", detail, self.opened, closed, left_out)
        for (source, reason, detail), (first_ns, last_ns, lost) in sorted(self._gaps.items()):
            yield Gap(self.host, source, reason, detail, first_ns, last_ns, lost)

    def _widen(self, spans: Dict[Holder, List[int]]) -> Dict[Holder, List[int]]:
        """The time of processes widened by when the kernel's programs told of them, and by connections over AF_UNIX."""
        self.relations.widen(spans, self._attributes)
        for holder, (first_ns, last_ns) in self._acted.items():
            if holder in self._attributes:
                span = spans.setdefault(holder, [first_ns, last_ns])
                span[0], span[1] = min(span[0], first_ns), max(span[1], last_ns)
        return spans

    def _socket_records(self, netns: str, socket: Sighting, spans: Dict[Holder, List[int]]) -> Iterable[SocketRecord]:
        """One row for each process that held the socket, or one without; widens `spans` of those processes."""
        held: Dict[Optional[Holder], List[int]] = {}
        for holders, span in socket.spans().items():
            if not span.samples:
                continue
            # one that ended before it could be named cannot be told of
            named: List[Optional[Holder]] = [holder for holder in holders if holder in self._attributes]
            for holder in named or [None]:
                row = held.setdefault(holder, [span.first_ns, span.last_ns, 0])
                row[0], row[1] = min(row[0], span.first_ns), max(row[1], span.last_ns)
                row[2] += span.samples
        ended = socket.ended
        if ended is not None:
            self._add_end(ended, held)
        nobody = held.get(None)
        if nobody is not None and len(held) > 1:
            # not yet accepted, or not yet readable: that time belongs to those who held it otherwise
            del held[None]
            for row in held.values():
                row[0], row[1], row[2] = min(row[0], nobody[0]), max(row[1], nobody[1]), row[2] + nobody[2]
        owners: Optional[int] = 0 if ended is None else len(ended.holders) + ended.unknown_holders
        if socket.inode:  # psutil names one of several owners, so that it cannot say how many there are
            most = max(len(holders) for holders in socket.spans())
            owners = max(most, owners or 0) if most and socket.source != "psutil" else None
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
                initiated=None if ended is None else ended.initiated,
                end=None if ended is None else ended.end,
            )

    def _add_end(self, ended: Ended, held: Dict[Optional[Holder], List[int]]) -> None:
        """Widen the time of those who held a socket by what events tell, and add those that only events tell of."""
        last_ns = self._boot_to_utc(ended.ended_ns)
        first_ns = last_ns if ended.begun_ns is None else self._boot_to_utc(ended.begun_ns)
        told: List[Optional[Holder]] = [holder for holder in ended.holders if holder in self._attributes]
        for holder in told or list(held) or [None]:
            row = held.setdefault(holder, [first_ns, last_ns, 0])
            row[0], row[1] = min(row[0], first_ns), max(row[1], last_ns)


_ESTABLISHED = 1


def _possible(count: Optional[int]) -> Optional[int]:
    """The count, or None if no column holds it: one wrong number must not cost the whole segment."""
    return count if count is not None and count < 1 << 63 else None


def _state_name(protocol: str, state: int) -> str:
    """Name of a kernel state; a UDP socket is either connected or bound."""
    if protocol == "udp":
        return "established" if state == _ESTABLISHED else "bound"
    return STATES[state - 1] if 1 <= state <= len(STATES) else "close"
