# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of applications over their hosts' boots, and the pieces of their lives at one address each.

A *piece* is a process in one stretch of its host: what Macroscope calls an instance is all pieces of a process at one
address. Process numbers are given out again in every boot, so the same number is somebody else's the next day.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whoneeds.scenario.habits import Application
from whoneeds.scenario.uptime import DAY_US, US, Uptime

#: Shortest life of a process that is looked at, and shortest piece of one.
_LEAST_US = 2 * US


@dataclass(frozen=True)
class Lives:
    """Processes of one application and their pieces, as columns.

    Attributes
    ----------
    boot, begin, end : numpy.ndarray
        Of each process.
    process, stretch, first, last : numpy.ndarray
        Of each piece: number of its process here, number of the stretch, begin and end.
    """

    boot: Any
    begin: Any
    end: Any
    process: Any
    stretch: Any
    first: Any
    last: Any


def expand(counts: Any) -> tuple[Any, Any]:
    """For numbers of things: whose each one is, and its place among those."""
    whose = np.repeat(np.arange(len(counts)), counts)
    return whose, np.arange(len(whose)) - np.repeat(np.cumsum(counts) - counts, counts)


def draw_lives(application: Application, hosts: Any, uptime: Uptime, rng: np.random.Generator) -> Lives:
    """Draw an application's processes on the hosts that have it.

    Parameters
    ----------
    application : Application
    hosts : numpy.ndarray
        Numbers of these hosts.
    uptime : Uptime
    rng : numpy.random.Generator
    """
    boots = np.flatnonzero(np.isin(uptime.boot_host, hosts))
    if application.lifetime in ("boot", "kept"):
        boot, begin, end = _draw_lasting(application, boots, uptime, rng)
    else:
        boot, begin, end = _draw_runs(application, boots, uptime, rng)
    whole = end - begin >= _LEAST_US
    boot, begin, end = boot[whole], begin[whole], end[whole]
    process, number = expand(uptime.boot_past[boot] - uptime.boot_first[boot])
    stretch = uptime.boot_first[boot][process] + number
    first = np.maximum(begin[process], uptime.stretch_begin[stretch])
    last = np.minimum(end[process], uptime.stretch_end[stretch])
    there = last - first >= _LEAST_US
    return Lives(boot, begin, end, process[there], stretch[there], first[there], last[there])


def _draw_lasting(
    application: Application, boots: Any, uptime: Uptime, rng: np.random.Generator
) -> tuple[Any, Any, Any]:
    """Processes that last until the boot ends, or they are begun anew."""
    begin, end = uptime.boot_begin[boots], uptime.boot_end[boots]
    if application.lifetime == "boot":
        wait = application.delay_s * rng.uniform(0.5, 1.5, len(boots))
    else:
        wait = rng.exponential(application.delay_s, len(boots))
    begin = begin + (wait * US).astype(np.int64)
    span = np.maximum(end - begin, 0)
    times = rng.poisson(application.restarts_per_day * span / DAY_US)
    whose, number = expand(times + 1)
    starts = np.where(number == 0, 0.0, rng.random(len(whose)))
    order = np.lexsort((starts, whose))
    starts = begin[whose] + (starts[order] * span[whose]).astype(np.int64)
    ends = np.append(starts[1:], 0)
    last_of_all = np.append(whose[1:] != whose[:-1], True)
    return boots[whose], starts, np.where(last_of_all, end[whose], ends - US // 2)


def _draw_runs(application: Application, boots: Any, uptime: Uptime, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Processes that come and go within a stretch."""
    stretches = np.flatnonzero(np.isin(uptime.stretch_boot, boots))
    begin, end = uptime.stretch_begin[stretches], uptime.stretch_end[stretches]
    if application.lifetime == "login":
        first = uptime.boot_first[uptime.stretch_boot[stretches]] == stretches
        stretches, begin, end = stretches[first], begin[first], end[first]
        whose = np.arange(len(stretches))
        starts = begin + (rng.exponential(application.delay_s, len(begin)) * US).astype(np.int64)
    elif application.lifetime == "clock":
        period, offset = int(application.every_s * US), int(application.at_s * US)
        first_tick = -(-(begin - offset) // period)
        whose, number = expand(np.maximum(-(-(end - offset) // period) - first_tick, 0))
        starts = (first_tick[whose] + number) * period + offset
        starts = starts + (rng.exponential(1.0, len(starts)) * US).astype(np.int64)
    else:
        # people differ: some use a program all day, some hardly ever
        keen = rng.lognormal(-0.3, 0.8, int(uptime.boot_host.max(initial=0)) + 1)
        mean = keen[uptime.stretch_host[stretches]] * (end - begin) / (application.every_s * US)
        whose, _number = expand(rng.poisson(mean))
        starts = begin[whose] + (rng.random(len(whose)) * (end - begin)[whose]).astype(np.int64)
    length = rng.lognormal(np.log(application.median_s), 0.9, len(starts))
    ends = np.minimum(starts + (length * US).astype(np.int64), end[whose])
    return uptime.stretch_boot[stretches[whose]], starts, ends
