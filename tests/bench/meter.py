# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.meter``: what metering a capture costs, beside the meters that others use.

A capture is made of so many TCP conversations of fifty packets each, all at the same time and in no order, as on a busy
link; headers only (96 bytes are kept of packets of up to 1 500) or whole packets. Each meter reads it from the page
cache in a process of its own, whose CPU time (user and system) and largest memory are taken at its end. Ours is the
command as shipped, writing CSV; what its start takes, on a capture of one conversation, is printed below. What is not
installed is said and left out.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_PACKETS_A_FLOW = 50
_SNAP_BYTES, _PAYLOAD_BYTES = 96, 1000


class Spent(NamedTuple):
    """What a process took."""

    cpu_s: float
    rss_mib: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.meter", description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=100_000, help="conversations of fifty packets (100000)")
    parser.add_argument("--whole", type=int, default=100_000, help="the same in the capture of whole packets (100000)")
    parser.add_argument("--nfstream", default=sys.executable, help="a Python that has nfstream (this one)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each; the best counts (2)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-meter.json"), help="the results as JSON")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="whoneeds-bench-") as name:
        folder = Path(name)
        tiny = folder / "tiny.pcap"
        write_capture(tiny, 1, whole=False)
        own = [sys.executable, "-m", "whoneeds", "flows", "--out", str(folder / "out.csv")]
        compiled = run([*own, str(tiny)], folder)  # nothing is kept yet in the folder's own cache
        start = best([*own, str(tiny)], folder, asked.rounds)
        for count in (asked.flows // 16, asked.flows // 4, asked.flows):
            path = folder / "headers.pcap"
            write_capture(path, count, whole=False)
            rows.append(row_of("ours", "headers", count, best([*own, str(path)], folder, asked.rounds)))
            if count == asked.flows // 16:
                rows += beside(slow_ones(path, asked.nfstream, folder), "headers", count, folder, 1)
        rows += beside(quick_ones(path, folder), "headers", asked.flows, folder, asked.rounds)
        path.unlink()
        write_capture(path, asked.whole, whole=True)
        rows.append(row_of("ours", "whole", asked.whole, best([*own, str(path)], folder, asked.rounds)))
        rows += beside(quick_ones(path, folder), "whole", asked.whole, folder, asked.rounds)
    tell(rows, start, compiled)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "processors": os.cpu_count()}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    made = {"schema": 1, "machine": machine, "start": start._asdict(), "first_start": compiled._asdict(), "rows": rows}
    asked.out.write_text(json.dumps(made, indent=1) + "\n")
    print(f"results: {asked.out}")
    return 0


def write_capture(path: Path, flows: int, *, whole: bool) -> None:
    """A capture of so many conversations, all at the same time, a microsecond between packets."""
    kept = 14 + 20 + 20 + _PAYLOAD_BYTES if whole else _SNAP_BYTES
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535 if whole else _SNAP_BYTES, 1))
        now_us = 1_700_000_000_000_000
        order, chance = list(range(flows)), random.Random(1)
        for step in range(_PACKETS_A_FLOW):
            chance.shuffle(order)
            for begin in range(0, flows, 1000):
                made = bytearray()
                for number in order[begin : begin + 1000]:
                    packet = packet_of(number, step)
                    content = packet[:kept]
                    now_us += 1
                    made += struct.pack("<IIII", now_us // 10**6, now_us % 10**6, len(content), len(packet)) + content
                file.write(made)


_DATA = bytes(_PAYLOAD_BYTES)


def _sequence(step: int) -> int:
    """Where in its stream a packet stands: two that open, one that acknowledges, then each end in turn sends data."""
    return 1000 if step < 2 else 1001 + max(step - 3, 0) // 2 * _PAYLOAD_BYTES


def _length(step: int) -> int:
    """How much of its stream a packet takes; opening and closing take one."""
    if step == 2:
        return 0
    return _PAYLOAD_BYTES if 2 < step < _PACKETS_A_FLOW - 2 else 1


def packet_of(number: int, step: int) -> bytes:
    """One packet of a conversation: opening, questions and answers in turn, closing."""
    last = _PACKETS_A_FLOW - 1
    from_caller = step % 2 == 0
    sequence = _sequence(step)
    acknowledged = 0 if step == 0 else _sequence(step - 1) + _length(step - 1)
    flags, payload = 16, b""
    if step < 2:
        flags = 2 if step == 0 else 18
    elif step >= last - 1:
        flags = 17
    elif step > 2:
        flags, payload = 24, _DATA
    caller, server = struct.pack("!I", 0x0A000000 + number % 60_000), struct.pack("!I", 0x0A800000 + number % 977)
    ports = struct.pack("!HH", 20_000 + number // 60_000 * 7 + number % 40_000, 443)
    if not from_caller:
        caller, server, ports = server, caller, ports[2:] + ports[:2]
    numbers = struct.pack("!II", sequence, acknowledged)
    body = ports + numbers + struct.pack("!BBHHH", 80, flags, 65535, 0, 0) + payload
    header = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(body), number & 0xFFFF, 16384, 64, 6, 0, caller, server)
    words = struct.unpack("!10H", header)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + header[:10] + struct.pack("!H", checksum) + header[12:] + body


def quick_ones(path: Path, folder: Path) -> dict[str, Sequence[str]]:
    """Meters that are written in C: the names of their commands, and how each reads a capture."""
    (folder / "nfcapd").mkdir(exist_ok=True)
    # softflowd never ends on a file without its option for a control socket
    return {
        "argus": ("argus", "-X", "-r", str(path), "-w", str(folder / "argus.out")),
        "nfpcapd": ("nfpcapd", "-r", str(path), "-w", str(folder / "nfcapd")),
        "softflowd": ("softflowd", "-d", "-c", "none", "-p", "none", "-n", "127.0.0.1:9", "-r", str(path)),
    }


_NFSTREAM = """
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    print(sum(1 for flow in NFStreamer(source=sys.argv[1], n_dissections=0, n_meters=1)))
"""


def slow_ones(path: Path, python: str, folder: Path) -> dict[str, Sequence[str]]:
    """Those that look at everything in a packet; nfstream does not where it is told so."""
    found: dict[str, Sequence[str]] = {"tshark": ("tshark", "-q", "-n", "-r", str(path), "-z", "conv,tcp")}
    if subprocess.run([python, "-c", "import nfstream"], capture_output=True, check=False).returncode:
        print(f"skipped: nfstream: {python} does not have it")
    else:
        program = folder / "with_nfstream.py"
        program.write_text(_NFSTREAM)
        found["nfstream"] = (python, str(program), str(path))
    return found


def beside(
    contestants: dict[str, Sequence[str]], kind: str, flows: int, folder: Path, rounds: int
) -> list[dict[str, Any]]:
    """Other meters on the same capture."""
    rows = []
    for name, command in contestants.items():
        program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/sbin")
        if program is None:
            print(f"skipped: {name}: it is not installed")
            continue
        rows.append(row_of(name, kind, flows, best([program, *command[1:]], folder, rounds)))
    return rows


def best(command: Sequence[str], folder: Path, rounds: int) -> Spent:
    """The cheapest of some runs."""
    return min((run(command, folder) for _ in range(rounds)), key=lambda spent: spent.cpu_s)


def run(command: Sequence[str], folder: Path) -> Spent:
    """Run a command to its end; what it took."""
    with (folder / "said").open("wb") as said:
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        # as of an installed command, whose own modules need not be compiled each time
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        until_s = time.monotonic() + 600
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until_s:
                process.kill()
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {(folder / 'said').read_text(errors='replace')[-500:]}")
    return Spent(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def row_of(name: str, kind: str, flows: int, spent: Spent) -> dict[str, Any]:
    """A row of the result."""
    packets = flows * _PACKETS_A_FLOW
    return {
        "meter": name, "capture": kind, "flows": flows, "packets": packets, "cpu_s": spent.cpu_s,
        "packets_per_cpu_s": packets / spent.cpu_s, "rss_mib": spent.rss_mib,
    }  # fmt: skip


def tell(rows: list[dict[str, Any]], start: Spent, compiled: Spent) -> None:
    """Print the table, and ratios of CPU time to ours on the same capture."""
    print(f"{'meter':<12}{'capture':<10}{'packets':>10}{'CPU s':>9}{'Mpkt/CPU-s':>12}{'to ours':>9}{'MiB':>7}")
    for row in rows:
        own = next(
            one
            for one in rows
            if one["meter"] == "ours" and (one["capture"], one["flows"]) == (row["capture"], row["flows"])
        )
        print(
            f"{row['meter']:<12}{row['capture']:<10}{row['packets']:>10}{row['cpu_s']:>9.2f}"
            f"{row['packets_per_cpu_s'] / 1e6:>12.2f}{row['cpu_s'] / own['cpu_s']:>8.1f}x{row['rss_mib']:>7.0f}"
        )
    print(
        f"start on a capture of one conversation, compiled code kept: {start.cpu_s:.2f} CPU-s, {start.rss_mib:.0f} MiB"
    )
    print(f"the very first one, which compiles: {compiled.cpu_s:.1f} CPU-s, {compiled.rss_mib:.0f} MiB")
    print(f"processors: {os.cpu_count()}; files of {resource.getpagesize()}-byte pages, read from the page cache")


if __name__ == "__main__":
    sys.exit(main())
