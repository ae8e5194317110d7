# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed tracer through its program, with small real programs in its place."""

from __future__ import annotations

import json
import sys

import pytest
from ansible_collections.whoneeds.discovery.plugins.module_utils import _tracer


@pytest.fixture
def program(tmp_path):
    """Writes a program that stands where the zipapp does, and returns its path."""

    def write(text):
        path = tmp_path / "whoneeds.pyz"
        path.write_text(text)
        return str(path)

    return write


def test_its_answer_is_returned(program):
    """The words reach the program behind the verb of the tracer, and its output comes back."""
    zipapp = program("import sys; print(sys.argv[1:])")
    assert (
        _tracer.run_tracer(sys.executable, zipapp, ["stop", "--dir", "/x y"]) == b"['trace', 'stop', '--dir', '/x y']\n"
    )


def test_its_refusal_is_an_error_with_its_words(program):
    """An exit code that was not expected raises with the verb, the code and what was said."""
    zipapp = program("import sys; sys.exit('no room')")
    with pytest.raises(_tracer.TracerError, match="trace start failed with exit code 1: no room"):
        _tracer.run_tracer(sys.executable, zipapp, ["start"])
    with pytest.raises(_tracer.TracerError, match="nowhere"):
        _tracer.run_tracer("/nowhere/python3", zipapp, ["start"])


def test_the_status_must_be_json(program, tmp_path):
    """What is no JSON is an error, what is no object is nothing, and where nothing is installed nothing is asked."""
    directory = str(tmp_path)
    assert _tracer.read_status(sys.executable, str(tmp_path / "none"), directory) == {}
    assert _tracer.read_status(sys.executable, program("print('[1]')"), directory) == {}
    document = {"state": "failed"}
    zipapp = program(f"import sys; print({json.dumps(document)!r}); sys.exit(1)")
    assert _tracer.read_status(sys.executable, zipapp, directory) == document
    with pytest.raises(_tracer.TracerError, match="expected JSON, found b'oops"):
        _tracer.read_status(sys.executable, program("print('oops')"), directory)


@pytest.mark.parametrize(
    ("status", "running"),
    [
        ({}, False),
        ({"state": "stopped"}, False),
        ({"state": "running"}, True),
        ({"state": "failed", "supervised": True}, True),
        ({"supervised": "yes"}, False),
    ],
)
def test_a_supervised_tracer_counts_as_running(status, running):
    """A tracer that died and is about to be started again is one that runs."""
    assert _tracer.is_running(status) is running


def test_foreign_files_are_found(tmp_path):
    """Everything that no tracer makes is named by its whole path, and a folder that is missing holds nothing."""
    for name in (
        "segments",
        "status.json",
        "tracer.lock",
        "dropped",
        "whoneeds.pyz",
        ".x.tmp",
        "thesis.txt",
        "status.json.bak",
    ):
        (tmp_path / name).write_text("")
    expected = [str(tmp_path / "status.json.bak"), str(tmp_path / "thesis.txt")]
    assert _tracer.foreign_names(str(tmp_path), str(tmp_path), "/nowhere") == expected
