# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.matrix``: hostile text on every ansible-core that can be had here, as a table and as JSON.

Exit codes: 0 everything holds, 1 something does not, 2 usage.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.matrix.cores import CORES, Absent, Core, choose, install
from tests.matrix.run import all_runs
from tests.matrix.scenes import QUICK_CAMPAIGN, REPOSITORY, USAGES
from tests.matrix.shown import groups, stores
from tests.matrix.verdict import judge


def main() -> int:
    """Run the matrix."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--cores", default="", help=f"of {','.join(core.name for core in CORES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="play some usages only, and a tenth of the random objects")
    parser.add_argument("--fuzz", type=int, default=1000, help="random objects for each core (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random objects (default 1)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "matrix.json", help="the results as JSON")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="cores at the same time")
    asked = parser.parse_args()
    campaign = QUICK_CAMPAIGN if asked.quick else USAGES
    fuzz_count = asked.fuzz // 10 if asked.quick else asked.fuzz
    chosen = choose([name for name in asked.cores.split(",") if name])
    with tempfile.TemporaryDirectory(prefix="whoneeds-matrix-") as place, ThreadPoolExecutor(asked.jobs) as pool:
        results = list(pool.map(lambda core: _one(core, Path(place), campaign, fuzz_count, asked.seed), chosen))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"schema": 1, "cores": results}, indent=1) + "\n", encoding="utf-8")
    print(render(results))
    if asked.quick:
        left_out = ", ".join(usage for usage in USAGES if usage not in QUICK_CAMPAIGN)
        print(f"skipped: for time, the usages {left_out}; make test-long plays them")
    print(f"\nresults: {asked.out}")
    return int(any(result.get("problems") for result in results) or all("skipped" in result for result in results))


def _one(core: Core, place: Path, campaign: tuple[str, ...], fuzz_count: int, seed: int) -> dict[str, Any]:
    try:
        installed = install(core)
    except Absent as reason:
        return {"core": core.name, "skipped": str(reason)}
    print(f"ansible-core {installed.version}: running", file=sys.stderr, flush=True)
    began, folder = time.monotonic(), place / core.name
    results = all_runs(installed, folder, campaign, fuzz_count, seed)
    results |= {"stores": stores(installed, folder / "stores"), "groups": groups(installed, folder / "groups")}
    results["elapsed_s"] = round(time.monotonic() - began, 1)
    return {**results, "problems": judge(results)}


def render(results: list[dict[str, Any]]) -> str:
    """The results as a table: how many of the planted payloads ran, by run."""
    runs = ("control", "alone", "cached", "later", "first", "constructed", "export_json", "export_yaml")
    lines = [
        "payloads that ran, of those planted; control and export_yaml are not ours and must or may run some",
        f"{'core':<11}" + "".join(f"{run:>12}" for run in runs) + f"{'fuzz':>9}{'time':>8}  verdict",
    ]
    for result in results:
        if "skipped" in result:
            lines.append(f"{result['core']:<11} skipped: {result['skipped']}")
            continue
        cells = "".join(f"{_cell(result['runs'][run]):>12}" for run in runs)
        bad = len(result["fuzz"]["differ"]) + len(result["fuzz"]["runnable"])
        verdict = "holds" if not result["problems"] else f"{len(result['problems'])} problems"
        fuzz = f"{bad}/{result['fuzz']['count']}"
        lines.append(f"{result['version']:<11}{cells}{fuzz:>9}{result['elapsed_s']:>7.0f}s  {verdict}")
        lines += [f"    {problem}" for problem in result["problems"][:20]]
    return "\n".join(lines)


def _cell(run: dict[str, Any]) -> str:
    return f"{run['executed']}/{run['planted']}"


if __name__ == "__main__":
    sys.exit(main())
