# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a lab can be made here."""

import sys

import pytest

from .lifecycle import why_not


@pytest.fixture(scope="session")
def possible() -> None:
    """The test is skipped, with the reason, where this machine cannot make a lab; else the hosts' tree is there."""
    reason = why_not(lambda text: print(text, file=sys.stderr, flush=True))
    if reason is not None:
        pytest.skip(reason)
