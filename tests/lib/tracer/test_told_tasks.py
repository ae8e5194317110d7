# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's programs tell of a process becomes its attributes, whatever it calls itself, gone or alive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.errors import HostError
from whoneeds.model.evidence import ProcessRecord
from whoneeds.model.identity import parse_process_id, process_id
from whoneeds.model.schema import check_value, columns
from whoneeds.tracer.bpf.layout import MAX_STEPS, STEP_BYTES, TASK, TASK_BYTES, TASK_PATH
from whoneeds.tracer.bpf.tasks import ControlGroups, ToldTasks, parse_task
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.status import identity_of

SECOND_NS = 10**9
BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"
COLUMNS = {column.name: column for column in columns(ProcessRecord)}


def record(pid=500, *, ppid=1, start_ns=5 * SECOND_NS, cgroup=0, name=b"feeder", uid=33, steps=(b"feeder", b"opt"),
           count=None):  # fmt: skip
    """A record as the program writes it: the path's last step first."""
    path = b"".join(step[: STEP_BYTES - 1].ljust(STEP_BYTES, b"\0") for step in steps)
    head = TASK.pack(pid, ppid, start_ns, SECOND_NS, cgroup, 77, name, uid, len(steps) if count is None else count)
    return (head + path).ljust(TASK_BYTES, b"\0")


@pytest.fixture
def tasks(tmp_path):
    """Processes of a host on which nothing runs any more and no control group is left; 100 ticks a second."""
    return ToldTasks(str(tmp_path), 100, ControlGroups((str(tmp_path),)))


def test_a_process_that_is_gone_is_what_was_told_of_it(tasks):
    """Identity, parent, name, path and user come from the record when nobody can be asked."""
    holder = tasks.take(record(start_ns=5 * SECOND_NS + 9_999_999)).holder
    known = tasks.attributes_of(holder)
    assert holder == Holder(500, 500)
    assert (known.ppid, known.name, known.exe, known.uid) == (1, "feeder", "/opt/feeder", 33)
    assert (known.unit, known.container) == (None, None)


def test_nobody_is_known_who_was_not_told_of(tasks):
    """A process that is gone and was not told of has no attributes, and neither has another one of its number."""
    assert tasks.attributes_of(Holder(500, 500)) is None
    tasks.take(record())
    assert tasks.attributes_of(Holder(500, 501)) is None


@pytest.mark.parametrize(
    ("name", "steps", "shown", "exe"),
    [
        (b"\x1b[2J\nx", (b"\x1b[2J\nx", b"opt"), "\x1b[2J\nx", "/opt/\x1b[2J\nx"),
        (b"caf\xe9", (b"caf\xe9", b"\xff\xfe"), "caf\\udce9", "/\\udcff\\udcfe/caf\\udce9"),
        ("ßü".encode(), ("ßü".encode(),), "ßü", "/ßü"),
        (b"", (b"x",), "x", "/x"),
        (b"a" * 16, (b"..", b"."), "..", "/./.."),
        (b"-", (b"{{ 1 }}", b"$(reboot)"), "{{ 1 }}", "/$(reboot)/{{ 1 }}"),
    ],
)
def test_names_of_bad_intent_are_text_and_no_more(tasks, name, steps, shown, exe):
    """Control characters stay text, bytes that are no text become visible, and an empty name is the program's."""
    known = tasks.take(record(name=name, steps=steps)).now
    assert (known.name, known.exe) == (shown, exe)


def test_a_process_without_any_name_is_unknown(tasks):
    """Without a name and without a path a process is called unknown, and has no path."""
    known = tasks.take(record(name=b"", steps=())).now
    assert (known.name, known.exe) == ("unknown", None)


@pytest.mark.parametrize(
    ("steps", "count", "exe"),
    [
        ((b"y" * 62, b"x"), None, "/x/" + "y" * 62),
        ((b"y" * 63, b"x"), None, None),
        ((b"x", b"y" * 63), None, None),
        ((b"x", b""), None, None),
        ((b"x",) * MAX_STEPS, None, "/x" * MAX_STEPS),
        ((b"x",) * MAX_STEPS, MAX_STEPS + 1, None),
        ((b"x",), 2**32 - 1, None),
        ((b"x",), 0, None),
    ],
)
def test_a_path_is_whole_or_absent(steps, count, exe):
    """A step that may have been cut, one that is missing, or more steps than are told leave no part of a path."""
    assert parse_task(record(steps=steps, count=count), 100).exe == exe


def test_a_record_cut_within_its_path_has_none():
    """A record that ends before its path does still tells of the process, without the path."""
    whole = record(steps=(b"c", b"b", b"a"))
    assert parse_task(whole[: TASK_PATH + 3 * STEP_BYTES], 100).exe == "/a/b/c"
    for length in (TASK_PATH, TASK_PATH + STEP_BYTES, TASK_PATH + 3 * STEP_BYTES - 1):
        told = parse_task(whole[:length], 100)
        assert (told.holder, told.exe) == (Holder(500, 500), None)


@pytest.mark.parametrize("length", [0, 1, TASK_PATH - 1])
def test_a_record_that_is_too_short_is_refused(tasks, length):
    """A record without room for what every one has is an error that says how long it is, and nobody is known by it."""
    with pytest.raises(HostError, match=f"{TASK_PATH} bytes; found {length}"):
        tasks.take(record()[:length])
    assert tasks.attributes_of(Holder(500, 500)) is None


def test_what_is_not_known_is_absent(tasks):
    """The number that stands for no user, and for no parent, is no user and no parent."""
    known = tasks.take(record(ppid=0, uid=2**32 - 1)).now
    assert (known.ppid, known.uid, known.user) == (None, None, None)


@given(st.binary(min_size=TASK_PATH, max_size=TASK_BYTES), st.integers(0, MAX_STEPS + 1))
def test_any_record_fits_its_columns(noise, count):
    """Whatever stands in a record, what comes out of it can be put into a segment."""
    tasks = ToldTasks("/nonexistent", 100, ControlGroups(()))
    for raw in (noise, noise[: TASK_PATH - 4] + count.to_bytes(4, sys.byteorder) + noise[TASK_PATH:]):
        values = tasks.take(raw).now._asdict()
        parent = values.pop("parent")
        if parent is not None:
            values["parent_id"] = process_id("h", BOOT, *parent)
            parse_process_id(values["parent_id"])
        for name, value in values.items():
            check_value(COLUMNS[name], value)


def real(pid, name, **other):
    """A record of a process that lives."""
    ticks = identity_of(pid).start_ticks
    per_s = os.sysconf("SC_CLK_TCK")
    return record(pid, start_ns=ticks * SECOND_NS // per_s + 1, name=name, **other)


@pytest.fixture
def sleeper():
    """A process that sleeps."""
    with subprocess.Popen(["sleep", "60"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            pass
        yield process
        process.kill()


def test_a_process_that_lives_is_asked_itself(sleeper):
    """While a process lives and is still what was told of, its own files have the word."""
    tasks = ToldTasks()
    holder = tasks.take(real(sleeper.pid, b"sleep", steps=(b"elsewhere",), uid=12345)).holder
    known = tasks.attributes_of(holder)
    assert holder.start_ticks == identity_of(sleeper.pid).start_ticks
    assert (known.ppid, known.uid, known.exe) == (
        os.getpid(), os.geteuid(), str(Path(f"/proc/{sleeper.pid}/exe").readlink()),
    )  # fmt: skip


def test_a_process_that_runs_another_program_by_now_is_what_was_told(sleeper):
    """What a process executes after it was told of is not laid to what it did before."""
    tasks = ToldTasks()
    known = tasks.take(real(sleeper.pid, b"feeder", uid=12345)).now
    assert (known.name, known.exe, known.uid) == ("feeder", "/opt/feeder", 12345)


def test_a_process_that_took_over_a_number_is_not_asked(sleeper):
    """A process with the number of one that is gone tells nothing about that one."""
    tasks = ToldTasks()
    known = tasks.take(record(sleeper.pid, start_ns=1, name=b"sleep")).now
    assert known.exe == "/opt/feeder"


def test_a_process_that_ends_stays_known(sleeper):
    """What was known of a process is known after its end."""
    tasks = ToldTasks()
    holder = tasks.take(real(sleeper.pid, b"sleep")).holder
    before = tasks.attributes_of(holder)
    sleeper.kill()
    sleeper.wait()
    assert tasks.attributes_of(holder) == before


def test_the_last_word_about_a_process_counts(tasks):
    """A process that is told of again, since it executed another program, is that from then on."""
    tasks.take(record(name=b"sh", steps=(b"sh", b"bin")))
    holder = tasks.take(record()).holder
    assert tasks.attributes_of(holder).exe == "/opt/feeder"


def test_what_is_gone_is_forgotten_once_it_is_much(tasks, monkeypatch):
    """Of processes that are gone, those are kept that the open segment still needs."""
    monkeypatch.setattr("whoneeds.tracer.bpf.tasks._MAX_REMEMBERED", 3)
    holders = [tasks.take(record(500 + number)).holder for number in range(4)]
    tasks.forget_gone({holders[2]})
    assert [tasks.attributes_of(holder) is not None for holder in holders] == [False, False, True, False]
    tasks.forget_gone(set())
    assert tasks.attributes_of(holders[2]) is not None


IDENTITY = "0123456789abcdef" * 4


def test_a_number_of_a_control_group_leads_to_unit_and_container(tmp_path):
    """The kernel's number of a control group is that of its folder, whose path names unit and container."""
    (tmp_path / "cgroup.procs").touch()
    unit = tmp_path / "system.slice" / "nginx.service"
    container = tmp_path / "system.slice" / f"docker-{IDENTITY}.scope"
    for folder in (unit, container):
        folder.mkdir(parents=True)
    tasks = ToldTasks(str(tmp_path / "no-processes"), 100, ControlGroups((str(tmp_path / "missing"), str(tmp_path))))
    found = [
        tasks.take(record(pid, cgroup=folder.stat().st_ino)).now
        for pid, folder in ((500, unit), (501, container), (502, tmp_path))
    ]
    assert [(known.unit, known.container) for known in found] == [
        ("nginx.service", None), (f"docker-{IDENTITY}.scope", f"docker:{IDENTITY}"), (None, None),
    ]  # fmt: skip


def test_control_groups_are_not_walked_for_every_unknown_number(tmp_path):
    """A number that no group has costs one walk in ten seconds, and a group made later is found by the next one."""
    (tmp_path / "cgroup.procs").touch()
    now_s = [0.0]
    groups = ControlGroups((str(tmp_path),), lambda: now_s[0])
    assert groups.path_of(1) is None
    assert groups.path_of(tmp_path.stat().st_ino) == "/"
    (tmp_path / "late.service").mkdir()
    number = (tmp_path / "late.service").stat().st_ino
    assert groups.path_of(number) is None
    now_s[0] = 10.0
    assert groups.path_of(number) == "/late.service"
    (tmp_path / "late.service").rmdir()
    assert groups.path_of(number) == "/late.service"


def test_no_more_control_groups_are_remembered_than_a_bound(tmp_path, monkeypatch):
    """A tree of more groups than the bound is walked no further than that."""
    monkeypatch.setattr("whoneeds.tracer.bpf.tasks._MAX_CGROUPS", 5)
    (tmp_path / "cgroup.procs").touch()
    numbers = []
    for number in range(9):
        (tmp_path / f"{number}.service").mkdir()
        numbers.append((tmp_path / f"{number}.service").stat().st_ino)
    groups = ControlGroups((str(tmp_path),), lambda: 0.0)
    assert sum(groups.path_of(number) is not None for number in numbers) == 4
