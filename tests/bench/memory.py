# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.memory``: the most memory that the tracer held, by number of open sockets.

The tracer runs as shipped, in a process of its own, beside 50 real processes that hold the sockets, and closes a
segment every few seconds. As root everything happens in a network and a pid namespace of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.__main__ import isolate
from tests.bench.population import Population

#: Sockets, and MiB that are not to be exceeded.
AIMS = {200: 64, 20_000: 64, 100_000: 128}
_LONG_S = 20.0
_TRACE = "from whoneeds.tracer.command import main; raise SystemExit(main())"


def measure(sockets: int) -> dict[str, Any]:
    """Peak of resident memory, and what lies on the disk afterwards."""
    with Population(sockets), tempfile.TemporaryDirectory(prefix="whoneeds-bench-") as folder:
        config = Path(folder) / "tracer.json"
        config.write_text(json.dumps({"schema": 1, "dir": f"{folder}/state", "period_s": 1.0, "rotate_s": 8.0}))
        words = [sys.executable, "-c", _TRACE, "trace", "run", "--config", str(config)]
        tracer = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        time.sleep(_LONG_S)
        lines = Path(f"/proc/{tracer.pid}/status").read_text(encoding="ascii").splitlines()
        peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        tracer.terminate()
        tracer.wait()
        sizes = [path.stat().st_size for path in Path(folder, "state", "segments").glob("*.seg")]
    return {"sockets": sockets, "peak_mib": peak_kib / 1024, "segments": len(sizes), "bytes": sum(sizes)}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench-memory.json"), help="the results as JSON")
    asked = parser.parse_args()
    isolate("tests.bench.memory")
    rows = [measure(sockets) for sockets in AIMS]
    for row in rows:
        aim = AIMS[row["sockets"]]
        word = "reached" if row["peak_mib"] <= aim else "NOT reached"
        print(f"{row['sockets']:>7} sockets: {row['peak_mib']:.0f} MiB at most, wanted {aim} MiB: {word}")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"results: {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
