# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench.packets``: CPU of a packet taken in, beside a plain socket, and of a look at none.

Needs root. Real datagrams go over the loopback interface of this machine; only what
the reader itself takes is counted, not what it takes to send them.
"""

import argparse
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whoneeds.tracer import clocks
from whoneeds.tracer.namespaces import own_namespace
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.packets import PacketLimits, PacketSource, open_captures

#: Datagrams sent before each look: what fits into the ring, and into a socket's buffer.
ROUND = 2_000


def send(count: int, sockets: int) -> None:
    """Send datagrams over loopback, taking turns among pairs of sockets."""
    pairs = []
    for _pair in range(sockets):
        sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _end in range(2))
        receiver.bind(("127.0.0.1", 0))
        pairs.append((sender, receiver, receiver.getsockname()))
    for number in range(count):
        sender, _receiver, address = pairs[number % sockets]
        sender.sendto(b"x" * 64, address)
    for sender, receiver, _address in pairs:
        sender.close()
        receiver.close()


def measure(read: Callable[[], Any], rounds: int, sockets: int) -> float:
    """CPU seconds that a reader takes for `rounds` times `ROUND` datagrams."""
    spent_s = 0.0
    for _round in range(rounds):
        send(ROUND, sockets)
        time.sleep(0.45)  # a block that is not full is the reader's after that
        begin_s = time.process_time()
        read()
        spent_s += time.process_time() - begin_s
    return spent_s


def plain_reader() -> Callable[[], Any]:
    """The same packets by one call of the kernel for each."""
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    channel.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    channel.setblocking(False)

    def read() -> None:
        try:
            while True:
                channel.recvfrom(128)
        except BlockingIOError:
            return

    return read


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.packets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help=f"times that {ROUND} datagrams are sent (10)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-packets.json"), help="the results as JSON")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root", file=sys.stderr)
        return 1
    found: dict[str, float] = {}
    for name, sockets in (("one conversation", 1), ("200 conversations", 200)):
        at = clocks.now()
        channels, _refused = open_captures("headers", own_namespace(), {})
        source = PacketSource(channels, own_namespace(), "headers", PacketLimits(1_000_000, 32 << 20), at)
        observation = Observation("bench", clocks.read_boot_id(), at)
        spent_s = measure(lambda: source.read(observation, clocks.now()), arguments.rounds, sockets)  # noqa: B023
        begin_s = time.process_time()
        source.take(observation, clocks.now())
        found[f"{name}: microseconds a packet"] = spent_s / source.packets * 1e6
        found[f"{name}: milliseconds for a segment's rows"] = (time.process_time() - begin_s) * 1e3
        begin_s = time.process_time()
        for _look in range(1_000):
            source.read(observation, clocks.now())
        found["microseconds of a look at nothing"] = (time.process_time() - begin_s) * 1e3
        source.close()
    read = plain_reader()
    read()
    # loopback shows a plain socket each packet twice
    found["plain socket, only received: microseconds a packet"] = (
        measure(read, arguments.rounds, 1) / (arguments.rounds * ROUND) * 1e6
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"kernel": platform.release(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    arguments.out.write_text(json.dumps({"machine": about, "found": found}, indent=1) + "\n")
    for name, value in found.items():
        print(f"{value:9.2f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
