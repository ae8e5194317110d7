# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own programs on real connections: each is told once, with who really acted on it."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import bpf_calls
import pytest
from event_watches import CALL, ProgramsWatch, serving
from runs import wait_for

from whoneeds.model.errors import Denied, Unsupported
from whoneeds.model.evidence import Gap
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import clocks, daemon
from whoneeds.tracer.bpf import load, source
from whoneeds.tracer.bpf.layout import Scope
from whoneeds.tracer.settings import make_settings

pytestmark = pytest.mark.root

ABORT = struct.pack("ii", 1, 0)


@pytest.fixture
def watch():
    """The kernel's programs; skipped where this machine takes none."""
    if os.geteuid() != 0:
        pytest.skip("kernel programs need root")
    try:
        made = ProgramsWatch()
    except (Denied, Unsupported) as error:
        pytest.skip(f"no kernel programs here: {error}")
    yield made
    made.close()


def ends(found):
    """Who acted on what, and how it ended."""
    return {(one.pid, one.row.initiated, one.row.end) for one in found}


def in_child(act):
    """Let a forked process do something, and end; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return pid


def wait(*pids):
    """Wait until processes have ended."""
    for pid in pids:
        os.waitpid(pid, 0)


def test_a_process_that_lives_for_one_connection_is_known(watch):
    """Both ends of a connection of milliseconds have their processes, with name, path, user and parent, and bytes."""
    call = (
        "import os, socket, sys; os.setuid(12345); s = socket.socket();"
        "s.connect(('127.0.0.1', int(sys.argv[1]))); s.sendall(b'hello')"
    )
    with serving() as (server_pid, port):
        caller = subprocess.Popen([sys.executable, "-c", call, str(port)])
        assert caller.wait() == 0
    found = watch.rows(port)
    assert {(one.pid, one.row.initiated) for one in found} == {(caller.pid, True), (server_pid, False)}
    for one in found:
        row = one.row
        assert one.process.exe == os.path.realpath(sys.executable)
        assert one.name == Path(one.process.exe).name
        assert one.process.ppid == os.getpid()
        assert (row.source, row.samples, row.owners, row.protocol) == ("event", 0, 1, "tcp")
        assert 0 < row.last_ns - row.first_ns < 60 * 10**9
        assert row.netns == str(Path("/proc/self/ns/net").stat().st_ino)
        assert (one.process.uid, row.uid) == ((12345, 12345) if row.initiated else (0, 0))
        assert (row.sent_bytes if row.initiated else row.received_bytes) == 5


def test_every_one_of_many_is_told_once(watch):
    """Of a thousand short connections none is missed or told twice, and each end has its process and its bytes."""
    with serving("c.recv(9)", times=1000) as (server_pid, port):
        for number in range(1000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x" * (1 + number % 7))
    found = watch.rows(port, seconds=20)
    assert len(found) == len({one.row.socket_id for one in found}) == 2000
    assert ends(found) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}
    sent = sorted(one.row.sent_bytes for one in found if one.row.initiated)
    received = sorted(one.row.received_bytes for one in found if not one.row.initiated)
    assert sent == received == sorted(1 + number % 7 for number in range(1000))
    assert watch.source.tally.lost == 0


def test_a_refused_connection_is_rejected(watch):
    """A connection to a port where nobody listens has its caller, and nobody at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    (one,) = watch.rows(port)
    assert (one.pid, one.row.end, one.row.remote_port, one.row.initiated) == (os.getpid(), "rejected", port, True)
    assert one.row.local_port != 0


def test_a_connection_that_nobody_answers_is_unanswered(watch):
    """A call that is given up after more than a second without an answer, and one given up at once, are told apart."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the one that waits; further calls are not answered
            calls = [socket.socket(), socket.socket()]
            for call in calls:
                call.setblocking(False)
                assert call.connect_ex(("127.0.0.1", port)) != 0
            local = [call.getsockname()[1] for call in calls]
            calls[0].close()
            time.sleep(1.1)
            calls[1].close()
        found = {one.row.local_port: one for one in watch.rows(*local) if one.row.initiated}
    assert [(found[port].pid, found[port].row.end) for port in local] == [
        (os.getpid(), "rejected"), (os.getpid(), "unanswered"),
    ]  # fmt: skip


def test_an_end_that_is_reset_belongs_to_who_closes_it_later(watch):
    """An accepted connection that the caller resets is laid to the process that held it, not to whoever reset it."""
    with serving("time.sleep(0.3)") as (server_pid, port):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client.close()
    assert ends(watch.rows(port)) == {(os.getpid(), True, "rst"), (server_pid, False, "rst")}


def test_closing_with_unread_data_resets(watch):
    """A server that closes before it has read everything resets the connection, which both ends are told to have."""
    with serving("time.sleep(0.2)") as (server_pid, port):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"x" * 100)
        client.settimeout(10)
        with pytest.raises(ConnectionResetError):
            client.recv(9)
        client.close()
    found = watch.rows(port)
    assert ends(found) == {(os.getpid(), True, "rst"), (server_pid, False, "rst")}
    assert {one.row.received_bytes for one in found if not one.row.initiated} == {100}


def test_all_that_act_on_one_connection_are_its_owners(watch):
    """One process connects, another shuts down, a third closes: all three are told, each once."""
    with serving("c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, __import__('struct').pack('ii', 1, 0));"
                 "c.recv(9)") as (server_pid, port):  # fmt: skip
        client = socket.socket()
        other = in_child(lambda: (time.sleep(0.2), client.connect(("127.0.0.1", port))))
        wait(other)
        third = in_child(lambda: client.shutdown(socket.SHUT_WR))
        wait(third)
        time.sleep(0.2)  # until the server has reset it
        client.close()
    found = [one for one in watch.rows(port) if one.row.initiated]
    assert {one.pid for one in found} == {os.getpid(), other, third}
    assert [one.row.owners for one in found] == [3] * 3
    assert len({one.row.socket_id for one in found}) == 1
    assert server_pid not in {one.pid for one in found}


def test_who_shuts_down_and_who_closes_both_own(watch):
    """A worker that says goodbye and its parent that closes afterwards are both owners of the accepted end."""
    body = "p = os.fork()\nif p == 0: c.shutdown(1); os._exit(0)\nos.waitpid(p, 0); c.recv(9)"
    with serving(body) as (server_pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.recv(9)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    found = [one for one in watch.rows(port) if not one.row.initiated]
    assert len({one.pid for one in found}) == 2
    assert server_pid in {one.pid for one in found}
    assert {one.process.ppid for one in found} == {os.getpid(), server_pid}


def test_a_connection_passed_on_by_fork_is_the_one_s_that_ends_it(watch):
    """A server that accepts and leaves the connection to a forked worker at once is no owner of it."""
    body = "p = os.fork()\nif p == 0: c.recv(9); os._exit(0)\nc.close(); os.waitpid(p, 0)"
    with serving(body) as (server_pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        time.sleep(0.1)  # until the server has closed its own descriptor
        client.sendall(b"x")
    (one,) = [one for one in watch.rows(port) if not one.row.initiated]
    assert one.pid != server_pid
    assert one.process.ppid == server_pid


FORKS = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
if os.fork() == 0:
    server.close()
    connection.recv(9)
    os._exit(0)
connection.close()
if "parent_executes" in sys.argv: os.execv("/bin/sleep", ["sleep", "0.5"])
if "parent_dies" in sys.argv: os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(
    ("what", "known"), [("stays", True), ("parent_executes", False), ("parent_dies", False)]
)  # fmt: skip
def test_a_worker_that_ends_with_its_connection_has_its_program(watch, what, known):
    """A worker's end that closes its connection is laid to the program of its parent, if that is sure to be its own."""
    with subprocess.Popen([sys.executable, "-c", FORKS, what], stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client:
            time.sleep(0.3)
            client.sendall(b"x")
            client.recv(1)
    (one,) = [one for one in watch.rows(port) if not one.row.initiated]
    python = os.path.realpath(sys.executable)
    assert one.pid != server.pid
    assert one.process.exe == (python if known else None)
    assert one.name == (Path(python).name if known else Path(sys.executable).name)


def test_a_thread_is_named_by_its_process(watch):
    """What a thread with another name does is done by its process, under the process's name."""
    call = """
import ctypes, os, socket, sys, threading
def call():
    ctypes.CDLL(None).prctl(15, b"a thread", 0, 0, 0)
    assert open(f"/proc/self/task/{threading.get_native_id()}/comm").read() == "a thread\\n"
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
thread = threading.Thread(target=call); thread.start(); thread.join()
"""
    with serving() as (_, port):
        caller = subprocess.Popen([sys.executable, "-c", call, str(port)])
        assert caller.wait() == 0
    (one,) = [one for one in watch.rows(port) if one.row.initiated]
    assert (one.pid, one.name) == (caller.pid, Path(os.path.realpath(sys.executable)).name)


def test_a_process_that_executes_another_program_is_told_of_anew(watch):
    """Each time a process acts after it executed another program, it is told as what it is then."""
    again = "import os, sys; exec(sys.argv[2]); input(); os.execv('/bin/bash', ['bash', '-c', sys.argv[3]])"
    with serving(times=2) as (_, port):
        bash = f"exec 3<>/dev/tcp/127.0.0.1/{port}; exec 3>&-"
        caller = subprocess.Popen([sys.executable, "-c", again, str(port), CALL, bash], stdin=subprocess.PIPE)

        def begun():
            return [one for one in watch.rows(port, seconds=1) if one.row.initiated]

        (first,) = wait_for(begun)
        caller.communicate(b"\n")
    assert first.pid == caller.pid
    assert first.name.startswith("python")
    found = [one for one in watch.rows(port) if one.row.initiated]
    assert [(one.pid, one.name) for one in found] == [(caller.pid, "bash")] * 2
    assert len({one.row.process_id for one in found}) == 1


def test_the_unit_of_a_process_that_is_gone_is_known(watch):
    """A process that left nothing but its control group is laid to that one's unit."""
    top = next((top for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if Path(top, "cgroup.procs").exists()), "")
    group = Path(top, f"whoneeds-test-{os.getpid()}.service")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control groups to make: {error.strerror}")
    try:
        with serving() as (_, port):

            def call():
                (group / "cgroup.procs").write_text(str(os.getpid()))
                socket.create_connection(("127.0.0.1", port)).close()

            pid = in_child(call)
            wait(pid)
        found = watch.rows(port)
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
    units = {one.pid: one.process.unit for one in found}
    assert units[pid] == group.name
    assert group.name not in {unit for other, unit in units.items() if other != pid}


def test_nobody_owns_what_only_the_kernel_touched(watch):
    """The accepted end of a connection that no process ever took is no caller's and no process's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        caller = subprocess.Popen([sys.executable, "-c", CALL, str(port)])
        caller.wait()
    found = watch.rows(port)
    assert {(one.pid, one.row.initiated) for one in found} == {(caller.pid, True), (None, False)}
    assert [(one.row.process_id, one.row.owners) for one in found if not one.row.initiated] == [(None, 0)]


def test_sockets_that_never_had_a_peer_leave_no_row(watch):
    """Waiting, bound and unused sockets come and go without a word."""
    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound, socket.socket():
            bound.bind(("127.0.0.1", 0))
            ports += [server.getsockname()[1], bound.getsockname()[1]]
    before = watch.source.tally.ends
    with serving() as (_, port):  # what is told of shows that all before it was taken in
        socket.create_connection(("127.0.0.1", port)).close()
    assert len(watch.rows(port)) == 2
    tables = watch.tables()
    assert not [row for rows in tables.values() for row in rows if getattr(row, "local_port", 0) in ports]
    assert watch.source.tally.ends >= before + 2


def test_a_socket_used_again_is_another_connection(watch):
    """A call that was refused and a later one of the same socket are told as two, each with its own end."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        nobody = spare.getsockname()[1]
    with serving() as (_, port):
        client = socket.socket()
        assert client.connect_ex(("127.0.0.1", nobody)) != 0
        client.connect(("127.0.0.1", port))
        client.close()
    found = [one for one in watch.rows(nobody, port) if one.row.initiated]
    assert sorted((one.row.remote_port, one.row.end, one.pid) for one in found) == sorted(
        [(nobody, "rejected", os.getpid()), (port, "fin", os.getpid())]
    )


def test_a_connection_that_was_open_before(watch):
    """A connection that began before the programs were there is told at its end, without a begin."""
    with serving() as (server_pid, port):
        client = socket.create_connection(("127.0.0.1", port))
        later = ProgramsWatch()
        client.sendall(b"abc")
        client.close()
    try:
        found = later.rows(port)
    finally:
        later.close()
    assert ends(found) == {(os.getpid(), None, "fin"), (server_pid, None, "fin")}
    assert all(one.row.first_ns == one.row.last_ns for one in found)
    assert sorted((one.row.sent_bytes, one.row.received_bytes) for one in found) == [(0, 3), (3, 0)]


@pytest.mark.parametrize(
    ("listening", "called", "shown"), [("::1", "::1", "::1"), ("::", "127.0.0.1", "127.0.0.1"), ("::", "::1", "::1")]
)
def test_addresses_of_either_family(watch, listening, called, shown):
    """IPv6 is told as it is, and IPv4 on a socket of IPv6 as IPv4, at both ends."""
    try:
        with serving(address=listening) as (server_pid, port), socket.create_connection((called, port)) as client:
            local = client.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    found = watch.rows(port)
    assert ends(found) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}
    tuples = [(one.row.local_addr, one.row.local_port, one.row.remote_addr, one.row.remote_port) for one in found]
    assert set(tuples) == {
        (shown, local, shown, port), (shown, port, shown, local),
    }  # fmt: skip


def test_another_network_namespace_is_named(watch):
    """A connection within another network namespace carries that one's number, and its process."""
    talk = """
import os, socket, subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 7011))
client = socket.create_connection(("127.0.0.1", 7011))
accepted, _ = server.accept()
client.close(); accepted.close()
print(os.stat("/proc/self/ns/net").st_ino, os.getpid())
"""
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", talk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no right to make network namespaces: {done.stderr[-200:]}")
    netns, pid = done.stdout.split()
    found = watch.rows(7011)
    assert {(one.row.netns, str(one.pid), one.row.initiated) for one in found} == {
        (netns, pid, True),
        (netns, pid, False),
    }


INSIDE = """
import json, os, socket, subprocess, sys
from event_watches import CALL, ProgramsWatch, serving
from whoneeds.tracer.bpf.load import scope_here
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
watch = ProgramsWatch(scope_here())
print(flush=True)
sys.stdin.readline()  # now others have made connections
with serving(times=2) as (server_pid, port):
    caller = subprocess.Popen([sys.executable, "-c", CALL, str(port)]); caller.wait()
    # a container within: its process has a number here as well
    deeper = subprocess.Popen(["unshare", "--pid", "--fork", sys.executable, "-c", CALL, str(port)]); deeper.wait()
found = watch.rows(port)
watch.read()
told = watch.tables()
print(json.dumps({
    "port": port, "server": server_pid, "caller": caller.pid, "deeper": deeper.pid, "ends": watch.observation.ends,
    "rows": [[one.pid, one.row.initiated, one.name, one.row.netns, one.process.exe] for one in found],
    "netns": str(os.stat("/proc/self/ns/net").st_ino),
}))
watch.close()
"""


def test_a_container_is_told_of_itself_alone(watch):
    """Within a pid and network namespace only its own connections are told, with the numbers that it knows."""
    container = ["unshare", "--pid", "--net", "--fork", "--mount-proc", sys.executable, "-c", INSIDE]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        container, env=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if process.stdout.readline() != "\n":
            pytest.skip(f"no right to make namespaces: {process.stderr.read()[-300:]}")
        with serving(times=20) as (_, outside):
            for _ in range(20):
                socket.create_connection(("127.0.0.1", outside)).close()
        answer, error = process.communicate("\n", 60)
    assert process.returncode == 0, error[-2000:]
    told = json.loads(answer)
    assert told["ends"] == len(told["rows"]) == 4
    assert max(told["server"], told["caller"]) < 100
    callers = [row[0] for row in told["rows"] if row[1]]
    assert told["caller"] in callers
    (within,) = set(callers) - {told["caller"]}
    assert told["deeper"] < within < 100
    assert [row[0] for row in told["rows"] if not row[1]] == [told["server"]] * 2
    assert {(row[3], row[4]) for row in told["rows"]} == {(told["netns"], os.path.realpath(sys.executable))}
    # the host's own programs told of them too, by other numbers
    outer = [one for one in watch.rows(told["port"]) if one.row.netns == told["netns"]]
    assert len(outer) == 4
    assert min(one.pid for one in outer) > 100


@pytest.fixture
def small(watch, monkeypatch):
    """A maker of programs with small maps."""
    made = []

    def make(**sizes):
        for name, size in sizes.items():
            for module in (load, source):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, size)
        made.append(ProgramsWatch())
        return made[-1]

    yield make
    for one in made:
        one.close()


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
    with serving() as (server_pid, port):  # with room again, nothing is lost
        socket.create_connection(("127.0.0.1", port)).close()
    assert ends(small.rows(port)) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}
    assert lost(small, "ends of connections") == missed


def test_processes_that_the_ring_has_no_room_for_are_counted_and_told_later(small):
    """A process that could not be told of is counted, and told of when it next acts and there is room."""
    small = small(TASKS_BYTES=4096)
    with serving(times=9) as (_, port):
        for _ in range(8):
            pid = in_child(lambda: socket.create_connection(("127.0.0.1", port)).close())
            wait(pid)
        small.read()
        missed = lost(small, "processes")
        assert missed >= 4
        socket.create_connection(("127.0.0.1", port)).close()
    found = small.rows(port)
    assert any(one.pid == os.getpid() for one in found if one.row.initiated)
    assert len(found) == 18


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
    with serving() as (server_pid, port):  # with room again, all is told
        socket.create_connection(("127.0.0.1", port)).close()
    assert ends(small.rows(port)) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}


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


def test_threads_and_processes_at_once_mix_nothing_up(watch):
    """While several threads and processes connect at the same time, every connection keeps its own process."""
    with serving("c.recv(9)", times=300) as (server_pid, port):

        def call():
            for _ in range(25):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b"12345")

        children = [in_child(call) for _ in range(8)]
        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait(*children)
    found = watch.rows(port, seconds=20)
    began = [one for one in found if one.row.initiated]
    counts = {pid: sum(one.pid == pid for one in began) for pid in (*children, os.getpid())}
    assert counts == {**dict.fromkeys(children, 25), os.getpid(): 100}
    assert {one.pid for one in found if not one.row.initiated} == {server_pid}
    assert len(found) == 600
