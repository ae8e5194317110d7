# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged captures: metered in processes with bounds, never a crash or a hang, and what ended before damage is kept."""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.campaigns.captures import damaged
from tests.campaigns.result import Result

_EACH_CHILD = 5000
_MOST_DEATHS = 20


def fuzz_captures(result: Result, count: int, rng: random.Random) -> None:
    """Run `count` trials, some thousands in a process."""
    seed, first, deaths = rng.randrange(2**32), 0, 0
    with tempfile.TemporaryDirectory(prefix="whoneeds-fuzz-") as place:
        progress = Path(place) / "progress"
        while first < count and deaths < _MOST_DEATHS:
            each = min(_EACH_CHILD, count - first)
            words = [
                sys.executable,
                "-m",
                "tests.campaigns.capture_child",
                str(seed),
                str(first),
                str(each),
                str(progress),
            ]
            progress.write_text("")
            child = subprocess.run(words, capture_output=True, text=True, check=False)
            if child.returncode == 0:
                _take(result, seed, json.loads(child.stdout))
                first += each
                continue
            deaths += 1
            at = progress.read_text().strip()
            if not at:
                result.violate(f"the meter's process ended before the first trial: {child.stderr[-500:]}")
                return
            _violate(result, seed, int(at), f"its process ended with {child.returncode}: {child.stderr[-300:]}")
            first = int(at) + 1
    if first < count:
        result.violate(f"stopped after {deaths} deaths")


def _take(result: Result, seed: int, found: dict) -> None:
    for name, number in found["figures"].items():
        result.add(name, number)
    result.note_worst("metering_mib", found["peak_mib"])
    for number, wrong in found["violations"]:
        _violate(result, seed, number, wrong)


def _violate(result: Result, seed: int, number: int, wrong: str) -> None:
    _forged, content = damaged(seed, number)
    kept = Path("build/campaigns") / f"capture-{hashlib.sha256(content).hexdigest()[:12]}.pcap"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    result.violate(f"a damaged capture ({seed}/{number}): {wrong!a} ({kept})")
