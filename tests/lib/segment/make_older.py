# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a segment with whatever version of the library is on the path, and say what is in it.

``PYTHONPATH=<that version>/python_lib/src python make_older.py FOLDER NAME`` writes ``FOLDER/NAME.seg`` and
``FOLDER/NAME.json``: a process and an open connection, with every value that this version knows.
"""

import json
import sys
from pathlib import Path

from whoneeds.model.evidence import Gap, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import columns, table_name
from whoneeds.segment.write import encode_segment

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"
BEGIN_NS = 1_704_067_200_000_000_000
SEQUENCE = 60_000_000_000
KNOWN = {
    "segment_id": f"web1/{BOOT}/{SEQUENCE}", "host": "web1", "boot_id": BOOT, "sequence": SEQUENCE, "schema": 1,
    "tracer_version": "0.1.0", "opened_ns": BEGIN_NS, "closed_ns": BEGIN_NS + 60_000_000_000,
    "opened_mono_ns": SEQUENCE, "closed_mono_ns": 2 * SEQUENCE, "period_s": 5.0, "samples": 12, "sources": ("table",),
    "privileged": True, "addresses": ("192.0.2.1",), "dropped_segments": 0, "process_id": f"web1/{BOOT}/7/100",
    "pid": 7, "start_ticks": 100, "ppid": 1, "name": "curl", "exe": "/usr/bin/curl", "uid": 0,
    "first_ns": BEGIN_NS, "last_ns": BEGIN_NS + 50_000_000_000, "socket_id": f"web1/{BOOT}/4026531840/c1",
    "netns": "4026531840", "protocol": "tcp", "state": "established", "local_addr": "192.0.2.1", "local_port": 40000,
    "remote_addr": "192.0.2.9", "remote_port": 80, "source": "table", "process_ids": (f"web1/{BOOT}/7/100",),
    "reason": "late", "detail": "a sample was late", "count": 1, "lost": 1,
}  # fmt: skip


def make_record(record):
    """A record whose columns hold what is known; others are absent, or zero where that is not legal."""
    rest = {"int64": 0, "float64": 0.0, "bool": False, "string": "sampler", "string[]": ()}
    return record(
        **{
            column.name: KNOWN.get(column.name, None if column.nullable else rest[column.type])
            for column in columns(record)
        }
    )


def main(folder, name):
    """Write the segment, and what is in it."""
    tables = {record: [make_record(record)] for record in (ProcessRecord, SocketRecord, Gap)}
    header = make_record(SegmentHeader)
    Path(folder, f"{name}.seg").write_bytes(b"".join(encode_segment(header, tables)))
    said = {table_name(record): [vars(row) for row in rows] for record, rows in tables.items()}
    text = json.dumps({"segment": vars(header), "tables": said}, indent=1)
    Path(folder, f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
