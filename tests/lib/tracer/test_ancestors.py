# SPDX-License-Identifier: GPL-3.0-or-later
"""Who began whom is told by identity, also of processes that own no socket."""

import os
import socket
import subprocess
import sys

from whoneeds.model.evidence import ProcessRecord
from whoneeds.tracer import clocks
from whoneeds.tracer.ancestors import MAX_GENERATIONS, Ancestors
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import Attributes, open_process, read_stat
from whoneeds.tracer.sampler import Sampler
from whoneeds.tracer.surroundings import Surroundings

#: Begins a process that begins a process that holds a socket; the one between holds none.
INNER = """
import socket, sys
held = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
sys.stdin.read()
"""
BETWEEN = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {INNER!r}])"
CHAIN = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {BETWEEN!r}])"


def observe():
    """One sample, with all that is looked at beside it."""
    at = clocks.now()
    observation = Observation("h", clocks.read_boot_id(), at)
    sampler = Sampler()
    sampler.sample(observation, at)
    Surroundings().look(observation, at, sampler.doors, sampler.owners)
    return {row.process_id: row for row in observation.records(clocks.now())[ProcessRecord]}


def test_ancestors_without_sockets_are_told_of_up_to_the_first():
    """From a process with a socket the chain of parents leads over those without one to a process that is known."""
    with subprocess.Popen(
        [sys.executable, "-c", CHAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as top:
        try:
            assert top.stdout.readline()
            rows = observe()
        finally:
            top.stdin.close()
            top.kill()
    by_pid = {row.pid: row for row in rows.values()}
    children = {row.parent_id: row for row in rows.values()}
    between = children[by_pid[top.pid].process_id]
    inner = children[between.process_id]
    assert (between.ppid, inner.ppid) == (top.pid, between.pid)
    assert by_pid[top.pid].parent_id == by_pid[os.getpid()].process_id
    assert inner.session == os.getsid(0)
    # the first process of all is told where it is not too far back
    assert 1 not in by_pid or by_pid[1].parent_id is None


def test_a_parent_is_told_by_number_and_start():
    """The identity of a parent is that of the process which has the number, with its start."""
    with socket.create_server(("127.0.0.1", 0)):
        own = next(row for row in observe().values() if row.pid == os.getpid())
    directory = open_process("/proc", os.getppid())
    try:
        started = read_stat(directory).start_ticks
    finally:
        os.close(directory)
    assert own.parent_id == f"h/{clocks.read_boot_id()}/{os.getppid()}/{started}"


def test_a_chain_is_followed_so_far_and_no_further():
    """Ancestors beyond the last generation are not asked for, nor those that were asked for already."""
    ancestors = Ancestors()

    def born_of(number):
        return Attributes(number, "p", None, None, None, None, None, parent=(number, 1))

    ancestors.want_parent(born_of(1), ())
    asked = 0
    while ancestors.missing:
        (holder,) = ancestors.missing
        ancestors.tell(holder, born_of(holder.pid + 1), 5, ())
        asked += 1
    assert asked == MAX_GENERATIONS
    assert [found.holder.pid for found in ancestors.without({Holder(1, 1)})] == list(range(2, MAX_GENERATIONS + 1))
    ancestors.want_parent(born_of(1), ())
    assert not ancestors.missing
