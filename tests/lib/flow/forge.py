# SPDX-License-Identifier: GPL-3.0-or-later
"""Forge captures: conversations packet by packet, in any frame, in any kind of file."""

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import LLC, SNAP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP
from scapy.packet import Packet, Raw

#: Some day in 2023, in whole seconds, so that every resolution of a capture can tell it.
BEGIN_NS = 1_700_000_000 * 10**9
MS = 10**6
S = 10**9
_MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


class Sent(NamedTuple):
    """A packet on the wire: when, what of it was captured, and how long it was."""

    time_ns: int
    data: bytes
    wire_bytes: int


def on_wire(
    packets: Iterable[tuple[float, Packet | bytes]],
    frame: Callable[[Packet | bytes], bytes] = bytes,
    snap: int | None = None,
) -> list[Sent]:
    """Frame packets, each with its time in milliseconds after the begin."""
    found = []
    for at_ms, packet in packets:
        data = frame(packet)
        found.append(Sent(BEGIN_NS + round(at_ms * 1000) * 1000, data[:snap], len(data)))
    return found


# ---------------------------------------------------------------- files


def pcap(sent: Iterable[Sent], link_type: int = 101, order: str = "<", nano: bool = True) -> bytes:
    """Write a capture in the older format."""
    made = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link_type)
    for time_ns, data, wire_bytes in sent:
        part = time_ns % S if nano else time_ns % S // 1000
        made += struct.pack(order + "IIII", time_ns // S, part, len(data), wire_bytes) + data
    return made


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """Write a block of the newer format, with its length before and behind."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """Begin a section."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int, order: str = "<", resolution: int | None = None, offset_s: int | None = None) -> bytes:
    """Describe an interface, with a resolution as its option tells it."""
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_s is not None:
        options += struct.pack(order + "HHq", 14, 8, offset_s)
    if options:
        options += bytes(4)
    return block(1, struct.pack(order + "HHI", link_type, 0, 0) + options, order)


def enhanced(number: int, units: int, sent: Sent, order: str = "<", options: bytes = b"") -> bytes:
    """Write a packet of an interface, its time in the interface's units."""
    head = struct.pack(order + "IIIII", number, units >> 32, units & 0xFFFFFFFF, len(sent.data), sent.wire_bytes)
    return block(6, head + sent.data + bytes(-len(sent.data) % 4) + options, order)


def pcapng(sent: Iterable[Sent], link_type: int = 101, order: str = "<", resolution: int | None = 9) -> bytes:
    """Write a capture in the newer format: one section, one interface."""
    made = section(order) + interface(link_type, order, resolution)
    exponent = 6 if resolution is None else resolution
    per_s = 2 ** (exponent & 127) if exponent & 128 else 10**exponent
    for each in sent:
        made += enhanced(0, each.time_ns * per_s // S, each, order)
    return made


# ---------------------------------------------------------------- frames


def _kind(packet: Packet | bytes) -> int:
    return 0x86DD if bytes(packet)[0] >> 4 == 6 else 0x0800


def ethernet(packet: Packet | bytes) -> bytes:
    """Ethernet, padded to its least length."""
    return bytes(Ether(type=_kind(packet), **_MACS) / Raw(bytes(packet))).ljust(60, b"\0")


def vlan(packet: Packet | bytes) -> bytes:
    """Ethernet with one VLAN tag."""
    return bytes(Ether(**_MACS) / Dot1Q(vlan=7, type=_kind(packet)) / Raw(bytes(packet)))


def qinq(packet: Packet | bytes) -> bytes:
    """Ethernet with a VLAN in a provider's."""
    tags = Dot1AD(vlan=100, type=0x8100) / Dot1Q(vlan=7, type=_kind(packet))
    return bytes(Ether(type=0x88A8, **_MACS) / tags / Raw(bytes(packet)))


def snap(packet: Packet | bytes) -> bytes:
    """IEEE 802.3 with LLC and SNAP."""
    inner = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=_kind(packet)) / Raw(bytes(packet))
    return bytes(Dot3(**_MACS) / inner)


def pppoe(packet: Packet | bytes) -> bytes:
    """PPP over Ethernet."""
    body = struct.pack(">H", 0x57 if _kind(packet) == 0x86DD else 0x21) + bytes(packet)
    return bytes(Ether(type=0x8864, **_MACS) / Raw(struct.pack(">BBHH", 0x11, 0, 1, len(body)) + body))


def mpls(packet: Packet | bytes) -> bytes:
    """Two labels of MPLS."""
    return bytes(Ether(type=0x8847, **_MACS) / Raw(bytes((0, 1, 0, 64, 0, 2, 1, 64)) + bytes(packet)))


def cooked(packet: Packet | bytes) -> bytes:
    """Linux's cooked frame, version 1."""
    return bytes(CookedLinux(proto=_kind(packet)) / Raw(bytes(packet)))


def cooked_2(packet: Packet | bytes) -> bytes:
    """Linux's cooked frame, version 2."""
    return bytes(CookedLinuxV2(proto=_kind(packet), ifindex=3) / Raw(bytes(packet)))


def null(packet: Packet | bytes) -> bytes:
    """BSD's loopback, its family in the order of a little-endian host."""
    return struct.pack("<I", 30 if _kind(packet) == 0x86DD else 2) + bytes(packet)


def loop(packet: Packet | bytes) -> bytes:
    """OpenBSD's loopback, its family in network order."""
    return struct.pack(">I", 24 if _kind(packet) == 0x86DD else 2) + bytes(packet)


def ppp(packet: Packet | bytes) -> bytes:
    """PPP with its address and control bytes."""
    return b"\xff\x03" + bytes(PPP(proto=0x57 if _kind(packet) == 0x86DD else 0x21) / Raw(bytes(packet)))


#: By name: link type, and the frame.
FRAMES: dict[str, tuple[int, Callable[[Packet | bytes], bytes]]] = {
    "Ethernet": (1, ethernet),
    "VLAN": (1, vlan),
    "QinQ": (1, qinq),
    "LLC and SNAP": (1, snap),
    "PPPoE": (1, pppoe),
    "MPLS": (1, mpls),
    "cooked": (113, cooked),
    "cooked version 2": (276, cooked_2),
    "raw": (101, bytes),
    "raw by its older number": (12, bytes),
    "null": (0, null),
    "loop": (108, loop),
    "PPP": (9, ppp),
    "PPP in HDLC": (50, ppp),
}


# ---------------------------------------------------------------- conversations


class Talk:
    """Both ends of a TCP connection, each with its numbers.

    Parameters
    ----------
    client, server : str
    client_port, server_port : int
    client_seq, server_seq : int
        First sequence number of each.
    """

    def __init__(
        self,
        client: str = "10.0.0.1",
        server: str = "10.0.0.2",
        client_port: int = 40000,
        server_port: int = 80,
        client_seq: int = 1000,
        server_seq: int = 500_000,
    ) -> None:
        self.ends = {"c": (client, client_port), "s": (server, server_port)}
        self.next = {"c": client_seq, "s": server_seq}
        self.kind = IPv6 if ":" in client else IP

    def say(self, who: str, flags: str, data: bytes = b"", skip: int = 0, back: int = 0, **others) -> Packet:
        """Say something as the client, "c", or as the server, "s".

        Parameters
        ----------
        who, flags : str
        data : bytes
        skip : int
            So many bytes before it are lost.
        back : int
            It begins so many bytes before what was sent; the numbers do not advance by it.
        """
        peer = "s" if who == "c" else "c"
        (src, sport), (dst, dport) = self.ends[who], self.ends[peer]
        self.next[who] += skip
        seq = self.next[who] - back
        if not back:
            self.next[who] += 0 if "R" in flags else len(data) + ("S" in flags) + ("F" in flags)
        numbers = {"seq": seq % 2**32, "ack": self.next[peer] % 2**32 if "A" in flags else 0} | others
        head = TCP(sport=sport, dport=dport, flags=flags, **numbers)
        return self.kind(src=src, dst=dst) / head / Raw(data) if data else self.kind(src=src, dst=dst) / head

    def opening(self) -> list[Packet]:
        """Three packets that open it."""
        return [self.say("c", "S"), self.say("s", "SA"), self.say("c", "A")]

    def closing(self, first: str = "c") -> list[Packet]:
        """Four packets that close it."""
        second = "s" if first == "c" else "c"
        return [self.say(first, "FA"), self.say(second, "A"), self.say(second, "FA"), self.say(first, "A")]


def spaced(packets: Iterable[Packet | bytes], begin_ms: float = 0, step_ms: float = 1) -> list[tuple[float, Packet]]:
    """Give packets their times, one after another."""
    return [(begin_ms + number * step_ms, packet) for number, packet in enumerate(packets)]


def datagram(src: str, sport: int, dst: str, dport: int, count: int = 20) -> Packet:
    """One UDP datagram."""
    kind = IPv6 if ":" in src else IP
    data = (bytes(range(256)) * (count // 256 + 1))[:count]
    return kind(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(data)
