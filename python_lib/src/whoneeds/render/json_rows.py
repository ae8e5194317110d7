# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as JSON: ASCII only, so that no terminal acts on a name; one row a line, so that line tools can be used."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def format_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as one JSON array.

    Raises
    ------
    ValueError
        If a value is not a number or not finite where a number belongs: JSON cannot hold it.

    Examples
    --------
    >>> print(format_json([{"app": "nginx", "port": 80}]))
    [
    {"app": "nginx", "port": 80}
    ]
    """
    lines = [format_document(row) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


def format_document(document: Mapping[str, Any]) -> str:
    """One object as JSON on one line."""
    return json.dumps(document, ensure_ascii=True, allow_nan=False)
