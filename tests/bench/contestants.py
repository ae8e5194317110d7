# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to learn of all sockets and their owners, each with the CPU time of one go.

Each works in a process of its own, so that none finds the memory of another's in its way.
"""

import gc
import multiprocessing
import resource
import shutil
import subprocess
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import psutil

from whoneeds.model.errors import HostError
from whoneeds.tracer import clocks, sock_diag
from whoneeds.tracer.bpf.listing import ListingSampler
from whoneeds.tracer.bpf.load import load, scope_here
from whoneeds.tracer.bpf.source import open_programs
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.owners import walk_everything
from whoneeds.tracer.sampler import Sampler

#: Samples of a segment at the tracer's defaults: it begins anew after so many.
SEGMENT_SAMPLES = 12


def cpu_s() -> float:
    """CPU seconds, user and system, of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Contestant:
    """A way of looking in a process of its own, to the end of a ``with`` block.

    Parameters
    ----------
    make : callable
        Makes, in that process, what `ask` names methods of.
    """

    def __init__(self, make: Callable[[], object]) -> None:
        context = multiprocessing.get_context("fork")
        self._control, theirs = context.Pipe()
        self._process = context.Process(target=self._work, args=(make, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def _work(self, make: Callable[[], object], control: Connection) -> None:
        self._control.close()
        made = make()
        while True:
            try:
                method = getattr(made, control.recv())
            except EOFError:
                return
            begin_s = cpu_s()
            answer = method()
            control.send((cpu_s() - begin_s, answer))

    def ask(self, method: str) -> tuple[float, Any]:
        """Call a method there; CPU seconds of it, and its answer."""
        self._control.send(method)
        answer: tuple[float, Any] = self._control.recv()
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
        self._process.join(20)


def make_sampler() -> Sampler | ListingSampler:
    """The sampler that the tracer would use here: the kernel's walk where its programs can be loaded."""
    try:
        return ListingSampler(open_programs(load(scope_here())))
    except HostError:
        return Sampler()


class WithoutPrograms:
    """The tracer's sampler where no programs can be loaded: the kernel's list, and what changed in /proc."""

    def __init__(self) -> None:
        self.sampler = Sampler()
        self.observation = Observation("bench", clocks.read_boot_id(), clocks.now())

    def sample(self) -> None:
        """Take a sample."""
        self.sampler.sample(self.observation, clocks.now())


class Ours:
    """The tracer's sampler as shipped, in its steady state."""

    def __init__(self) -> None:
        gc.disable()  # as the tracer does
        self.boot_id = clocks.read_boot_id()
        self.sampler = make_sampler()
        self.observation = Observation("bench", self.boot_id, clocks.now())

    def sample(self) -> None:
        """Take a sample."""
        self.sampler.sample(self.observation, clocks.now())

    def begin_segment(self) -> None:
        """Sum the segment up, as for writing it, and open the next one with its first sample."""
        self.observation.records(clocks.now())
        self.observation = Observation("bench", self.boot_id, clocks.now(), self.observation.told())
        self.sample()

    def rows(self) -> int:
        """Rows that the segment would have."""
        return self.observation.rows

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


class FullWalk:
    """The plain way: the kernel's list, and every descriptor of every process."""

    def sample(self) -> None:
        """Take a sample."""
        channel = sock_diag.open_channel()
        try:
            for protocol in (sock_diag.TCP, sock_diag.UDP):
                for raw in sock_diag.list_sockets(channel, protocol)[0]:
                    sock_diag.read_row(raw)
        finally:
            channel.close()
        walk_everything()


class Psutil:
    """psutil, as everybody calls it."""

    def sample(self) -> None:
        """Take a sample."""
        psutil.net_connections(kind="inet")


class Command:
    """A program that prints what it sees."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def sample(self) -> None:
        """Run it once."""
        # lsof ends with 1 where it found less than it was asked for
        subprocess.run(self._words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _command(*words: str) -> Callable[[], object] | None:
    path = shutil.which(words[0])
    return None if path is None else lambda: Command(path, *words[1:])


#: By name; None where the program is not installed.
PEERS: dict[str, Callable[[], object] | None] = {
    "ss -tunap": _command("ss", "-tunap"),
    "psutil.net_connections": Psutil,
    "lsof -nP -i": _command("lsof", "-nP", "-i"),
    "full walk": FullWalk,
    "whoneeds without programs": WithoutPrograms,
}
