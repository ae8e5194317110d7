# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets' evidence from hosts: capture files are verified, and rows that make no sense are refused."""

import hashlib
import os
from pathlib import Path

import pytest
from fleet import Host, at

from whoneeds.collector.ingest import ingest
from whoneeds.model.evidence import CaptureRecord, ExchangeRecord, NameRecord, SegmentHeader
from whoneeds.segment.write import write_segment
from whoneeds.store import open_store

CONTENT = b"\xa1\xb2\x3c\x4d" + b"packets" * 100
NAME = ("a", "4026531840", "db.example.test", "10.0.0.2", "dns", at(1), at(2))
EXCHANGE = (
    "a", "4026531840", "udp", "10.0.0.1", 40000, "10.0.0.2", 53, 1, 1, 10, 20, at(1), at(2), True,
)  # fmt: skip
CAPTURE = ("a", "4026531840", "headers", at(0), at(60), 5, 4, 1, 0)


def take(folder, changes=(), header=None):
    """Ingest one segment with packets; what became of it, and the store's rows of the three tables."""
    host = Host("a", ("10.0.0.1",)).segment(**(header or {}))
    head, tables = host.segments[0]
    for record, row in ((NameRecord, NAME), (ExchangeRecord, EXCHANGE), (CaptureRecord, CAPTURE)):
        values = list(row)
        for kind, index, value in changes:
            if kind is record:
                values[index] = value
        tables[record] = [record(*values)]
    (folder / "incoming/a").mkdir(parents=True)
    path = write_segment(str(folder / "incoming/a"), head, tables)
    if header:
        (folder / "incoming/a" / path.rsplit("/", 1)[1].replace(".seg", ".pcap")).write_bytes(CONTENT)
    return path.replace(".seg", ".pcap"), folder


def ingested(folder):
    """The result of an ingest, and the rows of packets in the store."""
    with open_store(folder / "store", create=True, write=True) as store:
        result = ingest(store, [folder / "incoming"], now_ns=at(3600))
        return result, [
            len(store.rows(record)) for record in (SegmentHeader, NameRecord, ExchangeRecord, CaptureRecord)
        ]


NAMED = {"capture_digest": hashlib.sha256(CONTENT).hexdigest(), "capture_bytes": len(CONTENT)}


def test_a_capture_file_that_is_as_named_is_not_spoken_of(tmp_path):
    """A segment whose capture file has the bytes that it names is taken in, with names, exchanges and captures."""
    _pcap, folder = take(tmp_path, header=NAMED)
    result, rows = ingested(folder)
    assert (result.captures, result.complete, rows) == ([], True, [1, 1, 1, 1])


def move_behind_a_link(path):
    """Leave a link to the file in its place."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def make_a_pipe(path):
    """Leave a pipe in the file's place."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "it is not there"),
        (lambda path: os.truncate(path, 10), "expected 704 bytes, found 10"),
        (lambda path: path.write_bytes(b"x" + CONTENT[1:]), "its bytes are not those that the segment names"),
        (make_a_pipe, "it is no file"),
        (move_behind_a_link, "it cannot be read"),
    ],
)
def test_a_missing_or_damaged_capture_file_is_said_and_the_segment_used(tmp_path, damage, reason):
    """Whatever became of the capture file, its segment is in the store and the reason is told."""
    pcap, folder = take(tmp_path, header=NAMED)
    damage(Path(pcap))
    result, rows = ingested(folder)
    ((host, _file, found),) = result.captures
    assert (host, result.complete, rows) == ("a", True, [1, 1, 1, 1])
    assert found.startswith(reason)


@pytest.mark.parametrize(
    "change",
    [
        (NameRecord, 2, "{{ lookup('pipe', 'id') }}"), (NameRecord, 2, "DB.example.test"), (NameRecord, 2, "a..b"),
        (NameRecord, 3, "10.0.0.02"), (ExchangeRecord, 3, "::ffff:10.0.0.1"), (ExchangeRecord, 4, 65536),
        (ExchangeRecord, 7, -1), (ExchangeRecord, 11, at(3)), (CaptureRecord, 5, 3), (CaptureRecord, 7, -1),
        (CaptureRecord, 8, 1 << 32),
    ],
)  # fmt: skip
def test_rows_that_make_no_sense_are_refused(tmp_path, change):
    """A name that is none, an address in another spelling or an impossible number puts the segment into quarantine."""
    _pcap, folder = take(tmp_path, [change])
    result, rows = ingested(folder)
    assert [entry.reason for entry in result.quarantined] == ["invalid"]
    assert rows == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "header",
    [{"capture_digest": "A" * 64, "capture_bytes": 1}, {"capture_digest": None, "capture_bytes": 1},
     {"capture_digest": "a" * 64, "capture_bytes": 0}, {"capture_digest": "a" * 64, "capture_bytes": None}],
)  # fmt: skip
def test_a_header_that_names_half_a_capture_file_is_refused(tmp_path, header):
    """A digest and a size belong together, and each must be one."""
    _pcap, folder = take(tmp_path, header=header)
    result, _rows = ingested(folder)
    assert [entry.reason for entry in result.quarantined] == ["invalid"]
