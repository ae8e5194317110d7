# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples in docstrings are what the functions really do."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    ["render.visible", "render.json_rows", "render.csv_rows", "render.quantity", "render.views", "analysis.macroscope"],
)
def test_examples_hold(module):
    """Every example of the module gives the answer that stands below it, and there is at least one."""
    result = doctest.testmod(importlib.import_module(f"whoneeds.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
