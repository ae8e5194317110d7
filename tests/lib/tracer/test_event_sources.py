# SPDX-License-Identifier: GPL-3.0-or-later
"""A host gets the best source of events that it has, or hears why it has none."""

import os
import subprocess
import sys

import pytest

from whoneeds.model.errors import Denied, Unsupported
from whoneeds.tracer import event_sources
from whoneeds.tracer.bpf.source import ProgramEvents
from whoneeds.tracer.events import EventSource
from whoneeds.tracer.status import own_identity

pytestmark = pytest.mark.root

ASK = (
    "from whoneeds.tracer.event_sources import open_any_events; from whoneeds.tracer.status import own_identity\n"
    "try:\n    print(open_any_events(own_identity()).tally.kind)\n"
    "except Exception as error:\n    print(type(error).__name__, error)"
)


@pytest.fixture(autouse=True)
def _programs(watch):
    """Only where this machine takes programs can it be shown when they are not used."""


def test_programs_come_first():
    """Where the kernel takes programs, these are the source."""
    made = event_sources.open_any_events(own_identity())
    try:
        assert isinstance(made, ProgramEvents)
        assert made.tally.kind == "programs"
    finally:
        made.close()


@pytest.mark.parametrize("refusal", [Denied("kernel map"), Unsupported("kernel types")])
def test_the_rings_of_tracefs_stand_in(monkeypatch, refusal):
    """Where the kernel refuses programs, or has no description of its types, the rings of tracefs are the source."""

    def refuse(_scope):
        raise refusal

    monkeypatch.setattr(event_sources, "load", refuse)
    try:
        made = event_sources.open_any_events(own_identity())
    except (Denied, Unsupported) as error:
        pytest.skip(f"no tracefs here: {error}")
    try:
        assert isinstance(made, EventSource)
        assert made.tally.kind == "tracefs"
    finally:
        made.close()


def test_without_either_both_reasons_are_told(tmp_path):
    """A user who may use neither hears of both."""
    # what it needs of its library is loaded before: that may lie where the user cannot read
    ask = f"import codecs, os\ncodecs.lookup('ascii')\n{ASK}".replace("try:", "os.setuid(12345)\ntry:")
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.startswith(("Denied", "Unsupported")), done.stdout + done.stderr
    assert "BPF and PERFMON" in done.stdout
    assert "tracefs" in done.stdout


def test_where_time_is_another_one_there_are_no_events():
    """In a time namespace the kernel's events carry another time than everything else: neither source is used."""
    place = ["unshare", "--time", "--boottime", "1000", "--fork"]
    if os.geteuid() != 0 or subprocess.run([*place, "true"], check=False).returncode:
        pytest.skip("no right to make time namespaces")
    done = subprocess.run([*place, sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Unsupported")
    assert done.stdout.count("a time namespace") == 2
