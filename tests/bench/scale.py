# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.scale [--days D] [--out FILE]``: the line from evidence to dependencies, at 1x, 4x and 16x.

Stores are made by `tests.bench.fleet_evidence`, 5 000 conversations a host and day; 16x of five days is Macroscope's
population, 52 hosts for eleven weeks. Each run is a process of its own, of which CPU time (user and system, all
threads) and peak memory are taken, step by step. Exit code 1 if a run failed; aims are judged in the document.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.fleet_evidence import HOSTS, write_fleet

GROWTH = (1, 4, 16)
PER_HOST_AND_DAY = 5_000
#: What is to be reached: CPU seconds for a million flows, bytes, and how much more a flow may cost at the largest size.
AIMS = {"cpu_s_per_million": 3.0, "peak_bytes": 2 << 30, "growth": 1.2}


def measure(path: Path, engine: str, master: str) -> dict[str, Any]:
    """Walk the line over a store in this process."""
    from whoneeds import pipeline
    from whoneeds.store import EngineSettings, open_store

    steps = []
    settings = EngineSettings(name=engine, spark_master=master)
    rows: dict[str, int] = {}
    with open_store(path, write=True, settings=settings) as store:
        arrows = {
            "flows": lambda: pipeline.flows(store),
            "attribute": lambda: pipeline.attribute(store),
            "instances": lambda: pipeline.instances(store),
            "dependencies": lambda: pipeline.dependencies(store),
        }
        for name, arrow in arrows.items():
            begin, cpu = time.monotonic(), _cpu_s()
            made = arrow()
            rows |= made
            steps.append({"step": name, "cpu_s": _cpu_s() - cpu, "elapsed_s": time.monotonic() - begin})
        if store.problems:
            raise RuntimeError(f"files were left out: {store.problems[:3]}")
    return {
        "steps": steps,
        "rows": rows,
        "cpu_s": sum(step["cpu_s"] for step in steps),
        "elapsed_s": sum(step["elapsed_s"] for step in steps),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_size(folder: Path, days: int, engine: str, master: str) -> dict[str, Any]:
    """Make a store, walk the line in a process of its own, and throw the store away."""
    store = folder / f"days{days}"
    counted = write_fleet(store, HOSTS * days * PER_HOST_AND_DAY, days=days)
    words = [sys.executable, "-m", "tests.bench.scale", "--measure", str(store), "--engine", engine]
    words += ["--spark-master", master]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(store)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"]["flow"] == counted.flows, (found["rows"], counted)
    evidence = asdict(counted)
    return {"days": days, "evidence": evidence, **found, "cpu_s_per_million": found["cpu_s"] * 1e6 / counted.flows}


def render(document: dict[str, Any]) -> list[str]:
    """The figures as a table in Markdown."""
    lines = [
        "| size | flows | socket rows | process rows | segments | CPU s | CPU s a million flows | peak MiB | "
        + " | ".join(step["step"] for step in document["sizes"][0]["steps"])
        + " |",
        "|---" * (8 + len(document["sizes"][0]["steps"])) + "|",
    ]
    for size in document["sizes"]:
        evidence = size["evidence"]
        cells = [
            f"{size['days']} days", *(f"{evidence[name]:,}" for name in ("flows", "sockets", "processes", "segments")),
            f"{size['cpu_s']:.1f}", f"{size['cpu_s_per_million']:.1f}", f"{size['peak_bytes'] / 2**20:.0f}",
            *(f"{step['cpu_s']:.1f}" for step in size["steps"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |".replace(",", " "))
    lines += [
        f"{verdict['aim']}: {verdict['value']:.3g}, wanted at most {verdict['wanted']:.3g}: "
        + ("reached." if verdict["reached"] else "NOT reached.")
        for verdict in document["verdicts"]
    ]
    return lines


def judge(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was to be reached, at the largest size."""
    largest, first = sizes[-1], sizes[0]
    values = {
        "cpu_s_per_million": largest["cpu_s_per_million"],
        "peak_bytes": float(largest["peak_bytes"]),
        "growth": largest["cpu_s_per_million"] / first["cpu_s_per_million"],
    }
    return [
        {"aim": aim, "value": value, "wanted": AIMS[aim], "reached": value <= AIMS[aim]}
        for aim, value in values.items()
    ]


def main() -> int:
    """Run the bench, or one measured walk of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=5, help="days at 1x (5)")
    parser.add_argument("--sizes", type=int, nargs="+", default=GROWTH, help="times that (1 4 16)")
    parser.add_argument("--folder", type=Path, help="where stores are made; some 100 bytes a flow (a temporary one)")
    parser.add_argument("--engine", default="duckdb")
    parser.add_argument("--spark-master", default="local[*]")
    parser.add_argument("--out", type=Path, default=Path("build/scale.json"), help="results (build/scale.json)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.engine, given.spark_master)))
        return 0
    sizes: list[dict[str, Any]] = []
    failed_days = None
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for times in given.sizes:
            try:
                size = run_size(Path(folder), given.days * times, given.engine, given.spark_master)
            except subprocess.CalledProcessError:
                failed_days = given.days * times
                print(f"scale: {failed_days} days: the line did not get through, see above", flush=True)
                break
            sizes.append(size)
            print(f"scale: {size['days']} days: {size['cpu_s_per_million']:.1f} CPU s a million flows", flush=True)
    document = {
        "schema": 1,
        "machine": {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "engine": given.engine,
        "load": [round(load, 1) for load in os.getloadavg()],
        "sizes": sizes,
        "failed_days": failed_days,
        "verdicts": judge(sizes) if sizes else [],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if sizes:
        print("\n".join(render(document)))
    print(f"scale: written to {given.out}")
    return 0 if failed_days is None else 1


if __name__ == "__main__":
    sys.exit(main())
