# SPDX-License-Identifier: GPL-3.0-or-later
"""Handing a tracer's directory over, with what a hostile owner of it may have prepared."""

from __future__ import annotations

import os

import pytest
from ansible_collections.whoneeds.discovery.plugins.modules import tracer_owner

NOBODY = 65534
pytestmark = pytest.mark.root


@pytest.fixture
def folder(tmp_path):
    """A tracer's directory with a segment, which belongs to somebody without rights."""
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    path = tmp_path / "whoneeds"
    (path / "segments").mkdir(parents=True)
    (path / "status.json").write_text("{}")
    (path / "segments" / "1.seg").write_text("seen")
    for place in (path, *path.rglob("*")):
        os.chown(place, NOBODY, NOBODY)
    return path


def hand_over(path, uid):
    """Do what the module does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tracer_owner.hand_over(descriptor, uid, uid)
    finally:
        os.close(descriptor)


def owners(path):
    """Owners of the directory and of everything in it, links not followed."""
    return {place.lstat().st_uid for place in (path, *path.rglob("*"))}


@pytest.mark.parametrize("uid", [0, 1234])
def test_everything_that_a_tracer_makes_is_handed_over_and_kept(folder, uid):
    """Directory, state and segments belong to the new owner, with what was in them, and to nobody else."""
    assert hand_over(folder, uid) == []
    assert owners(folder) == {uid}
    assert (folder / "segments" / "1.seg").read_text() == "seen"
    assert {place.stat().st_mode & 0o777 for place in (folder, folder / "segments")} == {0o700}


def test_links_and_second_names_lead_to_no_file_elsewhere(tmp_path, folder):
    """A file outside keeps its owner, although links and a second name in the directory lead to it."""
    outside = tmp_path / "shadow"
    outside.write_text("secret")
    for name in ("soft.seg", "segments/soft.seg"):
        (folder / name).symlink_to(outside)
    for name in ("hard.seg", "segments/hard.seg"):
        os.link(outside, folder / name)
    (folder / "away").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "segments" / "fifo.seg")
    removed = hand_over(folder, NOBODY)
    assert sorted(removed) == [
        "away", "hard.seg", "segments/fifo.seg", "segments/hard.seg", "segments/soft.seg", "soft.seg",
    ]  # fmt: skip
    assert (outside.stat().st_uid, outside.read_text()) == (0, "secret")
    assert tmp_path.stat().st_uid == 0
    assert owners(folder) == {NOBODY}


def test_folders_in_folders_are_refused(folder):
    """A directory that is deeper than any that a tracer makes is not walked into."""
    (folder / "segments" / "deeper").mkdir()
    with pytest.raises(OSError, match="a folder in a folder"):
        hand_over(folder, NOBODY)


def test_the_old_owner_is_shut_out_before_anything_is_looked_at(folder, monkeypatch):
    """While names are listed the directory is root's alone, so that its old owner changes none of them."""
    seen = []
    listing = os.listdir

    def listed(descriptor):
        found = os.fstat(descriptor)
        seen.append((found.st_uid, found.st_mode & 0o777))
        return listing(descriptor)

    monkeypatch.setattr(tracer_owner.os, "listdir", listed)
    hand_over(folder, NOBODY)
    assert seen == [(0, 0o700), (0, 0o700)]
