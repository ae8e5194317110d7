# SPDX-License-Identifier: GPL-3.0-or-later
"""The fuzz campaign: everything that reads what comes from elsewhere, fed with damage."""

import random

from tests.campaigns.fuzz_captures import fuzz_captures
from tests.campaigns.fuzz_documents import fuzz_facts, fuzz_states
from tests.campaigns.fuzz_lives import fuzz_lives
from tests.campaigns.fuzz_parsers import fuzz_addresses, fuzz_proc_files, fuzz_sock_diag
from tests.campaigns.fuzz_programs import fuzz_kernel_types, fuzz_rings, fuzz_told_tasks
from tests.campaigns.fuzz_segments import fuzz_segments
from tests.campaigns.fuzz_store import fuzz_store
from tests.campaigns.result import Result


def run(result: Result) -> None:
    """Run it: `result.count` damaged segments, the rest in proportion to what a trial costs."""
    trials = (
        (fuzz_segments, 1.0),
        (fuzz_sock_diag, 3.0),
        (fuzz_addresses, 2.0),
        (fuzz_proc_files, 5.0),
        (fuzz_facts, 1.0),
        (fuzz_states, 1.0),
        (fuzz_lives, 0.5),
        (fuzz_kernel_types, 1.0),
        (fuzz_rings, 2.0),
        (fuzz_told_tasks, 2.0),
        (fuzz_captures, 1.0),
        (fuzz_store, 0.5),
    )
    for number, (trial, share) in enumerate(trials):
        trial(result, max(int(result.count * share), 1), random.Random(result.seed + number))
