# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection as the kernel's own programs tell of it: one record of fixed length for each end.

The record is written by `whoneeds.tracer.bpf`, goes through the tracer and into the segment as it is, and is taken
apart on the controller alone: at thousands of connections a second, looking at each on the host would cost more than
all else that the tracer does. In the segment the records of a *block* stand column by column, byte by byte, because
equal bytes beside each other are compressed fast and small.
"""

import struct
import zlib
from typing import NamedTuple

from whoneeds.model.errors import CorruptSegment

#: cookie, begun, ended (ns since boot, 0 unknown), sent, received (all ones unknown), network namespace, user number,
#: local and remote address (16 bytes, IPv4 mapped), local and remote port, protocol, flags, end, actors, three
#: process numbers, state of the kernel when it was written, three starts of processes (ns since boot).
LIFE_FIELDS = "QQQQQII16s16sHHBBBBIIIIQQQ"
LIFE_BYTES = struct.calcsize("=" + LIFE_FIELDS)
MAX_ACTORS = 3
#: Most records of one block.
MAX_BLOCK = 1 << 16

#: Bits of ``flags``.
INITIATED, ACCEPTED, MORE_ACTORS, TOLD = 1, 2, 4, 8
#: Values of ``end``, by the word of the vocabulary.
END_CODES = {"fin": 1, "rst": 2, "rejected": 3, "unanswered": 4}
UNKNOWN_COUNT = (1 << 64) - 1


class LifeOffsets(NamedTuple):
    """Where each field begins in a record."""

    cookie: int = 0
    begun_ns: int = 8
    ended_ns: int = 16
    sent: int = 24
    received: int = 32
    netns: int = 40
    uid: int = 44
    local: int = 48
    remote: int = 64
    local_port: int = 80
    remote_port: int = 82
    protocol: int = 84
    flags: int = 85
    end: int = 86
    actors: int = 87
    pids: int = 88
    state: int = 100
    starts: int = 104


OFFSETS = LifeOffsets()


class LifeBlock(NamedTuple):
    """Records, packed.

    Attributes
    ----------
    rows : int
    packed : bytes
    """

    rows: int
    packed: bytes


def pack_lives(records: bytes, stride: int, begin: int) -> LifeBlock:
    """Pack records that lie at equal distances.

    Parameters
    ----------
    records : bytes
    stride : int
        From one record's begin to the next one's.
    begin : int
        Of the first record.
    """
    rows = len(records) // stride
    planes = b"".join([records[begin + column :: stride] for column in range(LIFE_BYTES)])
    return LifeBlock(rows, zlib.compress(planes, 1))


def unpack_lives(block: LifeBlock) -> bytes:
    """The records of a block, one after the other.

    Raises
    ------
    CorruptSegment
        If the bytes are not so many records.
    """
    inflate = zlib.decompressobj()
    try:
        planes = inflate.decompress(block.packed, block.rows * LIFE_BYTES + 1)
    except zlib.error as error:
        raise CorruptSegment("block of connections does not decompress", found=str(error)) from error
    if len(planes) != block.rows * LIFE_BYTES or not inflate.eof or inflate.unused_data:
        raise CorruptSegment(
            "block of connections",
            expected=f"{block.rows} records of {LIFE_BYTES} bytes",
            found=f"{len(planes)} bytes and {'an end' if inflate.eof else 'more'}",
        )
    records = bytearray(len(planes))
    for column in range(LIFE_BYTES):
        records[column::LIFE_BYTES] = planes[column * block.rows : (column + 1) * block.rows]
    return bytes(records)
