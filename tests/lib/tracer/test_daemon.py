# SPDX-License-Identifier: GPL-3.0-or-later
"""A real tracer on real sockets: what it sees, how it ends, and what it says of what it may not see."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from runs import read_all, rows, running, status

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import clocks, daemon
from whoneeds.tracer.observation import Instant
from whoneeds.tracer.settings import make_settings


def test_a_run_sees_who_talks_to_whom(trace, folder):
    """A run of a second holds this process's listener and both ends of its connection, with owner and bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x" * 1000)
            accepted.recv(2000)
            subprocess.run([*trace, "run", "--for", "1", "--period", "0.3", "--dir", folder], check=True, stderr=-1)
            port, other = server.getsockname()[1], client.getsockname()[1]
    names = {process.process_id: process for process in rows(folder, ProcessRecord)}
    seen = {
        (row.local_port, row.remote_port): row
        for row in rows(folder, SocketRecord)
        if port in (row.local_port, row.remote_port)
    }
    assert {ends: row.state for ends, row in seen.items()} == {
        (port, None): "listen", (port, other): "established", (other, port): "established",
    }  # fmt: skip
    assert {names[row.process_id].pid for row in seen.values()} == {os.getpid()}
    assert seen[other, port].sent_bytes == seen[port, other].received_bytes == 1000
    assert {row.owners for row in seen.values()} == {1}
    (segment,) = read_all(folder)
    assert segment.header.samples >= 3
    assert {row.samples for row in seen.values()} == {segment.header.samples}
    assert segment.header.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_prefork_server_has_a_row_for_every_worker(trace, folder):
    """One listening socket in several processes is several rows that say how many they are."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        workers = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            workers.append(pid)
        try:
            subprocess.run([*trace, "run", "--for", "0.3", "--period", "0.2", "--dir", folder], check=True, stderr=-1)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        port = server.getsockname()[1]
    names = {process.process_id: process.pid for process in rows(folder, ProcessRecord)}
    seen = [row for row in rows(folder, SocketRecord) if row.local_port == port]
    assert {names[row.process_id] for row in seen} == {os.getpid(), *workers}
    assert {row.owners for row in seen} == {4}
    assert len({row.socket_id for row in seen}) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_writes_what_it_saw(trace, folder, number):
    """SIGTERM and SIGINT end a run with exit code 0 and the open segment on disk."""
    with running(trace, folder, "--period", "0.2") as process:
        process.send_signal(number)
        assert process.wait(10) == 0
    assert [segment.header.samples > 0 for segment in read_all(folder)] == [True]
    assert status(trace, folder)["state"] == "stopped"


def test_a_frozen_tracer_says_that_it_was_late(trace, folder):
    """Samples that could not be taken in time are a gap with their number."""
    with running(trace, folder, "--period", "0.2") as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    (late,) = [gap for gap in rows(folder, Gap) if gap.reason == "late"]
    assert 4 <= late.lost <= 9
    assert 1.3e9 <= late.last_ns - late.first_ns <= 3e9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--period", "0.01"], ["--period", "0.1 to 3600", "0.01", "set --period"]),
        (["--period", "nan"], ["--period", "0.1 to 3600"]),
        (["--for", "-1"], ["--for", "0.1 to"]),
        (["--config", "/nonexistent/tracer.json"], ["/nonexistent/tracer.json", "No such file", "check the path"]),
        (["--config", "/proc/self/status"], ["JSON object", "correct the file"]),
        (["--dir", "/proc/1"], ["/proc/1", "--dir"]),
    ],
)
def test_wrong_settings_end_with_what_to_do(trace, folder, options, words):
    """A wrong interval, time, file or folder ends with exit code 2, what was expected and found, and what to do."""
    for verb in ("run", "start"):
        defaults = [] if "--dir" in options else ["--dir", folder]
        answer = subprocess.run([*trace, verb, *defaults, *options], capture_output=True, text=True, check=False)
        assert answer.returncode == 2, answer.stderr
        assert "expected" in answer.stderr
        assert "found" in answer.stderr
        assert all(word in answer.stderr for word in words), answer.stderr
        assert "Traceback" not in answer.stderr


def test_the_budget_holds_while_it_runs(trace, folder):
    """With a small budget old segments go and are counted in the next header; the rest stays readable."""
    config = Path(folder) / "c.json"
    config.write_text(
        json.dumps(
            {
                "schema": 1,
                "period_s": 0.1,
                "rotate_s": 1,
                "rotate_bytes": 1024,
                "budget_bytes": 65536,
                "sources": ["table"],
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0), backlog=500) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(120)]
        subprocess.run([*trace, "run", "--for", "4", "--dir", folder, "--config", str(config)], check=True, stderr=-1)
        for client in clients:
            client.close()
    found = read_all(folder)
    assert sum(path.stat().st_size for path in (Path(folder) / "segments").iterdir()) <= 65536
    assert found[-1].header.dropped_segments > 0
    assert status(trace, folder)["dropped"] >= found[-1].header.dropped_segments


@pytest.fixture
def for_everybody(pyz):
    """The zipapp where every user can read it, and a Python that every user can run."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    python = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), None)
    if python is None:
        pytest.skip("no Python that another user can run")
    place = tempfile.mkdtemp(prefix="whoneeds-test-")
    Path(place).chmod(0o755)
    shutil.copy(pyz, place)
    yield [python, "-I", "-S", f"{place}/whoneeds.pyz", "trace"]
    shutil.rmtree(place)


@pytest.mark.root
def test_without_rights_it_says_what_it_could_not_see(for_everybody):
    """As nobody a run sees all sockets, its own user's owners, and says by a gap what it may not see."""
    home = tempfile.mkdtemp(prefix="whoneeds-test-")
    os.chown(home, 65534, 65534)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [*for_everybody, "run", "--for", "0.3", "--period", "0.2", "--dir", home]
        subprocess.run(command, check=True, stderr=-1, user=65534, group=65534, extra_groups=[], cwd="/")
        port = server.getsockname()[1]
    (segment,) = read_all(home)
    assert segment.header.privileged is False
    (listener,) = [row for row in segment.tables[SocketRecord] if row.local_port == port]
    assert (listener.process_id, listener.owners, listener.uid) == (None, None, 0)
    gaps = [gap for gap in segment.tables[Gap] if (gap.source, gap.reason) == ("owners", "permission")]
    assert [gap.lost >= 1 for gap in gaps] == [True]
    assert ("namespaces", "permission") in {(gap.source, gap.reason) for gap in segment.tables[Gap]}
    shutil.rmtree(home)


def test_once_prints_documents_and_tables(trace):
    """`trace once` prints this process's listener, as JSON and as a table that fits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        as_json = subprocess.run([*trace, "once", "--format", "json"], capture_output=True, check=True)
        as_table = subprocess.run(
            [*trace, "once"], capture_output=True, check=True, text=True, env={**os.environ, "COLUMNS": "70"}
        )
    document = json.loads(as_json.stdout)
    (found,) = [row for row in document["sockets"] if row["local_port"] == port]
    assert found["process_id"].split("/")[2] == str(os.getpid())
    assert f"127.0.0.1:{port}" in as_table.stdout
    assert all(len(line) <= 70 for line in as_table.stdout.splitlines())


def test_systemd_is_told(trace, folder):
    """Where a service manager listens it hears READY after the first sample, WATCHDOG in time, and STOPPING."""
    address = f"{folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
        command = [*trace, "run", "--for", "1.5", "--period", "60", "--sources", "table", "--dir", folder]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            words = [manager.recv(100).decode()]
            while words[-1] != "STOPPING=1":
                words.append(manager.recv(100).decode())
            assert process.wait(10) == 0
    assert words[0] == "READY=1"
    assert 5 <= words.count("WATCHDOG=1") <= 20


def test_a_step_of_the_wall_clock_begins_a_new_segment(tmp_path, monkeypatch):
    """When the wall clock is set, the segment ends, says so, and the next one counts by the new time."""
    real = clocks.now
    shift = 0
    monkeypatch.setattr(clocks, "now", lambda: Instant(real().wall_ns + shift, real().boot_ns))
    spool = open_spool(str(tmp_path), 1 << 30)
    tracer = daemon.Tracer(make_settings({"memory_bytes": 1 << 40}, {"dir": str(tmp_path), "sources": "table"}), spool)
    tracer.take_sample()
    shift = -3600 * 10**9
    tracer.take_sample()
    tracer.close(clocks.now())
    tracer.release()
    spool.close()
    later, before = read_all(tmp_path)  # files sort by the wall clock, which went back
    assert [gap.reason for gap in before.tables[Gap] if gap.source == "clock"] == ["ambiguous"]
    assert later.header.opened_ns < before.header.opened_ns
    assert later.header.opened_mono_ns > before.header.opened_mono_ns
    for segment in (before, later):
        assert segment.header.opened_ns <= segment.header.closed_ns
        assert all(row.first_ns <= row.last_ns for row in segment.tables[SocketRecord] + segment.tables[Gap])


def test_psutil_stands_in(tmp_path):
    """With psutil as the source a run sees this process's listener and owner, and says what psutil cannot tell."""
    pytest.importorskip("psutil", reason="psutil is not installed")
    program = "import sys; from whoneeds.tracer.command import main; sys.exit(main())"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", program, "trace", "run", "--sources", "psutil", "--for", "0.5"]
        subprocess.run([*command, "--period", "0.3", "--dir", str(tmp_path / "d")], check=True, stderr=-1)
        port = server.getsockname()[1]
    (segment,) = read_all(tmp_path / "d")
    (found,) = [row for row in segment.tables[SocketRecord] if row.local_port == port]
    assert found.process_id.split("/")[2] == str(os.getpid())
    assert (found.source, found.owners, found.sent_bytes, found.inode) == ("psutil", None, None, 0)
    assert segment.header.sources == ("psutil",)
    assert ("psutil", "ambiguous") in {(gap.source, gap.reason) for gap in segment.tables[Gap]}


def test_without_any_source_it_says_what_to_install(trace, folder):
    """Asked for psutil where there is none, it ends with exit code 1 and says what to do."""
    answer = subprocess.run(
        [*trace, "run", "--sources", "psutil", "--dir", folder], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "install psutil" in answer.stderr
