# SPDX-License-Identifier: GPL-3.0-or-later
"""Each campaign with a small count; ``make test-long`` runs them with the full one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns.processes import find_strace

ROOT = Path(__file__).parents[2]


def run_campaign(name, count, out):
    """Run a campaign as a command; what it wrote, and its line of figures for who reads the test's output."""
    words = [sys.executable, "-m", "tests.campaigns", name, "--count", str(count), "--out", str(out / "found.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout)
    return json.loads((out / "found.json").read_text())


def test_nothing_committed_is_lost_to_kills(tmp_path):
    """A killed tracer or ingest loses nothing committed, tells of the rest, and goes on when started again."""
    found = run_campaign("kill", 20, tmp_path)
    assert found["violations"] == 0
    assert found["figures"]["random_kills"] >= 15
    assert found["figures"]["segments_verified"] > 0
    assert found["figures"]["stores_compared"] >= 2
    if find_strace():
        assert found["figures"]["kills_at_changes"] > 0


def test_nothing_acknowledged_is_lost_to_power_cuts(tmp_path):
    """What a spool or a store acknowledged before the power was cut is there and whole after it."""
    found = run_campaign("power", 12, tmp_path)
    assert found["violations"] == 0
    if found["skipped"]:
        pytest.skip(found["skipped"][0])
    assert found["figures"]["power_cuts"] == 12
    assert found["figures"]["segments_acknowledged"] > 0


def test_no_damaged_input_does_harm(tmp_path):
    """Damaged segments, answers of the kernel, documents and captures are refused or read as what they say."""
    found = run_campaign("fuzz", 600, tmp_path)
    assert found["violations"] == 0
    assert found["figures"]["damaged_segments"] > 500
    assert found["figures"]["listings_carried_through"] > 0
    assert found["figures"]["forged_blocks"] > 100
    assert found["figures"]["forged_records_taken"] > 10
    assert found["figures"]["damaged_rings"] > 1000
    assert found["figures"]["damaged_store_files"] >= 300
    assert found["figures"]["damaged_captures"] == 600
    assert found["figures"]["flows_kept_before_damage"] > 100
