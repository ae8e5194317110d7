# SPDX-License-Identifier: GPL-3.0-or-later
"""Watched over without systemd: started again when killed, ended when asked, and nobody else is touched."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from runs import read_all, rows, status, wait_for

from whoneeds.model.evidence import Gap


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


@pytest.mark.root
def test_root_ends_nothing_but_what_belongs_to_the_owner_of_the_directory(trace, folder):
    """A state file that a user without privilege wrote leads root to no process of somebody else's."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be led astray")
    with subprocess.Popen(["/bin/sleep", "60"]) as bystander:
        stat = Path(f"/proc/{bystander.pid}/stat").read_text()
        document = {"schema": 1, "pid": bystander.pid, "start_ticks": int(stat.rpartition(")")[2].split()[19])}
        path = Path(folder) / "supervisor.json"
        path.write_text(json.dumps(document))
        os.chown(folder, 65534, 65534)
        answer = subprocess.run([*trace, "stop", "--dir", folder], check=False, stderr=-1, text=True)
        assert answer.returncode == 1
        assert "expected a process of user 65534" in answer.stderr
        assert bystander.poll() is None
        os.chown(folder, 0, 0)
        subprocess.run([*trace, "stop", "--dir", folder], check=True, stdout=-1)
        assert bystander.wait(5) == -signal.SIGTERM
