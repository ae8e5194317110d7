# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.short``: how many connections of a moment are seen, with which process, at what cost.

A server and callers on loopback make connections at a steady rate, most from one process that lives on, one in fifty
from a process that lives for that connection alone. Callers and server write down who they are and which ports they
used; that is the truth. At each rate the contestants of `tests.bench.listeners` have their turn one after another, each
with the same load. Before that the tracer watches a host on which next to nothing happens. Needs root; elsewhere it
says so and ends.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.listeners import CONTESTANTS, Contestant, Heard, idle_share, missing
from tests.bench.population import PROCESSES, Population

_ONE_SHOT_EVERY = 50
_CALL = (
    "import os, socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
    "print(os.getpid(), s.getsockname()[1]); s.sendall(b'x'); s.close()"
)
_IDLE_SOCKETS = 200
#: So many connections fill a capture file.
_MANY, _MINUTE_S = 2000, 60.0
#: Of the connections wanted, so many must have been made.
_MADE_SHARE = 0.8


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.short", description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="100,1000,2000,5000", help="connections a second (100,1000,2000,5000)")
    parser.add_argument("--seconds", type=float, default=10, help="how long at each rate (10)")
    parser.add_argument("--idle", type=float, default=30, help="seconds of next to nothing (30)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-short.json"), help="the results as JSON")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: short connections, because the kernel's events need root")
        return 0
    absent = missing()
    for name, why in absent.items():
        print(f"skipped: {name}: {why}")
    present = [contestant for contestant in CONTESTANTS if contestant.name not in absent]
    rates = [float(rate) for rate in asked.rates.split(",")]
    with Population(_IDLE_SOCKETS):
        idle = idle_share(asked.idle)
    rows = [measure(one, rate, seconds_of(one, rate, asked.seconds)) for rate in rates for one in present]
    aims = list(judge_aims(rows, idle))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "processors": os.cpu_count()}
    made = {"schema": 2, "machine": machine, "rows": rows, "idle": idle, "aims": aims, "skipped": absent}
    asked.out.write_text(json.dumps(made, indent=1) + "\n")
    tell(rows, idle, aims)
    print(f"results: {asked.out}")
    return 0


def tell(rows: list[dict[str, Any]], idle: dict[str, Any], aims: list[dict[str, Any]]) -> None:
    """Print the tables."""
    print("ends of connections that were seen, and with the right process; CPU time of the listener, user and system")
    titles = ("made/s", "seen", "right", "wrong", "lost", "CPU s", "of a core", "us/conn", "MiB", "kB/10000", "pcap kB")
    print(f"{'listener':<19}{'wanted/s':>9}" + "".join(f"{title:>10}" for title in titles))
    for row in rows:
        print(
            f"{row['source']:<19}{row['wanted_per_s']:>9.0f}{row['made_per_s']:>10.0f}{row['seen_share']:>10.2%}"
            f"{row['right_share']:>10.2%}{row['wrong']:>10}{row['lost']:>10}{row['cpu_s']:>10.2f}"
            f"{row['core_share']:>10.2%}{row['cpu_us_per_connection']:>10.1f}{row['rss_mib']:>10.0f}"
            f"{row['disk_bytes_per_10000'] / 1000:>10.0f}{row['capture_bytes_per_10000'] / 1000:>10.0f}"
        )
    print(
        f"idle, {PROCESSES} processes and {_IDLE_SOCKETS} sockets: {idle['core_share']:.2%} of a core in "
        f"{idle['seconds']:.0f} s, {idle['rss_mib']:.0f} MiB"
    )
    for aim in aims:
        outcome = {True: "reached", False: "NOT reached", None: "not measured"}[aim["reached"]]
        print(f"{outcome:<14}{aim['what']}: {aim['found']:.4g} (aim: {aim['aim']})")


def judge_aims(rows: list[dict[str, Any]], idle: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """What the tracer is to reach, beside what it did."""
    own = [row for row in rows if row["source"] == "events"]
    for row in own:
        # a machine that cannot make so many connections says nothing of them
        rate = f"at {row['made_per_s']:.0f} of {row['wanted_per_s']:.0f} connections/s"
        made = row["made_per_s"] >= _MADE_SHARE * row["wanted_per_s"]
        missed = 2 * row["connections"] * (1 - row["seen_share"]) - row["lost"]
        yield _aim(f"ends missed and not told as lost {rate}", max(round(missed), 0), 0)
        yield _aim(f"ends with a wrong process {rate}", row["wrong"], 0)
        yield _aim(f"ends seen {rate}", row["seen_share"], 0.999, least=True, measured=made)
        yield _aim(f"ends with the right process {rate}", row["right_share"], 0.99, least=True, measured=made)
        yield _aim(f"share of a core {rate}", row["core_share"], 0.03, measured=made)
        yield _aim(f"MiB of memory {rate}", row["rss_mib"], 64, measured=made)
        yield _aim(f"bytes of segments for 10 000 connections {rate}", row["disk_bytes_per_10000"], 1_000_000)
        both = row["disk_bytes_per_10000"] + row["capture_bytes_per_10000"]
        yield _aim(f"the same with captures {rate}", both, 1_000_000)
    yield _aim("share of a core when idle", idle["core_share"], 0.003)


def _aim(what: str, found: float, aim: float, *, least: bool = False, measured: bool = True) -> dict[str, Any]:
    reached = None if not measured else found >= aim if least else found <= aim
    return {"what": what, "found": found, "aim": f"{'>=' if least else '<='} {aim:g}", "reached": reached}


def seconds_of(contestant: Contestant, rate: float, seconds: float) -> float:
    """How long to measure: a capture file is bounded by the minute, so at a low rate the one who writes it has one."""
    return max(seconds, _MINUTE_S) if contestant.name == "events" and rate * seconds < _MANY else seconds


def measure(contestant: Contestant, rate: float, seconds: float) -> dict[str, Any]:
    """One contestant at one rate."""
    with tempfile.TemporaryDirectory(prefix="whoneeds-bench-") as folder:
        listener = contestant.start(Path(folder))
        before_s, begin_s = listener.cpu_s(), time.monotonic()
        port, truth = make_connections(rate, seconds)
        time.sleep(1.5)
        spent_s, passed_s = listener.cpu_s() - before_s, time.monotonic() - begin_s
        rss_mib = listener.peak_mib()
        listener.stop()
        heard = contestant.hear(Path(folder), port)
    seen, right, wrong = judge(heard, truth)
    ends = 2 * len(truth)
    return {
        "source": contestant.name, "wanted_per_s": rate, "made_per_s": len(truth) / seconds, "connections": len(truth),
        "seen_share": seen / ends, "right_share": right / ends, "wrong": wrong, "lost": heard.lost, "cpu_s": spent_s,
        "core_share": spent_s / passed_s, "cpu_us_per_connection": 1e6 * spent_s / len(truth), "rss_mib": rss_mib,
        "disk_bytes_per_10000": 10_000 * heard.disk_bytes / len(truth),
        "capture_bytes_per_10000": 10_000 * heard.capture_bytes / len(truth),
    }  # fmt: skip


def make_connections(rate: float, seconds: float) -> tuple[int, list[tuple[int, int, int]]]:
    """Make connections at a rate: the server's port; caller's port, caller's and server's process of each."""
    truth: list[tuple[int, int, int]] = []
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        port = server.getsockname()[1]
        server_pid = os.fork()
        if server_pid == 0:
            while True:
                accepted, _address = server.accept()
                word = accepted.recv(1)
                accepted.close()
                if word == b"q":
                    os._exit(0)
    shots: list[subprocess.Popen[str]] = []
    begin_s, made = time.monotonic(), 0
    while (passed_s := time.monotonic() - begin_s) < seconds:
        while made < passed_s * rate:
            made += 1
            if made % _ONE_SHOT_EVERY == 0:
                words = [sys.executable, "-S", "-c", _CALL, str(port)]
                shots.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
                continue
            with socket.create_connection(("127.0.0.1", port)) as client:
                truth.append((client.getsockname()[1], os.getpid(), server_pid))
                client.sendall(b"x")
        time.sleep(0.002)
    for shot in shots:
        answer, _error = shot.communicate()
        pid, local_port = map(int, answer.split())
        truth.append((local_port, pid, server_pid))
    with socket.create_connection(("127.0.0.1", port)) as client:
        truth.append((client.getsockname()[1], os.getpid(), server_pid))
        client.sendall(b"q")
    os.waitpid(server_pid, 0)
    return port, truth


def judge(heard: Heard, truth: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """How many ends were seen, how many with the right process, how many with a wrong one.

    A port is used again within seconds; so ends with one port are compared as many as there are.
    """
    expected: defaultdict[tuple[int, bool], Counter[int]] = defaultdict(Counter)
    for caller_port, caller, server in truth:
        expected[caller_port, False][caller] += 1
        expected[caller_port, True][server] += 1
    rows: dict[tuple[int, bool], dict[str, int | None]] = {}
    for caller_port, called, identity, pid in heard.ends:
        rows.setdefault((caller_port, called), {})[identity] = pid
    seen = right = wrong = 0
    for end, sockets in rows.items():
        wanted = expected[end]
        seen += min(len(sockets), sum(wanted.values()))
        named = Counter(pid for pid in sockets.values() if pid is not None)
        right += sum(min(count, wanted[pid]) for pid, count in named.items())
        wrong += sum(max(count - wanted[pid], 0) for pid, count in named.items())
    return seen, right, wrong


if __name__ == "__main__":
    sys.exit(main())
