# SPDX-License-Identifier: GPL-3.0-or-later
"""Packet headers of every network namespace: a capture file, sums of UDP conversations, names for addresses.

What needs privilege is done by `open_captures`; a `PacketSource` reads what was opened and needs none. It is read with
the tracer's beat; while nothing comes, that is one look at one word of memory for each namespace. What the kernel or
the reader had no room for, or no time (`packets_per_s`), is counted, and a namespace in which anything was lost
does not count as watched: from there no silence is taken for absence.
"""

import socket
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Type

from whoneeds.model.errors import Gone, HostError
from whoneeds.model.evidence import CaptureRecord, ExchangeRecord, NameRecord
from whoneeds.tracer.addresses import open_addresses
from whoneeds.tracer.capture_filter import NAME_PORTS, TCP, UDP, WORDS, make_filter
from whoneeds.tracer.client_hello import server_name
from whoneeds.tracer.dns_answers import parse_answer
from whoneeds.tracer.exchanges import Exchanges, split_ends
from whoneeds.tracer.filter_expression import compile_expression
from whoneeds.tracer.names import DNS, NameBook
from whoneeds.tracer.namespaces import open_in_namespaces
from whoneeds.tracer.network_header import find_transport
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.packet_ring import RETIRE_MS, CaptureChannel, PacketRing, open_capture
from whoneeds.tracer.pcap import PcapFile, interface_base
from whoneeds.tracer.sampler import gap_reason
from whoneeds.tracer.sock_diag import IPV4, IPV6, address_text

#: Name under which a packet socket is handed over.
HANDED_NAME = "whoneeds-packets"
#: The ring of the tracer's own namespace, and those of the others, of which there can be many.
_OWN_RING, _OTHER_RING = (32 << 10, 64), (16 << 10, 16)
#: Namespaces that packets are taken in at once; their rings take 32 MiB together.
_MOST_NAMESPACES = 128
#: Time for which packets may come at once, before they count as too many.
_BURST_S = 2.0
_BEGIN_OR_END = 0x07

Channels = Dict[int, CaptureChannel]


class PacketLimits(NamedTuple):
    """What packets may cost.

    Attributes
    ----------
    per_s : int
        Most packets a second that are taken in, over time, all namespaces together.
    file_bytes : int
        Most bytes of a segment's capture file.
    """

    per_s: int = 2000
    file_bytes: int = 256 << 10


def open_captures(
    wanted: str, own: Optional[int], doors: Dict[int, List[str]]
) -> Tuple[Channels, Dict[int, HostError]]:
    """Begin to capture in namespaces. Needs CAP_NET_RAW, and CAP_SYS_ADMIN to enter others.

    Parameters
    ----------
    wanted : str
        'headers', 'all', or an expression.
    own : int or None
        The caller's own namespace, if it is one of those.
    doors : dict of int to list of str
        Ways into the others, as `whoneeds.tracer.namespaces.NamespaceFinder` finds them.

    Returns
    -------
    channels : dict of int to CaptureChannel
        Can be handed to another process.
    refused : dict of int to HostError

    Raises
    ------
    SettingsError
        If the expression is wrong.
    Denied, Unsupported, HostError
        If the own namespace, or none, can be captured in.
    """
    program = make_filter(None if wanted in WORDS else compile_expression(wanted), wanted)
    channels: Channels = {}
    if own is not None:
        block_bytes, blocks = _OWN_RING
        channels[own] = open_capture(program, block_bytes=block_bytes, blocks=blocks)
    block_bytes, blocks = _OTHER_RING
    opened, refused = open_in_namespaces(doors, lambda: open_capture(program, block_bytes=block_bytes, blocks=blocks))
    channels.update(opened)
    return channels, refused


def begin_capture(
    wanted: str, limits: PacketLimits, own: int, at: Instant, handed: Sequence[int] = ()
) -> Tuple[Optional["PacketSource"], Optional[HostError]]:
    """Take packets of the caller's own namespace in from now on, or say why that cannot be.

    Parameters
    ----------
    wanted : str
    limits : PacketLimits
    own : int
    at : Instant
    handed : sequence of int
        The packet socket of `open_to_hand_over`, if somebody handed one over: it is used in the place of a new one.
    """
    try:
        if handed:
            packets = socket.socket(fileno=handed[0])
            channels: Channels = {own: CaptureChannel(packets, open_addresses(), *_OWN_RING)}
        else:
            channels, _refused = open_captures(wanted, own, {})
        return PacketSource(channels, own, wanted, limits, at), None
    except HostError as error:
        return None, error


def open_to_hand_over(wanted: str) -> Tuple[List[Tuple[str, int]], Optional[HostError]]:
    """Begin to capture in the caller's own namespace for another process, or say why that cannot be.

    Parameters
    ----------
    wanted : str
        As in the settings.

    Returns
    -------
    named : list of (str, int)
        For `whoneeds.tracer.handover`; empty where nothing is wanted, or nothing can be had. They stay open.
    refused : HostError or None
    """
    if wanted == "off":
        return [], None
    try:
        channels, _refused = open_captures(wanted, 0, {})
    except HostError as error:
        return [], error
    channels[0].addresses.close()
    return [(HANDED_NAME, channels[0].packets.detach())], None


class _Capture:
    """One namespace."""

    def __init__(self, ring: PacketRing, since_ns: int, base: Optional[int]) -> None:
        self.ring, self.since_ns, self.base = ring, since_ns, base
        self.exchanges = Exchanges(since_ns)
        self.names = NameBook()
        self.packets = self.stored = self.lost = 0
        #: Whether the namespace had addresses beside loopback when that was looked up last.
        self.has_outside = False


class PacketSource:
    """Takes packets in. Needs no privilege.

    Parameters
    ----------
    channels : dict of int to CaptureChannel
        From `open_captures`, by namespace.
    own : int
        The tracer's own namespace.
    wanted : str
        What they were opened with.
    limits : PacketLimits
    at : Instant
    """

    def __init__(self, channels: Channels, own: int, wanted: str, limits: PacketLimits, at: Instant) -> None:
        self.wanted, self.limits = wanted, limits
        self.packets = 0
        self._own = own
        self._captures: Dict[int, _Capture] = {}
        self._gone: List[Tuple[int, _Capture]] = []
        self._bases = 1
        self._file = PcapFile(limits.file_bytes)
        self._credit = limits.per_s * _BURST_S
        self._last_ns = at.boot_ns
        self._beyond: Set[int] = set()
        self.add(channels, at)

    def add(self, channels: Channels, at: Instant) -> None:
        """Take packets in from these namespaces too."""
        for inode, channel in channels.items():
            base = interface_base(0 if inode == self._own else self._bases)
            self._bases += inode != self._own
            self._captures[inode] = _Capture(PacketRing(channel), at.wall_ns, base)

    def watch(
        self,
        observation: Observation,
        at: Instant,
        doors: Dict[int, List[str]],
        open_channels: Callable[[str, Optional[int], Dict[int, List[str]]], Any] = open_captures,
    ) -> None:
        """Follow the namespaces of the host: leave those that nobody else is in, begin with new ones.

        Parameters
        ----------
        observation : Observation
            Told of those that cannot be followed.
        at : Instant
        doors : dict of int to list of str
            Ways into all namespaces but the own one.
        open_channels : callable
            Does what `open_captures` does; where this process holds no privilege, by asking somebody who does.
        """
        for inode in [inode for inode in self._captures if inode != self._own and inode not in doors]:
            capture = self._captures.pop(inode)
            self._read_capture(capture, observation, at)
            capture.ring.close()
            self._gone.append((inode, capture))
        missing = {inode: paths for inode, paths in doors.items() if inode not in self._captures}
        room = max(_MOST_NAMESPACES - len(self._captures), 0)
        beyond = set(list(missing)[room:])
        for inode in beyond:
            del missing[inode]
        if beyond - self._beyond:
            detail = f"network namespaces beyond the {_MOST_NAMESPACES} that packets are taken in"
            observation.add_gap("packets", "dropped", detail, at, at, len(beyond - self._beyond))
        self._beyond = beyond
        if not missing:
            return
        channels, refused = open_channels(self.wanted, None, missing)
        self.add(channels, at)
        for error in refused.values():
            if not isinstance(error, Gone):
                observation.add_gap("packets", gap_reason(error), error.message, at, at)

    def read(self, observation: Observation, at: Instant) -> None:
        """Take in what came since the last time, without waiting."""
        per_s = self.limits.per_s
        self._credit = min(self._credit + per_s * (at.boot_ns - self._last_ns) / 1e9, per_s * _BURST_S)
        self._last_ns = at.boot_ns
        for capture in self._captures.values():
            if capture.ring.waiting():
                self._read_capture(capture, observation, at)

    def _read_capture(self, capture: _Capture, observation: Observation, at: Instant) -> None:
        ring, skipped = capture.ring, 0
        # the kernel's wall clock at the packet, as the segment counts time
        opened = observation.opened
        shift_ns = (opened.wall_ns - opened.boot_ns) - (at.wall_ns - at.boot_ns)
        for _block in range(ring.blocks):
            waiting = ring.waiting()
            if not waiting:
                break
            if self._credit <= 0:
                ring.skip()
                skipped += waiting
                continue
            self._credit -= waiting
            self._take_block(capture, shift_ns)
        lost = ring.lost()
        self.packets += lost + skipped
        capture.packets += lost + skipped
        if lost or skipped:
            capture.lost += lost + skipped
            capture.exchanges.note_loss(at.wall_ns)
            if lost:
                detail = "packets that the kernel had no room for"
                observation.add_gap("packets", "dropped", detail, at, at, lost)
            if skipped:
                detail = f"packets beyond the {self.limits.per_s} a second that are taken in"
                observation.add_gap("packets", "dropped", detail, at, at, skipped)

    def _take_block(self, capture: _Capture, shift_ns: int) -> None:
        file, base = self._file, capture.base
        before = file.packets
        number = 0
        for packet in capture.ring.read_block():
            second, nanosecond, length, protocol, interface, hardware, kind, address_length, address, data = packet
            number += 1
            if base is not None:
                numbered = base + interface if not base or interface < 1 << 20 else base
                file.add(
                    second, nanosecond, protocol, numbered, hardware, kind, address_length, address, length, data
                )  # fmt: skip
            place = find_transport(protocol, data)
            if place is None:
                continue
            transport, begin, ends = place
            at_ns = second * 1_000_000_000 + nanosecond + shift_ns
            if transport == UDP:
                size = int.from_bytes(data[begin + 4 : begin + 6], "big") - 8
                capture.exchanges.add(ends, interface, at_ns, size if size > 0 else 0)
                if int.from_bytes(ends[-4:-2], "big") in NAME_PORTS:
                    self._take_answer(capture, ends, data[begin + 8 :], at_ns)
            elif transport == TCP and len(data) > begin + 20 and not data[begin + 13] & _BEGIN_OR_END:
                self._take_hello(capture, ends, data[begin + (data[begin + 12] >> 4) * 4 :], at_ns)
        self.packets += number
        capture.packets += number
        capture.stored += file.packets - before

    def _take_answer(self, capture: _Capture, ends: bytes, message: bytes, at_ns: int) -> None:
        port = split_ends(ends)[0][1]
        if port == DNS and not capture.exchanges.asked(ends):
            return  # nobody asked: anybody can send such a thing
        for name, address in parse_answer(message).names:
            capture.names.add(name, address, "dns", at_ns, port)

    def _take_hello(self, capture: _Capture, ends: bytes, data: bytes, at_ns: int) -> None:
        name = server_name(data)
        if name is not None:
            (_sender, _port), (receiver, _receiver_port) = split_ends(ends)
            family = IPV4 if len(receiver) == 4 else IPV6
            capture.names.add(name, address_text(family, receiver), "sni", at_ns)

    @property
    def namespaces(self) -> Set[str]:
        """Namespaces that packets are taken in of."""
        return {str(inode) for inode in self._captures}

    @property
    def rows(self) -> int:
        """Rows that a segment would get now, at most."""
        return sum(2 * capture.exchanges.rows + capture.names.rows for capture in self._captures.values())

    def finish(self) -> float:
        """Seconds after which a block that is not full is given to the reader: for the end of a run."""
        return 2 * RETIRE_MS / 1000 if self._captures else 0.0

    def take(self, observation: Observation, closed: Instant) -> Tuple[Dict[Type[Any], List[Any]], bytes]:
        """What a segment gets: rows by record class, and its capture file (empty if there were no packets).

        What was not seen is added to the observation as gaps, so that this comes before its records are made.
        """
        closed_ns, opened_ns, host = observation.instant_ns(closed), observation.opened.wall_ns, observation.host
        tables: Dict[Type[Any], List[Any]] = {CaptureRecord: [], ExchangeRecord: [], NameRecord: []}
        refused = left_out = 0
        for inode, capture in [*self._gone, *self._captures.items()]:
            netns, exchanges, names = str(inode), capture.exchanges, capture.names
            addresses = capture.ring.addresses() if exchanges.rows else None
            for one in exchanges.take(addresses):
                first_ns = min(max(one.first_ns, opened_ns), closed_ns)
                last_ns = min(max(one.last_ns, first_ns), closed_ns)
                values = one._asdict()
                values.update(first_ns=first_ns, last_ns=last_ns)
                tables[ExchangeRecord].append(ExchangeRecord(host=host, netns=netns, protocol="udp", **values))
            for name, address, source, first_ns, last_ns in names.take():
                first_ns = min(max(first_ns, opened_ns), closed_ns)
                last_ns = min(max(last_ns, first_ns), closed_ns)
                tables[NameRecord].append(NameRecord(host, netns, name, address, source, first_ns, last_ns))
            refused, left_out = refused + names.refused, left_out + names.left_out
            capture.lost += exchanges.left_out
            if exchanges.left_out:
                detail = "UDP packets of more conversations than are counted at once"
                observation.add_gap("packets", "dropped", detail, closed, closed, exchanges.left_out)
            first_ns = min(max(capture.since_ns, opened_ns), closed_ns)
            tables[CaptureRecord].append(
                CaptureRecord(
                    host=host, netns=netns, filter=self.wanted, first_ns=first_ns, last_ns=closed_ns,
                    packets=capture.packets, stored_packets=capture.stored, lost_packets=capture.lost,
                    interface_base=capture.base,
                )
            )  # fmt: skip
            capture.packets = capture.stored = capture.lost = 0
            names.refused = names.left_out = exchanges.left_out = 0
        for source, count, detail in (
            ("names", refused, "names that are none, or that a multicast name service may not speak for"),
            ("names", left_out, "names beyond what is held at once"),
            ("packets", self._file.left_out, "packets that the capture file has no room for; all else counts them"),
        ):
            if count:
                observation.add_gap(source, "dropped", detail, closed, closed, count)
        content = self._file.content() if self._file.packets else b""
        self._file = PcapFile(self.limits.file_bytes)
        self._gone = []
        self._leave_emptied()
        return tables, content

    def _leave_emptied(self) -> None:
        """Leave namespaces that have lost their addresses: an open capture is all that keeps those alive."""
        for inode, capture in list(self._captures.items()):
            addresses = capture.ring.addresses() if inode != self._own else None
            outside = {one for one in addresses or () if not one.startswith(("127.", "fe80:")) and one != "::1"}
            if capture.has_outside and addresses is not None and not outside:
                self._captures.pop(inode).ring.close()
            capture.has_outside = bool(outside)

    def close(self) -> None:
        """Take all rings down."""
        for capture in self._captures.values():
            capture.ring.close()
        self._captures = {}
