# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon with the kernel's events, and without."""

import os
import socket
import subprocess
import sys

import pytest
from runs import read_all, rows, status, wait_for

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import clocks, daemon
from whoneeds.tracer.settings import make_settings


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
    settings = make_settings({"memory_bytes": 1 << 40}, {"dir": str(tmp_path / "t")})  # it is not alone here
    spool = open_spool(settings.dir, settings.budget_bytes)
    tracer = daemon.Tracer(settings, spool)
    if tracer.events is None:
        tracer.release()
        spool.close()
        pytest.skip("no kernel events here")
    tracer.take_sample()

    def fail(*_arguments):
        raise OSError(5, "ring is broken")

    monkeypatch.setattr(tracer.events, "read", fail)
    tracer.take_sample()
    assert tracer.events is None
    tracer.close(clocks.now())
    tracer.release()
    spool.close()
    (segment,) = read_all(settings.dir)
    assert segment.header.samples == 2
    (gap,) = [gap for gap in segment.tables[Gap] if gap.source == "events"]
    assert gap.reason == "failed"
    assert "ring is broken" in gap.detail


@pytest.mark.root
def test_in_a_container_tracefs_alone_leaves_samples_and_the_segment_says_so(trace, folder):
    """Where events cannot be used, each segment carries a gap that says what is missed."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no right to make pid namespaces")
    words = ["run", "--for", "1", "--period", "0.5", "--sources", "tracefs,table", "--dir", folder]
    subprocess.run([*inside, *trace, *words], check=True)
    (gap,) = [gap for gap in rows(folder, Gap) if gap.source == "events"]
    assert (gap.reason, "samples alone" in gap.detail) == ("unsupported", True)
    assert read_all(folder)[0].header.samples >= 2


@pytest.mark.root
@pytest.mark.parametrize("sources", ["events,table", "tracefs,table"])
def test_what_is_told_after_the_last_sample_is_written(tmp_path, sources):
    """A connection that ends between a segment's opening and the tracer's end is told, although no sample was taken."""
    settings = make_settings({"memory_bytes": 1 << 40}, {"dir": str(tmp_path / "t"), "sources": sources})
    spool = open_spool(settings.dir, settings.budget_bytes)
    tracer = daemon.Tracer(settings, spool)
    try:
        if tracer.events is None:
            pytest.skip("no kernel events here")
        tracer.take_sample()
        tracer.rotate(clocks.now())
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()
        tracer.take_last()
        tracer.close(clocks.now())
    finally:
        tracer.release()
        spool.close()
    first, last = read_all(settings.dir)
    assert (first.header.samples, last.header.samples) == (1, 0)
    found = [row for row in last.tables[SocketRecord] if port in (row.local_port, row.remote_port) and row.remote_port]
    assert len(found) == 2
