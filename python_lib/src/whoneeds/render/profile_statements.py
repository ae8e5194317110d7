# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands under a profile: how it was counted, and what it cannot say."""

from collections.abc import Mapping, Sequence
from typing import Any

from whoneeds.analysis.causal import CausalSettings
from whoneeds.analysis.chance import FALSE_DISCOVERIES
from whoneeds.analysis.findings import Found
from whoneeds.analysis.slices import Slices
from whoneeds.render.quantity import tell_count, tell_instant, tell_share


def state_uncounted(connections: int, uncounted: int) -> list[str]:
    """Say of how many connections the bytes are not known.

    Parameters
    ----------
    connections, uncounted : int
    """
    if not uncounted:
        return []
    return [
        f"Of {uncounted} of {tell_count(connections, 'connection')} nobody counted the bytes; they are in no share of "
        "traffic."
    ]


def state_untold(attempts: int, told: int) -> list[str]:
    """Say of how many connections a failure would not have been seen.

    Parameters
    ----------
    attempts, told : int
    """
    if told == attempts:
        return []
    return [
        f"{attempts - told} of {tell_count(attempts, 'connection')} were sampled only: of what else was rejected at "
        "once, samples tell nothing. Shares of failures are of the others."
    ]


def state_orders(timed: Mapping[str, int], judged: Sequence[Mapping[str, Any]], settings: CausalSettings) -> list[str]:
    """Say how causal order was asked for, and what could not be.

    Parameters
    ----------
    timed : mapping
        The row of `whoneeds.analysis.causal.count_timed`.
    judged : sequence of mapping
        All pairs that were asked about.
    settings : CausalSettings
    """
    window = f"{settings.window_s:g} s"
    said = []
    if judged:
        ordered = sum(row["ordered"] for row in judged)
        said.append(
            f"Asked of {tell_count(len(judged), 'ordered pair')} of services of one application; of the "
            f"{tell_count(ordered, 'order')} found, {tell_share(settings.false_discoveries)} or fewer are there by "
            f"chance, on average. 'Just before' is at most {window} before; of begins that come closer than that, the "
            "first one counts."
        )
    else:
        said.append(
            f"Too little data for any causal order: no two services of an application have {settings.least_begins} "
            "uses each, in instances that use both, whose begin and end are known well enough."
        )
    if timed["coarse"]:
        said.append(
            f"{timed['coarse']} of {tell_count(timed['uses'], 'use')} were sampled too seldom for a window of {window} "
            "and are left out; a window of at least two sampling periods takes them in."
        )
    if timed["contradicting"]:
        said.append(
            f"{tell_count(timed['contradicting'], 'use')} seem to end before they begin, by contradicting clocks, and "
            "are left out."
        )
    return said


def state_slices(slices: Slices, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how time was cut, and where nobody looked.

    Parameters
    ----------
    slices : Slices
    rows : sequence of mapping
        Rows of `whoneeds.analysis.slices.measure_slices`.
    """
    cut = f"{tell_count(slices.number, 'slice')} of {slices.length_ns / 1e9:g} s"
    said = [
        f"{cut} from {tell_instant(slices.begin_ns)} on. Where no share is told, no host was looked at, or no instance "
        "was there."
    ]
    blind = {row["slice"] for row in rows if not row["hosts"]}
    if blind:
        said.append(f"No host was looked at in {len(blind)} of {tell_count(slices.number, 'slice')}.")
    return said


def state_findings(found: Found, days: Slices, first_day: int, first_ns: int) -> list[str]:
    """Say what was held against what, and how sure findings are.

    Parameters
    ----------
    found : Found
    days : Slices
    first_day : int
    first_ns : int
        Begin of what was observed.
    """
    begin = days.begins[first_day]
    said = [
        f"Judged: {tell_instant(begin)} to {tell_instant(days.end_ns)}, against what was seen from "
        f"{tell_instant(max(first_ns, days.begin_ns))} on. A day is {days.length_ns / 1e9:g} s of an instance.",
        f"{tell_count(found.asked, 'question')} were asked; of the findings, {tell_share(FALSE_DISCOVERIES)} or fewer "
        "are there by chance, on average.",
    ]
    if found.hopeless:
        said.append(
            f"{tell_count(found.hopeless, 'more question')} could not be asked: there are too few days of that "
            "application and host for any answer to be sure."
        )
    if found.newcomers:
        said.append(
            f"{tell_count(found.newcomers, 'application')} on a host had no history on any host, and could be judged "
            "by scans alone."
        )
    if found.told_share is not None and found.told_share < 1:
        said.append(
            f"Of {tell_share(1 - found.told_share)} of the connections a failure would not have been seen: scans from "
            "there can be missed."
        )
    return said
