# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of a real tracer: begin one, wait for it, read what it wrote."""

import contextlib
import json
import subprocess
import time
from pathlib import Path

from whoneeds.segment.read import read_segment


def read_all(folder):
    """All segments of a tracer's folder, oldest first."""
    return [read_segment(str(path)) for path in sorted((Path(folder) / "segments").glob("*.seg"))]


def rows(folder, record):
    """All rows of a table in a tracer's folder."""
    return [row for segment in read_all(folder) for row in segment.tables[record]]


def status(trace, folder):
    """What `trace status` says."""
    answer = subprocess.run(
        [*trace, "status", "--dir", str(folder), "--format", "json"], capture_output=True, text=True, check=False
    )
    return json.loads(answer.stdout)


def wait_for(condition, seconds=15.0):
    """Wait until something is true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@contextlib.contextmanager
def running(trace, folder, *options):
    """A tracer in the foreground that has taken its first sample."""
    with subprocess.Popen(
        [*trace, "run", "--dir", folder, *options], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            wait_for(lambda: _samples(folder, process.pid))
            yield process
        finally:
            process.kill()


def _samples(folder, pid):
    try:
        document = json.loads((Path(folder) / "status.json").read_text())
    except (OSError, ValueError):
        return 0
    return document["samples"] if document["pid"] == pid and document["state"] == "running" else 0
