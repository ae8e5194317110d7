# SPDX-License-Identifier: GPL-3.0-or-later
"""Fold what is one thing to a reader: a peer on forty ephemeral ports, a scraper of all hosts, a daemon that each has.

The folded line says how many it stands for.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from whoneeds.render.visible import make_visible

Row = Mapping[str, Any]

#: An application that uses one service on so many other hosts, and on so large a share of them, looks at all.
SWEEP_HOSTS, SWEEP_SHARE = 5, 0.8
_SWEEP_KEY = ("app", "host", "protocol", "port")


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


def find_sweeps(rows: Iterable[Row], hosts: int) -> dict[tuple[Any, ...], int]:
    """Applications that use one service on nearly every host, as monitoring and backup do: they need no single one.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of the view by host.
    hosts : int
        How many hosts are traced.

    Returns
    -------
    dict of (app, host, protocol, port) to int
        On how many other hosts.
    """
    reached: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in rows:
        if row["resp_host"] is not None and row["resp_host"] != row["host"]:
            reached[sweep_key(row)].add(row["resp_host"])
    least = max(SWEEP_HOSTS, SWEEP_SHARE * (hosts - 1))
    return {key: len(found) for key, found in reached.items() if len(found) >= least}


def sweep_key(row: Row) -> tuple[Any, ...]:
    """What rows of one sweep have in common."""
    return tuple(row[name] for name in _SWEEP_KEY)


def fold_replicas(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """Put services that stand for each other into one row: an application on a host needs any of them.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of the view by host, with ``any_of``, in order.

    Returns
    -------
    folded : list of mapping
        The first row of each set stands for all, with ``choices`` (how many), and sums as in `fold_transient`.
    hidden : int
        Rows that are gone into others.
    """
    groups: dict[Any, list[Row]] = {}
    for at, row in enumerate(rows):
        key = (row["app"], row["host"], row["kind"], row["any_of"]) if row["any_of"] else at
        groups.setdefault(key, []).append(row)
    folded: list[Row] = []
    for group in groups.values():
        kept = group[0]
        for row in group[1:]:
            same = kept["resp_app"] == row["resp_app"]
            kept = {**_merge(kept, row), "ports": 1, "resp_app": kept["resp_app"] if same else None}
        folded.append(kept if len(group) == 1 else {**kept, "choices": len(group)})
    return folded, sum(map(len, groups.values())) - len(folded)


def fold_sweeps(rows: Iterable[Row], sweeps: Mapping[tuple[Any, ...], int]) -> list[Row]:
    """Put the rows of each sweep into one.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of the view by host, in order.
    sweeps : mapping
        From `find_sweeps`.

    Returns
    -------
    list of mapping
        The first row of each sweep stands for all, with ``providers`` (how many hosts), and sums as in
        `fold_transient`. What the application uses on its own host, or on an untraced one, stays a row of its own.
    """
    folded: list[Row] = []
    place: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = sweep_key(row)
        if key not in sweeps or row["resp_host"] in (None, row["host"]):
            folded.append(row)
        elif key not in place:
            place[key] = len(folded)
            folded.append({**row, "providers": sweeps[key]})
        else:
            kept = folded[place[key]]
            same = kept["resp_app"] == row["resp_app"]
            merged = {**_merge(kept, row), "ports": 1, "resp_app": kept["resp_app"] if same else None}
            folded[place[key]] = merged
    return folded


def fold_local_daemons(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """Put what one application asks of one daemon of its own host, on several hosts, into one row.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of `whoneeds.render.views.view_unix_uses`.

    Returns
    -------
    folded : list of mapping
        The first row of each stands for all, with ``dependents`` (how many hosts) where these are several, sums, and
        the widest time.
    hidden : int
        Rows that are gone into others.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["app"], row["resp_app"], row["path"]), []).append(row)
    folded: list[Row] = [
        group[0]
        if len(group) == 1
        else {
            **group[0],
            "dependents": len({row["host"] for row in group}),
            "support": sum(row["support"] for row in group),
            "flows": sum(row["flows"] for row in group),
            "first_ns": min(row["first_ns"] for row in group),
            "last_ns": max(row["last_ns"] for row in group),
        }
        for group in groups.values()
    ]
    return folded, sum(map(len, groups.values())) - len(folded)


def tell_sweeps(sweeps: Mapping[tuple[Any, ...], int], hosts: int) -> list[str]:
    """One sentence for each sweep."""
    return [
        f"{make_visible(app)}@{make_visible(host)} uses {protocol}/{port} on {count} of {hosts - 1} other hosts, as "
        "monitoring or a backup does: it looks at all of them and needs no single one, and is one line; "
        f"--service {protocol}/{port} shows each."
        for (app, host, protocol, port), count in sorted(sweeps.items())
    ]


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
        **{name: kept[name] if kept[name] == other[name] else None for name in ("name", "any_of") if name in kept},
    }


def _most(one: int | None, other: int | None) -> int | None:
    return max((count for count in (one, other) if count is not None), default=None)


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)
