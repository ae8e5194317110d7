# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as CSV (RFC 4180) that a spreadsheet does not take for formulas."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: What begins a formula in one spreadsheet or another. Names come from hosts; whoever starts a process chooses one.
_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r", "\n")


def format_csv(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> str:
    r"""Rows as CSV with a line of names first. What is not known is an empty cell.

    Parameters
    ----------
    rows : iterable of mapping
        Values are text, numbers, truth values, None, or tuples of text (joined by a blank).
    names : sequence of str
        Columns, in order; a row may lack none of them.

    Examples
    --------
    >>> print(format_csv([{"app": "=1+1", "port": 80}], ["app", "port"]).replace("\r", ""), end="")
    app,port
    '=1+1,80
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return text.getvalue()


def guard_text(text: str) -> str:
    """The text so that a spreadsheet does not take it for a formula."""
    return "'" + text if text.startswith(_FORMULA_BEGINS) else text


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = " ".join(value)
    return guard_text(value) if isinstance(value, str) else value
