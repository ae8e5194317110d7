# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer was narrowed to, in words: a table of a part must not be taken for one of the whole."""

from collections.abc import Mapping, Sequence
from typing import Any

from whoneeds.analysis.filters import Filters
from whoneeds.render.quantity import tell_count, tell_instant
from whoneeds.render.visible import make_visible

_MOST_NAMES = 5


def tell_filters(filters: Filters, left: Mapping[str, Any], seen: tuple[int, int]) -> list[str]:
    """What counted, and how much of the observation that is.

    Parameters
    ----------
    filters : Filters
    left : mapping
        The row of `whoneeds.analysis.filters.measure_observation`.
    seen : tuple of int
        Begin and end of the whole observation, nanoseconds UTC.

    Returns
    -------
    list of str
        Sentences; none if everything counted.
    """
    if not filters.changes_population:
        return []
    said = [f"Counted is only {'; '.join(_parts(filters))}: kinds and shares are decided anew from that."]
    total = f"{_hours(left['observed_s'])} of observation on {tell_count(left['hosts'], 'host')}"
    if left["observed_left_s"] == 0:
        first, last = map(tell_instant, seen)
        said.append(
            f"Nothing was observed there: of {total}, {first} to {last}, nothing is left. No need was found because "
            "nobody looked, which does not say that there is none."
        )
    else:
        said.append(f"Left of {total}: {_hours(left['observed_left_s'])} on {tell_count(left['hosts_left'], 'host')}.")
    return said


def tell_rows(apps: Sequence[str], services: Sequence[tuple[str, int]]) -> list[str]:
    """Which rows are shown; nothing if all are."""
    parts = []
    if apps:
        parts.append(f"applications {_names(apps)}")
    if services:
        parts.append(f"services {_names([f'{protocol}/{port}' for protocol, port in services])}")
    return [f"Shown are only {' and '.join(parts)}; what they rest on is unchanged."] if parts else []


def _parts(filters: Filters) -> list[str]:
    parts = []
    if filters.hosts:
        parts.append(f"what ran on {_names(filters.hosts)}")
    if filters.users:
        parts.append(f"what was run by {_names(filters.users)}")
    if filters.since_ns is not None:
        parts.append(f"what went on since {tell_instant(filters.since_ns)}")
    if filters.until_ns is not None:
        parts.append(f"what went on before {tell_instant(filters.until_ns)}")
    if (hours := filters.hours) is not None:
        begin, end = (f"{minute // 60:02d}:{minute % 60:02d}" for minute in (hours.begin_minute, hours.end_minute))
        parts.append(f"what went on between {begin} and {end} {make_visible(hours.zone)}")
    if filters.place is not None:
        own = " and the hosts' own addresses" if filters.ranges.own else ""
        parts.append(f"calls to addresses {filters.place} of {_names(filters.ranges.networks)}{own}")
    if filters.location is not None:
        where = "anywhere" if filters.location == "all" else filters.location
        parts.append(f"what hosts saw while they were {where}")
    return parts


def _hours(seconds: float) -> str:
    """Time in hours, or what fits better below."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} s"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(make_visible(name)[:80] for name in names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"
