# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.short``: how many connections of a moment are seen, with which process, at what cost.

A server and callers on loopback make connections at a steady rate, most from one process that lives on, one in fifty
from a process that lives for that connection alone. Callers and server write down who they are and which ports they
used; that is the truth. The tracer runs as shipped, in a process of its own, once with the kernel's events and once
with samples alone. Needs root; elsewhere it says so and ends.
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
from pathlib import Path
from typing import Any

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.segment.read import read_segment

_ONE_SHOT_EVERY = 50
_CALL = (
    "import os, socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
    "print(os.getpid(), s.getsockname()[1]); s.sendall(b'x'); s.close()"
)
_SOURCES = {"events": "events,table", "samples": "table"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.short", description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="100,1000,5000", help="connections a second (100,1000,5000)")
    parser.add_argument("--seconds", type=float, default=10, help="how long at each rate (10)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-short.json"), help="the results as JSON")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: short connections, because the kernel's events need root")
        return 0
    rows = [
        measure(name, float(rate), asked.seconds) for rate in asked.rates.split(",") for name in _SOURCES
    ]  # fmt: skip
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "processors": os.cpu_count()}
    asked.out.write_text(json.dumps({"schema": 1, "machine": machine, "rows": rows}, indent=1) + "\n")
    print("ends of connections that were seen, and with the right process; CPU time of the tracer, user and system")
    titles = ("made/s", "seen", "right", "wrong", "lost", "of a core", "us/conn", "MiB")
    print(f"{'source':<9}{'wanted/s':>9}" + "".join(f"{title:>10}" for title in titles))
    for row in rows:
        print(
            f"{row['source']:<9}{row['wanted_per_s']:>9.0f}{row['made_per_s']:>10.0f}{row['seen_share']:>10.2%}"
            f"{row['right_share']:>10.2%}{row['wrong']:>10}{row['lost']:>10}{row['core_share']:>10.2%}"
            f"{row['cpu_us_per_connection']:>10.1f}{row['rss_mib']:>10.0f}"
        )
    print(f"results: {asked.out}")
    return 0


def measure(source: str, rate: float, seconds: float) -> dict[str, Any]:
    """One source at one rate."""
    with tempfile.TemporaryDirectory(prefix="whoneeds-bench-") as folder:
        tracer = subprocess.Popen(
            [sys.executable, "-c", "from whoneeds.tracer.command import main; raise SystemExit(main())", "trace", "run",
             "--dir", folder, "--sources", _SOURCES[source]], stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not (Path(folder) / "status.json").exists():
            time.sleep(0.1)
        time.sleep(2)
        before_s, begin_s = _cpu_s(tracer.pid), time.monotonic()
        port, truth = make_connections(rate, seconds)
        time.sleep(1.5)
        spent_s, passed_s = _cpu_s(tracer.pid) - before_s, time.monotonic() - begin_s
        rss_mib = _peak_mib(tracer.pid)
        tracer.terminate()
        tracer.wait()
        seen, right, wrong, lost = judge(Path(folder), port, truth)
    ends = 2 * len(truth)
    return {
        "source": source, "wanted_per_s": rate, "made_per_s": len(truth) / seconds, "connections": len(truth),
        "seen_share": seen / ends, "right_share": right / ends, "wrong": wrong, "lost": lost,
        "core_share": spent_s / passed_s, "cpu_us_per_connection": 1e6 * spent_s / len(truth), "rss_mib": rss_mib,
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


def judge(folder: Path, port: int, truth: list[tuple[int, int, int]]) -> tuple[int, int, int, int]:
    """How many ends were seen, how many with the right process, how many with a wrong one, and what was called lost.

    A port is used again within seconds; so ends with one port are compared as many as there are.
    """
    expected: defaultdict[tuple[int, bool], Counter[int]] = defaultdict(Counter)
    for caller_port, caller, server in truth:
        expected[caller_port, False][caller] += 1
        expected[caller_port, True][server] += 1
    rows: dict[tuple[int, bool], dict[str, int | None]] = {}
    lost = 0
    for path in sorted((folder / "segments").glob("*.seg")):
        segment = read_segment(str(path))
        pids: dict[str | None, int | None] = {row.process_id: row.pid for row in segment.tables[ProcessRecord]}
        lost += sum(gap.lost or 0 for gap in segment.tables[Gap] if gap.source in ("events", "destroyed"))
        for row in segment.tables[SocketRecord]:
            if (
                row.remote_port is None
                or row.local_addr != "127.0.0.1"
                or port not in (row.local_port, row.remote_port)
            ):
                continue
            called = row.local_port == port
            end = (row.remote_port if called else row.local_port, called)
            rows.setdefault(end, {})[row.socket_id] = pids.get(row.process_id)
    seen = right = wrong = 0
    for (caller_port, called), sockets in rows.items():
        wanted = expected[caller_port, called]
        seen += min(len(sockets), sum(wanted.values()))
        named = Counter(pid for pid in sockets.values() if pid is not None)
        right += sum(min(count, wanted[pid]) for pid, count in named.items())
        wrong += sum(max(count - wanted[pid], 0) for pid, count in named.items())
    return seen, right, wrong, lost


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main())
