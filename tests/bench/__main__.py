# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench [--rounds N] [--out FILE]``: CPU time of one sample, ours beside others, interleaved.

As root it runs in a network and a pid namespace of its own, so that every contestant sees the same sockets and
processes and nothing else; otherwise among all that runs here.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.contestants import PEERS, SEGMENT_SAMPLES, Contestant, Ours
from tests.bench.population import PROCESSES, Population

SIZES = (200, 2_000, 20_000)
GROWTH = (1_250, 5_000, 20_000)
_WARM_SAMPLES = 3
#: What is to be reached at the largest size: how many times the CPU time of ours.
TARGETS = {("quiet", "ss -tunap"): 6.0, ("quiet", "psutil.net_connections"): 8.0, ("churn", "ss -tunap"): 5.0}
_ISOLATED = "WHONEEDS_BENCH_ISOLATED"


def isolate(module: str = "tests.bench") -> None:
    """Start this program anew in namespaces of its own, if that can be done; does not return then."""
    if os.geteuid() != 0 or os.environ.get(_ISOLATED):
        return
    unshare = shutil.which("unshare")
    words = [unshare, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        print("bench: no namespaces of its own here: measured among all that runs", flush=True)
        return
    subprocess_words = [sys.executable, "-m", module, *sys.argv[1:]]
    script = 'ip link set lo up && exec "$@"'
    os.environ[_ISOLATED] = "1"
    os.execv(unshare, [*words, "sh", "-c", script, "sh", *subprocess_words])


def run_size(sockets: int, rounds: int) -> dict[str, Any]:
    """All contestants at one size, in turn, quiet first and then with churn."""
    found: dict[str, Any] = {"sockets": sockets, "processes": PROCESSES, "equal": 0, "compared": 0}
    with contextlib.ExitStack() as stack:
        population = stack.enter_context(Population(sockets))
        ours = stack.enter_context(Contestant(Ours))
        peers = {name: stack.enter_context(Contestant(make)) for name, make in PEERS.items() if make is not None}
        for _sample in range(_WARM_SAMPLES):
            ours.ask("sample")
        found["rows"] = ours.ask("rows")[1]
        for mood in ("quiet", "churn"):
            taken: dict[str, list[float]] = {"whoneeds": []}
            for _round in range(rounds):
                for name, peer in peers.items():
                    if mood == "churn":
                        population.churn()
                    taken["whoneeds"].append(ours.ask("sample")[0])
                    found["compared"] += 1
                    found["equal"] += ours.ask("is_true")[1]
                    taken.setdefault(name, []).append(peer.ask("sample")[0])
            found[mood] = {name: statistics.median(values) for name, values in taken.items()}
        found["new_segment"] = statistics.median(ours.ask("begin_segment")[0] for _round in range(rounds))
    return found


def run_growth(rounds: int) -> list[dict[str, Any]]:
    """Ours alone, quiet, at numbers of sockets that grow by the same factor."""
    found = []
    for sockets in GROWTH:
        with Population(sockets), Contestant(Ours) as ours:
            for _sample in range(_WARM_SAMPLES):
                ours.ask("sample")
            quiet = statistics.median(ours.ask("sample")[0] for _sample in range(4 * rounds))
            found.append({"sockets": sockets, "quiet": quiet})
    return found


def judge(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ratios at the largest size beside what is to be reached."""
    largest = sizes[-1]
    made = []
    for (mood, peer), target in TARGETS.items():
        if peer in largest[mood]:
            ratio = largest[mood][peer] / largest[mood]["whoneeds"]
            made.append({"mood": mood, "peer": peer, "ratio": ratio, "target": target, "reached": ratio >= target})
    return made


def render(document: dict[str, Any]) -> list[str]:
    """The figures as a table in Markdown."""
    names = ["whoneeds", *(name for name in PEERS if name in document["sizes"][0]["quiet"])]
    lines = [f"| CPU ms of one look | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for mood in ("quiet", "churn"):
        for size in document["sizes"]:
            cells = [_cell(size[mood][name], size[mood]["whoneeds"]) for name in names]
            lines.append(f"| {size['sockets']} sockets, {mood} | {' | '.join(cells)} |")
    lines.append("")
    first = document["growth"][0]
    times = ", ".join(
        f"{each['sockets'] // first['sockets']}x sockets {each['quiet'] / first['quiet']:.1f}x time"
        for each in document["growth"]
    )
    lines.append(f"Growth from {first['sockets']} sockets on, quiet: {times}.")
    starts = ", ".join(f"{size['sockets']}: {1000 * size['new_segment']:.1f} ms" for size in document["sizes"])
    lines.append(f"Once in {SEGMENT_SAMPLES} samples a segment is summed up and the next one begun: {starts}.")
    compared, equal = (sum(size[word] for size in document["sizes"]) for word in ("compared", "equal"))
    lines.append(f"Owner map equal to a full walk's: {equal} of {compared} samples.")
    for verdict in document["targets"]:
        word = "reached" if verdict["reached"] else "NOT reached"
        lines.append(
            f"{verdict['peer']}, {verdict['mood']}: {verdict['ratio']:.1f}x, wanted {verdict['target']:g}x: {word}."
        )
    return lines


def _cell(value_s: float, ours_s: float) -> str:
    return f"{1000 * value_s:.1f}" if value_s is ours_s else f"{1000 * value_s:.1f} ({value_s / ours_s:.1f}x)"


def main() -> int:
    """Run the bench; exit code 1 if an owner map was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant is measured (5)")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="results as JSON (build/bench.json)")
    given = parser.parse_args()
    isolate()
    for name, call in PEERS.items():
        if call is None:
            print(f"bench: skipped: {name}, which is not installed", flush=True)
    sizes = [run_size(size, given.rounds) for size in SIZES]
    document = {
        "schema": 1,
        "machine": {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "isolated": bool(os.environ.get(_ISOLATED)),
        "rounds": given.rounds,
        "load": [round(load, 1) for load in os.getloadavg()],
        "sizes": sizes,
        "growth": run_growth(given.rounds),
        "targets": judge(sizes),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("\n".join(render(document)))
    print(f"bench: {given.rounds} rounds, load {document['load'][0]} on {document['machine']['cpus']} processors")
    print(f"bench: written to {given.out}")
    return 0 if all(size["equal"] == size["compared"] for size in sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
