# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle's eyes: a capture to frames, a frame to its IP packet, a tunnel to what it carries; every header by scapy.

Slow, and obvious: nothing is shared with the meter, each header is dissected alone and as a whole.
"""

import io
import ipaddress
import logging
from dataclasses import dataclass
from typing import NamedTuple

import scapy.layers.dot11  # noqa: F401 (makes its link types known)
from scapy.config import conf
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import (
    GRE,
    LLC,
    SNAP,
    CookedLinux,
    CookedLinuxV2,
    Dot1Q,
    Ether,
    Loopback,
    LoopbackOpenBSD,
)
from scapy.layers.ppp import HDLC, PPP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from scapy.utils import RawPcapNgReader, RawPcapReader

logging.getLogger("scapy").setLevel(logging.CRITICAL)  # it complains of damage that is forged here on purpose

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
_RAW_LINKS = (12, 14, 101, 228, 229)
#: Headers of IPv6 that another one follows. ESP and what is behind "no next header" are the end of what can be read.
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _TO_DESTINATION = 0, 43, 44, 51, 60
_TEREDO_NET = ipaddress.ip_network("2001::/32")
_TEREDO_ORIGIN, _TEREDO_AUTHENTICATION = 0, 1


class Frame(NamedTuple):
    """One record of a capture."""

    time_ns: int
    link_type: int
    wire_bytes: int
    data: bytes


class Carried(NamedTuple):
    """What a frame or a tunnel carries: an IP packet, with the lengths that the wire had."""

    data: bytes
    wire_bytes: int
    vlan: int | None = None
    inner_vlan: int | None = None


class Inside(NamedTuple):
    """What is in a tunnel: the link type that it has there."""

    kind: str
    link_type: int
    data: bytes
    wire_bytes: int


@dataclass
class IpPacket:
    """An IP packet, or what its fragments came to."""

    src: Address
    dst: Address
    protocol: int
    total_bytes: int  # by its header
    payload: bytes  # what of it was captured, padding left away
    payload_bytes: int  # by its header
    header_bytes: int
    fragment_id: int | None = None  # of a fragment, with what follows
    offset: int = 0
    more: bool = False


def frames_of(content: bytes) -> list[Frame]:
    """Read a capture of either kind."""
    found = []
    if content[:4] == b"\x0a\x0d\x0d\x0a":
        for data, meta in RawPcapNgReader(io.BytesIO(content)):
            time_ns = ((meta.tshigh << 32) + meta.tslow) * 10**9 // meta.tsresol
            found.append(Frame(time_ns, meta.linktype, meta.wirelen, data))
        return found
    reader = RawPcapReader(io.BytesIO(content))
    for data, meta in reader:
        time_ns = meta.sec * 10**9 + meta.usec * (1 if reader.nano else 1000)
        found.append(Frame(time_ns, reader.linktype, meta.wirelen, data))
    return found


def carried_by(link_type: int, data: bytes, wire_bytes: int) -> Carried | None:
    """Find the IP packet in a frame."""
    if link_type == 1:
        return _in_ethernet(data, wire_bytes)
    if link_type in _RAW_LINKS:
        return Carried(data, wire_bytes)
    if link_type == 0:
        return _behind(Loopback, data, wire_bytes, lambda head: head.type in (2, 10, 24, 28, 30))
    if link_type == 108:
        return _behind(LoopbackOpenBSD, data, wire_bytes, lambda head: head.type in (2, 10, 24, 28, 30))
    if link_type == 113:
        return _by_type(CookedLinux, data, wire_bytes)
    if link_type == 276:
        return _by_type(CookedLinuxV2, data, wire_bytes)
    if link_type == 9:
        if data[:2] == b"\xff\x03":
            data, wire_bytes = data[2:], wire_bytes - 2
        return _behind(PPP, data, wire_bytes, lambda head: head.proto in (0x21, 0x57))
    if link_type == 50:
        head = HDLC(data)
        rest = head.payload.original
        return _behind(PPP, rest, wire_bytes - (len(data) - len(rest)), lambda head: head.proto in (0x21, 0x57))
    if link_type == 10 and data[13:16] == b"\xaa\xaa\x03":  # FDDI, which scapy does not know
        return _typed(int.from_bytes(data[19:21], "big"), data[21:], wire_bytes - 21, [])
    return _behind_any(conf.l2types[link_type](data), len(data), wire_bytes)


def _behind_any(frame: Packet, captured_bytes: int, wire_bytes: int) -> Carried | None:
    """Take scapy's word for where IP begins in a frame of some other kind."""
    for kind in (IP, IPv6):
        if kind in frame:
            rest = frame[kind].original
            return Carried(rest, wire_bytes - (captured_bytes - len(rest)))
    return None


def _behind(kind: type[Packet], data: bytes, wire_bytes: int, holds_ip) -> Carried | None:
    head = kind(data)
    rest = head.payload.original
    return Carried(rest, wire_bytes - (len(data) - len(rest))) if rest and holds_ip(head) else None


def _by_type(kind: type[Packet], data: bytes, wire_bytes: int) -> Carried | None:
    head = kind(data)
    rest = head.payload.original
    return _typed(head.proto, rest, wire_bytes - (len(data) - len(rest)), [])


def _in_ethernet(data: bytes, wire_bytes: int) -> Carried | None:
    if len(data) < 14:
        return None
    kind = int.from_bytes(data[12:14], "big")
    rest, wire_bytes = data[14:], wire_bytes - 14
    if kind > 1500:
        assert Ether(data).type == kind
        return _typed(kind, rest, wire_bytes, [])
    head = LLC(rest)
    if SNAP in head and head[SNAP].OUI == 0:
        return _typed(head[SNAP].code, rest[8:], wire_bytes - 8, [])
    return None


def _typed(kind: int, data: bytes, wire_bytes: int, vlans: list[int]) -> Carried | None:
    """Go on by an Ethernet type, through VLANs, MPLS and PPPoE."""
    if kind in _VLAN_TYPES and len(data) >= 4:
        tag = Dot1Q(data)
        return _typed(tag.type, data[4:], wire_bytes - 4, [*vlans, tag.vlan])
    if kind in (0x8847, 0x8848):
        at = 0
        while at + 4 <= len(data) and not data[at + 2] & 1:
            at += 4
        return _named(data[at + 4 :], wire_bytes - at - 4, vlans)
    if kind == 0x8864 and data[6:8] in (b"\x00\x21", b"\x00\x57"):
        return _named(data[8:], wire_bytes - 8, vlans)
    if kind in (0x0800, 0x86DD):
        return _named(data, wire_bytes, vlans)
    return None


def _named(data: bytes, wire_bytes: int, vlans: list[int]) -> Carried:
    return Carried(data, wire_bytes, *vlans[:2])


def ip_packet(carried: Carried) -> IpPacket | None:
    """Read the IP headers; None where there is nothing to be read."""
    data = carried.data
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        return _version_4(carried)
    if version == 6 and len(data) >= 40:
        return _version_6(carried)
    return None


def _version_4(carried: Carried) -> IpPacket | None:
    data = carried.data
    head = IP(data)
    header_bytes, total_bytes = head.ihl * 4, head.len or carried.wire_bytes
    if not 20 <= header_bytes <= min(total_bytes, len(data)) or carried.wire_bytes < total_bytes:
        return None
    packet = IpPacket(
        src=ipaddress.ip_address(head.src),
        dst=ipaddress.ip_address(head.dst),
        protocol=head.proto,
        total_bytes=total_bytes,
        payload=data[header_bytes:total_bytes],
        payload_bytes=total_bytes - header_bytes,
        header_bytes=header_bytes,
    )
    if head.frag or "MF" in head.flags:
        packet.fragment_id, packet.offset, packet.more = head.id, head.frag * 8, "MF" in head.flags
    return packet


def _version_6(carried: Carried) -> IpPacket | None:
    data = carried.data
    head = IPv6(data)
    total_bytes = 40 + head.plen
    if carried.wire_bytes < total_bytes:
        return None
    at, kind, fragment, goal = 40, head.nh, None, None
    while kind in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _TO_DESTINATION):
        if at + 8 > len(data):
            return None
        if kind == _FRAGMENT:
            fragment = data[at : at + 8]
        longer = 8 if kind == _FRAGMENT else (data[at + 1] + 2) * 4 if kind == _AUTHENTICATION else data[at + 1] * 8 + 8
        if (
            kind == _ROUTING
            and goal is None
            and data[at + 2] == 0
            and data[at + 3]
            and longer >= 24
            and longer % 16 == 8
        ):
            goal = data[at + longer - 16 : at + longer]  # where it goes in the end, beyond the next station
        kind, at = data[at], at + longer
        if fragment is not None and fragment[2:4] != b"\0\0" and int.from_bytes(fragment[2:4], "big") & 0xFFF8:
            break  # the rest is in the middle of what was cut
    if at > min(total_bytes, len(data)):
        return None
    packet = IpPacket(
        src=ipaddress.ip_address(head.src),
        dst=ipaddress.ip_address(head.dst if goal is None else goal),
        protocol=kind,
        total_bytes=total_bytes,
        payload=data[at:total_bytes],
        payload_bytes=total_bytes - at,
        header_bytes=at,
    )
    if fragment is not None:
        place = int.from_bytes(fragment[2:4], "big")
        packet.fragment_id = int.from_bytes(fragment[4:8], "big")
        packet.offset, packet.more = place & 0xFFF8, bool(place & 1)
    return packet


def inside_ip(packet: IpPacket) -> Inside | None:
    """What is in a packet of IP in IP, or of GRE."""
    if packet.protocol in (4, 41):
        return _whole("ipip", packet.payload, 4 if packet.protocol == 4 else 6)
    if packet.protocol != 47 or len(packet.payload) < 4:
        return None
    head, data = GRE(packet.payload), packet.payload
    if head.routing_present or head.version > 1:
        return None
    flags = int.from_bytes(data[:2], "big")
    at = 4 + 4 * sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000, 0x0080))
    if head.version == 1:
        if head.proto != 0x880B or data[at + 2 : at + 4] not in (b"\x00\x21", b"\x00\x57"):
            return None
        return _whole("gre", data[at + 4 :], 4 if data[at + 3] == 0x21 else 6)
    if head.proto == 0x6558:
        return Inside("gre", 1, data[at:], len(data) - at) if len(data) > at + 14 else None
    if head.proto in (0x0800, 0x86DD):
        return Inside("gre", 101, data[at:], len(data) - at)
    return None


def _whole(kind: str, data: bytes, version: int) -> Inside | None:
    """An IP packet that must be exactly as long as it says."""
    if len(data) < (20 if version == 4 else 40) or data[0] >> 4 != version:
        return None
    said = IP(data).len if version == 4 else 40 + IPv6(data).plen
    return Inside(kind, 101, data, said) if said == len(data) else None


def inside_udp(port: int, data: bytes, wire_bytes: int) -> Inside | None:
    """What is in a datagram to a port that a tunnel has."""
    if port == 4789 and len(data) >= 8 and VXLAN(data).flags & 0x08:
        return Inside("vxlan", 1, data[8:], wire_bytes - 8)
    if port == 6081 and len(data) >= 8:
        head = GENEVE(data)
        at = 8 + 4 * head.optionlen
        link_type = {0x6558: 1, 0x0800: 101, 0x86DD: 101}.get(head.proto)
        if head.version == 0 and link_type is not None and at < len(data):
            return Inside("geneve", link_type, data[at:], wire_bytes - at)
    if port == 2152 and len(data) >= 8:
        return _inside_gtp(data)
    if port == 3544 or _is_teredo(data):
        return _inside_teredo(data)
    if port == 5072 or data[1:3] == b"\x52\x11":
        return _inside_ayiya(data)
    return None


def _is_teredo(data: bytes) -> bool:
    """What tells Teredo on any port: an address of its own, or its headers in front of IPv6."""
    if len(data) < 40:
        return False
    if data[0] >> 4 == 6:
        return any(ipaddress.IPv6Address(address) in _TEREDO_NET for address in (data[8:24], data[24:40]))
    if data[:2] == b"\0\1":
        data = data[13 + data[2] + data[3] :]
    return data[:2] == b"\0\0" and len(data) >= 48 and data[8] >> 4 == 6


def _inside_ayiya(data: bytes) -> Inside | None:
    """RFC draft-massar-v6ops-ayiya: an identity, a signature, and then the packet."""
    if len(data) < 8 or data[2] & 15 != 1 or data[3] not in (4, 41):
        return None
    data = data[8 + 2 ** (data[0] >> 4) + 4 * (data[1] >> 4) :]
    return _whole("ayiya", data, data[0] >> 4) if data and data[0] >> 4 in (4, 6) else None


def _inside_gtp(data: bytes) -> Inside | None:
    head = GTP_U_Header(data)
    if head.version != 1 or not head.PT or head.gtp_type != 255:
        return None
    at = 8
    if head.E or head.S or head.PN:
        at = 12
        following = data[11:12]
        while head.E and following not in (b"", b"\0"):
            longer = 4 * int.from_bytes(data[at : at + 1], "big")
            if not longer:
                return None
            following, at = data[at + longer - 1 : at + longer], at + longer
    version = data[at] >> 4 if at < len(data) else 0
    return _whole("gtp", data[at:], version) if version in (4, 6) else None


def _inside_teredo(data: bytes) -> Inside | None:
    if data[:2] == bytes((0, _TEREDO_AUTHENTICATION)) and len(data) >= 13:
        data = data[13 + data[2] + data[3] :]
    if data[:2] == bytes((0, _TEREDO_ORIGIN)):
        data = data[8:]
    return _whole("teredo", data, 6)
