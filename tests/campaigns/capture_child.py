# SPDX-License-Identifier: GPL-3.0-or-later
"""Meter damaged captures within bounds: ``python -m tests.campaigns.capture_child SEED FIRST COUNT PROGRESS``."""

import json
import random
import re
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

from tests.campaigns.captures import APART_MS, Forged, damaged, forged_captures
from whoneeds.flow import MeterSettings, meter_capture
from whoneeds.model.evidence import WireFlow
from whoneeds.model.schema import check_value, columns

#: With a table that is quickly made.
SETTINGS = MeterSettings(most_flows=1 << 11)
#: What a process may take beyond what it has before the first damaged capture, and how long one may last.
MEMORY_BYTES = 256 << 20
TRIAL_S = 20.0
_COLUMNS = columns(WireFlow)
#: A problem names its place, or counts packets that say nothing where they stand.
_TOLD = re.compile(r"byte \d+|^\d+ (packets|flows|pieces) ")


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _as_it_stays(row: WireFlow) -> Hashable:
    """What later packets must not change of a flow that is over.

    Who began one whose beginning is missing is told by who answers openings anywhere in the capture, so damage further
    on may turn it round.
    """
    if row.direction not in ("listener", "port"):
        return row
    told = ("addr", "port", "packets", "bytes")
    sides = sorted((tuple(getattr(row, f"{side}_{what}") for what in told) for side in ("orig", "resp")), key=repr)
    return row.protocol, row.first_ns, row.last_ns, row.missed_bytes, row.community_id, *sides


def _ended_before(
    forged: Forged, offset: int, known: dict[tuple[str, int], frozenset[Hashable]]
) -> frozenset[Hashable]:
    """Flows that ended long before the last whole record before an offset."""
    end = forged.whole_before(offset)
    if (forged.name, end) not in known:
        rows = list(meter_capture([forged.content[:end]], SETTINGS)) if end else []
        newest_ns = max((row.last_ns for row in rows), default=0)
        known[forged.name, end] = frozenset(
            _as_it_stays(row) for row in rows if row.last_ns + APART_MS * 900_000 < newest_ns
        )
    return known[forged.name, end]


def _wrongs(forged: Forged, content: bytes, rng: random.Random, known: dict, figures: Counter) -> list[str]:
    """What is wrong with how a damaged capture was metered."""
    cut = rng.randrange(len(content) + 1)
    metered = meter_capture([content[:cut], content[cut:]], SETTINGS)
    rows, wrongs = list(metered), []
    for row in rows:
        for column in _COLUMNS:
            check_value(column, getattr(row, column.name))
    wrongs += [f"no offset in {text!r}" for text in metered.problems if not _TOLD.search(text)]
    first = next((at for at, (a, b) in enumerate(zip(content, forged.content, strict=False)) if a != b), None)
    offset = min(len(content), len(forged.content)) if first is None else first
    ended = _ended_before(forged, offset, known)
    wrongs += [f"lost a flow that ended before byte {offset}: {row}" for row in ended - set(map(_as_it_stays, rows))]
    shorter = len(content) < len(forged.content) and first is None
    if shorter and len(content) > forged.head_bytes and len(content) not in forged.ends and not metered.problems:
        wrongs.append(f"nothing said of the end at byte {len(content)}")
    figures["captures_with_problems"] += bool(metered.problems)
    figures["flows_of_damaged_captures"] += len(rows)
    figures["flows_kept_before_damage"] += len(ended)
    return wrongs


def main() -> int:
    """Run trials; a line of JSON says what was found."""
    seed, first, count = (int(word) for word in sys.argv[1:4])
    progress = Path(sys.argv[4])
    for forged in forged_captures():
        warm = meter_capture([forged.content], SETTINGS)
        list(warm)
        assert warm.packets == len(forged.ends), warm.problems
    before_bytes = _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (before_bytes + MEMORY_BYTES, before_bytes + MEMORY_BYTES))
    figures, violations, known = Counter(), [], {}
    with progress.open("w", encoding="ascii") as told:
        for number in range(first, first + count):
            told.seek(0)
            told.write(f"{number:20}")
            told.flush()
            signal.setitimer(signal.ITIMER_REAL, TRIAL_S)
            forged, content = damaged(seed, number)
            try:
                wrongs = _wrongs(forged, content, random.Random(number), known, figures)
            except Exception:
                wrongs = [traceback.format_exc()[-600:]]
            figures["damaged_captures"] += 1
            violations += [(number, wrong) for wrong in wrongs]
    signal.setitimer(signal.ITIMER_REAL, 0)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"figures": figures, "violations": violations, "peak_mib": peak_mib}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
