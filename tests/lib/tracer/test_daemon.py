# SPDX-License-Identifier: GPL-3.0-or-later
"""A real tracer on real sockets: what it sees, how it ends, and what it does when things go wrong."""

import contextlib
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

from whoneeds.model.errors import HostError
from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.segment.read import read_segment
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import clocks, daemon
from whoneeds.tracer.observation import Instant
from whoneeds.tracer.settings import make_settings
from whoneeds.tracer.status import render


def read_all(folder):
    """All segments of a tracer's folder, oldest first."""
    return [read_segment(str(path)) for path in sorted((Path(folder) / "segments").glob("*.seg"))]


def rows(folder, record):
    """All rows of a table in a tracer's folder."""
    return [row for segment in read_all(folder) for row in segment.tables[record]]


def status(trace, folder):
    """What `trace status` says."""
    answer = subprocess.run(
        [*trace, "status", "--dir", str(folder), "--format", "json"], capture_output=True, text=True, check=False
    )
    return json.loads(answer.stdout)


def wait_for(condition, seconds=15.0):
    """Wait until something is true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def folder():
    """A folder for a tracer; whatever still runs there at the end is stopped."""
    made = tempfile.mkdtemp(prefix="whoneeds-test-")
    yield made
    for name in ("supervisor.json", "status.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, ProcessLookupError):
            document = json.loads((Path(made) / name).read_text())
            stat = Path(f"/proc/{document['pid']}/stat").read_text()
            if int(stat.rsplit(")", 1)[1].split()[19]) == document["start_ticks"]:
                os.kill(document["pid"], signal.SIGKILL)
    shutil.rmtree(made)


@contextlib.contextmanager
def running(trace, folder, *options):
    """A tracer in the foreground that has taken its first sample."""
    with subprocess.Popen(
        [*trace, "run", "--dir", folder, *options], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            wait_for(lambda: _samples(folder, process.pid))
            yield process
        finally:
            process.kill()


def _samples(folder, pid):
    try:
        document = json.loads((Path(folder) / "status.json").read_text())
    except (OSError, ValueError):
        return 0
    return document["samples"] if document["pid"] == pid and document["state"] == "running" else 0


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


def test_a_second_tracer_is_refused(trace, folder):
    """A second tracer on one folder ends at once with exit code 1 and names the first; that one goes on."""
    with running(trace, folder, "--period", "0.2") as first:
        answer = subprocess.run(
            [*trace, "run", "--dir", folder, "--for", "1"], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 1
        assert str(first.pid) in answer.stderr
        assert "another tracer writes into" in answer.stderr
        assert status(trace, folder)["pid"] == first.pid
        assert status(trace, folder)["state"] == "running"


def test_killed_it_is_called_failed_and_the_next_run_tells_of_the_gap(trace, folder):
    """After kill -9 committed segments are there, status says failed, and the next run says what is missing."""
    config = Path(folder) / "c.json"
    config.write_text(json.dumps({"schema": 1, "period_s": 0.1, "rotate_s": 1}))
    with running(trace, folder, "--config", str(config)) as process:
        wait_for(lambda: len(list((Path(folder) / "segments").glob("*.seg"))) >= 2)
        process.kill()
        process.wait()
    committed = read_all(folder)
    answer = status(trace, folder)
    assert answer["state"] == "failed"
    subprocess.run([*trace, "run", "--for", "0.2", "--dir", folder, "--config", str(config)], check=True, stderr=-1)
    after = read_all(folder)
    assert [segment.digest for segment in after[: len(committed)]] == [segment.digest for segment in committed]
    (gap,) = [gap for gap in after[-1].tables[Gap] if gap.source == "tracer"]
    assert gap.reason == "failed"
    assert abs(gap.first_ns - committed[-1].header.closed_ns) < 2e9
    assert gap.last_ns >= committed[-1].header.closed_ns


def test_killed_again_before_it_wrote_anything_the_first_loss_is_told_too(trace, folder):
    """A tracer that is killed before its first segment leaves the loss before it to be told by the next one."""
    with running(trace, folder, "--period", "0.2") as first:
        began_ns = json.loads((Path(folder) / "status.json").read_text())["since_ns"]
        first.kill()
        first.wait()
    with running(trace, folder, "--period", "0.2") as second:
        second.kill()
        second.wait()
    subprocess.run([*trace, "run", "--for", "0.2", "--dir", folder], check=True, stderr=-1)
    (gap,) = [gap for gap in rows(folder, Gap) if gap.source == "tracer"]
    assert gap.first_ns <= began_ns + 20_000_000


def test_a_state_file_with_an_impossible_time_is_shown(tmp_path):
    """Status answers although the state file names a time that no calendar has."""
    assert "since" not in " ".join(render({"state": "stopped", "since_ns": 10**40}))


@pytest.mark.parametrize(("state", "waiting"), [("failed", 0), ("stopped", 2)])
def test_an_end_that_could_not_write_is_a_loss(tmp_path, state, waiting):
    """After a tracer that failed, or stopped with segments that the disk did not take, the next tells of the loss."""
    ended_ns = time.time_ns() - 10_000_000_000
    document = {"schema": 1, "state": state, "waiting": waiting, "committed_ns": ended_ns, "pid": 1, "start_ticks": 0}
    (tmp_path / "status.json").write_text(json.dumps(document))
    settings = make_settings({"dir": str(tmp_path)}, {"for_s": 0.1})
    daemon.run(settings)
    (gap,) = [gap for gap in rows(tmp_path, Gap) if gap.source == "tracer"]
    assert abs(gap.first_ns - ended_ns) < 1e9


def test_what_was_seen_before_a_failure_is_written(tmp_path, monkeypatch):
    """A tracer that ends because samples fail commits what it saw before."""
    tracer_sample = daemon.Sampler.sample
    taken = []

    def sample(sampler, observation, at):
        taken.append(at)
        if len(taken) > 1:
            raise HostError("the kernel answers no more")
        return tracer_sample(sampler, observation, at)

    monkeypatch.setattr(daemon.Sampler, "sample", sample)
    with pytest.raises(HostError, match="answers no more"):
        daemon.run(make_settings({"dir": str(tmp_path), "period_s": 0.1}, {}))
    (segment,) = read_all(tmp_path)
    assert segment.tables[SocketRecord]
    assert [gap.lost for gap in segment.tables[Gap] if "answers no more" in gap.detail] == [4]


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
        (["--period", "0.01"], ["period_s", "0.1 to 3600", "0.01"]),
        (["--period", "nan"], ["period_s", "0.1 to 3600"]),
        (["--for", "-1"], ["for_s"]),
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


def test_the_supervisor_starts_a_killed_tracer_again_and_stops_in_time(trace, folder):
    """A tracer that is killed runs again soon; at the end of its time everything ends by itself."""
    begun = time.monotonic()
    subprocess.run([*trace, "start", "--for", "6", "--period", "0.2", "--dir", folder], check=True, stdout=-1)
    first = status(trace, folder)
    assert (first["state"], first["supervised"], first["restarts"]) == ("running", True, 0)
    os.kill(first["pid"], signal.SIGKILL)
    second = wait_for(lambda: (found := status(trace, folder))["pid"] != first["pid"] and found["samples"] and found)
    assert (second["state"], second["restarts"]) == ("running", 1)
    last = wait_for(lambda: not (found := status(trace, folder))["supervised"] and found)
    assert last["state"] == "stopped"
    assert 5.5 <= time.monotonic() - begun <= 12
    assert [gap.reason for gap in rows(folder, Gap) if gap.source == "tracer"] == ["failed"]


def test_start_and_stop_can_be_said_twice(trace, folder):
    """Starting what runs and stopping what does not are no errors, and change nothing."""
    for _ in range(2):
        answer = subprocess.run([*trace, "start", "--period", "0.2", "--dir", folder], check=True, stdout=-1, text=True)
    assert "runs already" in answer.stdout
    pid = status(trace, folder)["pid"]
    answers = [
        subprocess.run([*trace, "stop", "--dir", folder], check=True, stdout=-1, text=True).stdout for _ in range(2)
    ]
    assert "stopped process" in answers[0]
    assert "no tracer runs" in answers[1]
    assert not Path(f"/proc/{pid}").exists()
    assert status(trace, folder)["state"] == "stopped"
    assert sum(segment.header.samples for segment in read_all(folder)) > 0


def test_the_supervisor_holds_nothing_of_its_caller(trace, folder):
    """Whoever starts a tracer through a pipe gets the end of that pipe at once: nothing is held open."""
    begun = time.monotonic()
    subprocess.run([*trace, "start", "--for", "20", "--dir", folder], check=True, capture_output=True, timeout=15)
    assert time.monotonic() - begun < 10
    subprocess.run([*trace, "stop", "--dir", folder], check=True, stdout=-1)


def test_a_number_that_went_to_another_process_is_not_killed(trace, folder):
    """Stop does not touch a process that only has the number of the tracer."""
    subprocess.run([*trace, "run", "--for", "0.2", "--dir", folder], check=True, stderr=-1)
    path = Path(folder) / "status.json"
    with subprocess.Popen(["/bin/sleep", "60"]) as bystander:
        document = {**json.loads(path.read_text()), "pid": bystander.pid, "state": "running"}
        path.write_text(json.dumps(document))
        answer = subprocess.run([*trace, "stop", "--dir", folder], check=True, stdout=-1, text=True)
        assert "no tracer runs" in answer.stdout
        assert bystander.poll() is None
        bystander.kill()


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
    tracer = daemon.Tracer(make_settings({}, {"dir": str(tmp_path), "sources": "table"}), spool)
    tracer.take_sample()
    shift = -3600 * 10**9
    tracer.take_sample()
    tracer.close(clocks.now())
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


@pytest.mark.root
def test_short_connections_are_seen_between_samples(trace, folder):
    """A connection of milliseconds between two samples is in the segment, with its process, by the kernel's events."""
    if os.geteuid() != 0:
        pytest.skip("kernel events need root")
    with subprocess.Popen([*trace, "run", "--for", "4", "--period", "3600", "--dir", folder]) as tracer:
        wait_for(lambda: status(trace, folder).get("samples"))
        if "events" not in status(trace, folder)["sources"]:
            tracer.wait()
            pytest.skip("no kernel events here")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            call = f"import socket; socket.create_connection(('127.0.0.1', {port})).close()"
            caller = subprocess.Popen([sys.executable, "-c", call])
            server.accept()[0].close()
            caller.wait()
    names = {row.process_id: row.pid for row in rows(folder, ProcessRecord)}
    found = [row for row in rows(folder, SocketRecord) if row.remote_port == port]
    assert [(names[row.process_id], row.source, row.end) for row in found] == [(caller.pid, "event", "fin")]
    assert read_all(folder)[0].header.sources == ("event", "table")
    assert status(trace, folder)["events"]["lost"] == 0


@pytest.mark.root
def test_events_that_fail_leave_samples(tmp_path, monkeypatch):
    """If the kernel's events stop working, the segment says so and sampling goes on."""
    settings = make_settings({}, {"dir": str(tmp_path / "t")})
    spool = open_spool(settings.dir, settings.budget_bytes)
    tracer = daemon.Tracer(settings, spool)
    if tracer.events is None:
        spool.close()
        pytest.skip("no kernel events here")
    tracer.take_sample()

    def fail(*_arguments):
        raise OSError(5, "ring is broken")

    monkeypatch.setattr(tracer.events, "read", fail)
    tracer.take_sample()
    assert tracer.events is None
    tracer.close(clocks.now())
    spool.close()
    (segment,) = read_all(settings.dir)
    assert segment.header.samples == 2
    (gap,) = [gap for gap in segment.tables[Gap] if gap.source == "events"]
    assert gap.reason == "failed"
    assert "ring is broken" in gap.detail


@pytest.mark.root
def test_in_a_container_samples_alone_are_taken_and_the_segment_says_so(trace, folder):
    """Where events cannot be used, each segment carries a gap that says what is missed."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no right to make pid namespaces")
    subprocess.run([*inside, *trace, "run", "--for", "1", "--period", "0.5", "--dir", folder], check=True)
    (gap,) = [gap for gap in rows(folder, Gap) if gap.source == "events"]
    assert (gap.reason, "samples alone" in gap.detail) == ("unsupported", True)
    assert read_all(folder)[0].header.samples >= 2
