# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's programs and the rings of tracefs, on the same traffic at the same time, say the same."""

import contextlib
import os
import random
import socket
import time
from collections import Counter

import pytest
from event_watches import ABORT, ProgramsWatch, TracefsWatch

from whoneeds.model.errors import Denied, Unsupported

pytestmark = pytest.mark.root


def abort(connection):
    """Have the connection reset when it is closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)


def serve(server):
    """Answer callers as their first byte asks for, until one asks to end."""
    asked = b""
    while asked != b"e":
        connection, _address = server.accept()
        with connection, contextlib.suppress(OSError):  # a reset is part of the game
            asked = connection.recv(1)
            answer(connection, asked)


def answer(connection, asked):
    """Answer one caller."""
    if asked == b"r":
        abort(connection)
    elif asked == b"h":  # half closed: says goodbye first, listens on
        connection.sendall(b"x" * 30)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(100):
            pass
    elif asked == b"u":  # leaves the rest unread
        time.sleep(0.02)
    elif asked == b"f":  # a worker takes over
        worker = os.fork()
        if worker == 0:
            try:
                connection.recv(100)
                connection.sendall(b"done")
            finally:
                os._exit(0)
        connection.close()
        os.waitpid(worker, 0)
    else:
        connection.recv(100)
        connection.sendall(b"y" * 40)


def call(port, address, asked, length, aborts):
    """One call."""
    with socket.create_connection((address, port), 10) as client, contextlib.suppress(OSError):
        client.sendall(asked + b"z" * length)
        if aborts:
            abort(client)
            return
        while client.recv(100):
            pass
        if asked == b"h":
            client.sendall(b"late")


def refused(port, address):
    """A call that nobody takes."""
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), 10).close()


def play(seed, port, address, nobody):
    """A mix of calls, from this process and from processes of a moment."""
    rng = random.Random(seed)
    for _ in range(60):
        asked, length = rng.choice((b"n", b"n", b"r", b"h", b"u", b"f")), rng.choice((1, 7, 30))
        aborts, child, nowhere = rng.random() < 0.15, rng.random() < 0.3, rng.random() < 0.15
        pid = os.fork() if child else 0
        if pid == 0:
            try:
                if nowhere:
                    refused(nobody, address)
                else:
                    call(port, address, asked, length, aborts)
            finally:
                if child:
                    os._exit(0)
        else:
            os.waitpid(pid, 0)
    call(port, address, b"e", 1, False)


def told(found):
    """By connection and end: who acted, and what became of it."""
    rows = {}
    for one in found:
        row = one.row
        key = (row.socket_id, row.local_addr, row.local_port, row.remote_addr, row.remote_port)
        rows.setdefault(key, []).append(one)
    return rows


def acted(ones):
    """Who acted, by number and name."""
    return sorted((one.pid or 0, one.name or "") for one in ones)


@pytest.mark.parametrize(("seed", "address"), [(1, "127.0.0.1"), (2, "::1"), (3, "127.0.0.1")])
def test_both_sources_tell_the_same(seed, address):
    """Every end of a random mix of connections has the same tuple, owners, beginner, end and bytes by either source."""
    if os.geteuid() != 0:
        pytest.skip("kernel events need root")
    try:
        watches = [ProgramsWatch(), TracefsWatch()]
    except (Denied, Unsupported) as error:
        pytest.skip(f"not both kinds of events here: {error}")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.create_server((address, 0), family=family) as spare:
            nobody = spare.getsockname()[1]
        with socket.create_server((address, 0), family=family, backlog=50) as server:
            port = server.getsockname()[1]
            pid = os.fork()
            if pid == 0:
                try:
                    server.settimeout(30)
                    serve(server)
                finally:
                    os._exit(0)
        play(seed, port, address, nobody)
        os.waitpid(pid, 0)
        programs, tracefs = (told(watch.rows(port, nobody)) for watch in watches)
    finally:
        for watch in watches:
            watch.close()
    assert len(programs) > 100
    assert set(programs) == set(tracefs)
    workers = {one.pid for ones in programs.values() for one in ones if one.process and one.process.ppid == pid}
    assert len(workers) > 3
    ended, known_to_one = Counter(), 0
    for key, ones in programs.items():
        others, row, other = tracefs[key], ones[0].row, tracefs[key][0].row
        if row.end == "rst" and other.process_id is None:
            # reset before anybody acted on it: only the programs see who closes it afterwards
            assert {one.pid for one in ones} <= {pid, None} | workers, key
            assert row.owners >= other.owners == 0
            known_to_one += row.owners
        else:
            assert acted(ones) == acted(others), key
            assert row.owners == other.owners
        for name in ("initiated", "end", "netns", "uid"):
            assert {getattr(one.row, name) for one in (*ones, *others)} == {getattr(row, name)}, (key, name)
        if other.sent_bytes is not None:  # one that was aborted has forgotten its peer, and its counts with it
            assert row.sent_bytes == other.sent_bytes, key
            # the peer's FIN may count as one there, and never does here
            assert other.received_bytes - row.received_bytes in (0, 1), key
        else:
            assert row.end in ("rst", "rejected"), key
        assert abs(row.last_ns - other.last_ns) < 100_000_000, key
        ended[row.end, row.initiated] += 1
    assert {("fin", True), ("fin", False), ("rst", True), ("rst", False), ("rejected", True)} <= set(ended)
    assert known_to_one < len(programs) / 4
