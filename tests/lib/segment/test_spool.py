# SPDX-License-Identifier: GPL-3.0-or-later
"""A spool keeps its budget, forgets nothing that it committed, and trusts no folder that others can change."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import segments

from whoneeds.model.errors import Busy, SettingsError
from whoneeds.segment import spool as spool_module
from whoneeds.segment.read import read_segment
from whoneeds.segment.spool import open_spool, spool_usage

GENEROUS = 1 << 30


def names(folder):
    """File names of the segments in a spool's folder, oldest first."""
    return sorted(path.name for path in (folder / "segments").iterdir() if path.suffix == ".seg")


@pytest.fixture
def folder(tmp_path):
    """A folder that is not there yet."""
    return tmp_path / "state" / "whoneeds"


def test_segments_are_committed_readable_and_private(folder):
    """A segment put into a spool is a readable file of mode 0600 in folders of mode 0700."""
    spool = open_spool(str(folder), GENEROUS)
    size = spool.put(segments.header(), segments.tables())
    assert spool.usage() == (1, size, 0)
    spool.close()
    (path,) = (folder / "segments").glob("*.seg")
    assert read_segment(str(path)).header == segments.header()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [place.stat().st_mode & 0o777 for place in (folder, folder / "segments")] == [0o700, 0o700]


def test_the_oldest_go_first_and_are_counted_over_restarts(folder):
    """Over budget the oldest segments are dropped; what is on disk never exceeds it; the count survives a restart."""
    size = 0
    for number in range(1, 9):
        spool = open_spool(str(folder), 4 * size if size else GENEROUS)
        size = max(size, spool.put(segments.header(number), segments.tables()))
        assert spool.usage().bytes <= (4 * size if number > 1 else GENEROUS)
        spool.close()
    kept = names(folder)
    assert kept == sorted(kept)
    assert len(kept) + spool_usage(str(folder)).dropped == 8
    assert spool_usage(str(folder)).dropped >= 4
    assert read_segment(str(folder / "segments" / kept[-1])).header.sequence == 8


def test_a_segment_larger_than_the_budget_is_counted_as_lost(folder):
    """A segment that alone exceeds the budget pushes nothing out; it is counted and not written."""
    spool = open_spool(str(folder), 3000)
    spool.put(segments.header(1), segments.tables())
    spool.put(segments.header(2), segments.tables(500))
    assert (spool.lost_segments, spool.waiting, len(names(folder))) == (1, 0, 1)
    spool.close()


def test_collected_segments_are_not_counted_as_dropped(folder):
    """A segment that the collector removed is no loss."""
    spool = open_spool(str(folder), GENEROUS)
    spool.put(segments.header(1), segments.tables())
    (folder / "segments" / names(folder)[0]).unlink()
    spool.put(segments.header(2), segments.tables())
    spool.close()
    assert spool_usage(str(folder))[::2] == (1, 0)


def test_what_a_dead_writer_left_is_removed(folder):
    """Half-written files of an earlier tracer are gone after the start; segments and foreign files are not."""
    open_spool(str(folder), GENEROUS).close()
    half = folder / "segments" / ".0001-x.seg.77.tmp"
    half.write_bytes(b"whoneeds-segment 1\n")
    foreign = folder / "segments" / "notes.txt"
    foreign.write_text("mine")
    open_spool(str(folder), GENEROUS).close()
    assert not half.exists()
    assert foreign.read_text() == "mine"


def test_one_writer_a_folder(folder):
    """A second writer is refused, and told who the first one is and what to do."""
    first = open_spool(str(folder), GENEROUS)
    with pytest.raises(Busy) as caught:
        open_spool(str(folder), GENEROUS)
    assert str(os.getpid()) in str(caught.value)
    assert "trace stop" in str(caught.value)
    first.close()
    open_spool(str(folder), GENEROUS).close()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_folder_that_others_may_change_is_refused(folder, mode):
    """A folder or subfolder that group or others may write into is refused, with what to do."""
    for place in (folder, folder / "segments"):
        open_spool(str(folder), GENEROUS).close()
        place.chmod(mode)
        with pytest.raises(SettingsError, match="chmod 0700"):
            open_spool(str(folder), GENEROUS)
        place.chmod(0o700)


def test_a_link_is_no_folder(tmp_path, folder):
    """A folder that is a symbolic link is refused, wherever it leads."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="not a link"):
        open_spool(str(folder), GENEROUS)


@pytest.mark.root
def test_a_folder_of_somebody_else_is_refused(folder):
    """A folder that belongs to another user is refused."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a folder away")
    open_spool(str(folder), GENEROUS).close()
    os.chown(folder, 65534, 65534)
    with pytest.raises(SettingsError, match="owner 65534"):
        open_spool(str(folder), GENEROUS)


@pytest.mark.root
def test_root_may_look_into_a_folder_of_another_user_and_not_write_there(folder):
    """What lies in a folder of a user without privilege is told to root, unless others may write into it too."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a folder away")
    spool = open_spool(str(folder), GENEROUS)
    spool.put(segments.header(1), segments.tables())
    spool.close()
    for place in (folder, folder / "segments"):
        os.chown(place, 65534, 65534)
    assert spool_usage(str(folder)).segments == 1
    with pytest.raises(SettingsError, match="owner 65534"):
        open_spool(str(folder), GENEROUS)
    (folder / "segments").chmod(0o770)
    with pytest.raises(SettingsError, match="mode 0770"):
        spool_usage(str(folder))


def test_prepared_links_are_not_followed(tmp_path, folder):
    """A link in the place of the lock or the counter does not lead the tracer to another file."""
    target = tmp_path / "target"
    target.write_text("precious")
    for name in ("tracer.lock", "dropped"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
        with contextlib.suppress(OSError, SettingsError):
            spool = open_spool(str(folder), 2000)
            for number in range(1, 9):
                spool.put(segments.header(number), segments.tables())
            spool.close()
        assert target.read_text() == "precious"
        (folder / name).unlink()


@pytest.fixture
def small_disk(folder):
    """A disk of 256 KiB of its own under the folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "whoneeds-test", str(folder)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path):
    """Write into a file until the disk takes not one byte more."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, b"x" * size)
    finally:
        os.close(descriptor)


@pytest.mark.root
def test_a_full_disk_loses_nothing_for_a_while_and_recovers_by_itself(small_disk):
    """While the disk is full segments wait in memory; as soon as there is room they are all committed."""
    spool = open_spool(str(small_disk), GENEROUS)
    fill(small_disk / "ballast")
    for number in range(1, 4):
        spool.put(segments.header(number), segments.tables(200))
    assert spool.waiting == 3
    assert list((small_disk / "segments").iterdir()) == []
    (small_disk / "ballast").unlink()
    assert spool.flush()
    assert (spool.waiting, spool.lost_segments, len(names(small_disk))) == (0, 0, 3)
    spool.close()


@pytest.mark.root
def test_a_disk_that_stays_full_costs_the_oldest_uncommitted(small_disk, monkeypatch):
    """What memory cannot hold while the disk is full is dropped, oldest first, and counted."""
    monkeypatch.setattr(spool_module, "_WAITING_BYTES", 20_000)
    spool = open_spool(str(small_disk), GENEROUS)
    fill(small_disk / "ballast")
    sizes = [spool.put(segments.header(number), segments.tables(200)) for number in range(1, 9)]
    assert spool.lost_segments > 0
    assert spool.lost_segments + spool.waiting == 8
    assert spool.waiting * min(sizes) <= 20_000
    (small_disk / "ballast").unlink()
    assert spool.flush()
    assert len(names(small_disk)) == 8 - spool.lost_segments
    assert read_segment(str(small_disk / "segments" / names(small_disk)[-1])).header.sequence == 8
    spool.close()


WRITER = """
import sys
sys.path[:0] = [{tests!r}, {source!r}]
import segments
from whoneeds.segment.spool import open_spool
spool = open_spool({folder!r}, 1 << 30)
number = {first}
while True:
    number += 1
    spool.put(segments.header(number), segments.tables(40))
    print(number, flush=True)
"""


def test_killed_at_any_moment_it_loses_no_committed_segment(folder):
    """Whenever the writer is killed, every segment that it said was committed is there and readable, once."""
    seeded = random.Random(7)
    told: list[int] = []
    source = str(Path(spool_module.__file__).parents[2])
    for _ in range(15):
        program = WRITER.format(
            tests=str(Path(__file__).parent), source=source, folder=str(folder), first=max(told, default=0) + 100
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
            told.append(int(writer.stdout.readline()))
            time.sleep(seeded.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout if line.endswith("\n")]
    open_spool(str(folder), GENEROUS).close()
    found = [read_segment(str(path)).header.sequence for path in (folder / "segments").iterdir()]
    assert len(set(found)) == len(found)
    assert set(told) <= set(found)


def capture_names(folder):
    """File names of the capture files in a spool's folder, oldest first."""
    return sorted(path.name for path in (folder / "segments").iterdir() if path.suffix == ".pcap")


def test_a_capture_file_lies_beside_its_segment_and_counts_with_it(folder):
    """A capture file has the segment's name, is as private, and its bytes count against the budget."""
    spool = open_spool(str(folder), GENEROUS)
    size = spool.put(segments.header(), segments.tables(), capture=b"packets")
    assert spool.usage() == (1, size + 7, 0)
    spool.close()
    (name,) = names(folder)
    assert capture_names(folder) == [name.replace(".seg", ".pcap")]
    path = folder / "segments" / capture_names(folder)[0]
    assert path.read_bytes() == b"packets"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_capture_file_goes_with_its_segment(folder):
    """What the budget pushes out is a segment with its capture file, and the two together are within it."""
    capture = bytes(4000)
    spool = open_spool(str(folder), 3 * 4000 + 4000)
    for number in range(1, 9):
        spool.put(segments.header(number), segments.tables(), capture=capture)
        assert sum(path.stat().st_size for path in (folder / "segments").iterdir()) <= 16_000
    spool.close()
    assert [name.replace(".seg", ".pcap") for name in names(folder)] == capture_names(folder)
    assert len(names(folder)) + spool_usage(str(folder)).dropped == 8


def test_a_segment_is_never_there_before_its_capture_file(folder, monkeypatch):
    """The capture file is committed before the segment that names it, and dropped after it."""
    spool = open_spool(str(folder), 6000)
    steps = []
    commit, unlink = spool_module.commit_file, os.unlink

    def watch_commit(directory, name, pieces):
        steps.append(("+", name.rpartition(".")[2]))
        commit(directory, name, pieces)

    def watch_unlink(name, *, dir_fd):
        steps.append(("-", name.rpartition(".")[2]))
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(spool_module, "commit_file", watch_commit)
    monkeypatch.setattr(spool_module.os, "unlink", watch_unlink)
    for number in (1, 2):
        spool.put(segments.header(number), segments.tables(), capture=bytes(4000))
    spool.close()
    assert steps == [("+", "pcap"), ("+", "seg"), ("-", "seg"), ("-", "pcap"), ("+", "pcap"), ("+", "seg")]


def test_a_capture_file_without_a_segment_is_removed_by_the_next_writer(folder):
    """What a writer left that died between a capture file and its segment is gone when the next one begins."""
    spool = open_spool(str(folder), GENEROUS)
    spool.put(segments.header(1), segments.tables(), capture=b"kept")
    spool.close()
    (folder / "segments" / "00000000000000000001-0b0e7bb0-1.pcap").write_bytes(b"left")
    open_spool(str(folder), GENEROUS).close()
    assert [name.replace(".seg", ".pcap") for name in names(folder)] == capture_names(folder)


def test_what_a_living_supervisor_is_writing_stays(folder):
    """Opening a folder removes what dead writers left half-written, and nothing that another living process writes."""
    open_spool(str(folder), GENEROUS).close()
    dead = subprocess.Popen(["true"])
    dead.wait()
    living, left = (folder / f".supervisor.json.{pid}.tmp" for pid in (os.getppid(), dead.pid))
    for path in (living, left):
        path.write_bytes(b"{")
    open_spool(str(folder), GENEROUS).close()
    assert living.exists()
    assert not left.exists()
