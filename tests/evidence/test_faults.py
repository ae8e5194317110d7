# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that takes nothing and a /proc that shows nothing: `trace status` says what to do, and then it goes on."""

import itertools
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.evidence.stage import wait_for
from whoneeds.model.evidence import Gap, SocketRecord
from whoneeds.segment.read import read_segment

pytestmark = pytest.mark.root
#: A segment every second, each with a sample or two.
_QUICK = {"period_s": 0.5, "rotate_s": 1.0, "rotate_bytes": 1024, "packets": "off"}
_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


@pytest.fixture
def disk(stage):
    """A small file system where the tracer of this machine writes."""
    place = stage.folder / "trace-here"
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "whoneeds-test", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def segments(folder):
    """All segments in a tracer's folder."""
    return [read_segment(str(path)) for path in sorted((folder / "segments").glob("*.seg"))]


def problems(tracer):
    """What `trace status` says is wrong, as people read it."""
    said = tracer.run("status").splitlines()
    return [line.partition(" ")[2].strip() for line in said if line.startswith("problem ")]


def held_up(tracer, repair):
    """Let the disk be unusable for some segments, then usable; what was said of it, and how many came afterwards."""
    before = len(segments(tracer.folder))
    time.sleep(3.5)
    assert len(segments(tracer.folder)) == before
    said = problems(tracer)
    repair()
    wait_for(lambda: len(segments(tracer.folder)) >= before + 3, "segments that had to wait")
    assert problems(tracer) == []
    tracer.stop()
    return said


def assert_nothing_lost(folder):
    """Each segment begins where the one before ended, and none tells of a loss."""
    found = [segment.header for segment in segments(folder)]
    assert all(a.closed_mono_ns == b.opened_mono_ns for a, b in itertools.pairwise(found))
    assert not [gap for segment in segments(folder) for gap in segment.tables[Gap] if gap.source == "spool"]


def test_a_full_disk(stage, disk):
    """On a full disk status says so and what to do, and with room again all segments of that time are there."""
    tracer = stage.trace(**_QUICK).await_first_sample()
    wait_for(lambda: segments(disk), "segment")
    with pytest.raises(OSError, match="No space"):
        (disk / "ballast").write_bytes(bytes(2 << 20))
    (said,) = held_up(tracer, (disk / "ballast").unlink)
    assert "is full" in said
    assert "make room, and it goes on by itself" in said
    assert_nothing_lost(disk)


def test_a_read_only_disk(stage, disk):
    """On a disk that became read-only status says so and what to do, and later all segments of that time are there."""
    tracer = stage.trace(**_QUICK).await_first_sample()
    wait_for(lambda: segments(disk), "segment")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    (said,) = held_up(tracer, lambda: subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True))
    assert "is read-only" in said
    assert "mount it writable, and it goes on by itself" in said
    assert_nothing_lost(disk)


@pytest.fixture
def for_everybody(stage):
    """A host, and on it the tracer for a user without rights: where it lies, and a folder that this user may write."""
    place = Path(tempfile.mkdtemp(prefix="whoneeds-test-"))
    place.chmod(0o755)
    shutil.copy(stage.pyz, place)
    shutil.chown(_make(place / "trace"), 65534, 65534)
    yield stage.host("shy1"), place
    shutil.rmtree(place)


def _make(folder):
    folder.mkdir()
    return folder


def python_for_everybody():
    """A Python that every user can run, or None."""
    return next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), None)


def test_a_proc_that_hides_others(stage, for_everybody):
    """Without rights, on a /proc that hides others, status says what is needed, and so does the segment."""
    python = python_for_everybody()
    if python is None:
        pytest.skip("no Python that another user can run")
    host, place = for_everybody
    server = stage.start("hiddend", host)
    port = server.tell("listen", "127.0.0.1")
    host.run("mount", "-o", "remount,hidepid=2", "/proc")
    words = host.command(*_NOBODY, python, "-I", "-S", str(place / "whoneeds.pyz"), "trace")
    folder = ["--dir", str(place / "trace")]
    with subprocess.Popen([*words, "run", *folder, "--period", "0.5"], stderr=subprocess.DEVNULL) as tracer:
        status = [*words, "status", *folder]
        said = wait_for(lambda: _output(status) if "problem" in _output(status) else "", "problem")
        subprocess.run([*words, "stop", *folder], check=True, stdout=subprocess.DEVNULL)
        tracer.wait(20)
    assert "may not look into processes of other users" in said
    assert "run it as root" in said
    (segment,) = segments(place / "trace")
    (listener,) = [row for row in segment.tables[SocketRecord] if row.local_port == port]
    assert listener.process_id is None
    assert "permission" in {gap.reason for gap in segment.tables[Gap] if gap.source == "owners"}


def _output(words):
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


def test_a_proc_that_shows_nothing(stage):
    """While /proc shows nothing status says so and what to do, and afterwards processes have names again."""
    host = stage.host("blind1")
    server = stage.start("blindd", host)
    port = server.tell("listen", "127.0.0.1")
    tracer = stage.trace(host, sources=["table"], **_QUICK).await_first_sample()
    host.run("mount", "-t", "tmpfs", "whoneeds-test", "/proc")
    said = wait_for(lambda: len(problems(tracer)) > 1 and problems(tracer), "problem")
    assert "mount /proc, without hidepid, and it goes on by itself" in said[0]
    assert "/proc cannot be read from here" in said[1]
    assert tracer.run("status").startswith("state               running")
    blind = len(segments(tracer.folder))
    wait_for(lambda: len(segments(tracer.folder)) > blind + 1, "segment without processes")
    host.run("umount", "/proc")
    wait_for(lambda: not problems(tracer), "end of the problem")
    tracer.stop()
    owners = [
        row.process_id is not None
        for segment in segments(tracer.folder)
        for row in segment.tables[SocketRecord]
        if row.local_port == port
    ]
    assert owners[0]
    assert False in owners
    assert owners[-1]
