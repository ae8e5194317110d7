# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's events are read wherever its own description says that their fields lie."""

import struct
from pathlib import Path

import pytest

from whoneeds.model.errors import Unsupported
from whoneeds.tracer.tracepoints import (
    Executed,
    SocketDecoder,
    SocketDestroyed,
    StateChange,
    TaskBegan,
    TaskDecoder,
    TaskEnded,
    parse_format,
)

FORMATS = {path.stem: path.read_text() for path in (Path(__file__).parent / "fixtures/tracefs").glob("*.format")}
LOCAL, REMOTE = bytes(10) + b"\xff\xff\x0a\x00\x00\x01", bytes(15) + b"\x01"


@pytest.fixture
def sockets():
    """Reads the socket events of Linux 6.18."""
    return SocketDecoder(FORMATS["inet_sock_set_state"], FORMATS["tcp_destroy_sock"])


@pytest.fixture
def tasks():
    """Reads the process events of Linux 6.18."""
    return TaskDecoder(*(FORMATS[name] for name in ("task_newtask", "sched_process_exec", "sched_process_exit")))


@pytest.mark.parametrize(
    ("flags", "in_interrupt"), [(0, False), (0x08, True), (0x10, True), (0x80, True), (0x41, False)]
)
def test_a_change_of_state(sockets, flags, in_interrupt):
    """All fields of a change are read, and work on packets is told from what a process does itself."""
    record = struct.pack("=HBBiQiiHHHHII16s16s", 2287, flags, 0, 812, 1 << 63, 7, 2, 0, 5432, 2, 6, 0, 0, LOCAL, REMOTE)
    assert sockets.decode(sockets.changed, 5, b"xx" + record, 2, 2 + len(record)) == StateChange(
        5, 812, in_interrupt, 1 << 63, 7, 2, 0, 5432, LOCAL, REMOTE
    )


def test_a_destroyed_socket(sockets):
    """A destroyed socket has the cookie that listings give it, which is signed elsewhere."""
    record = struct.pack("=HBBiQHHH8x16s16s2xQ", 1, 0, 0, 1, 77, 80, 40000, 2, LOCAL, REMOTE, 1 << 63 | 9)
    assert sockets.decode(sockets.destroyed, 5, record, 0, len(record)) == SocketDestroyed(
        5, 77, 9, 80, 40000, LOCAL, REMOTE
    )


def test_what_becomes_of_processes(tasks):
    """Begin, execution and end are read, threads are told from processes, and names are cut at their end."""
    began = struct.pack("=HBBii16s4xQh6x", 205, 0, 0, 1, 2, b"nginx\0junk", 0x10000, 0)
    assert tasks.decode(tasks.began, 5, began, 0, len(began)) == TaskBegan(5, 1, 2, "nginx", True)
    path = b"/usr/bin/curl\0"
    ran = struct.pack("=HBBiIii", 365, 0, 0, 2, len(path) << 16 | 20, 2, 3) + path
    assert tasks.decode(tasks.executed, 6, ran, 0, len(ran)) == Executed(6, 2, 3, "/usr/bin/curl")
    ended = struct.pack("=HBBi16siiB", 369, 0, 0, 2, b"curl", 2, 120, 1)
    assert tasks.decode(tasks.ended, 7, ended, 0, len(ended)) == TaskEnded(7, 2)


def test_what_does_not_fit_is_no_event(sockets, tasks):
    """Records that are too short, of another number, or with a text beyond their end give nothing."""
    ran = struct.pack("=HBBiIii", 365, 0, 0, 2, 99 << 16 | 20, 2, 3)
    assert tasks.decode(tasks.executed, 6, ran, 0, len(ran)) is None
    assert tasks.decode(tasks.ended, 6, b"12345678", 0, 8) is None
    assert sockets.decode(sockets.changed, 6, bytes(70), 0, 70) is None
    assert sockets.decode(65535, 6, bytes(100), 0, 100) is None


def test_fields_may_move():
    """A kernel that puts fields elsewhere is read by its own description."""
    moved = FORMATS["sched_process_exit"].replace("pid;\toffset:24", "pid;\toffset:40")
    decoder = TaskDecoder(FORMATS["task_newtask"], FORMATS["sched_process_exec"], moved)
    record = bytes(40) + struct.pack("=i", 812) + bytes(4)
    assert decoder.decode(decoder.ended, 1, record, 0, len(record)) == TaskEnded(1, 812)


@pytest.mark.parametrize("text", ["", "ID: 5\n", FORMATS["sched_process_exit"].replace("pid_t pid", "pid_t other")])
def test_another_description_is_refused(text):
    """A description without the field that is needed says which one."""
    with pytest.raises(Unsupported, match="pid"):
        parse_format(text, "pid")


def test_a_field_of_another_size_is_refused():
    """A field that has another size is not read as if it had the known one."""
    wide = FORMATS["sched_process_exit"].replace("offset:24;\tsize:4", "offset:24;\tsize:8")
    with pytest.raises(Unsupported, match="pid of i"):
        TaskDecoder(FORMATS["task_newtask"], FORMATS["sched_process_exec"], wide)
