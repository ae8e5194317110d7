# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking segments in: each good one once, each bad one into quarantine, none silently dropped."""

from pathlib import Path

from fleet import Host, at

from whoneeds.collector.ingest import ingest
from whoneeds.model.evidence import SegmentHeader, SocketRecord
from whoneeds.segment.write import write_segment
from whoneeds.store import open_store

NOW_NS = at(3600)


def deliver(incoming: Path, *hosts: Host) -> None:
    """Lay the hosts' segments down as the collector role does."""
    for host in hosts:
        folder = incoming / host.name
        folder.mkdir(parents=True, exist_ok=True)
        for header, tables in host.segments:
            write_segment(str(folder), header, tables)


def small_host(name: str, segments: int = 1) -> Host:
    """A host with one connection a segment."""
    host = Host(name, ("10.0.0.1",))
    for number in range(segments):
        host.segment(number * 60, number * 60 + 60)
        host.socket(
            ("10.0.0.1", 40000 + number), ("10.0.0.9", 80), (number * 60, number * 60 + 50), host.process("curl", 7)
        )
    return host


def test_the_same_segments_again_change_nothing(tmp_path: Path) -> None:
    """Segments that are given twice are counted once."""
    deliver(tmp_path / "incoming", small_host("web1", 3), small_host("web2"))
    with open_store(tmp_path / "store", create=True, write=True) as store:
        first = ingest(store, [tmp_path / "incoming"], now_ns=NOW_NS)
        rows = store.rows(SocketRecord)
        again = ingest(store, [tmp_path / "incoming"], now_ns=NOW_NS)
        assert (len(first.taken), len(first.known), first.complete) == (4, 0, True)
        assert (len(again.taken), len(again.known), again.complete) == (0, 4, True)
        assert store.rows(SocketRecord) == rows
        assert len(store.rows(SegmentHeader)) == 4
