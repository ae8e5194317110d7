# SPDX-License-Identifier: GPL-3.0-or-later
"""The library as a program: real interpreters with small programs in its place."""

from __future__ import annotations

import sys

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.whoneeds.discovery.plugins.plugin_utils import _library, _this_host


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Writes a package that stands in the library's place for every interpreter that is started."""

    def write(main):
        package = tmp_path / "whoneeds"
        package.mkdir()
        (package / "__init__.py").write_text("__version__ = '0'\n")
        (package / "__main__.py").write_text(main)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


def test_document_and_log_come_back(library):
    """The verb's words, its document, its exit code for a part and its log reach the caller."""
    library("import json, sys; sys.stderr.write('said\\n'); print(json.dumps({'words': sys.argv[1:]})); sys.exit(4)")
    code, document, log = _library.run_verb(sys.executable, ["facts", "--out", "a b"], 60)
    assert (code, document, log) == (4, {"words": ["facts", "--out", "a b", "--format", "json"]}, "said\n")


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ("import sys; sys.exit('it broke')", "whoneeds run failed with exit code 1: it broke"),
        ("print('no json')", "expected one JSON document, found b'no json"),
        ("print('[1]')", "expected a JSON object"),
        ("import time; time.sleep(60)", "timeout_s=1"),
    ],
)
def test_a_bad_end_is_an_error_with_its_reason(library, main, words):
    """A failure, an answer of another kind and a program that never ends are told apart."""
    library(main)
    with pytest.raises(AnsibleActionFail) as failure:
        _library.run_verb(sys.executable, ["run"], 1 if "sleep" in main else 60)
    assert words in str(failure.value)


def test_a_missing_library_says_how_to_get_it(tmp_path, monkeypatch):
    """An interpreter without the library, and none at all, name the option and the variable that choose another."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "whoneeds.py").write_text("raise ImportError('no such thing here')")
    for python in (sys.executable, "/nowhere/python3"):
        with pytest.raises(AnsibleActionFail) as failure:
            _library.run_verb(python, ["run"], 60)
        for words in (python, "pip install", "WHONEEDS_PYTHON"):
            assert words in str(failure.value)


def test_the_interpreter_is_chosen_in_order(monkeypatch):
    """The task's option goes before the environment variable, and that before Ansible's own interpreter."""
    monkeypatch.delenv("WHONEEDS_PYTHON", raising=False)
    assert _library.choose_python(None) == sys.executable
    monkeypatch.setenv("WHONEEDS_PYTHON", "/usr/bin/python3")
    assert _library.choose_python("") == "/usr/bin/python3"
    assert _library.choose_python("/opt/python3") == "/opt/python3"


KNOWN = {"groups": {"all": ["web1", "../web2"]}}


def test_the_name_is_the_inventorys():
    """A host of the inventory and the controller itself have the names that the inventory gives them."""
    assert _this_host.inventory_name(dict(KNOWN, inventory_hostname="web1")) == "web1"
    assert _this_host.inventory_name(dict(KNOWN, inventory_hostname="localhost")) == "localhost"


@pytest.mark.parametrize(
    ("task_vars", "words"),
    [
        ({"inventory_hostname": "db1"}, "not in the inventory"),
        ({"inventory_hostname": "../web2"}, "cannot be used"),
        ({}, "cannot be used"),
        ({"inventory_hostname": "web1", "ansible_facts": {"inventory_hostname": "web1"}}, "pass for another host"),
    ],
)
def test_a_name_that_cannot_be_believed_is_refused(task_vars, words):
    """Unknown names, paths, no name, and a fact that would like to be the name are refused."""
    with pytest.raises(AnsibleActionFail) as failure:
        _this_host.inventory_name(dict(KNOWN, **task_vars))
    assert words in str(failure.value)
