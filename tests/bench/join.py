# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.join [--rows N]``: flows joined with socket intervals, our expression beside plain SQL.

As many intervals as flows, on the same addresses and ports, each tuple used twenty times over: a flow meets the
interval that held its tuple at its time, and bytes are summed by process. Once as an Ibis expression in the way of the
collector, through the store's engine; once as SQL written by hand for DuckDB. Each run is a process of its own under
the same limits; they take turns. Exit code 1 if the answers differ.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

ROUNDS = 3
AIMS = {"ratio": 1.2, "peak_bytes": 1 << 30}
_MEMORY_BYTES = 600_000_000
_THREADS = 2
_SQL = """
SELECT i.process_id AS process_id, count(*) AS flows, CAST(sum(f.bytes) AS BIGINT) AS bytes
FROM flows f JOIN intervals i
  ON f.protocol = i.protocol AND f.local_addr = i.local_addr AND f.local_port = i.local_port
 AND f.remote_addr = i.remote_addr AND f.remote_port = i.remote_port
 AND i.first_ns <= f.at_ns AND f.at_ns <= i.last_ns
GROUP BY i.process_id
"""


def write_tables(folder: Path, rows: int) -> None:
    """Intervals and flows as Parquet, both in an order of their own."""
    columns = """
        'tcp' AS protocol, '10.0.' || (k % 200) || '.' || (k // 200 % 250) AS local_addr,
        32768 + k % 28000 AS local_port,
        '10.1.0.' || (k % 250) AS remote_addr, 8000 + k % 97 AS remote_port
    """
    with duckdb.connect() as engine:
        engine.execute(f"SET threads = {_THREADS}")
        source = f"(SELECT i, i % {max(1, rows // 20)} AS k, i // {max(1, rows // 20)} AS turn FROM range({rows}) r(i))"
        for name, extra in (
            ("intervals", "'p' || (k % 5000) AS process_id, turn * 100 AS first_ns, turn * 100 + 90 AS last_ns"),
            ("flows", "turn * 100 + i % 100 AS at_ns, i % 1500 AS bytes"),
        ):
            engine.execute(
                f"COPY (SELECT {columns}, {extra} FROM {source} ORDER BY hash(i + {len(name)})) "
                f"TO '{folder / name}.parquet' (FORMAT parquet)"
            )


def measure(folder: Path, way: str) -> dict[str, Any]:
    """One run in this process."""
    from whoneeds.store.engine import EngineSettings, open_engine

    settings = EngineSettings(memory_bytes=_MEMORY_BYTES, threads=_THREADS)
    engine = open_engine(folder, folder / "scratch", settings)
    begin = _cpu_s()
    if way == "sql":
        backend = engine.backend  # type: ignore[attr-defined]
        for name in ("intervals", "flows"):
            backend.con.execute(f"CREATE VIEW {name} AS FROM read_parquet('{folder / name}.parquet')")
        rows = backend.con.sql(_SQL).to_arrow_table()
    else:
        intervals, flows = (
            engine.open_files([path], pq.read_schema(path))
            for path in (folder / "intervals.parquet", folder / "flows.parquet")
        )
        both = flows.join(
            intervals,
            [
                *(
                    flows[name] == intervals[name]
                    for name in ("protocol", "local_addr", "local_port", "remote_addr", "remote_port")
                ),
                intervals.first_ns <= flows.at_ns,
                flows.at_ns <= intervals.last_ns,
            ],
        )
        made = both.group_by("process_id").aggregate(flows=both.count(), bytes=both.bytes.sum().cast("int64"))
        rows = engine.read(made)
    spent = _cpu_s() - begin
    engine.close()
    answer = sorted((row["process_id"], row["flows"], row["bytes"]) for row in rows.to_pylist())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "cpu_s": spent,
        "peak_bytes": peak,
        "answer": hashlib.sha256(repr(answer).encode()).hexdigest(),
        "groups": len(answer),
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run the bench, or one measured run of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.join", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="intervals, and as many flows (10 000 000)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help="where the tables are made (a temporary one)")
    parser.add_argument("--out", type=Path, default=Path("build/join.json"), help="results (build/join.json)")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), given.measure[1])))
        return 0
    runs: dict[str, list[dict[str, Any]]] = {"ibis": [], "sql": []}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write_tables(Path(folder), given.rows)
        for _round in range(given.rounds):
            for way, found in runs.items():
                words = [sys.executable, "-m", "tests.bench.join", "--measure", folder, way]
                done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
                found.append(json.loads(done.stdout))
    # the least of some runs is what the work costs; the rest is what else ran on the machine
    cpu = {way: min(run["cpu_s"] for run in found) for way, found in runs.items()}
    values = {"ratio": cpu["ibis"] / cpu["sql"], "peak_bytes": max(run["peak_bytes"] for run in runs["ibis"])}
    equal = len({run["answer"] for found in runs.values() for run in found}) == 1
    document = {
        "schema": 1, "rows": given.rows, "equal": equal, "load": [round(load, 1) for load in os.getloadavg()],
        "runs": runs, "cpu_s": cpu,
        "verdicts": [
            {"aim": aim, "value": value, "wanted": AIMS[aim], "reached": value <= AIMS[aim]}
            for aim, value in values.items()
        ],
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"join: {given.rows} x {given.rows} rows: {cpu['ibis']:.1f} CPU s as an expression, {cpu['sql']:.1f} as SQL")
    for verdict in document["verdicts"]:
        word = "reached" if verdict["reached"] else "NOT reached"
        print(f"join: {verdict['aim']}: {verdict['value']:.4g}, wanted at most {verdict['wanted']:.4g}: {word}")
    print(f"join: answers are {'equal' if equal else 'DIFFERENT'}; written to {given.out}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
