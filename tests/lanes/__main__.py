# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.lanes TARGET ...``: run make targets, some at a time, and say of each what came out.

A lane's output goes to ``build/lanes/<target>.log`` as it comes. While lanes run, a line a minute says which; when one
ends, its result is printed, with what it skipped and why, and the end of its log if it failed. ``TARGET!`` runs when
all others are done, alone: for lanes whose outcome depends on how much of the machine they get.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "lanes"
_STILL_EVERY_S = 60
_SHOWN_LINES = 60
_SKIPPED = re.compile(r"^(?:SKIPPED|skipped:).*$|^\S.*\bskipped: .*$", re.MULTILINE)
_COUNTED = re.compile(r"^=*\s*(\d+ (?:passed|failed|error).*?)\s*(?:in [\d.]+s.*)?=*$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What came out of a lane.

    Attributes
    ----------
    lane : str
    code : int
        Exit code of make.
    elapsed_s : float
    text : str
        All that it printed.
    """

    lane: str
    code: int
    elapsed_s: float
    text: str


def main() -> int:
    """Run the lanes; the exit code is 1 if any of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.lanes", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="a make target; with ! at the end, alone and last")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="lanes at the same time")
    asked = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    together = [target for target in asked.targets if not target.endswith("!")]
    alone = [target.rstrip("!") for target in asked.targets if target.endswith("!")]
    begin = time.monotonic()
    results = run_together(together, asked.jobs)
    for target in alone:
        results += run_together([target], 1)
    failed = [result.lane for result in results if result.code]
    print(f"\n{time.monotonic() - begin:.0f} s in all; logs are in {LOGS.relative_to(ROOT)}/")
    if failed:
        print(f"failed: {', '.join(failed)}")
    print(f"lanes: {len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def run_together(targets: list[str], jobs: int) -> list[Result]:
    """Run lanes, some at a time, and tell of each when it ends."""
    results: list[Result] = []
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        running: dict[Future[Result], str] = {pool.submit(run_lane, target): target for target in targets}
        while running:
            done, _ = wait(running, timeout=_STILL_EVERY_S, return_when=FIRST_COMPLETED)
            if not done:
                names = [target for future, target in running.items() if future.running()]
                print(f"...  still running: {', '.join(names)}", flush=True)
            for future in done:
                del running[future]
                results.append(future.result())
                tell(results[-1])
    return results


def run_lane(target: str) -> Result:
    """Run one make target with its output in a log."""
    begin = time.monotonic()
    path = LOGS / f"{target}.log"
    with path.open("wb") as log:
        code = subprocess.run(
            ["make", "--no-print-directory", target], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, check=False, env={**os.environ, "MAKEFLAGS": "", "COLUMNS": "160"},
        ).returncode  # fmt: skip
    return Result(target, code, time.monotonic() - begin, path.read_text(encoding="utf-8", errors="backslashreplace"))


def tell(result: Result) -> None:
    """Print a lane's result."""
    counted = _COUNTED.findall(result.text)
    outcome = "FAIL" if result.code else "ok  "
    print(f"{outcome} {result.elapsed_s:6.0f} s  {result.lane:<16}{counted[-1] if counted else ''}", flush=True)
    for line in dict.fromkeys(_SKIPPED.findall(result.text)):
        print(f"         {line.strip()}")
    if result.code:
        lines = result.text.splitlines()
        left_out = len(lines) - _SHOWN_LINES
        print(
            f"------ {LOGS.relative_to(ROOT)}/{result.lane}.log"
            + (f", the last of {len(lines)} lines" if left_out > 0 else "")
        )
        print("\n".join(lines[-_SHOWN_LINES:]))
        print("------", flush=True)


if __name__ == "__main__":
    sys.exit(main())
