# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's events of this machine, from either source, as rows of sockets with the processes that acted on them."""

import contextlib
import os
import signal
import socket
import struct
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from whoneeds.collector.checks import check_segment
from whoneeds.model.evidence import SEGMENT_SCHEMA, Gap, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.identity import segment_id
from whoneeds.segment.read import read_segment
from whoneeds.segment.write import encode_segment
from whoneeds.tracer import clocks, events
from whoneeds.tracer.bpf.layout import Scope
from whoneeds.tracer.bpf.load import load
from whoneeds.tracer.bpf.source import open_programs
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.sampler import Sampler
from whoneeds.tracer.status import own_identity

#: Has a connection reset when it is closed.
ABORT = struct.pack("ii", 1, 0)
#: A program that makes one connection to the port that it is given.
CALL = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).sendall(b'hello')"


class _Watch:
    """What both have in common: reading until nothing comes any more."""

    def __init__(self, source):
        self.source = source
        self.observation = Observation("h", clocks.read_boot_id(), clocks.now())

    def read(self):
        """Take in what the events tell."""
        self.source.read(self.observation, clocks.now)

    def tables(self):
        """All rows by now, by record class."""
        return self.observation.records(clocks.now())

    def gaps(self):
        """What was lost."""
        return self.tables()[Gap]

    def rows(self, *ports, seconds=5.0):
        """Rows of ended connections over these ports, once the kernel has told of their sockets' ends."""
        until = time.monotonic() + seconds
        before = None
        while True:
            self.read()
            tables = self.tables()
            known = {row.process_id: row for row in tables[ProcessRecord]}
            found = []
            for row in tables[SocketRecord]:
                if row.end is not None and {row.local_port, row.remote_port} & set(ports):
                    process = known.get(row.process_id)
                    name, pid = (None, None) if process is None else (process.name, process.pid)
                    found.append(SimpleNamespace(row=row, process=process, name=name, pid=pid))
            if (found and len(found) == before) or time.monotonic() > until:
                return found
            before = len(found)
            time.sleep(0.3)

    def close(self):
        """End it."""
        self.source.close()


class TracefsWatch(_Watch):
    """The rings of tracefs, with one sample at the beginning as the daemon takes it."""

    def __init__(self):
        super().__init__(events.open_events(own_identity()))
        self.sampler = Sampler()
        self.sample()
        self.observation.watch(True)

    def sample(self):
        """Take a sample, and follow the namespaces that it found."""
        at = clocks.now()
        self.sampler.sample(self.observation, at)
        self.source.watch(self.observation, at, self.sampler.own_namespace, self.sampler.doors)


class ProgramsWatch(_Watch):
    """The kernel's programs; rows come out of a segment that was written, read and checked."""

    def __init__(self, scope=None):
        super().__init__(open_programs(load(scope or Scope())))

    def tables(self):
        """All rows by now, as the controller would have them."""
        observation, now = self.observation, clocks.now()
        opened = observation.opened
        header = SegmentHeader(
            segment_id("h", observation.boot_id, opened.boot_ns), "h", observation.boot_id, opened.boot_ns,
            SEGMENT_SCHEMA, "0", opened.wall_ns, opened.boot_ns, observation.instant_ns(now), now.boot_ns, 5.0, 1,
            ("event",), True, (), None, 0,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s"
            path.write_bytes(b"".join(encode_segment(header, observation.records(now), observation.lives)))
            segment = read_segment(str(path))
        check_segment(segment, clocks.now().wall_ns)
        return segment.tables


@contextlib.contextmanager
def serving(body="c.recv(9)", times=1, address="127.0.0.1"):
    """A process that accepts so many connections; gives its number and port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    dual = address == "::"
    with socket.create_server((address, 0), family=family, dualstack_ipv6=dual) as server:
        port = server.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            server.settimeout(30)  # a caller that fails must not leave it waiting
            try:
                for _ in range(times):
                    c, _address = server.accept()
                    exec(body)
                    c.close()
            finally:
                os._exit(0)
    try:
        yield pid, port
        os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def ends(found):
    """Who acted on what, and how it ended."""
    return {(one.pid, one.row.initiated, one.row.end) for one in found}


def in_child(act):
    """Let a forked process do something, and end; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return pid


def wait(*pids):
    """Wait until processes have ended."""
    for pid in pids:
        os.waitpid(pid, 0)
