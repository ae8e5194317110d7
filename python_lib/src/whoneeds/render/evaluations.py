# SPDX-License-Identifier: GPL-3.0-or-later
"""How evaluations are told: which columns a table or figure has, and what it shows."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from whoneeds.render.quantity import UNKNOWN
from whoneeds.render.table import Shown

Row = Mapping[str, Any]

_TITLES = {
    "table2": "Table 2: static dependencies found, missed, and claimed falsely",
    "table3": "Table 3: sampling period and thresholds",
    "fig4": "Fig. 4: convergence with the number of traces (a host's day each)",
    "fig5": "Fig. 5: sensitivity to U, I (static dependencies of one application) and T",
    "fig6": "Fig. 6: elephants and mice",
    "fig9": "Fig. 9: usage frequency in slices of two days",
    "calibration": "Probabilities held against what is true",
    "labels": "Labels: what they rest on, and how many of them say static",
}
#: Columns that tell rows of a part apart, with their titles.
_KEYS = {
    "period_s": "PERIOD S", "traces": "TRACES", "users_share": "U", "instances_share": "I", "transient_share": "T",
    "figure": "FIGURE", "rank": "RANK", "service": "SERVICE", "slice": "SLICE",
}  # fmt: skip
_SHARES = {
    "found_share": "FOUND", "false_share": "FALSE", "precision": "PRECISION", "recall": "RECALL", "f1": "F1",
    "accuracy": "ACCURACY", "trivial_accuracy": "TRIVIAL", "usage_share": "USAGE", "stated": "STATED",
    "true_share": "TRUE", "error": "ERROR",
}  # fmt: skip
_COUNTS = {"found": "FOUND", "false": "FALSE", "missed": "MISSED", "count": "COUNT", "true": "TRUE"}


def describe_part(part: str, rows: Sequence[Row]) -> tuple[str, list[Shown]]:
    """Title and columns of a part.

    Parameters
    ----------
    part : str
    rows : sequence of mapping
        Columns that none of them has are left out.
    """
    has = {name for row in rows for name, value in row.items() if value is not None}
    columns = [Shown("METHOD", lambda row: str(row["method"])), Shown("OF", lambda row: str(row["scope"]))]
    columns += [Shown(title, partial(_number, name), 90, right=True) for name, title in _KEYS.items() if name in has]
    if "low" in has:
        columns.append(Shown("BETWEEN", lambda row: f"{row['low']:.2f}-{row['high']:.2f}" if "low" in row else "all"))
    columns += [
        Shown(f"# {title}", partial(_count, name), 30, right=True) for name, title in _COUNTS.items() if name in has
    ]
    columns += [Shown(title, partial(_share, name), 80, right=True) for name, title in _SHARES.items() if name in has]
    columns.append(Shown("SEEDS", lambda row: str(row["seeds"]), 10, right=True))
    return _TITLES[part], columns


def _number(name: str, row: Row) -> str:
    value = row.get(name)
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:g}"


def _count(name: str, row: Row) -> str:
    value = row.get(name)
    return "" if value is None else f"{value:.1f}".removesuffix(".0")


def _share(name: str, row: Row) -> str:
    value, low, high = row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} +-{(high - low) / 2:.3f}"
