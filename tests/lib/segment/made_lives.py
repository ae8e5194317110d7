# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends of connections as the kernel's programs write them, made by hand."""

import ipaddress
import struct

from whoneeds.segment.lives import INITIATED, LIFE_BYTES, LIFE_FIELDS, MAX_ACTORS, pack_lives


def address(text):
    """The 16 bytes of an address; IPv4 as it is mapped into IPv6."""
    made = ipaddress.ip_address(text)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


def life(
    cookie=7, begun_ns=2 * 10**9, ended_ns=3 * 10**9, sent=5, received=11, netns=4026531840, uid=33, local="192.0.2.1",
    remote="192.0.2.9", local_port=40001, remote_port=443, protocol=6, flags=INITIATED, end=1, pids=(812,),
    starts=(47_110_000_000,), state=7, actors=None, order="=",
):  # fmt: skip
    """One record."""
    pids, starts = (tuple(numbers)[:MAX_ACTORS] for numbers in (pids, starts))
    return struct.pack(
        order + LIFE_FIELDS, cookie, begun_ns, ended_ns, sent, received, netns, uid,
        *(raw if isinstance(raw, bytes) else address(raw) for raw in (local, remote)), local_port, remote_port,
        protocol, flags, end, len(pids) if actors is None else actors, *pids, *(0,) * (MAX_ACTORS - len(pids)), state,
        *starts, *(0,) * (MAX_ACTORS - len(starts)),
    )  # fmt: skip


def block(*records):
    """A block of records."""
    return pack_lives(b"".join(records), LIFE_BYTES, 0)
