# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample out of the kernel's own walk over all open files: sockets of all namespaces, and who holds them.

Takes the place of `whoneeds.tracer.sampler` where the programs are loaded. Rows are compared with those of the last
sample by the interpreter's own loops, so that only what changed costs more than its reading.
"""

import os
import struct
from itertools import groupby
from operator import itemgetter
from typing import AbstractSet, Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, Sequence, Set, Tuple

from whoneeds.model.errors import HostError
from whoneeds.tracer.bpf.listing_program import LISTED
from whoneeds.tracer.bpf.machine import begin_iteration
from whoneeds.tracer.bpf.source import ProgramEvents
from whoneeds.tracer.namespaces import own_namespace
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.sampler import Tally
from whoneeds.tracer.sightings import Standing
from whoneeds.tracer.sock_diag import PROTOCOL_NAMES, decode_ends
from whoneeds.tracer.socket_rows import Batch, Row

#: A row whole, and what of it belongs to the socket and to its holder.
_ROW = struct.Struct(f"={LISTED.size}s")
_SOCKET = struct.Struct("=48sBBHIIQQQ16x")
_HELD = struct.Struct("=60xQ16xQQ")
_PLACE = struct.Struct("=48s2xH4xI40x")
_INODE = struct.Struct("=60xQ32x")
_IDENTITY, _WHERE = 0, itemgetter(5, 3)
_NOT_COUNTED = (1 << 64) - 1
_PIECE_BYTES = 1 << 20
_KEY_BYTES = 48
_NO_ROWS: FrozenSet[bytes] = frozenset()
#: A part of a listing: its hash, and its rows.
_Part = Tuple[int, FrozenSet[bytes]]


class ListingSampler:
    """Takes samples.

    Parameters
    ----------
    events : ProgramEvents
        What else the programs tell: names of processes.
    root : str
        Where the process file system lies.
    """

    def __init__(self, events: ProgramEvents, root: str = "/proc") -> None:
        self._events = events
        self.own_namespace = own_namespace(root)
        self.doors: Dict[int, List[str]] = {}
        #: Other network namespaces that held sockets when a segment was closed last, or since.
        self.others: Set[str] = set()
        self._parts: List[_Part] = []
        self._holders: Dict[int, Holders] = {}
        #: Most processes hold many sockets alone: one tuple for all of these.
        self._alone: Dict[Tuple[int, int], Holders] = {}
        self._holding = 0

    @property
    def owners(self) -> Mapping[int, Holders]:
        """Who held each socket in the last sample, by inode."""
        return self._holders

    def sample(self, observation: Observation, at: Instant) -> Tally:
        """Take a sample and add it to an observation.

        Raises
        ------
        HostError
        """
        first = observation.samples == 0
        begun, ended = self._list(observation)
        if not first:
            observation.touch(make_batches([b"".join(ended), b"".join(self._joined(begun, ended))], ()))
        moved = self._update_holders(begun, ended)
        if first:
            self._holding = len({holder for holders in self._holders.values() for holder in holders})
            observation.stand(at, Standing(self._all_batches, self._count, self._holders))
        else:
            batches = make_batches([b"".join(begun)], self._find_gone(begun, ended))
            observation.add_sample(at, self._noting_others(batches), self._holders, moved, partial=True)
        self._events.name_holders(observation)
        return Tally(self._count(), self._holding, 0)

    def _all_batches(self) -> Iterator[Batch]:
        self.others = set()
        yield from self._noting_others(make_batches((b"".join(rows) for _number, rows in self._parts), ()))

    def _count(self) -> int:
        return sum(len(rows) for _number, rows in self._parts)

    def _noting_others(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        own = str(self.own_namespace)
        for batch in batches:
            if batch.netns != own:
                self.others.add(batch.netns)
            yield batch

    def _list(self, observation: Observation) -> Tuple[AbstractSet[bytes], AbstractSet[bytes]]:
        """Make a listing: rows that were not in the last one, and those that were in that alone.

        It comes in parts. One that is as it was at its place is not looked into. What is told of processes meanwhile
        is taken in, so that its ring does not run full.
        """
        parts: List[_Part] = []
        begun: Set[bytes] = set()
        ended: Set[bytes] = set()
        standing: List[_Part] = []
        for piece in self._read_parts(observation):
            number = hash(piece)
            before = self._parts[len(parts)] if len(parts) < len(self._parts) else None
            if before is not None and before[0] == number:
                parts.append(before)
                standing.append(before)
                continue
            rows = frozenset(map(itemgetter(0), _ROW.iter_unpack(piece)))
            parts.append((number, rows))
            begun |= rows
            ended |= _NO_ROWS if before is None else before[1]
        for _number, rows in self._parts[len(parts) :]:
            ended |= rows
        self._parts = parts
        both = begun & ended
        begun -= both
        ended -= both
        # a process may have one socket open twice: then there are two equal rows
        return begun, {row for row in ended if not any(row in rows for _number, rows in standing)}

    def _read_parts(self, observation: Observation) -> Iterator[bytes]:
        descriptor = begin_iteration(self._events.listing)
        try:
            while True:
                piece = os.read(descriptor, _PIECE_BYTES)
                if not piece:
                    return
                if len(piece) % LISTED.size:
                    found = f"{len(piece)} bytes"
                    raise HostError("the kernel's listing of sockets", expected=f"rows of {LISTED.size}", found=found)
                yield piece
                self._events.take_told(observation)
        except OSError as error:
            raise HostError("the kernel's listing of sockets", found=str(error.strerror)) from error
        finally:
            os.close(descriptor)

    def _update_holders(self, begun: AbstractSet[bytes], ended: AbstractSet[bytes]) -> Set[int]:
        """Take in who holds which socket now; the inodes of which that may have changed."""
        now, before = set(map(_HELD.unpack, begun)), set(map(_HELD.unpack, ended))
        for inode, pid, start_ns in before - now:
            (holder,) = self._hold_alone(pid, start_ns)
            rest = tuple(other for other in self._holders.get(inode, ()) if other != holder)
            if rest:
                self._holders[inode] = rest
            else:
                self._holders.pop(inode, None)
        for inode, pid, start_ns in now - before:
            alone = self._hold_alone(pid, start_ns)
            others = self._holders.get(inode)
            self._holders[inode] = alone if others is None else tuple(sorted({*others, *alone}))
        return {inode for inode, _pid, _start_ns in now ^ before}

    def _hold_alone(self, pid: int, start_ns: int) -> Holders:
        holders = self._alone.get((pid, start_ns))
        if holders is None:
            holder = Holder(pid, start_ns * self._events.ticks_per_s // 1_000_000_000)
            holders = self._alone[pid, start_ns] = (holder,)
        return holders

    def _joined(self, begun: AbstractSet[bytes], ended: AbstractSet[bytes]) -> Iterator[bytes]:
        """Rows of further holders of sockets that stand as they were; called before the holders are updated."""
        changed = {_INODE.unpack(row)[0] for row in ended}
        for row in begun:
            (inode,) = _INODE.unpack(row)
            if inode in self._holders and inode not in changed:
                yield row

    def _find_gone(self, begun: AbstractSet[bytes], ended: AbstractSet[bytes]) -> List[bytes]:
        """Rows of sockets that are not listed any more, neither changed nor with another holder."""
        known = {row[:_KEY_BYTES] for row in begun}
        reused = {_INODE.unpack(row)[0] for row in begun}
        gone = []
        for row in ended:
            (inode,) = _INODE.unpack(row)
            if row[:_KEY_BYTES] not in known and (inode in reused or inode not in self._holders):
                gone.append(row)
        return gone

    def forget_gone(self) -> None:
        """Drop what is remembered of processes that hold no socket any more; called when a segment is closed."""
        held = {holders for holders in self._holders.values() if len(holders) == 1}
        self._alone = {key: holders for key, holders in self._alone.items() if holders in held}


def make_batches(parts: Iterable[bytes], gone: Sequence[bytes]) -> Iterator[Batch]:
    """The sockets of a listing, in runs of one namespace and protocol; those of AF_UNIX are left out.

    Parameters
    ----------
    parts : iterable of bytes
        Rows, by the thousand.
    gone : sequence of bytes
        Rows of sockets that are not listed any more.
    """
    for listed in parts:
        for where, rows in groupby(_SOCKET.iter_unpack(listed), _WHERE):
            yield from _batch(where, list(rows), ())
    missing: Dict[Tuple[int, int], List[bytes]] = {}
    for row in gone:
        identity, protocol, netns = _PLACE.unpack(row)
        missing.setdefault((netns, protocol), []).append(identity)
    for where, keys in missing.items():
        yield from _batch(where, [], keys)


def _batch(where: Tuple[int, int], rows: List[Any], gone: Sequence[bytes]) -> Iterator[Batch]:
    netns, protocol = where
    name = PROTOCOL_NAMES.get(protocol)
    if name is not None:
        yield Batch(str(netns), name, "table", rows, decode_ends, _read_row, _IDENTITY, gone)


def _read_row(raw: Tuple[Any, ...]) -> Row:
    identity, family, state, _protocol, uid, _netns, inode, sent, received = raw
    return (
        identity,
        state,
        inode,
        uid,
        None if sent == _NOT_COUNTED else sent,
        None if received == _NOT_COUNTED else received,
        family,
    )
