# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.spark.compare``: the whole line on DuckDB and on a cluster, every table held against the other.

Run by ``python -m tests.spark`` in an environment that has Spark.
"""

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.fleet_evidence import write_fleet
from tests.spark.cluster import WORKERS, run_cluster
from tests.spark.fleets import gather_fleets, same_rows, write_fleets
from tests.spark.wires import write_watched
from whoneeds import pipeline, questions, sources
from whoneeds.analysis.consumers import count_consumers
from whoneeds.analysis.coverage import count_ends, count_unknown_ends, summarize_gaps, summarize_hosts
from whoneeds.analysis.filters import Filters, Hours, measure_observation
from whoneeds.collector.connections import join_connections
from whoneeds.model.conclusions import Attribution, Dependency, ServiceUse
from whoneeds.model.evidence import FlowRecord, Gap, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.store import EngineSettings, open_store

TABLES = (
    "flow", "attribution", "application_instance", "service_use", "destination", "replica_set", "local_use",
    "dependency",
)  # fmt: skip
#: Made only where something was watched on a wire.
WATCHED = ("wire_join",)
#: A part of what was seen, by every filter that changes the population.
NARROWED = Filters(
    location="all", users=("0", "7"), since_ns=1, hours=Hours(0, 720, ((0, 3600 * 10**9),)), place="inside"
)


def walk(path: Path, settings: EngineSettings) -> dict[str, pa.Table]:
    """All that the line makes of a store, and what is asked of it afterwards."""
    with open_store(path, write=True, settings=settings) as store:
        pipeline.flows(store)
        pipeline.attribute(store)
        pipeline.instances(store)
        pipeline.dependencies(store)
        table = store.table
        ends = (table(FlowRecord), table(Attribution), table(SocketRecord), table(SegmentHeader))
        asked: dict[str, Any] = {
            "connections": join_connections(table(FlowRecord), table(Attribution), table(ProcessRecord)),
            "narrowed": questions.find_connections(store, NARROWED),
            "population": sources.find_population(store, NARROWED)[1],
            "observed": measure_observation(table(SegmentHeader), NARROWED),
            "consumers": count_consumers(table(ServiceUse), table(Dependency)),
            "hosts": summarize_hosts(table(SegmentHeader)),
            "gaps": summarize_gaps(table(Gap)),
            "ends": count_ends(table(FlowRecord), table(Attribution)),
            "unknown ends": count_unknown_ends(*ends),
        }
        made = {name: store.read(rows) for name, rows in asked.items()}
        net = vars(questions.find_net(store, None))
    made |= {name: pa.Table.from_pylist(rows) for name, rows in net.items() if rows}
    made = {name: rows.sort_by([(column, "ascending") for column in rows.column_names]) for name, rows in made.items()}
    files = {name: path / "conclusions" / f"{name}.parquet" for name in (*TABLES, *WATCHED)}
    return made | {name: pq.read_table(file) for name, file in files.items() if name in TABLES or file.exists()}


def compare(name: str, write: Callable[[Path], Any], folder: Path, master: str) -> dict[str, Any]:
    """One store, worked out twice."""
    store, twin = folder / name / "duckdb", folder / name / "spark"
    (folder / name).mkdir()
    write(store)
    shutil.copytree(store, twin)
    ours = walk(store, EngineSettings())
    begin = time.monotonic()
    theirs = walk(twin, EngineSettings(name="spark", spark_master=master))
    spent = time.monotonic() - begin
    found: dict[str, Any] = {"fleet": name, "spark_s": round(spent, 1), "rows": {}, "different": {}}
    for table, rows in ours.items():
        found["rows"][table] = rows.num_rows
        if different := same_rows(rows, theirs[table]):
            found["different"][table] = different
    print(f"test-spark: {name}: {found['rows']}, {spent:.0f} s on Spark", flush=True)
    for table, different in found["different"].items():
        print(f"test-spark: {name}: {table} DIFFERS:", *different[:6], sep="\n  ", flush=True)
    return found


def main() -> int:
    """Compare; the exit code is 1 if any table differs."""
    signal.signal(signal.SIGTERM, lambda *_given: sys.exit(128 + signal.SIGTERM))
    fleets = gather_fleets()
    with tempfile.TemporaryDirectory() as folder, run_cluster(Path(folder)) as master:
        print(f"test-spark: {len(fleets)} fleets of the collector's tests, {WORKERS} workers at {master}", flush=True)
        results = [
            compare("tests", lambda path: write_fleets(path, fleets), Path(folder), master),
            compare("generated", lambda path: write_fleet(path, 12_000, hosts=12, days=2), Path(folder), master),
            compare("watched", write_watched, Path(folder), master),
        ]
    if not results[-1]["rows"].get("wire_join"):
        raise RuntimeError("no flow on a wire was joined with a host's, so that nothing was compared")
    out = Path("build/test-spark.json")
    out.write_text(json.dumps({"schema": 1, "results": results}, indent=1) + "\n", encoding="utf-8")
    different = sum(len(result["different"]) for result in results)
    rows = sum(sum(result["rows"].values()) for result in results)
    print(
        f"test-spark: {rows} rows of {sum(len(result['rows']) for result in results)} tables, {different} tables differ"
    )
    return 1 if different or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
