# SPDX-License-Identifier: GPL-3.0-or-later
"""What could have been missed: against simulated uses, by its properties, and with nothing to go by."""

import math
from itertools import pairwise

import ibis
import numpy as np
import pyarrow as pa
import pytest

from whoneeds.analysis.missed import (
    CHANCE,
    find_chance_to_see,
    find_largest_share,
    find_longest_interval_s,
    summarize_missed,
)
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import Gap, ProcessRecord, SegmentHeader
from whoneeds.store.columns import ibis_schema


def simulate(interval_s, observed_s, period_s, duration_s, lengths, trials=4000):
    """Share of trials in which at least one of the uses, at random times, lay across a sample."""
    rng = np.random.default_rng(7)
    seen = 0
    for _ in range(trials):
        begin = rng.uniform(0, observed_s, rng.poisson(observed_s / interval_s))
        equal = np.full(len(begin), duration_s)
        length = rng.exponential(duration_s, len(begin)) if lengths == "exponential" else equal
        phase = rng.uniform(0, period_s)
        seen += bool(np.any(np.floor((begin + length - phase) / period_s) > np.floor((begin - phase) / period_s)))
    return seen / trials


@pytest.mark.parametrize("duration_s", [0.2, 5.0, 60.0])
@pytest.mark.parametrize("lengths", ["exponential", "equal"])
def test_what_is_promised_is_seen(duration_s, lengths):
    """A dependency at the stated interval is seen in 95 % of simulated observations, or more if uses last equally."""
    interval_s = find_longest_interval_s(3600.0, 5.0, duration_s)
    share = simulate(interval_s, 3600.0, 5.0, duration_s, lengths)
    assert share >= 0.95 - 0.012
    if lengths == "exponential":
        assert share <= 0.95 + 0.012


def test_longer_looks_see_rarer_needs():
    """The interval grows with the time, with the length of uses and with shorter periods, up to that of events."""
    times = [find_longest_interval_s(float(each), 5.0, 1.0) for each in (60, 600, 6000)]
    lengths = [find_longest_interval_s(600.0, 5.0, each) for each in (0.1, 1.0, 100.0, None)]
    periods = [find_longest_interval_s(600.0, each, 1.0) for each in (30.0, 5.0, 1.0, 0.0)]
    for rising in (times, lengths, periods):
        assert all(one < other for one, other in pairwise(rising))
    assert lengths[-1] == periods[-1] == 600.0 / math.log(1 / CHANCE)


def test_runs_that_were_seen_bound_the_share():
    """Of n runs none used what a share of all use, with exactly the chance that is allowed."""
    for runs in (1, 3, 59):
        assert (1 - find_largest_share(runs)) ** runs == pytest.approx(CHANCE)


def test_of_nothing_nothing_is_said():
    """No time, no length and no run give no number."""
    assert find_longest_interval_s(0.0, 5.0) is None
    assert find_longest_interval_s(60.0, 5.0, 0.0) is None
    assert find_largest_share(0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: find_longest_interval_s(-1.0, 5.0), lambda: find_longest_interval_s(math.nan, 5.0),
        lambda: find_longest_interval_s(1.0, math.inf), lambda: find_longest_interval_s(1.0, 1.0, chance=0.0),
        lambda: find_chance_to_see(True, 5.0), lambda: find_largest_share(1.5),
    ],
)  # fmt: skip
def test_what_is_no_length_is_refused(wrong):
    """Negative, endless and undefined lengths and chances are refused."""
    with pytest.raises(SettingsError):
        wrong()


def run(processes, segments, gaps=()):
    """The summary of rows given as mappings."""
    tables = []
    for record, rows in ((ProcessRecord, processes), (SegmentHeader, segments), (Gap, gaps)):
        schema = ibis_schema(record)
        held = {name: [row.get(name) for row in rows] for name in schema.names}
        tables.append(ibis.memtable(pa.table(held, schema.to_pyarrow())))
    rows = ibis.duckdb.connect().to_pyarrow(summarize_missed(*tables)).to_pylist()
    return sorted(rows, key=lambda row: row["app"])


def process(number, first_s, last_s, name="web"):
    """A process that was seen for some time."""
    return {"host": "h", "name": name, "process_id": f"h/b/{number}/1", "first_ns": first_s * 10**9,
            "last_ns": last_s * 10**9}  # fmt: skip


SAMPLED = [{"host": "h", "period_s": 5.0, "sources": ["table"]}]


def test_time_is_counted_once_and_gaps_are_taken_off():
    """Processes at the same time count once, and what a gap lost does not count; other gaps take nothing."""
    lost = {"host": "h", "source": "table", "reason": "late", "first_ns": 10**10, "last_ns": 3 * 10**10}
    refused = {**lost, "reason": "permission", "last_ns": 9 * 10**10}
    seen = [process(1, 0, 60), process(2, 30, 100), process(3, 200, 300), process(4, 0, 5, "job")]
    job, web = run(seen, SAMPLED, [lost, {**lost, "source": "events"}, refused])
    assert (web["runs"], web["observed_s"], web["period_s"]) == (3, 180.0, 5.0)
    assert web["interval_s"] == pytest.approx(find_longest_interval_s(180.0, 5.0))
    assert web["short_interval_s"] == pytest.approx(find_longest_interval_s(180.0, 5.0, 1.0))
    assert web["run_share"] == pytest.approx(find_largest_share(3))
    assert (job["observed_s"], job["interval_s"], job["short_interval_s"]) == (0.0, None, None)


def test_events_miss_nothing_short():
    """Where every segment has events, short uses are seen like long ones; where one has none, they are not."""
    told = [{"host": "h", "period_s": 5.0, "sources": ["event", "table"]}]
    (row,) = run([process(1, 0, 60)], told)
    assert row["short_interval_s"] == row["interval_s"]
    (row,) = run([process(1, 0, 60)], told + SAMPLED)
    assert row["short_interval_s"] < row["interval_s"]
