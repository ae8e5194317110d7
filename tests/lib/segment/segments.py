# SPDX-License-Identifier: GPL-3.0-or-later
"""Small real segments to write, read and damage."""

from typing import Any

from whoneeds.model.evidence import Gap, ProcessRecord, SegmentHeader, SocketRecord

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"


def header(sequence: int = 1, **other: Any) -> SegmentHeader:
    """A header; `sequence` also moves the time, so that files sort as they were made."""
    opened_ns = 1_790_000_000_000_000_000 + sequence
    return SegmentHeader(
        **{
            "segment_id": f"h1/{BOOT}/{sequence}",
            "host": "h1",
            "boot_id": BOOT,
            "sequence": sequence,
            "schema": 1,
            "tracer_version": "0.1.0",
            "opened_ns": opened_ns,
            "opened_mono_ns": sequence,
            "closed_ns": opened_ns + 60_000_000_000,
            "closed_mono_ns": sequence + 60_000_000_000,
            "period_s": 5.0,
            "samples": 12,
            "sources": ("table",),
            "privileged": True,
            "addresses": ("192.0.2.1", "2001:db8::1"),
            "location": None,
            "dropped_segments": 0,
            **other,
        }
    )


def tables(sockets: int = 2) -> dict[type[Any], list[Any]]:
    """A process, some sockets of it, and a gap."""
    owner = f"h1/{BOOT}/812/4711"
    process = ProcessRecord(
        owner, "h1", 812, 4711, 1, "nginx", "/usr/sbin/nginx", 33, "www-data", "nginx.service", None, 5, 9
    )
    rows = [
        SocketRecord(
            socket_id=f"h1/{BOOT}/4026531840/{number:x}",
            host="h1",
            netns="4026531840",
            protocol="tcp",
            local_addr="192.0.2.1",
            local_port=40000 + number,
            remote_addr="192.0.2.9",
            remote_port=443,
            state="established",
            inode=1000 + number,
            uid=33,
            process_id=owner,
            owners=1,
            sent_bytes=17 * number,
            received_bytes=0,
            first_ns=5,
            last_ns=9,
            samples=3,
            source="table",
            initiated=None,
            end=None,
        )
        for number in range(sockets)
    ]
    gap = Gap("h1", "sampler", "late", "löst \x1b[2J", 5, 9, None)
    return {ProcessRecord: [process], SocketRecord: rows, Gap: [gap]}
