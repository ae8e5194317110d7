# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's programs cannot tell is counted, and they leave the kernel with whoever loaded them."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import bpf_calls
import pytest
from event_watches import ProgramsWatch, ends, in_child, serving, wait
from runs import wait_for

from whoneeds.model.errors import Denied
from whoneeds.model.evidence import Gap
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import clocks, daemon
from whoneeds.tracer.bpf import load, source
from whoneeds.tracer.bpf.layout import Scope
from whoneeds.tracer.settings import make_settings

pytestmark = pytest.mark.root


NEW_NETWORK = 0x40000000


@pytest.fixture
def alone(watch):
    """A network namespace of this test's own, so that nobody else takes the room of small maps; gives its number."""
    library = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if library.unshare(NEW_NETWORK) != 0:
            pytest.skip("no right to make network namespaces")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield Path("/proc/thread-self/ns/net").stat().st_ino
        assert library.setns(before, NEW_NETWORK) == 0
    finally:
        os.close(before)


@pytest.fixture
def small(alone, monkeypatch):
    """A maker of programs with small maps."""
    made = []

    def make(**sizes):
        for name, size in sizes.items():
            for module in (load, source):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, size)
        made.append(ProgramsWatch(Scope(netns=alone)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def tells_both_ends(watch):
    """Whether a connection is told of whole."""
    with serving() as (server_pid, port):
        socket.create_connection(("127.0.0.1", port)).close()
    return ends(watch.rows(port)) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}


def lost(watch, words):
    """How much of something was lost by the gaps."""
    return sum(gap.lost for gap in watch.gaps() if gap.source == "events" and words in gap.detail)


def test_a_ring_that_runs_over_loses_whole_records_and_counts_them(small):
    """What the ring has no room for is counted in a gap, and what it had room for is whole and right."""
    small = small(LIVES_BYTES=1 << 16)
    room = (1 << 16) // (8 + 128)
    with serving("c.recv(9)", times=400) as (server_pid, port):
        for _ in range(400):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"xyz")
    found = small.rows(port, seconds=1)
    missed = lost(small, "ends of connections")
    assert len(found) <= room < 800 <= len(found) + missed
    assert missed >= 800 - room
    assert small.source.tally.lost == missed
    assert ends(found) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}
    assert {one.row.sent_bytes if one.row.initiated else one.row.received_bytes for one in found} == {3}
    assert tells_both_ends(small)  # with room again


def test_processes_that_the_ring_has_no_room_for_are_counted_and_told_later(small):
    """A process that could not be told of is counted, and told of when it next acts and there is room."""
    small = small(TASKS_BYTES=4096)
    with serving(times=9) as (_, port):
        for _ in range(8):
            pid = in_child(lambda: socket.create_connection(("127.0.0.1", port)).close())
            wait(pid)
        small.read()
        assert lost(small, "processes") >= 4
        socket.create_connection(("127.0.0.1", port)).close()
    found = small.rows(port)
    assert len(found) == 18
    assert any(one.pid == os.getpid() for one in found if one.row.initiated)


def test_connections_beyond_what_is_remembered_are_counted(small):
    """With more connections open than can be remembered, what is not told of is counted, and what is told is right."""
    small = small(_MAX_OPEN=16)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        port = server.getsockname()[1]
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        accepted = [server.accept()[0] for _ in clients]
        for one in (*clients, *accepted):
            one.close()
    found = small.rows(port)
    assert lost(small, "remembered") >= 80 - len(found) > 0
    assert ends(found) >= {(os.getpid(), True, "fin")}
    assert {(one.pid, one.row.end) for one in found} == {(os.getpid(), "fin")}
    assert tells_both_ends(small)  # with room again


def test_nothing_stays_in_the_kernel(watch):
    """Programs are gone from the kernel when the source is closed, and when the tracer is killed."""
    mine = {bpf_calls.number(program) for program in watch.source._loaded.programs}
    assert {bpf_calls.programs()[number] for number in mine} >= {"whoneeds_state", "whoneeds_end", "whoneeds_exec"}
    again = ProgramsWatch()
    theirs = {bpf_calls.number(program) for program in again.source._loaded.programs}
    again.close()
    wait_for(lambda: not theirs & set(bpf_calls.programs()))
    assert mine < set(bpf_calls.programs())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        loaded = load.load(Scope())
        numbers = [bpf_calls.number(program) for program in loaded.programs]
        os.write(writing, json.dumps(numbers).encode())
        signal.pause()
    killed = set(json.loads(os.read(reading, 4096)))
    os.close(reading)
    os.close(writing)
    assert killed < set(bpf_calls.programs())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: not killed & set(bpf_calls.programs()))


def open_descriptors():
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_leaves_no_descriptor(watch):
    """Loading and closing again leaves as many descriptors as before, and a refusal half-way does too."""
    before = open_descriptors()
    ProgramsWatch().close()
    assert open_descriptors() == before
    real = load.machine.attach_iteration

    def refuse(_program):
        raise Denied("kernel listing", found="said the test")

    load.machine.attach_iteration = refuse
    try:
        with pytest.raises(Denied):
            load.load(Scope())
    finally:
        load.machine.attach_iteration = real
    assert open_descriptors() == before


def test_without_the_right_it_is_denied():
    """A user without privileges is told which ones are missing, and nothing is left in the kernel."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give rights up")
    ask = (
        "import os\nfrom whoneeds.tracer.bpf.load import load, Scope\nos.setuid(12345)\n"
        "try:\n    load(Scope())\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.startswith("Denied"), done.stdout + done.stderr
    assert "BPF and PERFMON" in done.stdout


def test_a_record_of_a_process_that_is_cut_ends_the_events_not_the_tracer(tmp_path, monkeypatch, watch):
    """A record that no program writes makes the tracer go on with samples alone, and say so."""
    settings = make_settings({}, {"dir": str(tmp_path / "t"), "sources": ["events", "table"]})
    spool = open_spool(settings.dir, settings.budget_bytes)
    tracer = daemon.Tracer(settings, spool)
    try:
        tracer.take_sample()
        assert isinstance(tracer.events, source.ProgramEvents)
        monkeypatch.setattr(tracer.events._told, "take", lambda: [bytes(10)])
        tracer.take_sample()
        assert tracer.events is None
        gaps = [gap for gap in tracer.open.records(clocks.now())[Gap] if gap.source == "events"]
        assert [gap.reason for gap in gaps] == ["failed"]
        assert "record of a process" in gaps[0].detail
    finally:
        spool.close()
