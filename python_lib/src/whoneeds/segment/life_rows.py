# SPDX-License-Identifier: GPL-3.0-or-later
"""From records of connections to rows of sockets, every value checked. Runs on the controller."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Dict, Iterator, List, Optional, Tuple

from whoneeds.model.errors import InvalidRecord
from whoneeds.model.evidence import STATES, SegmentHeader, SocketRecord
from whoneeds.model.identity import process_id, socket_id
from whoneeds.segment.lives import (
    ACCEPTED,
    END_CODES,
    INITIATED,
    LIFE_FIELDS,
    MAX_ACTORS,
    MORE_ACTORS,
    UNKNOWN_COUNT,
    LifeBlock,
    unpack_lives,
)

_ENDS: Dict[int, Optional[str]] = {0: None, **{code: word for word, code in END_CODES.items()}}
_PROTOCOLS = {6: "tcp", 17: "udp"}
_MAPPED = bytes(10) + b"\xff\xff"
_NOWHERE = (bytes(16), bytes(10) + b"\xff\xff" + bytes(4))
_NO_USER = (1 << 32) - 1
_FARTHEST_NS = 1 << 63


class LifeReader:
    """Makes rows of the blocks of one segment.

    Parameters
    ----------
    header : SegmentHeader
    byte_order : str
        'little' or 'big', as on the host.
    ticks_per_s : int
        Unit of the start of processes on the host.
    """

    def __init__(self, header: SegmentHeader, byte_order: str, ticks_per_s: int) -> None:
        self._header = header
        self._record = struct.Struct(("<" if byte_order == "little" else ">") + LIFE_FIELDS)
        self._ticks_per_s = ticks_per_s
        self._addresses: Dict[bytes, str] = {}
        self._processes: Dict[Tuple[int, int], str] = {}

    def read(self, block: LifeBlock) -> Iterator[SocketRecord]:
        """One row for each process that acted on the connection, or one without.

        Raises
        ------
        CorruptSegment, InvalidRecord
        """
        for life in self._record.iter_unpack(unpack_lives(block)):
            yield from self._rows(life)

    def _rows(self, life: Tuple[Any, ...]) -> List[SocketRecord]:
        cookie, begun_ns, ended_ns, sent, received, netns, uid, local, remote, local_port, remote_port = life[:11]
        protocol, flags, end, actors, *rest = life[11:]
        pids, state, starts = rest[:MAX_ACTORS], rest[MAX_ACTORS], rest[MAX_ACTORS + 1 :]
        if end not in _ENDS or protocol not in _PROTOCOLS or actors > MAX_ACTORS or cookie == 0 or begun_ns > ended_ns:
            found = f"end {end}, protocol {protocol}, actors {actors}, cookie {cookie}, {begun_ns} to {ended_ns} ns"
            raise InvalidRecord("connection", expected="values that the tracer writes", found=found)
        header = self._header
        last_ns = self._utc(ended_ns)
        first_ns = last_ns if begun_ns == 0 else self._utc(begun_ns)
        if first_ns < -_FARTHEST_NS or last_ns >= _FARTHEST_NS:
            raise InvalidRecord("connection", expected="times of 64 bits", found=f"{first_ns} to {last_ns} ns")
        peer = None if remote_port == 0 and remote in _NOWHERE else self._address(remote)
        row = {
            "socket_id": socket_id(header.host, header.boot_id, str(netns), cookie & (1 << 63) - 1),
            "host": header.host,
            "netns": str(netns),
            "protocol": _PROTOCOLS[protocol],
            "local_addr": self._address(local),
            "local_port": local_port,
            "remote_addr": peer,
            "remote_port": None if peer is None else remote_port,
            "state": _state_word(protocol, state, peer),
            "inode": 0,
            "uid": None if uid == _NO_USER else uid,
            "owners": actors + (1 if flags & MORE_ACTORS else 0),
            "sent_bytes": _count(sent),
            "received_bytes": _count(received),
            "first_ns": first_ns,
            "last_ns": last_ns,
            "samples": 0,
            "source": "event",
            "initiated": True if flags & INITIATED else False if flags & ACCEPTED else None,
            "end": _ENDS[end],
        }
        holders: List[Optional[Tuple[int, int]]] = [*zip(pids[:actors], starts[:actors])]
        return [SocketRecord(process_id=self._process(holder), **row) for holder in holders or [None]]

    def _utc(self, boot_ns: int) -> int:
        """UTC of a time since boot, by the clock at the segment's opening."""
        return self._header.opened_ns + boot_ns - self._header.opened_mono_ns

    def _process(self, holder: Optional[Tuple[int, int]]) -> Optional[str]:
        if holder is None:
            return None
        known = self._processes.get(holder)
        if known is None:
            pid, start_ns = holder
            ticks = start_ns * self._ticks_per_s // 1_000_000_000
            known = self._processes[holder] = process_id(self._header.host, self._header.boot_id, pid, ticks)
        return known

    def _address(self, raw: bytes) -> str:
        text = self._addresses.get(raw)
        if text is None:
            address = IPv4Address(raw[12:]) if raw[:12] == _MAPPED else IPv6Address(raw)
            text = self._addresses[raw] = str(address)
        return text


def _state_word(protocol: int, state: int, peer: Optional[str]) -> str:
    if protocol != 6:
        return "bound" if peer is None else "established"
    return STATES[state - 1] if 1 <= state <= len(STATES) else "close"


def _count(value: int) -> Optional[int]:
    return None if value == UNKNOWN_COUNT or value >= 1 << 63 else value
