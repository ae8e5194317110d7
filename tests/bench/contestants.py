# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to learn of all sockets and their owners, each with the CPU time of one go."""

import gc
import resource
import shutil
import subprocess
from collections.abc import Callable

import psutil

from whoneeds.tracer import clocks, sock_diag
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.owners import walk_everything
from whoneeds.tracer.sampler import Sampler

#: Samples of a segment at the tracer's defaults: it begins anew after so many.
SEGMENT_SAMPLES = 12


def cpu_s() -> float:
    """CPU seconds, user and system, of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(call: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    begin_s = cpu_s()
    call()
    return cpu_s() - begin_s


class Ours:
    """The tracer's sampler as shipped, in its steady state."""

    def __init__(self) -> None:
        gc.disable()  # as the tracer does
        self.boot_id = clocks.read_boot_id()
        self.sampler = Sampler()
        self.segment_s: list[float] = []
        self._open()

    def _open(self) -> None:
        told = self.observation.told() if hasattr(self, "observation") else None
        self.observation = Observation("bench", self.boot_id, clocks.now(), told)

    def sample(self) -> None:
        """Take a sample."""
        self.sampler.sample(self.observation, clocks.now())

    def begin_segment(self) -> None:
        """Close the segment as a file's content, and open the next one with its first sample."""
        self.observation.records(clocks.now())
        self._open()
        self.sample()

    def is_true(self) -> bool:
        """Whether every listed socket has the owners that a walk of every process finds; nothing may move now."""
        channel = sock_diag.open_channel()
        try:
            listed = [sock_diag.list_sockets(channel, protocol)[0] for protocol in (sock_diag.TCP, sock_diag.UDP)]
        finally:
            channel.close()
        wanted = {inode for rows in listed for inode in sock_diag.inodes_of(rows)}
        truth, ours = walk_everything(), self.sampler.owners
        return all(ours.get(inode) == truth.get(inode) for inode in wanted)


def walk_all() -> None:
    """The plain way: the kernel's list, and every descriptor of every process."""
    channel = sock_diag.open_channel()
    try:
        for protocol in (sock_diag.TCP, sock_diag.UDP):
            [sock_diag.read_row(raw) for raw in sock_diag.list_sockets(channel, protocol)[0]]
    finally:
        channel.close()
    walk_everything()


def _command(*words: str) -> Callable[[], object] | None:
    path = shutil.which(words[0])
    if path is None:
        return None
    # lsof ends with 1 where it found less than it was asked for
    return lambda: subprocess.run([path, *words[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


#: By name; None where the program is not installed.
PEERS: dict[str, Callable[[], object] | None] = {
    "ss -tunap": _command("ss", "-tunap"),
    "psutil.net_connections": lambda: psutil.net_connections(kind="inet"),
    "lsof -nP -i": _command("lsof", "-nP", "-i"),
    "full walk": walk_all,
}
