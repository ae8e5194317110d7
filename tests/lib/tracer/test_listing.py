# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see fits their terminal and cannot steer it."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.tracer.listing import _width, make_document, make_lines, make_notes

PROCESS = ProcessRecord("h/b/1/2", "h", 1, 2, 0, "nginx", "/usr/sbin/nginx", 0, "root", "nginx.service", None, 1, 2)
SOCKET = SocketRecord(
    "h/b/1/c", "h", "1", "tcp", "2001:db8::1", 443, "2001:db8::2", 50000, "established", 5, 0, "h/b/1/2", 1, 0, 0, 1, 2,
    1, "table", None, None,
)  # fmt: skip
TABLES = {ProcessRecord: [PROCESS], SocketRecord: [SOCKET], Gap: [Gap("h", "s", "late", "x\x1b[2J", 1, 2, 3)]}


def test_a_connection_is_one_line():
    """A connection shows both ends, its state, program, number, user and unit."""
    line = make_lines(TABLES, None)[1]
    assert line.split() == [
        "tcp", "[2001:db8::1]:443", "[2001:db8::2]:50000", "established", "nginx", "1", "root", "nginx.service",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_the_table_fits_the_terminal(width):
    """No line is wider than the terminal, down to 40 columns."""
    assert all(len(line) <= width for line in make_lines(TABLES, width))


@given(st.text(max_size=64), st.integers(40, 200))
def test_hostile_names_cannot_steer_the_terminal(name, width):
    """Whatever a program is called, a line holds no control character and is no wider than the terminal."""
    tables = {**TABLES, ProcessRecord: [dataclasses.replace(PROCESS, name=name, user=name, unit=name)]}
    for line in make_lines(tables, width):
        assert line.isprintable()
        assert _width(line) <= width


def test_closed_connections_are_counted_not_listed():
    """Connections of which the kernel keeps the tuple only are one line with their number."""
    closed = dataclasses.replace(SOCKET, source="tuple_only", process_id=None)
    lines = make_lines({**TABLES, SocketRecord: [SOCKET, closed, closed]}, None)
    assert len(lines) == 3
    assert "2 closed" in lines[-1]


def test_the_document_holds_every_column():
    """The JSON document holds every column of every row under its name."""
    document = json.loads(json.dumps(make_document("h", 5, True, TABLES)))
    assert document["sockets"][0] == dataclasses.asdict(SOCKET)
    assert (document["schema"], document["host"], document["at_ns"], document["privileged"]) == (1, "h", 5, True)


def test_notes_say_what_was_not_seen():
    """Gaps are told in words, harmless to the terminal."""
    assert make_notes(TABLES[Gap]) == ["not seen: s, late: x\\x1b[2J (3)"]
