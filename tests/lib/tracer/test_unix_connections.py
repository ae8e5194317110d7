# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to daemons over AF_UNIX are told with both processes, by real daemons and real callers."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.evidence import Gap, ProcessRecord, UnixConnectionRecord
from whoneeds.tracer import clocks
from whoneeds.tracer.netlink import HEADER, split_messages
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.relations import Relations, UnixConnection
from whoneeds.tracer.sampler import Sampler
from whoneeds.tracer.surroundings import UNIX_EVERY, Surroundings
from whoneeds.tracer.unix_diag import UnixSocket, find_talks, parse_unix_sockets

DAEMON = """
import socket, sys
name = sys.argv[2].replace("@", chr(0))
made = socket.socket(socket.AF_UNIX, getattr(socket, "SOCK_" + sys.argv[1]))
made.bind(name)
pair = socket.socketpair()
print("ready", flush=True)
if sys.argv[1] == "DGRAM":
    sys.stdin.read()
made.listen()
kept = []
while True:
    kept.append(made.accept()[0])
"""
CALLER = """
import socket, sys
made = socket.socket(socket.AF_UNIX, getattr(socket, "SOCK_" + sys.argv[1]))
made.connect(sys.argv[2].replace("@", chr(0)))
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def started(program, *arguments, inside=()):
    """A process that has said that it is ready."""
    command = [*inside, sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def observe(looks=1):
    """What so many looks see, as records."""
    at = clocks.now()
    observation = Observation("h", clocks.read_boot_id(), at)
    sampler, surroundings = Sampler(), Surroundings()
    for _sample in range((looks - 1) * UNIX_EVERY + 2):
        sampler.sample(observation, at)
        surroundings.look(observation, at, sampler.doors, sampler.owners)
    return observation.records(clocks.now())


def talks_at(tables, name):
    """Client, daemon and looks of the connections to a name, by process number."""
    pids = {row.process_id: row.pid for row in tables[ProcessRecord]}
    rows = [row for row in tables[UnixConnectionRecord] if row.path == name]
    return [(row.type, pids[row.process_id], pids[row.server_process_id], row.samples) for row in rows]


@pytest.mark.parametrize("kind", ["STREAM", "SEQPACKET", "DGRAM"])
@pytest.mark.parametrize("abstract", [False, True])
def test_a_caller_and_its_daemon_are_told_by_the_name_between_them(tmp_path, kind, abstract):
    """Whatever the type of socket and the kind of name, the row leads from who connected to who waits there."""
    name = f"@whoneeds-{os.getpid()}-{kind}" if abstract else str(tmp_path / "daemon.sock")
    with started(DAEMON, kind, name) as daemon, started(CALLER, kind, name) as caller:
        tables = observe(looks=2)
    assert talks_at(tables, name) == [(kind.lower(), caller.pid, daemon.pid, 2)]


@pytest.mark.root
def test_a_caller_in_another_network_namespace_reaches_a_daemon_by_its_path(tmp_path):
    """A path leads from one network namespace to another, as into a container; the row is the caller's."""
    inside = ["unshare", "--net"]
    if os.geteuid() != 0 or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("needs root and the right to make network namespaces")
    name = str(tmp_path / "daemon.sock")
    with started(DAEMON, "STREAM", name) as daemon, started(CALLER, "STREAM", name, inside=inside) as caller:
        tables = observe()
        netns = Path(f"/proc/{caller.pid}/ns/net").stat().st_ino
    assert talks_at(tables, name) == [("stream", caller.pid, daemon.pid, 1)]
    assert [row.netns for row in tables[UnixConnectionRecord] if row.path == name] == [str(netns)]


def test_a_hostile_name_is_legal_text(tmp_path):
    """A name of bytes that are no text, with an escape sequence in it, is told and harms nobody."""
    name = b"\0whoneeds-\xff\x1b[2J-%d" % os.getpid()
    program = (
        f"import socket, sys; s = socket.socket(1); s.connect({name!r}); print('ready', flush=True); sys.stdin.read()"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        with started(program) as caller, listener.accept()[0]:
            tables = observe()
    assert talks_at(tables, f"@whoneeds-\\udcff\x1b[2J-{os.getpid()}") == [("stream", caller.pid, os.getpid(), 1)]


def test_pairs_without_a_name_and_of_unknown_direction_are_left_out():
    """Socketpairs, datagram sockets connected to each other, and two waiting names tell of no daemon."""
    pair = [UnixSocket(1, "stream", False, None, 2), UnixSocket(2, "stream", False, None, 1)]
    mutual = [UnixSocket(3, "dgram", False, b"/a", 4), UnixSocket(4, "dgram", False, b"/b", 3)]
    waiting = [UnixSocket(at, "stream", True, name, 0) for at, name in ((7, b"/c"), (8, b"/d"))]
    both = [UnixSocket(5, "stream", False, b"/c", 6), UnixSocket(6, "stream", False, b"/d", 5)]
    assert not list(find_talks([*pair, *mutual, *waiting, *both]))
    (talk,) = find_talks([*waiting[:1], *both])
    assert (talk.path, talk.client, talk.server) == ("/c", 6, 5)


def test_more_connections_than_a_segment_holds_are_counted():
    """Beyond the bound a connection is left out, and a gap says how many times."""
    observation = Observation("h", clocks.read_boot_id(), clocks.now())
    observation.relations = Relations(max_unix_connections=2)
    for pid in range(5):
        made = UnixConnection("1", "stream", "/x", Holder(pid, 1), Holder(99, 1))
        observation.relations.add_unix_connection(made, 1)
    (gap,) = observation.records(clocks.now())[Gap]
    assert (gap.source, gap.reason, gap.lost) == ("relations", "dropped", 3)


@given(st.binary(max_size=200))
def test_no_message_can_harm_the_reader(noise):
    """Whatever attributes a message of the list has, the reader returns sockets whose connections can be told."""
    body = struct.pack("=BBBxIII", 1, 1, 1, 77, 0, 0) + noise
    buffer = HEADER.pack(HEADER.size + len(body), 20, 2, 1, 0) + body
    found = parse_unix_sockets(buffer, split_messages(buffer).runs)
    other = UnixSocket(78, "stream", True, b"/x", 77)
    assert all(isinstance(talk.path, str) for talk in find_talks([*found, other]))
