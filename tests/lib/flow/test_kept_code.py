# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled code that is kept: it is run, so whose it is and what is in it must be right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whoneeds.flow import meter_capture
from whoneeds.flow.compiled.kept import place_of, read_code, write_code

_CODE = b"not really code, which does not matter here"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where code is kept, in a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = place_of("any processor")
    assert found is not None
    return found


def test_later_start_does_without_numba():
    """A start that finds compiled code does not load what compiles."""
    capture = bytes.fromhex("d4c3b2a1") + bytes(21)
    list(meter_capture([capture]))  # compiles, if nobody did before
    program = (
        f"import sys; from whoneeds.flow import meter_capture; list(meter_capture([{capture!r}]));"
        "print(sorted({'numba', 'llvmlite'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.strip() == "['llvmlite']"


def test_kept_code_is_read_again(place):
    """Code that was kept is what is read."""
    write_code(place, _CODE)
    assert read_code(place) == _CODE
    assert place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [slice(0, 1), slice(40, 41), slice(-1, None)], ids=["digest", "code", "end"])
def test_damaged_code_is_not_run(place, damage):
    """Code of which a byte is lost is not taken."""
    write_code(place, _CODE)
    content = bytearray(place.read_bytes())
    del content[damage]
    place.write_bytes(content)
    assert read_code(place) is None


def test_code_that_others_may_write_is_not_run(place):
    """A file that others could have written is not taken, nor a link to one."""
    write_code(place, _CODE)
    place.chmod(0o622)
    assert read_code(place) is None
    place.chmod(0o600)
    moved = place.rename(place.with_name("elsewhere"))
    place.symlink_to(moved)
    assert read_code(place) is None


@pytest.mark.parametrize("depth", [0, 1], ids=["folder", "parent"])
def test_folder_that_others_may_write_is_not_used(place, depth):
    """Where others may put files, none is kept."""
    place.parents[depth].chmod(0o777)
    assert place_of("any processor") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_code_of_somebody_else_is_not_run(place):
    """A file of another user is not taken, even by root."""
    write_code(place, _CODE)
    os.chown(place, 12345, -1)
    assert read_code(place) is None


def test_place_depends_on_the_processor(place):
    """Code for one processor is not looked for on another."""
    assert place_of("another processor") != place


def test_only_what_was_used_last_is_kept(place):
    """Code of sources that nobody uses any more is removed, what was used lately is not."""
    names = [place.with_stem(f"{number:032x}") for number in range(6)]
    for age, one in enumerate(names):
        write_code(one, _CODE)
        os.utime(one, ns=(10**18 + age, 10**18 + age))
    assert read_code(names[2]) == _CODE  # that is a use
    write_code(place, _CODE)
    assert sorted(place.parent.iterdir()) == sorted([names[2], names[4], names[5], place])
