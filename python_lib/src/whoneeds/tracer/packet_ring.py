# SPDX-License-Identifier: GPL-3.0-or-later
"""A packet socket with a ring of blocks that kernel and tracer share (PACKET_RX_RING, TPACKET_V3).

Opening one needs CAP_NET_RAW; reading it needs no privilege at all, so that a loader can open it and hand the
descriptors over. Nothing unfiltered gets into it: the filter is attached before the ring is made, and whatever came
before that the kernel throws away when it makes the ring.

Reading costs no call of the kernel: a block belongs to the reader when its status says so.
"""

import array
import errno
import mmap
import os
import socket
import struct
from typing import Any, Iterator, NamedTuple, Optional, Set, Tuple

from whoneeds.model.errors import Denied, HostError, Unsupported
from whoneeds.tracer.addresses import list_addresses, open_addresses

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_KERNEL, _READER = 0, 1
#: A block that is not full is given to the reader after this time.
RETIRE_MS = 200
_FRAME_BYTES = 2048

#: struct tpacket_block_desc up to the first packet: status, packets, offset of the first packet.
_BLOCK = struct.Struct("=8xIII")
_STATUS_OFFSET = 8
_STATUS = struct.Struct("=I")
#: struct tpacket3_hdr (next, second, nanosecond, bytes here, bytes in all, begin of the network header), then struct
#: sockaddr_ll (family, protocol, interface, hardware type, kind of packet, address).
_FRAME = struct.Struct("=IIIII4x2xH4x4x12xH2sIHBB8s")
_STATISTICS = struct.Struct("=III")

#: second, nanosecond, length, protocol (as on the wire), interface, hardware type, kind, address length, address,
#: bytes.
Packet = Tuple[int, int, int, bytes, int, int, int, int, bytes, bytes]


class CaptureChannel(NamedTuple):
    """What capturing in one network namespace needs: all of it can be handed over between processes.

    Attributes
    ----------
    packets : socket.socket
        The packet socket, its ring made.
    addresses : socket.socket
        A netlink socket of the same namespace, on which its addresses are asked for.
    block_bytes, blocks : int
        The shape of the ring.
    """

    packets: socket.socket
    addresses: socket.socket
    block_bytes: int
    blocks: int

    def close(self) -> None:
        """Close both sockets."""
        self.packets.close()
        self.addresses.close()


def open_capture(program: bytes, *, block_bytes: int, blocks: int) -> CaptureChannel:
    """Begin to capture in the network namespace of the calling thread.

    Parameters
    ----------
    program : bytes
        From `whoneeds.tracer.capture_filter.make_filter`.
    block_bytes, blocks : int
        Shape of the ring; a block is a multiple of the page size.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    if not hasattr(socket, "AF_PACKET"):
        raise Unsupported("packets", expected="Linux", found=os.uname().sysname, remedy="trace without packets")
    addresses = open_addresses()
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL))
    except OSError as error:
        addresses.close()
        raise _host_error(error) from error
    channel = CaptureChannel(packets, addresses, block_bytes, blocks)
    try:
        instructions = array.array("B", program)
        place, size = instructions.buffer_info()
        packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", size // 8, place))
        packets.setsockopt(_SOL_PACKET, _PACKET_VERSION, struct.pack("=i", _TPACKET_V3))
        frames = block_bytes * blocks // _FRAME_BYTES
        shape = struct.pack("=7I", block_bytes, blocks, _FRAME_BYTES, frames, RETIRE_MS, 0, 0)
        packets.setsockopt(_SOL_PACKET, _PACKET_RX_RING, shape)
        packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)  # counts from zero on
    except OSError as error:
        channel.close()
        raise _host_error(error) from error
    return channel


def _host_error(error: OSError) -> HostError:
    words = str(error.strerror)
    if error.errno in (errno.EPERM, errno.EACCES):
        return Denied("packets", found=words, remedy="run the tracer as root or grant it CAP_NET_RAW")
    if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.EINVAL):
        return Unsupported("packets", found=words, remedy="load the kernel module af_packet, or trace without packets")
    return HostError("packets", found=words)


class PacketRing:
    """Reads what an opened capture holds. Needs no privilege.

    Parameters
    ----------
    channel : CaptureChannel
        Belongs to the ring from now on.

    Raises
    ------
    HostError
        If the ring cannot be mapped.
    """

    def __init__(self, channel: CaptureChannel) -> None:
        self._channel = channel
        try:
            self._map: Any = mmap.mmap(channel.packets.fileno(), channel.block_bytes * channel.blocks)
        except (OSError, ValueError) as error:
            channel.close()
            raise HostError("packets", expected="a ring that can be mapped", found=str(error)) from error
        self._next = 0

    @property
    def blocks(self) -> int:
        """Blocks that it has."""
        return self._channel.blocks

    def waiting(self) -> int:
        """How many packets the next block holds; 0 if the kernel still has it."""
        status, packets, _first = _BLOCK.unpack_from(self._map, self._next * self._channel.block_bytes)
        return int(packets) if status & _READER else 0

    def skip(self) -> None:
        """Give the next block back unread."""
        _STATUS.pack_into(self._map, self._next * self._channel.block_bytes + _STATUS_OFFSET, _KERNEL)
        self._next = (self._next + 1) % self._channel.blocks

    def read_block(self) -> Iterator[Packet]:
        """The packets of the next block, which goes back to the kernel after the last one."""
        ring, block_bytes = self._map, self._channel.block_bytes
        begin = self._next * block_bytes
        _status, packets, first = _BLOCK.unpack_from(ring, begin)
        unpack, frame_size = _FRAME.unpack_from, _FRAME.size
        at, end = begin + first, begin + block_bytes
        for _number in range(packets):
            if not begin <= at <= end - frame_size:
                break
            (
                step, second, nanosecond, here, length, network, _family, protocol, interface, hardware, kind,
                address_length, address,
            ) = unpack(ring, at)  # fmt: skip
            data = at + network
            yield (
                second, nanosecond, length, protocol, interface, hardware, kind, address_length, address,
                ring[data : min(data + here, end)],
            )  # fmt: skip
            at += step
        self.skip()

    def lost(self) -> int:
        """Packets that the kernel had no room for since this was asked last."""
        try:
            raw = self._channel.packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        except OSError as error:
            raise _host_error(error) from error
        return int(_STATISTICS.unpack(raw)[1])

    def addresses(self) -> Optional[Set[str]]:
        """Addresses of the namespace, loopback and link-local ones too; None where they cannot be listed."""
        try:
            return set(list_addresses(self._channel.addresses, everything=True))
        except HostError:
            return None

    def close(self) -> None:
        """Take the ring down."""
        self._map.close()
        self._channel.close()
