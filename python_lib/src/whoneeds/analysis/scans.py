# SPDX-License-Identifier: GPL-3.0-or-later
"""Port scans: one instance that asks for much that does not answer, in a short time (Macroscope, section 5.1).

"Macroscope can detect applications doing port scanning by looking at the number of rejected connections." What counts
is not how often an instance fails, since a client of a server that is down fails at the same place for ever, but at
how many *targets* (address, protocol and port) in one window of time, and that most of what it asked for in the
window was of that kind.

The count is held against what the application usually does: all windows of its other instances, and those of this
one before its first window of that kind, in a negative binomial with their mean and variance
(`whoneeds.analysis.chance.burst_tail`). A program of a peer-to-peer network that often finds many peers gone is so
measured by its own habits; one that was never seen before, against one target per window. An instance is judged by
its worst window, and its p-value multiplied by the number of its windows. Windows of a minute find fast scans, those
of an hour slow ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ibis

from whoneeds.analysis.attempts import INSTANCE, drop_contradictions
from whoneeds.analysis.chance import burst_tail
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number
from whoneeds.store.portable import as_whole


@dataclass(frozen=True)
class ScanSettings:
    """What counts as a scan.

    Attributes
    ----------
    windows_s : tuple of int
        Lengths of the windows.
    least_targets : int
        Targets without an answer in one window below which nobody is suspected.
    failed_share : float
        Least share of the window's targets that did not answer.

    Raises
    ------
    SettingsError
        If a value lies outside its range.
    """

    windows_s: tuple[int, ...] = (60, 3600)
    least_targets: int = 15
    failed_share: float = 0.5

    def __post_init__(self) -> None:
        if not self.windows_s or not all(is_whole_number(one) and 1 <= one <= 86400 for one in self.windows_s):
            raise SettingsError("windows of scans", expected="1 to 86400 seconds each", found=str(self.windows_s)[:60])
        if not (is_whole_number(self.least_targets) and 2 <= self.least_targets <= 10**6):
            raise SettingsError("targets of a scan", expected="2 to 1000000", found=ascii(self.least_targets)[:40])
        if not (isinstance(self.failed_share, float) and 0 < self.failed_share <= 1):
            raise SettingsError("failed share of a scan", expected="above 0, to 1", found=ascii(self.failed_share)[:40])


def find_bursts(
    attempts: ibis.Table,
    window_s: int,
    since_ns: int,
    until_ns: int,
    settings: ScanSettings = ScanSettings(),
) -> ibis.Table:
    """Instances with a window in which much did not answer.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`, of all times: those outside of the period are what it is held against.
    window_s : int
    since_ns, until_ns : int
        The period that is judged.
    settings : ScanSettings, optional

    Returns
    -------
    ibis.Table
        app, host, pid, address, window_s, targets (without an answer, in the worst window), windows (with a failure,
        in the period), failed, all_targets, services, addresses (without an answer, in all windows of that kind),
        first_ns, last_ns (of these), usual_windows, usual_targets, usual_squares (sums over the windows that it is
        held against), usual_most (the most in one window of another instance).
    """
    window_ns = window_s * 10**9
    rows = drop_contradictions(attempts)
    begin = rows.first_ns
    target = rows.resp_addr + " " + rows.protocol + "/" + rows.resp_port.cast("string")
    rows = rows.mutate(
        window=as_whole((begin - begin % window_ns) / window_ns),
        target=target,
        lost=ibis.ifelse(rows.failed, target, ibis.null("string")),
        judged=(begin >= since_ns) & (begin < until_ns),
    )
    windows = rows.group_by(*INSTANCE, "window").agg(
        asked=rows.target.nunique(), targets=rows.lost.nunique(), judged=rows.judged.max()
    )
    suspicious = windows.filter(
        windows.judged,
        windows.targets >= settings.least_targets,
        windows.targets.cast("float64") >= windows.asked.cast("float64") * settings.failed_share,
    )
    worst = suspicious.group_by(*INSTANCE).agg(targets=suspicious.targets.max(), since_window=suspicious.window.min())
    failing = windows.filter(windows.judged, windows.targets > 0)
    failing = failing.group_by(*INSTANCE).agg(windows=failing.count())
    everyone = windows.group_by("app").agg(**_sum_windows(windows, "all"))
    own = windows.join(worst.select(*INSTANCE, "since_window"), list(INSTANCE))
    own = own.filter(own.window >= own.since_window)
    own = own.group_by(*INSTANCE).agg(**_sum_windows(own, "own"))
    lost = rows.filter(rows.failed).semi_join(suspicious, [*INSTANCE, "window"])
    service = lost.protocol + "/" + lost.resp_port.cast("string")
    extent = lost.group_by(*INSTANCE).agg(
        failed=lost.count(), all_targets=lost.target.nunique(), services=service.nunique(),
        addresses=lost.resp_addr.nunique(), first_ns=lost.first_ns.min(), last_ns=lost.last_ns.max(),
    )  # fmt: skip
    most = windows.group_by(*INSTANCE).agg(most=windows.targets.max())
    others = worst.select(*INSTANCE).join(
        most.rename(other_host="host", other_pid="pid", other_address="address"), "app"
    )
    others = others.filter(
        (others.host != others.other_host) | (others.pid != others.other_pid) | (others.address != others.other_address)
    )
    others = others.group_by(*INSTANCE).agg(usual_most=others.most.max())
    made = worst
    for right in (failing, own, extent):
        made = made.join(right, list(INSTANCE))
    made = made.join(everyone, "app").left_join(others, list(INSTANCE))
    return made.select(
        *INSTANCE, window_s=ibis.literal(window_s, "int64"), targets="targets", windows="windows", failed="failed",
        all_targets="all_targets", services="services", addresses="addresses", first_ns="first_ns", last_ns="last_ns",
        usual_windows=made.all_windows - made.own_windows, usual_targets=made.all_targets_sum - made.own_targets_sum,
        usual_squares=made.all_squares - made.own_squares, usual_most="usual_most",
    )  # fmt: skip


def count_failing(attempts: ibis.Table, since_ns: int, until_ns: int) -> ibis.Table:
    """How many instances had a failure in a period, and how many attempts could not have told of one.

    Parameters
    ----------
    attempts : ibis.Table
    since_ns, until_ns : int

    Returns
    -------
    ibis.Table
        One row: instances, attempts, told.
    """
    rows = attempts.filter(attempts.first_ns >= since_ns, attempts.first_ns < until_ns)
    failing = rows.filter(rows.failed).select(*INSTANCE).distinct()
    figures = rows.agg(attempts=rows.count(), told=(rows.period_s == 0.0).cast("int64").sum().fill_null(0))
    return figures.cross_join(failing.agg(instances=failing.count()))


def weigh_bursts(bursts: Sequence[dict[str, int]]) -> list[float]:
    """Chance of each burst, if the instance did what the application usually does.

    Parameters
    ----------
    bursts : sequence of dict
        Rows of `find_bursts`.
    """
    tails = burst_tail(*([row[name] for row in bursts] for name in ("targets", *_USUAL)))
    return [min(1.0, float(tail) * row["windows"]) for tail, row in zip(tails, bursts, strict=True)]


_USUAL = ("usual_windows", "usual_targets", "usual_squares")


def _sum_windows(windows: ibis.Table, whose: str) -> dict[str, ibis.Value]:
    return {
        f"{whose}_windows": windows.count(),
        f"{whose}_targets_sum": windows.targets.sum().cast("int64"),
        f"{whose}_squares": (windows.targets * windows.targets).sum().cast("int64"),
    }
