# SPDX-License-Identifier: GPL-3.0-or-later
"""Elephants and mice: how applications and services are spread over each other (Macroscope, section 4.3).

Fig. 6 (services of each application, applications of each service), Tables 4 and 5 (the ten with the most), how many
applications have transient relations, which of their services several applications share, and how many talk inside,
outside, or both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ibis

from whoneeds.analysis.ranges import AddressRanges, tell_inside

Read = Callable[[Any], list[dict[str, Any]]]

#: Columns of a row of the answer.
COLUMNS = ("figure", "rank", "app", "protocol", "port", "services", "applications", "value")
_TOP = 10


def spread_services(dependency: ibis.Table) -> ibis.Table:
    """How many services each application has.

    Parameters
    ----------
    dependency : ibis.Table
        Rows of `Dependency` of one method.

    Returns
    -------
    ibis.Table
        app, static, transient, unclassified.
    """
    rows = dependency.filter(dependency.level == 1)
    return rows.group_by("app").agg(
        **{
            kind: (rows.kind == kind).cast("int64").sum().cast("int64")
            for kind in ("static", "transient", "unclassified")
        }
    )


def spread_applications(dependency: ibis.Table, kind: str) -> ibis.Table:
    """How many applications have each service of a kind.

    Parameters
    ----------
    dependency : ibis.Table
    kind : {"static", "transient", "unclassified"}

    Returns
    -------
    ibis.Table
        protocol, port, applications.
    """
    rows = dependency.filter(dependency.level == 1, dependency.kind == kind)
    return rows.group_by("protocol", "port").agg(applications=rows.app.nunique())


def place_applications(
    attempts: ibis.Table, ranges: AddressRanges = AddressRanges(), own: ibis.Table | None = None
) -> ibis.Table:
    """Where each application's services lie.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`; those that failed are left out.
    ranges : AddressRanges, optional
    own : ibis.Table, optional
        As for `whoneeds.analysis.ranges.tell_inside`.

    Returns
    -------
    ibis.Table
        app, place (``inside``, ``outside``, ``both``, or ``unknown`` where no called address could be read).
    """
    rows = attempts.filter(~attempts.failed).select("app", "resp_addr").distinct()
    rows = tell_inside(rows, "resp_addr", ranges, own)
    found = rows.group_by("app").agg(inside=rows.inside.cast("int64").sum().fill_null(0), told=rows.inside.count())
    place = ibis.cases(
        (found.told == 0, "unknown"), (found.inside == found.told, "inside"), (found.inside == 0, "outside"),
        else_="both",
    )  # fmt: skip
    return found.select("app", place=place)


def describe_population(
    dependency: ibis.Table,
    attempts: ibis.Table,
    read: Read,
    ranges: AddressRanges = AddressRanges(),
    own: ibis.Table | None = None,
) -> list[dict[str, Any]]:
    """All figures of section 4.3 as rows.

    Parameters
    ----------
    dependency, attempts : ibis.Table
    read : callable
        From an expression to its rows.
    ranges : AddressRanges, optional
    own : ibis.Table, optional

    Returns
    -------
    list of dict
        With `COLUMNS`; what does not belong to a figure is None. None at all if there is no dependency.
    """
    by_app, by_service = spread_services(dependency), spread_applications(dependency, "static")
    apps = _tally(by_app, "static", read)
    if not apps:
        return []
    services = _tally(by_service, "applications", read)
    rows = [_row("applications", value=sum(apps.values()))]
    rows += [_row(f"static services of an application, {name}", value=value) for name, value in _summarize(apps)]
    rows += [_row("static services", value=sum(services.values()))]
    rows += [_row(f"applications of a static service, {name}", value=value) for name, value in _summarize(services)]
    rows += [_row("fig. 6a", services=number, applications=times) for number, times in sorted(apps.items())]
    rows += [_row("fig. 6b", applications=number, services=times) for number, times in sorted(services.items())]
    top = by_app.filter(by_app.static > 0).order_by(ibis.desc("static"), "app").limit(_TOP)
    rows += [_row("table 4", rank=at, app=row["app"], services=row["static"]) for at, row in enumerate(read(top), 1)]
    rows += _rank("table 5", by_service, read)
    transient = by_app.filter(by_app.transient > 0)
    rows += [
        _row("applications with transient relations", value=read(transient.agg(number=transient.count()))[0]["number"])
    ]
    shared = spread_applications(dependency, "transient").filter(ibis._.applications >= 2)
    rows += [
        _row(
            "transient services that several applications share",
            value=read(shared.agg(number=shared.count()))[0]["number"],
        )
    ]
    rows += _rank("shared transient services", shared, read)
    placed = place_applications(attempts, ranges, own)
    places = {row["place"]: row["number"] for row in read(placed.group_by("place").agg(number=placed.count()))}
    rows += [
        _row(f"applications that talk {words}", value=places.get(place, 0))
        for place, words in (("inside", "inside only"), ("outside", "outside only"), ("both", "inside and outside"))
    ]
    if "unknown" in places:
        rows.append(_row("applications that talk nobody knows where", value=places["unknown"]))
    return rows


def _tally(rows: ibis.Table, name: str, read: Read) -> dict[int, int]:
    """How many rows have each number."""
    counted = rows.group_by(number=rows[name]).agg(times=rows.count())
    return {row["number"]: row["times"] for row in read(counted)}


def _summarize(tally: dict[int, int]) -> list[tuple[str, float]]:
    """Mean, median, most, and how many have one only."""
    if not tally:
        return []
    members, amount = sum(tally.values()), sum(number * times for number, times in tally.items())
    middle = [_at(tally, (members - 1) // 2), _at(tally, members // 2)]
    return [
        ("mean", amount / members), ("median", sum(middle) / 2), ("most", max(tally)),
        ("those with one", tally.get(1, 0)),
    ]  # fmt: skip


def _at(tally: dict[int, int], place: int) -> int:
    """The number at a place, in order of size."""
    for number, times in sorted(tally.items()):
        if place < times:
            return number
        place -= times
    raise IndexError(place)


def _rank(figure: str, rows: ibis.Table, read: Read) -> list[dict[str, Any]]:
    top: Sequence[dict[str, Any]] = read(rows.order_by(rows.applications.desc(), "protocol", "port").limit(_TOP))
    return [_row(figure, rank=at, **row) for at, row in enumerate(top, 1)]


def _row(figure: str, **values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), "figure": figure, **values}
