# SPDX-License-Identifier: GPL-3.0-or-later
"""A tracer's folder of segments through real descriptors of real files."""

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.whoneeds.discovery.plugins.module_utils import _segments


@pytest.fixture
def folder(tmp_path):
    """A folder of segments and its descriptor."""
    path = tmp_path / "segments"
    path.mkdir()
    descriptor = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    yield path, descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    "name",
    [
        "../x.seg",
        "a/b.seg",
        ".x.seg",
        "-x.seg",
        "x.seg\n",
        "x.tmp",
        "x y.seg",
        "\u00fc.seg",
        "x" * 200 + ".seg",
        ".seg",
    ],
)
def test_names_that_no_tracer_makes_are_not_opened(folder, name):
    """A name with a path, a leading dot or dash, or foreign characters is no segment, whatever lies under it."""
    assert _segments.open_segment(folder[1], name) is None


def test_links_fifos_and_folders_are_no_segments(folder):
    """Only a regular file is opened, and a FIFO does not make the caller wait."""
    path, descriptor = folder
    (path / "real.seg").write_bytes(b"x" * 100)
    (path / "link.seg").symlink_to(path / "real.seg")
    (path / "folder.seg").mkdir()
    os.mkfifo(str(path / "fifo.seg"))
    assert [found["name"] for found in _segments.list_segments(descriptor, 10)[0]] == ["real.seg"]


def test_a_second_name_of_a_file_elsewhere_is_no_segment(tmp_path, folder):
    """A hard link under a segment's name, by which root could be made to read what others may not, is not opened."""
    path, descriptor = folder
    (tmp_path / "shadow").write_bytes(b"secret" * 20)
    os.link(str(tmp_path / "shadow"), str(path / "1.seg"))
    assert _segments.list_segments(descriptor, 10)[0] == []
    (tmp_path / "shadow").unlink()
    assert [found["name"] for found in _segments.list_segments(descriptor, 10)[0]] == ["1.seg"]


def test_the_oldest_are_listed_first_and_the_rest_is_counted(folder):
    """A list is cut at its limit, keeps the oldest, and says how many more there are."""
    path, descriptor = folder
    for order in (3, 1, 2):
        (path / f"{order:020d}.seg").write_bytes(b"x" * 64)
    listed, more = _segments.list_segments(descriptor, 2)
    assert [int(found["name"][:20]) for found in listed] == [1, 2]
    assert more == 1


def test_the_digest_is_the_files_end(folder):
    """The digest that is told of a segment is its last 32 bytes, and a shorter file has none."""
    path, descriptor = folder
    trailer = hashlib.sha256(b"body").digest()
    (path / "a.seg").write_bytes(b"body" + trailer)
    (path / "b.seg").write_bytes(b"x" * 31)
    assert [found["digest"] for found in _segments.list_segments(descriptor, 9)[0]] == [trailer.hex(), None]
    assert _segments.holds_digest(descriptor, "a.seg", trailer.hex())
    assert not _segments.holds_digest(descriptor, "a.seg", "0" * 64)
    assert not _segments.holds_digest(descriptor, "c.seg", trailer.hex())


@pytest.mark.parametrize(
    ("offset", "length", "expected"), [(0, 4, b"0123"), (8, 4, b"89"), (10, 4, b""), (99, 1, b""), (3, 0, b"")]
)
def test_pieces_never_exceed_file_or_wish(folder, offset, length, expected):
    """A piece ends where the wish or the file ends."""
    path, descriptor = folder
    (path / "a.seg").write_bytes(b"0123456789")
    assert _segments.read_piece(descriptor, "a.seg", offset, length) == expected


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    """A folder of segments that is a symbolic link is an error, and none at all is none."""
    assert _segments.open_folder(str(tmp_path / "nowhere")) is None
    assert _segments.open_folder(str(tmp_path)) is None
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "segments").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):  # noqa: PT011 the kernel chooses between two errors
        _segments.open_folder(str(tmp_path))
