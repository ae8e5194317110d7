# SPDX-License-Identifier: GPL-3.0-or-later
"""Real connections too short for any sample, seen from begin to end with the right process."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from event_watches import CALL, TracefsWatch, serving

from whoneeds.model.errors import Denied, Unsupported
from whoneeds.model.evidence import Gap, SocketRecord
from whoneeds.tracer import clocks, events, tracefs
from whoneeds.tracer.status import own_identity

pytestmark = pytest.mark.root


@pytest.fixture
def watch():
    """The kernel's events; skipped where this machine has none."""
    if os.geteuid() != 0:
        pytest.skip("kernel events need root")
    try:
        made = TracefsWatch()
    except (Denied, Unsupported) as error:
        pytest.skip(f"no kernel events here: {error}")
    yield made
    made.close()


def test_a_process_that_lives_for_one_connection_has_its_name(watch):
    """Both ends of a connection of milliseconds are seen with their processes, times, bytes, and who began it."""
    with serving() as (server_pid, port):
        caller = subprocess.Popen([sys.executable, "-c", CALL, str(port)])
        caller.wait()
    found = watch.rows(port)
    assert {(one.pid, one.row.initiated, one.row.end) for one in found} == {
        (caller.pid, True, "fin"), (server_pid, False, "fin"),
    }  # fmt: skip
    for one in found:
        assert one.name.startswith("python")
        assert 0 <= one.row.last_ns - one.row.first_ns < 60 * 10**9
        assert (one.row.source, one.row.samples, one.row.state) == ("event", 0, "close")
        count = one.row.sent_bytes if one.row.initiated else one.row.received_bytes
        assert 5 <= count <= 6  # the peer's FIN may count as one


def test_every_one_of_many_is_seen(watch):
    """Of a thousand short connections none is missed, and each end has its own process."""
    with serving(times=1000) as (server_pid, port):
        for _ in range(1000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x")
    found = watch.rows(port, seconds=20)
    assert len({one.row.socket_id for one in found}) == 2000
    assert {(one.pid, one.row.initiated) for one in found} == {(os.getpid(), True), (server_pid, False)}
    assert watch.source.tally.lost == 0


def test_a_refused_connection_is_kept_as_such(watch):
    """A connection to a port where nobody listens has its process, its peer, and the word that it was rejected."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    (one,) = watch.rows(port)
    assert (one.pid, one.row.end, one.row.remote_port, one.row.initiated) == (os.getpid(), "rejected", port, True)


def test_workers_of_one_listening_socket_are_told_apart(watch):
    """Of a pre-forking server, each connection is laid to the worker that accepted it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        workers = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                accepted, _address = server.accept()
                accepted.recv(9)
                time.sleep(0.2)  # so that the other worker takes the other connection
                accepted.close()
                os._exit(0)
            workers.append(pid)
        callers = [subprocess.Popen([sys.executable, "-c", CALL, str(port)]) for _ in workers]
        for pid in workers:
            os.waitpid(pid, 0)
        for caller in callers:
            caller.wait()
    served = [one for one in watch.rows(port) if not one.row.initiated]
    assert sorted(one.pid for one in served) == sorted(workers)


def test_one_port_used_by_two_processes_one_after_the_other(watch):
    """A local port that two processes use within a moment gives two connections with one process each."""
    call = (
        "import socket, struct, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
        "s.bind(('127.0.0.1', int(sys.argv[2]))); s.connect(('127.0.0.1', int(sys.argv[1])));"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()"
    )
    with socket.create_server(("127.0.0.1", 0)) as spare:
        local = spare.getsockname()[1]
    with serving("time.sleep(0.1)", times=2) as (_, port):
        callers = [subprocess.Popen([sys.executable, "-c", call, str(port), str(local)]) for _ in range(1)]
        callers[0].wait()
        callers.append(subprocess.Popen([sys.executable, "-c", call, str(port), str(local)]))
        callers[1].wait()
    began = [one for one in watch.rows(port) if one.row.initiated]
    assert sorted(one.pid for one in began) == sorted(caller.pid for caller in callers)
    assert {one.row.local_port for one in began} == {local}
    assert len({one.row.socket_id for one in began}) == 2


def test_loopback_of_two_namespaces_is_two(watch):
    """The same ports on 127.0.0.1 of two namespaces are two connections, each under its own namespace."""
    talk = """
import os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
print(flush=True)
sys.stdin.readline()
server = socket.create_server(("127.0.0.1", 7001))
client = socket.socket()
client.bind(("127.0.0.1", 7002))
client.connect(("127.0.0.1", 7001))
accepted, _ = server.accept()
client.close(); accepted.close()
print(os.stat("/proc/self/ns/net").st_ino, os.getpid(), flush=True)
"""
    if subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("no right to make network namespaces")
    spaces = [
        subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", talk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for space in spaces:
        space.stdout.readline()
    watch.sample()
    told = []
    for space in spaces:
        answer, _ = space.communicate("\n")
        told.append(tuple(answer.split()))
    found = {(one.row.netns, str(one.pid)) for one in watch.rows(7001)}
    assert found == set(told)


def test_a_connection_that_was_open_before(watch):
    """A connection that began before the events, and was sampled, gets its end and keeps its identity and owner."""
    watch.source.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        later = TracefsWatch()
        try:
            client.close()
            mine = [one for one in later.rows(port) if one.row.remote_port == port]
        finally:
            later.source.close()
    (one,) = mine
    assert (one.pid, one.row.samples, one.row.initiated, one.row.end) == (os.getpid(), 1, None, "fin")


def test_what_samples_see_of_a_told_connection_is_no_second_one(watch):
    """What the kernel remembers of a closed connection whose end was told adds no row without a process."""
    with serving() as (_, port):
        subprocess.run([sys.executable, "-c", CALL, str(port)], check=True)
    watch.rows(port)
    watch.sample()
    rows = watch.observation.records(clocks.now())[SocketRecord]
    assert {row.source for row in rows if port in (row.local_port, row.remote_port)} == {"event"}


def test_what_is_lost_is_a_gap(watch, monkeypatch):
    """A ring that is too small for what happens loses events, and says how many."""
    watch.source.close()
    monkeypatch.setattr(tracefs, "_LEAST_BYTES", 4096)
    monkeypatch.setattr(events, "_STATE_BYTES", 1)
    small = TracefsWatch()
    try:
        with serving(times=2000) as (_, port):
            for _ in range(2000):
                socket.create_connection(("127.0.0.1", port)).close()
        small.read()
        gaps = small.observation.records(clocks.now())[Gap]
        lost = [gap.lost for gap in gaps if gap.source == "events" and gap.reason == "dropped"]
        assert sum(lost) > 1000
        assert small.source.tally.lost == sum(lost)
    finally:
        small.source.close()


def instances():
    """Names of all trace instances of ours."""
    directory = tracefs.open_tracefs()
    try:
        place = os.open("instances", os.O_RDONLY, dir_fd=directory)
        try:
            return {name for name in os.listdir(place) if name.startswith("whoneeds-")}  # noqa: PTH208
        finally:
            os.close(place)
    finally:
        os.close(directory)


def test_nothing_stays_in_the_kernel(watch):
    """Rings are gone when the source is closed, and those of a killed tracer when the next one begins."""
    mine = {name for name in instances() if name.startswith(f"whoneeds-{os.getpid()}-")}
    assert len(mine) == 2
    watch.source.close()
    assert not mine & instances()
    pid = os.fork()
    if pid == 0:
        events.open_events(own_identity())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    left = {name for name in instances() if name.startswith(f"whoneeds-{pid}-")}
    assert len(left) == 2
    events.open_events(own_identity()).close()
    assert not left & instances()


def test_no_events_in_a_container(tmp_path):
    """In a container's pid namespace the numbers of events would be other processes': they are not used."""
    inside = (
        "from whoneeds.tracer.events import open_events; from whoneeds.tracer.status import own_identity\n"
        "try:\n    open_events(own_identity())\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", inside],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Unsupported" not in done.stdout and done.returncode:
        pytest.skip("no right to make pid namespaces")
    assert "pid namespace" in done.stdout
