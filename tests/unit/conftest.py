# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the plugins be imported by their full names, also where ansible-test has not arranged it."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pytest_configure():
    """Stand the checkout in for the installed collection."""
    if importlib.util.find_spec("ansible_collections") is not None:
        return
    for name, path in (
        ("ansible_collections", None),
        ("ansible_collections.whoneeds", None),
        ("ansible_collections.whoneeds.discovery", ROOT),
        ("ansible_collections.whoneeds.discovery.plugins", ROOT / "plugins"),
    ):
        module = types.ModuleType(name)
        module.__path__ = [str(path)] if path else []
        sys.modules[name] = module
