# SPDX-License-Identifier: GPL-3.0-or-later
"""Fold transient needs: a peer on forty ephemeral ports is one line to a reader, and says that it stands for forty."""

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]


def fold_transient(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """Put the transient needs of one application on one host for one provider into one row.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of the view by host, in the order of `whoneeds.render.views.sort_dependencies`.

    Returns
    -------
    folded : list of mapping
        The rows, with the first of each group in the place of all. It has ``ports`` (how many), sums of flows and
        bytes (unknown only if all are), the widest time, the largest share and support, and the address where all
        agree. Rows that stand alone, and those of other kinds, are as they were.
    hidden : int
        Rows that are gone into others.
    """
    folded: list[Row] = []
    place: dict[tuple[Any, ...], int] = {}
    hidden = 0
    for row in rows:
        # a provider that is not traced is told apart by its address alone
        provider = (row["resp_host"], row["resp_app"]) if row["resp_host"] else (None, row["resp_addr"])
        key = (row["app"], row["host"], row["protocol"], *provider)
        if row["kind"] != "transient" or key not in place:
            if row["kind"] == "transient":
                place[key] = len(folded)
            folded.append(row)
        else:
            hidden += 1
            folded[place[key]] = _merge(folded[place[key]], row)
    return folded, hidden


def _merge(kept: Row, other: Row) -> Row:
    return {
        **kept,
        "ports": kept.get("ports", 1) + 1,
        "flows": kept["flows"] + other["flows"],
        "orig_bytes": _sum(kept["orig_bytes"], other["orig_bytes"]),
        "resp_bytes": _sum(kept["resp_bytes"], other["resp_bytes"]),
        "usage_share": max(kept["usage_share"], other["usage_share"]),
        "support": max(kept["support"], other["support"]),
        "users": _most(kept["users"], other["users"]),
        "first_ns": min(kept["first_ns"], other["first_ns"]),
        "last_ns": max(kept["last_ns"], other["last_ns"]),
        "resp_addr": kept["resp_addr"] if kept["resp_addr"] == other["resp_addr"] else None,
    }


def _most(one: int | None, other: int | None) -> int | None:
    return max((count for count in (one, other) if count is not None), default=None)


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)
