# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes are named rightly, whatever they call themselves, and their names can harm nothing."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.errors import Gone, HostError
from whoneeds.tracer.cgroups import parse_cgroup
from whoneeds.tracer.processes import UserNames, open_process, parse_stat, program_name, read_attributes
from whoneeds.tracer.text import legal_text, shown_text

FIXTURES = Path(__file__).parent / "fixtures"
CGROUPS = json.loads((FIXTURES / "cgroup/cases.json").read_text())


@pytest.fixture
def root(tmp_path):
    """The recorded processes, with their links."""
    shutil.copytree(FIXTURES / "proc", tmp_path / "proc")
    for target in (tmp_path / "proc").glob("*/exe.target"):
        (target.parent / "exe").symlink_to(target.read_text())
    return str(tmp_path / "proc")


def attributes(root, pid):
    """Attributes of a recorded or real process."""
    directory = open_process(root, pid)
    try:
        return read_attributes(directory, pid, UserNames())
    finally:
        os.close(directory)


def test_attributes_are_read_from_a_recorded_process(root):
    """Parent, name, executable, effective user, unit and container come out of the process's files."""
    found = attributes(root, 812)
    assert found[:4] == (1, "nginx", "/usr/sbin/nginx (deleted)", 34)
    assert (found.unit, found.container, found.container_name) == ("nginx.service", None, None)
    assert (found.session, found.parent) == (812, None)


def test_what_may_not_be_read_is_not_known(root):
    """Without executable and control group the name is what the process calls itself, and the rest is None."""
    found = attributes(root, 900)
    assert found[:7] == (812, "a) b\n\x1b[2J", None, 4000000, None, None, None)
    assert found.parent == (812, 4711)


@pytest.mark.parametrize("case", CGROUPS, ids=lambda case: case["text"][:60])
def test_unit_and_container_come_from_the_control_group(case):
    """Paths of cgroup v1, v2 and both at once under the known runtimes give the unit and the container."""
    assert parse_cgroup(case["text"]) == (case["unit"], case["container"])


@given(st.text(max_size=300))
def test_no_control_group_text_does_harm(text):
    """Any text in a cgroup file gives a unit and container of legal length, or none."""
    for found in parse_cgroup(text):
        assert found is None or 0 < len(found) <= 255


LINKS = {"/usr/bin/redis-server": "redis-check-rdb", "/usr/sbin/nc": "/etc/alternatives/nc"}


def read_link(path):
    """The links of a system that has just these."""
    if path not in LINKS:
        raise FileNotFoundError(path)
    return LINKS[path]


@pytest.mark.parametrize(
    ("exe", "comm", "name"),
    [
        ("/usr/sbin/nginx", "nginx", "nginx"),
        ("/usr/sbin/nginx (deleted)", "nginx", "nginx"),
        ("/opt/app/longer-than-fifteen-letters", "longer-than-fif", "longer-than-fifteen-letters"),
        ("/usr/bin/python3.11", "gunicorn", "gunicorn"),
        ("/usr/bin/python3.11", "python3", "python3.11"),
        ("/usr/bin/python3.11", "python", "python3.11"),
        ("/usr/bin/perl", "munin-node", "munin-node"),
        ("/usr/bin/bash", "backup.sh", "backup.sh"),
        ("/usr/bin/dash", "sh", "dash"),
        ("/usr/bin/node", "MainThread", "node"),
        ("/usr/lib/jvm/java-17/bin/java", "java", "java"),
        ("/bin/busybox", "httpd", "httpd"),
        ("/usr/bin/redis-check-rdb", "redis-server", "redis-server"),
        ("/usr/bin/nc.openbsd", "nc", "nc.openbsd"),
        ("/usr/bin/evil", "sshd", "evil"),
        ("/usr/bin/evil", "../bin/sshd", "evil"),
        ("/usr/bin/evil", "a\0b", "evil"),
        ("/home/u/redis-check-rdb", "redis-server", "redis-check-rdb"),
        ("/memfd:runc_cloned:/proc/self/exe (deleted)", "runc", "runc"),
        (None, "kworker", "kworker"),
        (None, "", "unknown"),
        ("/", "x", "x"),
    ],
)
def test_programs_are_named_by_the_executable_or_what_it_runs(exe, comm, name):
    """The executable's name counts; for interpreters and programs of many names what the process calls itself."""
    assert program_name(exe, comm, read_link) == name


@given(st.text(max_size=300), st.text(max_size=20))
def test_names_are_legal_text(exe, comm):
    """Whatever a process is called, its name is a text of 1 to 64 characters that UTF-8 can hold."""
    name = program_name("/" + exe, comm, read_link)
    assert 1 <= len(name) <= 64
    name.encode("utf-8")


@given(st.text(st.characters()), st.integers(0, 100))
def test_legal_text_keeps_what_is_legal(text, length):
    """Legal text is kept as it is, up to the limit."""
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert legal_text(text, length) == text[:length]


@given(st.text())
def test_shown_text_cannot_steer_a_terminal(text):
    """What is shown holds no control, bidirectional or other invisible character."""
    shown = shown_text(text)
    assert all(letter == " " or letter.isprintable() for letter in shown)
    assert not any("\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069" for letter in shown)


@pytest.mark.parametrize(
    ("ppid", "ticks"), [("-1", "5"), ("1", "-5"), (str(2**63), "5"), ("1", str(2**63)), ("\u0661", "5")]
)
def test_numbers_that_no_process_has_are_refused(ppid, ticks):
    """A stat text with numbers below zero, beyond 63 bits or in other digits is an error of the host."""
    with pytest.raises(HostError, match="process state"):
        parse_stat(f"7 (a) S {ppid} 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0")


@given(st.text(max_size=400))
def test_no_stat_text_does_harm(text):
    """Any text in a stat file gives its fields or an error of the host."""
    with contextlib.suppress(HostError):
        assert text[text.find("(") + 1 :].startswith(parse_stat(text).comm)


@pytest.fixture
def disguised(tmp_path):
    """A real process whose executable and name are hostile: undecodable bytes, newline, escape."""
    exe = os.fsencode(tmp_path) + (b"/pro\xffgram\n\x1b[2J")
    shutil.copy("/bin/sleep", exe)
    with subprocess.Popen([exe, "60"]) as process:
        yield process
        process.kill()


def test_a_real_process_with_a_hostile_name(disguised):
    """A real process with undecodable bytes and control characters in its name gives legal text that names it."""
    for _ in range(50):  # until it has become its executable
        found = attributes("/proc", disguised.pid)
        if "gram" in found.name:
            break
        time.sleep(0.02)
    assert found.name == "pro\\udcffgram\n\x1b[2J"
    assert found.exe.endswith("/pro\\udcffgram\n\x1b[2J")
    assert shown_text(found.name).isprintable()


def test_arguments_and_environment_are_never_read(disguised):
    """Nothing of a process's arguments or environment is among its attributes."""
    with subprocess.Popen([sys.executable, "-c", "input()", "s3cret"], stdin=-1, env={"TOKEN": "t0ken"}) as process:
        found = repr(attributes("/proc", process.pid))
        process.send_signal(signal.SIGKILL)
    assert "s3cret" not in found
    assert "t0ken" not in found


def test_a_process_that_ended_is_gone():
    """A process that ended is gone, also for one who held its folder open."""
    process = subprocess.Popen(["/bin/sleep", "60"])
    directory = open_process("/proc", process.pid)
    process.kill()
    process.wait()
    with pytest.raises(Gone):
        open_process("/proc", process.pid)
    with pytest.raises(Gone):
        read_attributes(directory, process.pid, UserNames())
    os.close(directory)
