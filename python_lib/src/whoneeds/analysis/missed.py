# SPDX-License-Identifier: GPL-3.0-or-later
r"""What could have been missed: how often a need must be used to be seen for all but certain.

"Nothing was seen" means little without it. Let a dependency be used at random times, on average every :math:`m`, each
use lasting :math:`d` on average, and let it be watched over the time :math:`T` (gaps taken off), in samples that are
:math:`W` apart. A use is in a sample if one falls into it. Of a use that lasts :math:`x` that has the probability
:math:`\min(1, x/W)`; if uses end at a constant rate (:math:`x` is exponential), on average

.. math:: p = \frac{d}{W} \left(1 - e^{-W/d}\right),

which is below :math:`\min(1, d/W)`, its value where all uses last equally long: the larger of the two is not promised.
Where events tell of every connection, :math:`p = 1`. Uses come by Poisson's law, so those that are seen do too, with
mean :math:`pT/m`, and the chance that none was is :math:`e^{-pT/m}`. That is :math:`\alpha` at

.. math:: m = \frac{pT}{\ln(1/\alpha)}.

A dependency that is used more often than every :math:`m` was missed with a probability below :math:`\alpha`; 5 % by
default, where :math:`m = pT/3.0`.

What is used once in a run, and not at random times, is another matter: if a share :math:`q` of runs use it, none of
:math:`n` runs did with the probability :math:`(1 - q)^n`, which is :math:`\alpha` at :math:`q = 1 - \alpha^{1/n}`.

The time in which a program was watched is that between first and last sight of each of its processes, overlaps counted
once, less all gaps of its host in which samples or events were lost: the least that it can have been.
"""

import math
from typing import Any

import ibis

from whoneeds.model.conclusions import ApplicationCoverage
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import columns, is_whole_number

CHANCE = 0.05
#: Length of a use that is called short.
SHORT_S = 1.0
#: Reasons of gaps in which something passed that nobody saw.
LOSING = ("late", "dropped", "truncated", "failed")


def find_chance_to_see(duration_s: float | None, period_s: float) -> float:
    """Probability that a use is seen, whose length is exponential with a mean.

    Parameters
    ----------
    duration_s : float or None
        Mean length of a use; None for uses that are held.
    period_s : float
        Time between samples; 0 where events tell of every use.

    Raises
    ------
    SettingsError
        If a length is negative or no number.

    Examples
    --------
    >>> find_chance_to_see(None, 5.0), find_chance_to_see(0.1, 0.0)
    (1.0, 1.0)
    >>> round(find_chance_to_see(0.5, 5.0), 3)
    0.1
    """
    for name, value in (("mean length of a use", duration_s), ("sampling period", period_s)):
        _require_length(name, 0.0 if value is None else value)
    if duration_s is None or period_s == 0.0:
        return 1.0
    if duration_s == 0.0:
        return 0.0
    ratio = duration_s / period_s
    return ratio * -math.expm1(-1.0 / ratio)


def find_longest_interval_s(
    observed_s: float, period_s: float, duration_s: float | None = None, chance: float = CHANCE
) -> float | None:
    """Mean time between uses up to which a dependency was seen, but for a chance.

    Parameters
    ----------
    observed_s : float
        Time that was watched, gaps taken off.
    period_s : float
        Time between samples; 0 where events tell of every use.
    duration_s : float, optional
        Mean length of a use; by default uses are held.
    chance : float, default 0.05
        Probability to have missed it.

    Returns
    -------
    float or None
        None if nothing can be said: nothing was watched, or uses of no length are sampled.

    Raises
    ------
    SettingsError
        If a length is negative or no number, or the chance is none between 0 and 1.

    Examples
    --------
    >>> round(find_longest_interval_s(3600.0, 5.0))
    1202
    """
    _require_length("time that was watched", observed_s)
    _require_chance(chance)
    seen = find_chance_to_see(duration_s, period_s) * observed_s
    return seen / math.log(1.0 / chance) if seen > 0.0 else None


def find_largest_share(runs: int, chance: float = CHANCE) -> float | None:
    """Share of runs of which, if it used a dependency, one of those that were seen did, but for a chance.

    Parameters
    ----------
    runs : int
    chance : float, default 0.05

    Returns
    -------
    float or None
        None if no run was seen.

    Examples
    --------
    >>> round(find_largest_share(59), 3)
    0.05
    """
    _require_chance(chance)
    if not is_whole_number(runs) or runs < 0:
        raise SettingsError("number of runs", expected="a whole number from 0 on", found=ascii(runs)[:80])
    return -math.expm1(math.log(chance) / runs) if runs else None


def summarize_missed(process: ibis.Table, segment: ibis.Table, gap: ibis.Table) -> ibis.Table:
    """What could have been missed of each application on each host.

    Parameters
    ----------
    process, segment, gap : ibis.Table
        Rows of `ProcessRecord`, `SegmentHeader` and `Gap`.

    Returns
    -------
    ibis.Table
        ApplicationCoverage.
    """
    seen = process.group_by("host", "name", "process_id").agg(
        first_ns=process.first_ns.min(), last_ns=process.last_ns.max()
    )
    watched = _measure_union(seen.rename(app="name"), ("host", "app"), "seen_ns")
    runs = seen.group_by("host", app=seen.name).agg(runs=seen.count())
    lost = _measure_union(gap.filter(gap.reason.isin(LOSING)), ("host",), "lost_ns")
    segment = segment.filter(~segment.sources.contains("wire"))
    looked = segment.group_by("host").agg(
        longest_s=segment.period_s.max(), without=(~segment.sources.contains("event")).sum().cast("int64")
    )
    rows = watched.join(runs, ["host", "app"]).select(*watched.columns, "runs")
    rows = rows.join(looked, "host").select(*rows.columns, "longest_s", "without")
    rows = rows.left_join(lost, "host").select(*rows.columns, "lost_ns")
    left_ns = ibis.greatest(rows.seen_ns - rows.lost_ns.fill_null(0), ibis.literal(0, "int64"))
    rows = rows.mutate(
        observed_s=(left_ns // 10**6).cast("float64") / 1e3,
        period_s=ibis.ifelse(rows.without == 0, 0.0, rows.longest_s),
    )
    seen_s = rows.observed_s.nullif(0.0)
    ratio = SHORT_S / rows.period_s.nullif(0.0)
    short = (ratio * (1.0 - (-1.0 / ratio).exp())).fill_null(1.0)
    rows = rows.mutate(
        interval_s=seen_s / math.log(1.0 / CHANCE),
        short_interval_s=seen_s * short / math.log(1.0 / CHANCE),
        run_share=1.0 - (math.log(CHANCE) / rows.runs.cast("float64")).exp(),
    )
    return rows.select(**{column.name: rows[column.name].cast(column.type) for column in columns(ApplicationCoverage)})


def _measure_union(rows: ibis.Table, key: tuple[str, ...], name: str) -> ibis.Table:
    """How long the spans of each key last, overlaps counted once: what each adds to those that began before it."""
    before = ibis.window(
        group_by=list(key), order_by=[rows.first_ns, rows.last_ns], preceding=(None, 1), following=None
    )
    until = rows.last_ns.max().over(before).fill_null(rows.first_ns)
    added = ibis.greatest(rows.last_ns - ibis.greatest(rows.first_ns, until), ibis.literal(0, "int64"))
    pieces = rows.select(*key, added=added)
    return pieces.group_by(*key).agg(**{name: pieces.added.sum().cast("int64")})


def _require_length(name: str, value: Any) -> None:
    if not (isinstance(value, float) or is_whole_number(value)) or not math.isfinite(value) or value < 0:
        raise SettingsError(name, expected="seconds from 0 on", found=ascii(value)[:80])


def _require_chance(chance: Any) -> None:
    if not isinstance(chance, float) or not 0.0 < chance < 1.0:
        raise SettingsError("chance to have missed it", expected="a number between 0 and 1", found=ascii(chance)[:80])
