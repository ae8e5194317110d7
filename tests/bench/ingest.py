# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.ingest [--hosts N]``: what ``whoneeds ingest`` costs for a segment.

Segments are those of the first hosts of `tests.bench.fleet_evidence` on one day, a segment a minute, written as a
tracer writes them. They are taken in by the command itself, in a process of its own, of which CPU time (user and
system, with the readers that it starts) and peak memory are taken.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.fleet_evidence import HOSTS, day_of_fleet
from whoneeds.model.evidence import ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import columns
from whoneeds.segment.write import write_segment

PER_HOST_AND_DAY = 5_000


def write_segments(folder: Path, hosts: int) -> tuple[int, int, int]:
    """Write a day of segments, a folder a host; their number, the rows in them, and their bytes."""
    segments = rows = size = 0
    for host, tables in day_of_fleet(0, PER_HOST_AND_DAY, HOSTS, np.random.default_rng((0, 0))):
        if host >= hosts:
            break
        place = folder / f"host{host:03d}"
        place.mkdir(parents=True)
        held = {record: _by_segment(record, tables[record]) for record in (ProcessRecord, SocketRecord)}
        for (header,) in _by_segment(SegmentHeader, tables[SegmentHeader]).values():
            own = {record: held[record].get(header.segment_id, []) for record in held}
            path = Path(write_segment(str(place), header, own))
            segments, rows, size = segments + 1, rows + sum(map(len, own.values())), size + path.stat().st_size
    return segments, rows, size


def _by_segment(record: type[Any], table: Any) -> dict[str, list[Any]]:
    names = [column.name for column in columns(record)]
    held: dict[str, list[Any]] = {}
    for row in _rows(table):
        made = record(**{name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names})
        held.setdefault(row["segment_id"], []).append(made)
    return held


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ingest", description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=4, help="hosts, 480 segments each (4)")
    parser.add_argument("--out", type=Path, default=Path("build/ingest.json"), help="results (build/ingest.json)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        incoming = Path(folder) / "incoming"
        segments, rows, size = write_segments(incoming, given.hosts)
        words = [sys.executable, "-m", "whoneeds", "ingest", str(incoming), "--store", str(Path(folder) / "store")]
        subprocess.run([*words, "--format", "json"], stdout=subprocess.DEVNULL, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = used.ru_utime + used.ru_stime
    document = {
        "schema": 1, "segments": segments, "rows": rows, "bytes": size, "cpu_s": spent,
        "cpu_ms_per_segment": spent * 1e3 / segments, "cpu_s_per_million_rows": spent * 1e6 / rows,
        "peak_bytes": used.ru_maxrss * 1024, "load": [round(load, 1) for load in os.getloadavg()],
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(
        f"ingest: {segments} segments, {rows} rows, {size} bytes: {spent:.1f} CPU s, "
        f"{document['cpu_ms_per_segment']:.2f} ms a segment, "
        f"{document['cpu_s_per_million_rows']:.1f} s a million rows, peak {used.ru_maxrss / 1024:.0f} MiB; "
        f"written to {given.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
