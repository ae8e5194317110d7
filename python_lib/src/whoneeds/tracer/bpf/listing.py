# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample out of the kernel's own walk over all open files: sockets of all namespaces, and who holds them.

Takes the place of `whoneeds.tracer.sampler` where the programs are loaded. Rows are compared with those of the last
sample by the interpreter's own loops, so that only what changed costs more than its reading.
"""

import os
import struct
from itertools import groupby
from operator import itemgetter
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

from whoneeds.model.errors import HostError
from whoneeds.tracer.bpf.listing_program import LISTED
from whoneeds.tracer.bpf.machine import begin_iteration
from whoneeds.tracer.bpf.source import ProgramEvents
from whoneeds.tracer.namespaces import own_namespace
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.sampler import Tally
from whoneeds.tracer.sock_diag import PROTOCOL_NAMES, decode_ends
from whoneeds.tracer.socket_rows import Batch, Row

#: A row whole, and what of it belongs to the socket and to its holder.
_ROW = struct.Struct(f"={LISTED.size}s")
_SOCKET = struct.Struct("=48sBBHIIQQQ16x")
_HELD = struct.Struct("=60xQ16xQQ")
_PLACE = struct.Struct("=48s2xH4xI40x")
_IDENTITY, _WHERE = 0, itemgetter(5, 3)
_NOT_COUNTED = (1 << 64) - 1
_PIECE_BYTES = 1 << 20
#: The identity, cookie included, which no other socket of the machine has.
_KEY_BYTES = 48
_ListedRow = Tuple[bytes]


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
        self._listed = b""
        self._rows: Set[_ListedRow] = set()
        #: How many rows there are of each socket: one for each holder.
        self._copies: Dict[bytes, int] = {}
        self._holders: Dict[int, Holders] = {}
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
        listed = self._list(observation)
        first = observation.samples == 0
        begun: Set[_ListedRow] = set()
        ended: Set[_ListedRow] = set()
        if listed != self._listed:
            rows = set(_ROW.iter_unpack(listed))
            begun, ended = rows - self._rows, self._rows - rows
            self._listed, self._rows = listed, rows
        moved = self._update_holders(begun, ended)
        gone = self._count_copies(begun, ended)
        changed = listed if first else b"".join(map(itemgetter(0), begun))
        observation.add_sample(
            at, make_batches(changed, [] if first else gone), self._holders, moved, partial=not first
        )
        self._events.name_holders(observation)
        holding = {holder for holders in self._holders.values() for holder in holders} if first else ()
        self._holding = len(holding) or self._holding
        return Tally(len(self._copies), self._holding, 0)

    def _list(self, observation: Observation) -> bytes:
        """All rows; what is told of processes meanwhile is taken in, so that its ring does not run full."""
        pieces: List[bytes] = []
        descriptor = begin_iteration(self._events.listing)
        try:
            while True:
                piece = os.read(descriptor, _PIECE_BYTES)
                if not piece:
                    break
                pieces.append(piece)
                self._events.take_told(observation)
        except OSError as error:
            raise HostError("the kernel's listing of sockets", found=str(error.strerror)) from error
        finally:
            os.close(descriptor)
        listed = b"".join(pieces)
        if len(listed) % LISTED.size:
            found = f"{len(listed)} bytes"
            raise HostError("the kernel's listing of sockets", expected=f"rows of {LISTED.size} bytes", found=found)
        return listed

    def _update_holders(self, begun: Set[_ListedRow], ended: Set[_ListedRow]) -> Set[int]:
        """Take in who holds which socket now; the inodes of which that may have changed."""
        ticks_per_s = self._events.ticks_per_s
        now = {_HELD.unpack(row) for (row,) in begun}
        before = {_HELD.unpack(row) for (row,) in ended}
        for inode, pid, start_ns in before - now:
            holder = Holder(pid, start_ns * ticks_per_s // 1_000_000_000)
            rest = tuple(other for other in self._holders.get(inode, ()) if other != holder)
            if rest:
                self._holders[inode] = rest
            else:
                self._holders.pop(inode, None)
        for inode, pid, start_ns in now - before:
            holder = Holder(pid, start_ns * ticks_per_s // 1_000_000_000)
            others = self._holders.get(inode)
            self._holders[inode] = (holder,) if others is None else tuple(sorted({*others, holder}))
        return {inode for inode, _pid, _start_ns in now ^ before}

    def _count_copies(self, begun: Set[_ListedRow], ended: Set[_ListedRow]) -> List[bytes]:
        """Sockets that are not listed any more, as one row of each."""
        copies = self._copies
        for (row,) in begun:
            key = row[:_KEY_BYTES]
            copies[key] = copies.get(key, 0) + 1
        gone = []
        for (row,) in ended:
            key = row[:_KEY_BYTES]
            copies[key] -= 1
            if not copies[key]:
                del copies[key]
                gone.append(row)
        return gone

    def forget_gone(self) -> None:
        """Nothing is remembered beyond the last sample."""


def make_batches(listed: bytes, gone: Sequence[bytes]) -> List[Batch]:
    """The sockets of a listing, by namespace and protocol; those of the machine itself (AF_UNIX) are left out.

    Parameters
    ----------
    listed : bytes
        Rows.
    gone : sequence of bytes
        Rows of sockets that are not listed any more.
    """
    found: Dict[Tuple[int, int], List[Any]] = {}
    missing: Dict[Tuple[int, int], List[bytes]] = {}
    for where, rows in groupby(_SOCKET.iter_unpack(listed), _WHERE):
        found.setdefault(where, []).extend(rows)
    for row in gone:
        identity, protocol, netns = _PLACE.unpack(row)
        found.setdefault((netns, protocol), [])
        missing.setdefault((netns, protocol), []).append(identity)
    return [
        Batch(
            str(netns),
            PROTOCOL_NAMES[protocol],
            "table",
            rows,
            decode_ends,
            _read_row,
            _IDENTITY,
            missing.get((netns, protocol), ()),
        )
        for (netns, protocol), rows in found.items()
        if protocol in PROTOCOL_NAMES
    ]


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
