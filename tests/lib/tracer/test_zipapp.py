# SPDX-License-Identifier: GPL-3.0-or-later
"""The one file that goes to hosts is always the same bytes, and needs Python 3.9 and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import LIBRARY


def test_the_same_sources_are_the_same_bytes(pyz, tmp_path):
    """A second build is byte for byte the first one."""
    again = tmp_path / "again.pyz"
    subprocess.run([sys.executable, str(LIBRARY / "build_zipapp.py"), "--out", str(again)], check=True, stdout=-1)
    assert again.read_bytes() == pyz.read_bytes()


def test_only_the_rooms_of_hosts_are_in_it(pyz):
    """The archive holds the rooms model, segment and tracer, and nothing of the controller."""
    names = zipfile.ZipFile(pyz).namelist()
    rooms = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert rooms == {"model", "segment", "tracer"}
    assert all(name.endswith(".py") for name in names)


@pytest.mark.parametrize("verb", [[], ["once"], ["run"], ["start"], ["stop"], ["status"]])
def test_every_verb_has_help_with_examples(trace, verb):
    """Every verb explains itself under --help, with examples."""
    answer = subprocess.run([*trace, *verb, "--help"], capture_output=True, text=True, check=True)
    assert "usage: whoneeds trace" in answer.stdout
    assert not verb or f"whoneeds trace {verb[0]}" in answer.stdout.partition("examples:")[2]


def test_an_old_python_is_told_so(pyz):
    """A Python that is too old gets one line that says what is needed and what was found."""
    old = sorted(Path.home().glob(".pyenv/versions/3.[678].*/bin/python"))
    if not old:
        pytest.skip("no Python older than 3.9 on this machine")
    for python in old:
        answer = subprocess.run([python, str(pyz), "trace", "once"], capture_output=True, text=True, check=False)
        assert answer.returncode == 1
        assert "needs Python 3.9 or newer; found 3." in answer.stderr
        assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["trace"], ["trace", "twice"], ["trace", "run", "--period", "x"], []])
def test_wrong_usage_is_exit_code_2(python39, pyz, words):
    """Words that are no command end with exit code 2 and the usage on stderr."""
    answer = subprocess.run([python39, "-I", "-S", str(pyz), *words], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "usage:" in answer.stderr
