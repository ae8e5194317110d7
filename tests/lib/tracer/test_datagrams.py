# SPDX-License-Identifier: GPL-3.0-or-later
import os
import socket
import sys
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from whoneeds.model.evidence import SEGMENT_SCHEMA, SegmentHeader
from whoneeds.segment.life_rows import LifeReader
from whoneeds.tracer import clocks
from whoneeds.tracer.observation import Observation

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"


@pytest.mark.root
def test_the_first_datagrams_of_a_socket_tell_who_speaks_over_udp(events):
    """A caller's first datagram and its first answer are told, as well as the other end's, and who began."""
    if len(events._loaded.programs) < 5:
        pytest.skip("this kernel has no tracepoint for datagrams (it came with 6.3)")
    observation = Observation("h", BOOT, clocks.now())
    with ExitStack() as stack:
        server, caller, unused, other = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _each in range(4)
        )
        server.bind(("127.0.0.1", 0))
        for each in (caller, unused):
            each.connect(server.getsockname())
        for _turn in range(3):
            caller.send(b"q")
            server.sendto(b"a", server.recvfrom(9)[1])
            caller.recv(9)
        other.sendto(b"q", server.getsockname())
        server_port, caller_port, other_port = (each.getsockname()[1] for each in (server, caller, other))
        events.read(observation, clocks.now)
    rows = told(observation)
    of_caller = [row for row in rows if row.local_port == caller_port]
    assert [(row.remote_port, row.initiated, row.pid) for row in of_caller] == [
        (server_port, True, os.getpid()), (server_port, None, os.getpid()),
    ]  # fmt: skip
    of_server = [row for row in rows if row.local_port == server_port]
    assert [(row.remote_port, row.initiated) for row in of_server] == [(None, False), (None, None)]
    assert [(row.remote_port, row.initiated) for row in rows if row.local_port == other_port] == [(None, True)]
    assert {row.local_port for row in rows if row.pid == os.getpid()} == {caller_port, server_port, other_port}


class Told(NamedTuple):
    """The part of a row that is of interest here."""

    local_port: int
    remote_port: int | None
    initiated: bool | None
    pid: int | None


def told(observation):
    """Rows of UDP that the programs told of."""
    at = observation.opened
    header = SegmentHeader(
        segment_id=f"h/{BOOT}/0", host="h", boot_id=BOOT, sequence=0, schema=SEGMENT_SCHEMA, tracer_version="0",
        opened_ns=at.wall_ns, opened_mono_ns=at.boot_ns, closed_ns=at.wall_ns, closed_mono_ns=at.boot_ns,
        period_s=5.0, samples=0, sources=(), privileged=True, addresses=(), location=None, dropped_segments=0,
        capture_digest=None, capture_bytes=None,
    )  # fmt: skip
    reader = LifeReader(header, sys.byteorder, os.sysconf("SC_CLK_TCK"))
    rows = [row for block in observation.lives for row in reader.read(block) if row.protocol == "udp"]
    return [
        Told(
            row.local_port,
            row.remote_port,
            row.initiated,
            int(row.process_id.split("/")[2]) if row.process_id else None,
        )
        for row in rows
    ]
