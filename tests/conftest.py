# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for every test here: it says in one sentence what it shows, and no test fails by being slow."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test without a docstring of exactly one sentence that ends in a full stop."""
    silent = []
    for item in items:
        text = " ".join((getattr(getattr(item, "function", None), "__doc__", None) or "").split())
        if not text.endswith(".") or ". " in text:
            silent.append(item.nodeid)
    if silent:
        raise pytest.UsageError("tests without a one-sentence docstring:\n  " + "\n  ".join(silent))
