# SPDX-License-Identifier: GPL-3.0-or-later
"""What deserves a look: scans and changed behaviour together, under one control of false findings.

Each question that could be answered has a p-value; Benjamini and Hochberg's correction goes over all of them at once,
those that were not worth reading out of the engine included. Questions that no answer could make a finding, since
there are too few days, are left out beforehand and counted. A finding says what, where, when, how sure, and against
what.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis

from whoneeds.analysis.attempts import SEVERAL
from whoneeds.analysis.chance import FALSE_DISCOVERIES, choose_answerable, correct_for_many
from whoneeds.analysis.changes import (
    ALL_SERVICES,
    bound_amounts,
    bound_usage,
    compare_amounts,
    compare_usage,
    count_margins,
    is_rise,
    keep_changed,
    weigh_amounts,
    weigh_usage,
)
from whoneeds.analysis.scans import ScanSettings, count_failing, find_bursts, weigh_bursts
from whoneeds.analysis.slices import Slices
from whoneeds.model.errors import AnalysisError

Read = Callable[[Any], list[dict[str, Any]]]

#: Columns of a finding.
COLUMNS = (
    "what", "app", "host", "pid", "address", "protocol", "port", "first_ns", "last_ns", "now", "now_of", "before",
    "before_of", "fleet_before", "fleet_before_of", "threshold", "targets", "services", "addresses", "window_s",
    "usual_most", "usual_windows", "against", "p_value", "q_value",
)  # fmt: skip

_AMOUNTS = {
    "sent": "sends_more", "received": "receives_more", "sent_share": "traffic_moved", "failed": "fails_more",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Findings, and what they rest on.

    Attributes
    ----------
    findings : list of dict
        Surest first, with `COLUMNS`.
    asked : int
        Questions that were asked.
    hopeless : int
        Questions that were not, since there are too few days for any finding.
    told_share : float or None
        Share of the period's attempts of which a failure would be known; None without attempts.
    newcomers : int
        Pairs of application and host that were seen in the period and of which there is no history on any host.
    """

    findings: list[dict[str, Any]]
    asked: int
    hopeless: int
    told_share: float | None
    newcomers: int


def split_history(first_ns: int, since_ns: int, until_ns: int, day_ns: int) -> tuple[Slices, int]:
    """Days of the history and the period, with a limit between two days where the period begins.

    Parameters
    ----------
    first_ns : int
        Begin of what was observed.
    since_ns, until_ns : int
        The period.
    day_ns : int
        Length of a day.

    Returns
    -------
    days : Slices
    first_day : int
        The first one of the period.

    Raises
    ------
    AnalysisError
        If the period is empty, or nothing lies before it.
    """
    if until_ns <= since_ns:
        raise AnalysisError("the period is empty", expected="an end after its begin", found="none")
    if first_ns >= since_ns:
        raise AnalysisError(
            "there is no history to hold the period against", expected="observations before the period",
            found="none", remedy="begin the period later (--since), or observe longer",
        )  # fmt: skip
    before = -((first_ns - since_ns) // day_ns)
    after = -((since_ns - until_ns) // day_ns)
    return Slices(since_ns - before * day_ns, day_ns, before + after), before


def find(
    attempts: ibis.Table, days: Slices, first_day: int, read: Read, settings: ScanSettings = ScanSettings()
) -> Found:
    """Find scans in a period, and changes since before it.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`, with services named, of all times.
    days : Slices
    first_day : int
        From `split_history`.
    read : callable
        From an expression to its rows.
    settings : ScanSettings, optional
    """
    since_ns, until_ns = days.begins[first_day], days.end_ns
    usage, amounts = compare_usage(attempts, days, first_day), compare_amounts(attempts, days, first_day)
    new = usage.filter(usage.fleet_before_of == 0)
    newcomers = len(read(new.select("app", "host").distinct()))
    usage = usage.filter(usage.fleet_before_of > 0)
    failing = read(count_failing(attempts, since_ns, until_ns))[0]
    margins = [read(count_margins(one)) for one in (usage, amounts)]
    bounds = [*bound_usage(margins[0]), *bound_amounts(margins[1])]
    times = [row["asked"] for rows in margins for row in rows]
    # how many targets a scan has is not bounded, so that of each instance something could be found
    scans = failing["instances"] * len(settings.windows_s)
    limit, asked = choose_answerable([*bounds, 0.0], [*times, scans])
    rows: list[dict[str, Any]] = []
    for window_s in settings.windows_s:
        bursts = read(find_bursts(attempts, window_s, since_ns, until_ns, settings))
        rows += [_tell_scan(row, chance) for row, chance in zip(bursts, weigh_bursts(bursts), strict=True)]
    changed = read(keep_changed(usage))
    rows += [
        _tell_usage(row, chance)
        for row, chance, bound in zip(changed, weigh_usage(changed), _bound(bound_usage, changed), strict=True)
        if bound <= limit
    ]
    risen = read(keep_changed(amounts))
    rows += [
        _tell_amount(row, chance)
        for row, chance, bound in zip(risen, weigh_amounts(risen), _bound(bound_amounts, risen), strict=True)
        if bound <= limit
    ]
    q_values = correct_for_many([row["p_value"] for row in rows], asked)
    findings = [
        {**dict.fromkeys(COLUMNS), **row, "q_value": float(q_value)}
        for row, q_value in zip(rows, q_values, strict=True)
        if q_value <= FALSE_DISCOVERIES
    ]
    told_share = failing["told"] / failing["attempts"] if failing["attempts"] else None
    return Found(_keep_surest(findings), asked, sum(times) + scans - asked, told_share, newcomers)


def _bound(bound: Callable[[list[dict[str, Any]]], list[float]], rows: list[dict[str, Any]]) -> list[float]:
    """The smallest p-value of each comparison that its margins allow."""
    whole = [
        ("before", row["before_of"]) if row["before_of"] else ("fleet_before", row["fleet_before_of"]) for row in rows
    ]
    return bound(
        [
            {"now_of": row["now_of"], "before_of": of, "part": row["now"] + row[name]}
            for row, (name, of) in zip(rows, whole, strict=True)
        ]
    )


def _tell_scan(row: Mapping[str, Any], chance: float) -> dict[str, Any]:
    names = ("app", "host", "pid", "address", "window_s", "targets", "services", "addresses", "first_ns", "last_ns")
    return {
        "what": "port_scan",
        **{name: row[name] for name in (*names, "usual_windows", "usual_most")},
        "against": "other_windows" if row["usual_windows"] else "no_history",
        "p_value": chance,
    }


def _tell_usage(row: Mapping[str, Any], chance: float) -> dict[str, Any]:
    what = "used_more" if is_rise(row) else "used_less"
    if what == "used_more" and not row["fleet_before"]:
        what = "new_service"
    return {
        **row,
        "what": what,
        "port": None if row["port"] == SEVERAL else row["port"],
        "against": "own_history" if row["before_of"] else "other_hosts",
        "p_value": chance,
    }


def _tell_amount(row: Mapping[str, Any], chance: float) -> dict[str, Any]:
    alone = row["port"] not in (SEVERAL, ALL_SERVICES)
    return {
        **row,
        "what": _AMOUNTS[row["what"]],
        "protocol": row["protocol"] or None,
        "port": row["port"] if alone else None,
        "against": "own_history",
        "p_value": chance,
    }


def _keep_surest(findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One finding of each scan, the shortest window of those that show most of it; all in order, surest first."""
    widest: dict[tuple[Any, ...], dict[str, Any]] = {}
    others = []
    for row in sorted(findings, key=lambda row: (-(row["targets"] or 0), row["window_s"] or 0)):
        if row["what"] == "port_scan":
            widest.setdefault((row["app"], row["host"], row["pid"], row["address"]), row)
        else:
            others.append(row)
    return sorted([*widest.values(), *others], key=_order)


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = (row["what"], row["app"], row["host"], row["protocol"] or "", row["address"] or "")
    return (row["p_value"], *names, row["port"] or 0, row["pid"] or 0)
