# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames written byte by byte, for what no library forges, and the flows that the meter makes of them."""

import struct

from whoneeds.flow import MeterSettings, meter_capture
from whoneeds.model.evidence import WireFlow

ETHERNET, PPP_SERIAL = 1, 50
MACS = b"\x02\0\0\0\0\1\x02\0\0\0\0\2"
TYPE_IPV4 = b"\x08\x00"


def ipv4(protocol: int, body: bytes, flags_offset: int = 0, number: int = 7) -> bytes:
    """An IPv4 packet without a checksum, which the meter does not ask for by default."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), number, flags_offset, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + body


def udp(payload_bytes: int) -> bytes:
    """A question to a name service."""
    return struct.pack(">HHHH", 40000, 53, 8 + payload_bytes, 0) + bytes(payload_bytes)


def meter(frames: list[bytes], link: int = ETHERNET, kept: int = 65535) -> list[WireFlow]:
    """Flows of a pcap that holds these frames."""
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for number, frame in enumerate(frames):
        capture += struct.pack("<IIII", number, 0, min(len(frame), kept), len(frame)) + frame[:kept]
    return list(meter_capture([capture], MeterSettings()))
