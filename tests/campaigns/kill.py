# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill campaign: the tracer and the ingest, killed."""

import random

from tests.campaigns.kill_ingest import kill_ingests, race_ingests
from tests.campaigns.kill_tracer import kill_at_changes, kill_at_random
from tests.campaigns.result import Result

#: From so many random kills on, a tracer is killed at every change that it makes on disk, and not at a choice.
_FULL = 1000


def run(result: Result) -> None:
    """Run it: `result.count` random kills of the tracer, the rest in proportion."""
    count, seed = result.count, result.seed
    kill_at_random(result, count, random.Random(seed))
    kill_at_changes(result, None if count >= _FULL else max(count // 4, 1), random.Random(seed + 1))
    kill_ingests(result, max(count // 16, 2), random.Random(seed + 2))
    race_ingests(result, max(count // 40, 1), random.Random(seed + 3))
