# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input: a clear error that says what was expected, what was found and what to do."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from whoneeds.store.session import open_store


def assert_explained(done, code, *parts):
    """The command failed with a code, an explanation and no traceback, and answered nothing."""
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err


@pytest.mark.parametrize("verb", ["deps", "connections", "facts", "attribute", "analyze"])
def test_unknown_store(whoneeds, tmp_path, verb):
    """A store that is not there is named, with how one is made."""
    assert_explained(whoneeds(verb, "--store", tmp_path / "nowhere"), 1, "expected:", "nowhere", "do:", "ingest")


@pytest.mark.parametrize("verb", ["deps", "connections", "facts", "attribute", "analyze"])
def test_empty_store(whoneeds, tmp_path, verb):
    """A store without evidence is an error, for an empty answer would look like a finding."""
    with open_store(tmp_path / "store", create=True):
        pass
    done = whoneeds(verb, "--store", tmp_path / "store")
    assert_explained(done, 1, "the store is empty", "expected:", "found:", "run whoneeds ingest DIR")


@pytest.mark.parametrize("verb", ["deps", "connections", "facts", "attribute", "analyze"])
def test_a_store_of_a_monitor_alone(whoneeds, tmp_path, verb):
    """A store that only holds what a monitor saw is not called empty: what is missing is evidence of hosts."""
    log = {"ts": 1.7e9, "uid": "C1", "id.orig_h": "10.0.0.1", "id.orig_p": 40000, "id.resp_h": "10.0.0.2"}
    log |= {"id.resp_p": 80, "proto": "tcp", "duration": 0.5, "conn_state": "SF", "orig_pkts": 5, "resp_pkts": 4}
    (tmp_path / "conn.log").write_text(json.dumps(log) + "\n")
    words = ("import", "zeek", tmp_path / "conn.log", "--host", "mon1", "--store", tmp_path / "store")
    assert whoneeds(*words).code == 0
    done = whoneeds(verb, "--store", tmp_path / "store")
    assert_explained(done, 1, "no host was looked at", "watched on the wire", "whoneeds ingest")


@pytest.mark.parametrize("words", [("deps",), ("connections",), ("facts",), ("analyze",)])
def test_store_that_was_not_analysed(whoneeds, shop, tmp_path, words):
    """A store with segments only says which verb comes next."""
    assert whoneeds("ingest", shop / "incoming", "--store", tmp_path / "store").code == 0
    done = whoneeds(*words, "--store", tmp_path / "store")
    assert_explained(done, 1, "the analysis has not come this far", "run whoneeds a")


def test_busy_store(whoneeds, tmp_path, shop):
    """A store that another process writes to is refused at once, and that process is named."""
    with open_store(tmp_path / "store", create=True):
        pass
    with (tmp_path / "store" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = whoneeds("run", "--from", shop / "incoming", "--store", tmp_path / "store")
    assert_explained(done, 1, "the store is busy", f"process {os.getpid()}", "run this again")


def test_foreign_folder_as_store(whoneeds, tmp_path, shop):
    """A folder that holds something else is never taken for a store."""
    (tmp_path / "holiday.jpg").write_bytes(b"picture")
    done = whoneeds("run", "--from", shop / "incoming", "--store", tmp_path)
    assert_explained(done, 1, "expected:", "found:")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("words", [("run", "--from"), ("ingest",)])
def test_folder_without_segments(whoneeds, tmp_path, words):
    """A folder in which no segment lies says where segments would be and how to get some, and makes no store."""
    (tmp_path / "in" / "web1").mkdir(parents=True)
    done = whoneeds(*words, tmp_path / "in", "--store", tmp_path / "store")
    assert_explained(done, 1, "no segments", "DIR/<host>/*.seg", "found:", "whoneeds trace run")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("words", [("ingest",), ("run", "--from")])
def test_missing_folder(whoneeds, tmp_path, words):
    """A folder that is not there is a wrong use, and makes no store."""
    done = whoneeds(*words, tmp_path / "nowhere", "--store", tmp_path / "store")
    assert_explained(done, 2, "nowhere", "expected:", "check the path")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "service", ["5432", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/99999999999", "sctp/1", "tcp/x", "tcp/٣"]
)
def test_wrong_service(whoneeds, shop, service):
    """A service that is not protocol/port is refused with an example of one."""
    done = whoneeds("deps", "--store", shop / "store", "--service", service)
    assert_explained(done, 2, "--service", "tcp/5432", "found:")


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
def test_wrong_threshold(whoneeds, shop, share):
    """A share outside [0, 1] is refused before anything is done."""
    done = whoneeds("analyze", "--store", shop / "store", "--users-share", share)
    assert_explained(done, 2, "users_share", "between 0 and 1", "0.1")


@pytest.mark.parametrize(
    "words",
    [("deps", "--level", "5"), ("deps", "--format", "xml"), ("deps", "--kind", "odd"), ("deps", "--method", "orion"),
     ("analyze", "--users-share", "many"), ("nonsense",), ("run",), ("ingest",)],
)  # fmt: skip
def test_wrong_words(whoneeds, words):
    """Words that the command does not know are a wrong use."""
    assert_explained(whoneeds(*words), 2, "Usage: whoneeds")


def test_debug_shows_where(tmp_path):
    """A traceback is printed with --debug, wherever it stands, and only then."""
    for words, shown in ((["deps", "--debug"], True), (["--debug", "deps"], True), (["deps"], False)):
        done = subprocess.run(
            [sys.executable, "-m", "whoneeds", *words, "--store", str(tmp_path / "nowhere")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is shown
        assert "no store here" in done.stderr


def test_unexpected_errors_ask_for_a_report(whoneeds, monkeypatch):
    """An error that nobody foresaw ends with code 1 and no traceback, and says how to get one."""
    monkeypatch.setattr("whoneeds.store.session.open_store", lambda *_, **__: 1 / 0)
    done = whoneeds("deps")
    assert_explained(done, 1, "unexpected error: ZeroDivisionError", "--debug")
