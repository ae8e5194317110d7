# SPDX-License-Identifier: GPL-3.0-or-later
"""Who acted on a connection is told by the kernel's programs so that nobody has to be asked: each is long gone here."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from event_watches import CALL, in_child, serving, wait
from runs import wait_for

from whoneeds.tracer.status import identity_of

pytestmark = pytest.mark.root


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


@pytest.mark.parametrize(
    ("steps", "known"),
    [(("bin", "feeder"), True), (("d",) * 10 + ("feeder",), True), (("d",) * 20 + ("feeder",), False),
     (("d" * 62, "feeder"), True), (("d" * 63, "feeder"), False), (("caf\u00e9 \x1b[2J", "feeder"), True)],
)  # fmt: skip
def test_a_path_is_told_over_mounts_whole_or_not_at_all(watch, steps, known):
    """The path of a program that is gone leads over the mount that it lies on; too deep or too long, it is absent."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="whoneeds-") as top:
        program = Path(top, *steps)
        program.parent.mkdir(parents=True)
        shutil.copy("/bin/bash", program)
        with serving() as (_, port):
            try:
                caller = subprocess.Popen([program, "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; exec 3>&-"])
            except PermissionError:  # a mount from which nothing may be executed
                socket.create_connection(("127.0.0.1", port)).close()
                pytest.skip("nothing may be executed there")
            assert caller.wait() == 0
    (one,) = [one for one in watch.rows(port) if one.row.initiated]
    assert (one.pid, one.name) == (caller.pid, "feeder")
    assert one.process.exe == (str(program) if known else None)


FORKS = """
import ctypes, os, socket, sys
if "reaped" in sys.argv and ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0 and os.fork():  # takes orphans over
    ctypes.CDLL(None).prctl(15, b"reaper", 0, 0, 0)
    os.wait()
    os.wait()
    sys.exit()
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
if os.fork() == 0:
    server.close()
    if "executes" in sys.argv:  # another program that calls itself the same
        os.dup2(connection.fileno(), 0)
        os.execv(sys.argv[2], [os.path.basename(sys.executable), "0.4"])
    connection.recv(9)
    os._exit(0)
connection.close()
if "parent_executes" in sys.argv: os.execv("/bin/sleep", ["sleep", "0.5"])
if {"parent_dies", "reaped"} & set(sys.argv): os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(
    ("what", "known"),
    [("stays", True), ("executes", False), ("parent_executes", False), ("parent_dies", False), ("reaped", False)],
)
def test_a_worker_that_ends_with_its_connection_has_its_program(watch, tmp_path, what, known):
    """A worker's end that closes its connection is laid to the program of its parent, if that is sure to be its own."""
    other = tmp_path / Path(sys.executable).name
    shutil.copy("/bin/sleep", other)
    with subprocess.Popen([sys.executable, "-c", FORKS, what, str(other)], stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client:
            time.sleep(0.3)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
    (one,) = [one for one in watch.rows(port) if not one.row.initiated]
    python = os.path.realpath(sys.executable)
    assert one.pid != server.pid
    assert one.process.exe == (python if known else None)
    assert one.name == (Path(python).name if known else Path(sys.executable).name)


def test_a_thread_is_named_by_its_process(watch):
    """What a thread with another name does is done by its process, under the process's name."""
    call = """
import ctypes, os, socket, sys, threading, time
def call():
    ctypes.CDLL(None).prctl(15, b"a thread", 0, 0, 0)
    assert open(f"/proc/self/task/{threading.get_native_id()}/comm").read() == "a thread\\n"
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
time.sleep(0.1)  # so that it began later than its process
thread = threading.Thread(target=call); thread.start(); thread.join()
"""
    with serving() as (_, port):
        caller = subprocess.Popen([sys.executable, "-c", call, str(port)])
        began = identity_of(caller.pid).start_ticks
        assert caller.wait() == 0
    (one,) = [one for one in watch.rows(port) if one.row.initiated]
    assert one.process.start_ticks == began
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
