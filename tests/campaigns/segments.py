# SPDX-License-Identifier: GPL-3.0-or-later
"""Segments of a small made-up fleet, written by the writer that hosts use."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whoneeds.model.evidence import Gap, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.identity import process_id, segment_id, socket_id
from whoneeds.segment.write import write_segment

#: 2024-01-01 00:00 UTC.
BEGIN_NS = 1_704_067_200 * 10**9
MINUTE_NS = 60 * 10**9

Tables = dict[type[Any], list[Any]]


def make_segment(host: str, number: int, sockets: int, rng: random.Random) -> tuple[SegmentHeader, Tables]:
    """The header and rows of one segment of a host."""
    boot_id = f"0b0e7bb0-5a7d-4e5c-8f0a-{abs(hash_text(host)) % 16**12:012x}"
    opened_ns = BEGIN_NS + number * MINUTE_NS
    sequence = (number + 1) * MINUTE_NS
    header = SegmentHeader(
        segment_id(host, boot_id, sequence), host, boot_id, sequence, 1, "0.1.0", opened_ns, sequence,
        opened_ns + MINUTE_NS, sequence + MINUTE_NS, 5.0, 12, ("table",), True, ("192.0.2.1", "2001:db8::1"), None, 0,
    )  # fmt: skip
    owner = process_id(host, boot_id, 812, 4711)
    process = ProcessRecord(
        owner, host, 812, 4711, 1, "nginx", "/usr/sbin/nginx", 33, "www-data", "nginx.service", None,
        opened_ns, opened_ns + MINUTE_NS,
    )  # fmt: skip
    rows = [
        SocketRecord(
            socket_id(host, boot_id, "4026531840", number * 1000 + at + 1), host, "4026531840", "tcp", "192.0.2.1",
            rng.randrange(1024, 65536), "192.0.2.9", 443, "established", 1000 + at, 33, owner, 1,
            rng.randrange(1 << 40), rng.randrange(1 << 40), opened_ns, opened_ns + MINUTE_NS, 12, "table", None, None,
        )
        for at in range(sockets)
    ]  # fmt: skip
    gaps = [Gap(host, "sampler", "late", "löst \x1b[2J", opened_ns, opened_ns + MINUTE_NS, None)]
    return header, {ProcessRecord: [process], SocketRecord: rows, Gap: gaps}


def hash_text(text: str) -> int:
    """A number for a text that is the same in every run."""
    return int.from_bytes(text.encode().ljust(8, b"\0")[:8], "big")


def make_fleet(folder: Path, hosts: int, segments: int, sockets: int, rng: random.Random) -> Iterator[Path]:
    """Lay a fleet's segments down as the collector role does; the files."""
    for name in (f"h{number}" for number in range(1, hosts + 1)):
        place = folder / name
        place.mkdir(parents=True)
        for number in range(segments):
            yield Path(write_segment(str(place), *make_segment(name, number, sockets, rng)))
