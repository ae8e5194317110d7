# SPDX-License-Identifier: GPL-3.0-or-later
"""The meter's oracle: flows of a capture as Zeek's documents say that they are, by slow and obvious means.

It shares nothing with the meter. It follows what Zeek documents for conn.log: the originator is whoever sent the first
packet, unless that came from a port that servers have; sizes of TCP are differences of sequence numbers; a flow ends by
its closing or by silence; what travels in a tunnel is a flow of its own. Community ID follows its specification.
"""

import base64
import hashlib
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6Unknown
from scapy.layers.sctp import SCTP

from tests.lib.flow.oracle_tcp import Segment, TcpLife
from tests.lib.flow.peel import Address, Inside, IpPacket, carried_by, frames_of, inside_ip, inside_udp, ip_packet

_S = 10**9
_MOST_TUNNELS = 2
_ICMP_PAIRS = ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18))
_ICMP6_PAIRS = ((128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145))
_COUNTERPARTS = {
    1: {a: b for pair in _ICMP_PAIRS for a, b in (pair, pair[::-1])},
    58: {a: b for pair in _ICMP6_PAIRS for a, b in (pair, pair[::-1])},
}
_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp", 132: "sctp"}
#: Nothing can be seen behind these: encrypted, a signal of mobility, no next header.
_SILENT = (50, 135, 59)


@dataclass(frozen=True)
class Timeouts:
    """How long a flow may be silent."""

    tcp_ns: int = 300 * _S
    opening_ns: int = 60 * _S
    udp_ns: int = 60 * _S
    icmp_ns: int = 60 * _S
    other_ns: int = 60 * _S


@dataclass
class OracleFlow:
    """One flow, in the words of a wire flow where they are clear, and in Zeek's for its end."""

    number: int
    protocol: int
    orig: tuple[Address, int]
    resp: tuple[Address, int]
    first_ns: int
    last_ns: int
    vlans: tuple[int | None, int | None]
    tunnel: str | None
    outer: "OracleFlow | None"
    packets: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    ip_bytes: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    bytes: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    one_way: bool = False
    by_port: bool = False
    by_listener: bool = False
    timed_out: bool = False
    tcp: TcpLife | None = None

    @property
    def state(self) -> str:
        """Zeek's word for how it ended."""
        if self.tcp is not None:
            return self.tcp.state
        if self.protocol != 17:
            return "OTH"
        sent = (self.packets[True] > 0, self.packets[False] > 0)
        return {(True, True): "SF", (True, False): "S0", (False, True): "SHR"}[sent]

    @property
    def direction(self) -> str:
        """How it is known who began."""
        if self.tcp is not None and self.tcp.saw_opening:
            return "handshake"
        if self.by_listener:
            return "listener"
        return "port" if self.by_port else "first"

    @property
    def ends(self) -> tuple:
        """Both ends with where they are, the originator's first."""
        return (self.orig, self.vlans, self.tunnel), (self.resp, self.vlans, self.tunnel)

    def turn_round(self) -> None:
        """Let the sides change places."""
        self.orig, self.resp = self.resp, self.orig
        for count in (self.packets, self.ip_bytes, self.bytes):
            count[True], count[False] = count[False], count[True]
        if self.tcp is not None:
            self.tcp.turn_round()

    @property
    def community_id(self) -> str:
        """Community ID, version 1."""
        ports = None if self.protocol not in _NAMES else (self.orig[1], self.resp[1])
        return community_id(self.protocol, self.orig[0], self.resp[0], ports, self.one_way)


def community_id(
    protocol: int, src: Address, dst: Address, ports: tuple[int, int] | None, one_way: bool = False
) -> str:
    """Name a flow as Community ID's specification says, with seed 0."""
    ends = [(src.packed, ports[0] if ports else 0), (dst.packed, ports[1] if ports else 0)]
    if not one_way:
        ends.sort()
    text = bytes(2) + ends[0][0] + ends[1][0] + bytes((protocol, 0))
    if ports is not None:
        text += ends[0][1].to_bytes(2, "big") + ends[1][1].to_bytes(2, "big")
    return "1:" + base64.b64encode(hashlib.sha1(text).digest()).decode()


class Oracle:
    """Meters one capture.

    Parameters
    ----------
    server_ports : dict of str to set of int
        Ports that servers have, by protocol.
    timeouts : Timeouts
    """

    def __init__(self, server_ports: dict[str, frozenset[int]], timeouts: Timeouts = Timeouts()) -> None:
        self.server_ports, self.timeouts = server_ports, timeouts
        self.ended: list[OracleFlow] = []
        self._flows: dict[tuple, OracleFlow] = {}
        self._pieces: dict[tuple, list[IpPacket]] = {}
        self._now_ns = self._clock_ns = 0
        self._vlans: tuple[int | None, int | None] = (None, None)
        self._count = 0

    def read(self, content: bytes) -> list[OracleFlow]:
        """Read a capture; its flows in order of their first packets."""
        for frame in frames_of(content):
            self._now_ns = frame.time_ns
            self._clock_ns = max(self._clock_ns, frame.time_ns)  # which does not go back where a packet's time does
            for key in [key for key, flow in self._flows.items() if self._is_over(flow)]:
                self.ended.append(self._flows.pop(key))
            self._link(Inside("", frame.link_type, frame.data, frame.wire_bytes), None, 0)
        flows = sorted([*self.ended, *self._flows.values()], key=lambda flow: flow.number)
        _tell_by_listeners(flows)
        return flows

    def _link(self, inside: Inside, outer: "OracleFlow | None", depth: int) -> None:
        carried = carried_by(inside.link_type, inside.data, inside.wire_bytes)
        if carried is None:
            return
        self._vlans = (carried.vlan, carried.inner_vlan)
        packet = ip_packet(carried)
        if packet is not None and packet.fragment_id is not None:
            packet = self._assemble(packet)
        if packet is None or packet.protocol in _SILENT:
            return
        tunnel = (inside.kind, outer) if depth else (None, None)
        if packet.protocol in (4, 41, 47):
            within = inside_ip(packet)
            if within is not None and depth < _MOST_TUNNELS:
                self._link(within, outer, depth + 1)
            return
        flow = self._transport(packet, tunnel)
        if flow is not None and flow.protocol == 17 and depth < _MOST_TUNNELS:
            within = inside_udp(flow.resp[1], packet.payload[8:], packet.payload_bytes - 8)
            if within is not None:
                self._link(within, flow, depth + 1)

    def _assemble(self, piece: IpPacket) -> IpPacket | None:
        """Put a datagram together; what came first stays where fragments overlap."""
        if len(piece.payload) < piece.payload_bytes:
            return piece if piece.offset == 0 else None
        key = (piece.src, piece.dst, piece.fragment_id)
        pieces = self._pieces.setdefault(key, [])
        pieces.append(piece)
        ends = [each.offset + each.payload_bytes for each in pieces if not each.more]
        if not ends:
            return None
        held: dict[int, int] = {}
        for each in pieces:
            for place, byte in enumerate(each.payload):
                held.setdefault(each.offset + place, byte)
        if len(held) != max(held) + 1 or max(held) + 1 < ends[0]:
            return None
        del self._pieces[key]
        first = pieces[0]
        header_bytes = first.header_bytes - (8 if first.src.version == 6 else 0)
        begin = next(each for each in pieces if each.offset == 0)
        whole = bytes(held[place] for place in range(len(held)))
        return IpPacket(
            first.src, first.dst, begin.protocol, header_bytes + len(whole), whole, len(whole), header_bytes
        )

    def _transport(self, packet: IpPacket, tunnel: tuple) -> OracleFlow | None:
        name = _NAMES.get(packet.protocol, "other")
        take = {"tcp": self._tcp, "udp": self._udp, "icmp": self._icmp, "sctp": self._sctp, "other": self._other}
        return take[name](packet, tunnel)

    def _tcp(self, packet: IpPacket, tunnel: tuple) -> OracleFlow | None:
        if min(len(packet.payload), packet.payload_bytes) < 20:
            return None
        head = TCP(packet.payload)
        header_bytes = head.dataofs * 4
        if not 20 <= header_bytes <= min(len(packet.payload), packet.payload_bytes):
            return None
        segment = Segment(
            head.seq, head.ack, str(head.flags), packet.payload_bytes - header_bytes, len(packet.payload) - header_bytes
        )
        src, dst = (packet.src, head.sport), (packet.dst, head.dport)
        found = self._flows.get(_two_way(6, src, dst))
        if found is not None and found.tcp is not None and found.tcp.is_reused_by(segment):
            self.ended.append(self._flows.pop(_two_way(6, src, dst)))
            found = None
        if found is None:
            found = self._begin(6, src, dst, _two_way(6, src, dst), tunnel, self._flips_tcp(src, dst, segment))
            found.tcp = TcpLife(self._now_ns)
        assert found.tcp is not None
        if found.tcp.take(src == found.orig, segment, self._now_ns, packet.total_bytes):
            found.orig, found.resp = found.resp, found.orig
        found.last_ns = found.tcp.last_ns
        ends = (found.tcp.orig, found.tcp.resp)
        for side, end, peer in ((True, *ends), (False, *ends[::-1])):
            found.packets[side], found.ip_bytes[side] = end.packets, end.ip_bytes
            found.bytes[side] = found.tcp.size_of(end, peer)
        return found

    def _flips_tcp(self, src: tuple[Address, int], dst: tuple[Address, int], segment: Segment) -> bool:
        syn, ack = "S" in segment.flags, "A" in segment.flags
        if (syn and not ack) or src[1] not in self.server_ports["tcp"]:
            return False
        if dst[1] in self.server_ports["tcp"]:
            return not syn and src[1] < dst[1]
        return True

    def _udp(self, packet: IpPacket, tunnel: tuple) -> OracleFlow | None:
        if min(len(packet.payload), packet.payload_bytes) < 8:
            return None
        head = UDP(packet.payload[:8])
        src, dst = (packet.src, head.sport), (packet.dst, head.dport)
        ports = self.server_ports["udp"]
        flips = src[1] in ports and dst[1] not in ports
        return self._simple(packet, (17, src, dst), tunnel, max(head.len - 8, 0), flips)

    def _icmp(self, packet: IpPacket, tunnel: tuple) -> OracleFlow | None:
        if min(len(packet.payload), packet.payload_bytes) < 8:
            return None
        head = (ICMP if packet.protocol == 1 else ICMPv6Unknown)(packet.payload)
        other = _COUNTERPARTS[packet.protocol].get(head.type)
        src, dst = (packet.src, head.type), (packet.dst, head.code if other is None else other)
        return self._simple(
            packet, (packet.protocol, src, dst), tunnel, packet.payload_bytes - 8, one_way=other is None
        )

    def _sctp(self, packet: IpPacket, tunnel: tuple) -> OracleFlow | None:
        if min(len(packet.payload), packet.payload_bytes) < 12:
            return None
        head = SCTP(packet.payload)
        return self._simple(packet, (132, (packet.src, head.sport), (packet.dst, head.dport)), tunnel, 0)

    def _other(self, packet: IpPacket, tunnel: tuple) -> OracleFlow | None:
        return self._simple(packet, (packet.protocol, (packet.src, 0), (packet.dst, 0)), tunnel, 0)

    def _simple(
        self, packet: IpPacket, ends: tuple, tunnel: tuple, count: int, flips: bool = False, one_way: bool = False
    ) -> OracleFlow:
        """A flow of what has no connections: packets one way and back until there is silence."""
        protocol, src, dst = ends
        key = (protocol, src, dst) if one_way else _two_way(protocol, src, dst)
        flow = self._flows.get(key) or self._begin(protocol, src, dst, key, tunnel, flips)
        flow.one_way = one_way
        side = src == flow.orig
        flow.packets[side] += 1
        flow.ip_bytes[side] += packet.total_bytes
        flow.bytes[side] += count
        flow.last_ns = self._now_ns
        return flow

    def _begin(self, protocol: int, src: tuple, dst: tuple, key: tuple, tunnel: tuple, flips: bool) -> OracleFlow:
        if flips and str(dst[0]) != "255.255.255.255":
            src, dst = dst, src
        self._count += 1
        made = OracleFlow(self._count, protocol, src, dst, self._now_ns, self._now_ns, self._vlans, *tunnel)
        ports = self.server_ports.get(_NAMES.get(protocol, ""), frozenset())
        made.by_port = flips or (dst[1] in ports and src[1] not in ports)
        self._flows[key] = made
        return made

    def _is_over(self, flow: OracleFlow) -> bool:
        times = self.timeouts
        if flow.tcp is not None:
            over = flow.tcp.is_over(self._clock_ns, times.tcp_ns, times.opening_ns)
        else:
            patience_ns = {17: times.udp_ns, 1: times.icmp_ns, 58: times.icmp_ns}.get(flow.protocol, times.other_ns)
            over = flow.last_ns + patience_ns <= self._clock_ns
        flow.timed_out = over
        return over


def _tell_by_listeners(flows: list[OracleFlow]) -> None:
    """Whoever answered an opening, and never began one from there, was called wherever nobody else tells."""
    opened = [flow for flow in flows if flow.tcp is not None and flow.tcp.saw_opening]
    began = {flow.ends[0] for flow in opened}
    answered = {flow.ends[1] for flow in opened if flow.tcp is not None and flow.tcp.was_answered}
    for flow in flows:
        if flow.tcp is None or flow.tcp.saw_opening or flow.state == "S0":
            continue
        answering = [end in answered for end in flow.ends]
        doubtful = any(end in answered and end in began for end in flow.ends)
        if sum(answering) == 1 and not doubtful:
            flow.by_listener = True
            if answering[0]:
                flow.turn_round()


def _two_way(protocol: int, src: tuple, dst: tuple) -> tuple:
    return (protocol, *sorted((src, dst), key=lambda end: (end[0].version, end)))
