# SPDX-License-Identifier: GPL-3.0-or-later
"""A capture file in the classic pcap format: nanoseconds, Linux cooked headers of version 2, cut packets.

Every reader of captures opens it. The interface number of a record is the kernel's, counted from a base that each
network namespace has of its own, since each numbers its interfaces from 1.
"""

import struct
from typing import Optional

from whoneeds.tracer.capture_filter import SNAP_BYTES

_MAGIC_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_LINUX_SLL2 = 276
_COOKED_BYTES = 20
#: struct pcap_file_header, and pcap_sf_pkthdr with the cooked header behind it. All of it in the network's byte order,
#: which the magic number tells.
_FILE = struct.Struct(">IHHiIII")
_RECORD = struct.Struct(">IIII2sHIHBB8s")
#: Shortest file that holds a packet of full size.
LEAST_FILE_BYTES = 24 + 16 + SNAP_BYTES
#: First interface number of the second namespace, and how far the others are apart.
_SECOND_BASE, _BASE_STEP, _MOST_BASES = 1 << 31, 1 << 20, 2047


def interface_base(number: int) -> Optional[int]:
    """What is added to the interface numbers of a segment's namespace; None beyond what a file can tell apart.

    Parameters
    ----------
    number : int
        0 for the tracer's own namespace, whose numbers stay; 1 and up for the others.
    """
    if not number:
        return 0
    return _SECOND_BASE + (number - 1) * _BASE_STEP if number <= _MOST_BASES else None


class PcapFile:
    """A capture file in memory.

    Parameters
    ----------
    limit_bytes : int
        It never becomes larger.

    Attributes
    ----------
    packets : int
    left_out : int
        Packets that it had no room for.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.packets = 0
        self.left_out = 0
        self._content = bytearray(_FILE.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAP_BYTES, _LINKTYPE_LINUX_SLL2))

    def add(
        self,
        second: int,
        nanosecond: int,
        protocol: bytes,
        interface: int,
        hardware: int,
        kind: int,
        address_length: int,
        address: bytes,
        length: int,
        packet: bytes,
    ) -> None:
        """Add a packet, or count it if there is no room.

        Parameters
        ----------
        second, nanosecond : int
        protocol : bytes
            Ethertype, as on the wire.
        interface, hardware, kind, address_length, address
            As in struct sockaddr_ll.
        length : int
            Of the packet on the wire, from its network header on.
        packet : bytes
            As much of it as is at hand.
        """
        packet = packet[: SNAP_BYTES - _COOKED_BYTES]
        kept = len(packet) + _COOKED_BYTES
        if len(self._content) + 16 + kept > self.limit_bytes:
            self.left_out += 1
            return
        self._content += _RECORD.pack(
            second, nanosecond, kept, length + _COOKED_BYTES, protocol, 0, interface, hardware, kind, address_length,
            address,
        )  # fmt: skip
        self._content += packet
        self.packets += 1

    def content(self) -> bytes:
        """The whole file."""
        return bytes(self._content)
