# SPDX-License-Identifier: GPL-3.0-or-later
"""Scans and changes: against plain loops, by hand, and planted among ordinary days."""

import itertools
import math
import random
from fractions import Fraction

import duckdb
import ibis
import pyarrow as pa
import pytest
from attempts_world import ATTEMPT, ATTEMPTS, SECOND, attempt, nullable_schema, run
from hypothesis import HealthCheck, given, settings
from profile_oracle import instance_of

from whoneeds.analysis.chance import binomial_tail, burst_tail, choose_answerable, correct_for_many, excess_tail
from whoneeds.analysis.changes import bound_amounts, bound_usage, compare_amounts, compare_usage
from whoneeds.analysis.findings import COLUMNS, find, split_history
from whoneeds.analysis.scans import ScanSettings, find_bursts
from whoneeds.analysis.slices import Slices
from whoneeds.model.errors import AnalysisError, SettingsError

MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: Two days before the period and two in it; the connections that are drawn lie between seconds 1 and 15.
DAYS, FIRST_DAY = Slices(SECOND, 4 * SECOND, 4), 2
TWO = ScanSettings(windows_s=(3,), least_targets=2, failed_share=0.5)
DAY = 86400 * SECOND


def bursts_of(attempt):
    """Bursts in windows of three seconds, from second 6 on."""
    return find_bursts(attempt, 3, 6 * SECOND, 12 * SECOND, TWO)


def usage_of(attempt):
    """Usage before and now."""
    return compare_usage(attempt, DAYS, FIRST_DAY)


def amounts_of(attempt):
    """Numbers of days before and now."""
    return compare_amounts(attempt, DAYS, FIRST_DAY)


def count_bursts(attempts):
    """Bursts by loops."""
    windows = {}
    for row in attempts:
        if row["last_ns"] >= row["first_ns"]:
            windows.setdefault((instance_of(row), row["first_ns"] // (3 * SECOND)), []).append(row)

    def target(row):
        return (row["resp_addr"], row["protocol"], row["resp_port"])

    lost = {key: {target(row) for row in rows if row["failed"]} for key, rows in windows.items()}
    judged = {key for key, rows in windows.items() if any(6 * SECOND <= row["first_ns"] < 12 * SECOND for row in rows)}
    asked = {key: {target(row) for row in rows} for key, rows in windows.items()}
    hot = {key for key in judged if len(lost[key]) >= 2 and len(lost[key]) * 2 >= len(asked[key])}
    made = set()
    for instance in {key[0] for key in hot}:
        own = {key for key in hot if key[0] == instance}
        since = min(key[1] for key in own)
        usual = [
            len(lost[key])
            for key in windows
            if key[0][0] == instance[0] and not (key[0] == instance and key[1] >= since)
        ]
        failed = [row for key in own for row in windows[key] if row["failed"]]
        others = [len(lost[key]) for key in windows if key[0][0] == instance[0] and key[0] != instance]
        made.add(
            (
                *instance, max(len(lost[key]) for key in own),
                sum(1 for key in judged if key[0] == instance and lost[key]), len(failed),
                len({target(row) for row in failed}), len({target(row)[1:] for row in failed}),
                len({row["resp_addr"] for row in failed}), min(row["first_ns"] for row in failed),
                max(row["last_ns"] for row in failed), len(usual), sum(usual), sum(one * one for one in usual),
                max(others, default=None),
            )
        )  # fmt: skip
    return made


@given(rows=ATTEMPTS)
@MANY
def test_bursts_equal_the_oracle(rows):
    """Bursts, what they consist of, and what they are held against are what the loops count."""
    names = (
        "app", "host", "pid", "address", "targets", "windows", "failed", "all_targets", "services", "addresses",
        "first_ns", "last_ns", "usual_windows", "usual_targets", "usual_squares", "usual_most",
    )  # fmt: skip
    found = run(bursts_of, attempt=rows)
    assert {tuple(row[name] for name in names) for row in found} == count_bursts(rows)
    assert len(found) == len(count_bursts(rows))


def days_of(row):
    """Numbers of the days that a connection touches."""
    return {
        at
        for at, begin in enumerate(DAYS.begins)
        if row["first_ns"] < begin + DAYS.length_ns and row["last_ns"] >= begin
    }


@given(rows=ATTEMPTS)
@MANY
def test_usage_before_and_now_equals_the_oracle(rows):
    """In how many days a service was used, of how many, here and on all hosts, is what the loops count."""
    good = [row for row in rows if not row["failed"] and row["last_ns"] >= row["first_ns"]]
    present, used = set(), set()
    for row in good:
        for day in days_of(row):
            present.add((*instance_of(row), day))
            used.add((*instance_of(row), day, row["protocol"], row["resp_port"]))
    wanted = {}
    for app, host, protocol, port in {(one[0], one[1], *one[5:]) for one in used}:

        def count(days, *, now, everywhere=False, app=app, host=host):
            return sum(
                one[0] == app and (everywhere or one[1] == host) and (one[4] >= FIRST_DAY) == now for one in days
            )

        mine = {one for one in used if one[5:] == (protocol, port)}
        figures = (count(mine, now=True), count(present, now=True), count(mine, now=False), count(present, now=False))
        if figures[1]:
            fleet = (count(mine, now=False, everywhere=True), count(present, now=False, everywhere=True))
            wanted[(app, host, protocol, port)] = (*figures, *fleet)
    found = {
        (row["app"], row["host"], row["protocol"], row["port"]): tuple(
            row[name] for name in ("now", "now_of", "before", "before_of", "fleet_before", "fleet_before_of")
        )
        for row in run(usage_of, attempt=rows)
    }
    assert found == wanted


@given(rows=ATTEMPTS)
@MANY
def test_amounts_before_and_now_equal_the_oracle(rows):
    """How many of the highest days lie before and now is what the loops count."""
    days = {}
    for row in rows:
        if row["last_ns"] >= row["first_ns"] and DAYS.begin_ns <= row["first_ns"] < DAYS.end_ns:
            at = (row["first_ns"] - DAYS.begin_ns) // DAYS.length_ns
            days.setdefault((*instance_of(row), at), []).append(row)
    values = {}
    for key, own in days.items():
        place, now = key[:2], key[4] >= FIRST_DAY
        good, told = [row for row in own if not row["failed"]], [row for row in own if row["period_s"] == 0]
        sums = {
            what: [row[name] for row in good if row[name] is not None]
            for what, name in (("sent", "orig_bytes"), ("received", "resp_bytes"))
        }
        for what, known in sums.items():
            if known:
                values.setdefault((what, *place, "", -2), []).append((float(sum(known)), now))
        if told:
            values.setdefault(("failed", *place, "", -2), []).append(
                (sum(row["failed"] for row in told) / len(told), now)
            )
        for service in {(row["protocol"], row["resp_port"]) for row in good}:
            mine = [
                row["orig_bytes"]
                for row in good
                if (row["protocol"], row["resp_port"]) == service and row["orig_bytes"] is not None
            ]
            if mine and sum(sums["sent"]):
                values.setdefault(("sent_share", *place, *service), []).append((sum(mine) / sum(sums["sent"]), now))
    wanted = {}
    for key, found in values.items():
        figures = [sum(now == then for _value, now in found) for then in (True, False)]
        if not all(figures):
            continue
        bound = sorted((value for value, _now in found), reverse=True)[figures[0]]
        above = [sum(now == then and value > bound for value, now in found) for then in (True, False)]
        wanted[key] = (above[0], figures[0], above[1], figures[1])
    names = ("what", "app", "host", "protocol", "port")
    got = {
        tuple(row[name] for name in names): tuple(row[name] for name in ("now", "now_of", "before", "before_of"))
        for row in run(amounts_of, attempt=rows)
    }
    assert got == wanted


def test_tails_are_those_that_counting_gives():
    """Tails of the binomial and of the hypergeometric distribution are sums of exact fractions."""
    for hits in range(6):
        exact = sum(math.comb(5, at) * Fraction(1, 4) ** at * Fraction(3, 4) ** (5 - at) for at in range(hits, 6))
        assert binomial_tail([hits], [5], [0.25])[0] == pytest.approx(float(exact), rel=1e-12)
    for now in range(1, 5):
        # 4 of 9 are marked, and 4 are drawn
        exact = Fraction(sum(math.comb(4, at) * math.comb(5, 4 - at) for at in range(now, 5)), math.comb(9, 4))
        assert excess_tail([now], [4], [4 - now], [5])[0] == pytest.approx(float(exact), rel=1e-12)


def test_bursts_are_weighed_by_earlier_ones():
    """Without history a burst is as sure as it is large; with many as large ones before it is nothing."""
    new, usual, quiet, steady = burst_tail([20, 20, 20, 20], [0, 50, 5000, 50], [0, 500, 5, 1000], [0, 20000, 5, 20000])
    assert new == pytest.approx(0.5**20)
    assert usual > 0.05
    assert quiet < 1e-6
    assert steady > 0.3


def test_correction_is_that_of_benjamini_and_hochberg():
    """Of the published example's fifteen comparisons four are kept, whether the others are listed or not."""
    p_values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590,
        1.0,
    ]  # fmt: skip
    assert (correct_for_many(p_values) <= 0.05).tolist() == [True] * 4 + [False] * 11
    assert (correct_for_many(p_values[:9], 15) <= 0.05).tolist() == [True] * 4 + [False] * 5
    shuffled = p_values[::-1]
    assert correct_for_many(shuffled).tolist() == correct_for_many(p_values).tolist()[::-1]
    assert correct_for_many([]).tolist() == []


def test_questions_that_nothing_could_answer_are_not_asked():
    """K is the least number for which no more than K questions can reach 0.05 / K, tried one by one."""
    chance = random.Random(3)
    for _ in range(50):
        bounds = [10 ** -chance.uniform(0, 6) for _ in range(chance.randrange(1, 12))]
        times = [chance.randrange(1, 40) for _ in bounds]
        least = next(
            number
            for number in range(1, 500)
            if sum(times[at] for at, bound in enumerate(bounds) if bound <= 0.05 / number) <= number
        )
        asked = sum(times[at] for at, bound in enumerate(bounds) if bound <= 0.05 / least)
        assert choose_answerable(bounds, times) == (0.05 / least, asked)
    assert choose_answerable([], []) == (0.05, 0)


def test_bounds_are_the_smallest_that_margins_allow():
    """No table with the same margins has a smaller p-value, and one has it."""
    for now_of, before_of, part in itertools.product(range(1, 4), range(1, 5), range(6)):
        if part > now_of + before_of:
            continue
        ups, downs = [], []
        for now in range(max(0, part - before_of), min(part, now_of) + 1):
            before = part - now
            ups.append(excess_tail([now], [now_of], [before], [before_of])[0])
            downs.append(excess_tail([now_of - now], [now_of], [before_of - before], [before_of])[0])
        margins = [{"now_of": now_of, "before_of": before_of, "part": part}]
        assert bound_amounts(margins) == [pytest.approx(min(ups))]
        assert bound_usage(margins) == [pytest.approx(min(1, 2 * min(*ups, *downs)))]


def ordinary(seed, *, hosts=4, days=20):
    """Days of an application with a service that it always uses, one that it uses half the time, and few failures."""
    chance = random.Random(seed)
    rows = []
    for host in range(hosts):
        for day in range(days):
            for pid in (1, 2):
                for port in (443, *([80] if chance.random() < 0.5 else [])):
                    begin = day * DAY + chance.randrange(DAY // 2)
                    rows.append(
                        attempt(
                            host=f"h{host}", pid=pid, resp_port=port, first_ns=begin, last_ns=begin + SECOND,
                            orig_bytes=chance.randrange(1000), resp_bytes=chance.randrange(1000),
                        )
                    )  # fmt: skip
                if chance.random() < 0.1:
                    rows.append(attempt(host=f"h{host}", pid=pid, first_ns=begin, last_ns=begin, end="rejected"))
    return rows


def look(rows, since_day=16, until_day=20):
    """Findings of a period against what was before."""
    with duckdb.connect() as engine:
        engine.register("attempt", pa.Table.from_pylist(rows, schema=ATTEMPT))
        table = ibis.table(ibis.Schema.from_pyarrow(ATTEMPT), name="attempt")

        def read(expression):
            made = engine.sql(str(ibis.to_sql(expression, dialect="duckdb"))).to_arrow_table()
            return made.cast(nullable_schema(expression)).to_pylist()

        return find(table, *split_history(0, since_day * DAY, until_day * DAY, DAY), read)


@pytest.fixture(scope="module")
def calm():
    """Findings among ordinary days alone."""
    return look(ordinary(4))


def test_ordinary_days_give_no_finding(calm):
    """Where nothing changed, nothing is found, though many questions were asked."""
    assert calm.findings == []
    assert calm.asked + calm.hopeless > 20
    assert (calm.told_share, calm.newcomers) == (1.0, 0)


def test_a_scan_is_found_with_what_it_was(calm):
    """One instance that asks for forty ports within a minute is found, with place, time and what is usual."""
    begin = 17 * DAY
    scan = [
        attempt(
            host="h2", pid=9, resp_port=1000 + at, first_ns=begin + at * SECOND, last_ns=begin + at * SECOND,
            end="rejected", kind="unclassified",
        )
        for at in range(40)
    ]  # fmt: skip
    findings = look([*ordinary(4), *scan]).findings
    assert {row["host"] for row in findings} == {"h2"}
    row = findings[0]
    assert tuple(row) == COLUMNS
    assert (row["what"], row["app"], row["host"], row["pid"], row["targets"]) == ("port_scan", "web", "h2", 9, 40)
    assert (row["services"], row["addresses"], row["window_s"]) == (40, 1, 60)
    assert (row["first_ns"], row["last_ns"]) == (begin, begin + 39 * SECOND)
    assert row["against"] == "other_windows"
    assert row["usual_most"] <= 2
    assert row["q_value"] < 1e-6


def test_a_server_that_is_down_is_no_scan():
    """A thousand refused attempts at one and the same target are a failing service, and no scan."""
    down = [
        attempt(host="h2", first_ns=17 * DAY + at * SECOND, last_ns=17 * DAY + at * SECOND, end="rejected")
        for at in range(1000)
    ]
    assert "port_scan" not in {row["what"] for row in look([*ordinary(4), *down]).findings}


def test_a_service_that_is_new_on_one_host_is_found():
    """A service that one host's instances use from one day on is new there, and nothing is said of the others."""
    new = [
        attempt(host="h3", pid=pid, resp_port=6667, first_ns=day * DAY + SECOND, last_ns=day * DAY + 2 * SECOND)
        for pid in (1, 2)
        for day in range(16, 20)
    ]
    found = look([*ordinary(4), *new]).findings
    assert {(row["what"], row["host"], row["port"]) for row in found if row["port"] == 6667} == {
        ("new_service", "h3", 6667)
    }
    assert {row["host"] for row in found} == {"h3"}
    (row,) = [row for row in found if row["what"] == "new_service"]
    assert (row["now"], row["now_of"], row["before"], row["fleet_before"], row["against"]) == (
        8,
        8,
        0,
        0,
        "own_history",
    )


def test_traffic_that_grows_is_found():
    """An application that sends a thousand times as much on one host is found there."""
    rows = [
        {**row, "orig_bytes": row["orig_bytes"] * 1000} if row["host"] == "h1" and row["first_ns"] >= 16 * DAY else row
        for row in ordinary(4)
    ]
    assert {(row["what"], row["host"]) for row in look(rows).findings} == {("sends_more", "h1")}


def test_without_a_history_nothing_is_claimed():
    """A period that nothing lies before, and an empty one, are refused with what to do."""
    with pytest.raises(AnalysisError, match="no history") as refused:
        split_history(5 * DAY, 5 * DAY, 6 * DAY, DAY)
    assert "--since" in refused.value.remedy
    with pytest.raises(AnalysisError, match="empty"):
        split_history(0, 6 * DAY, 6 * DAY, DAY)


def test_an_application_without_history_is_counted_and_not_judged():
    """What was never seen before on any host is a newcomer: there is nothing that its usage could be held against."""
    new = [
        attempt(app="new", host="h0", first_ns=day * DAY + at, last_ns=day * DAY + at, resp_port=9)
        for day in (17, 18)
        for at in range(5)
    ]
    found = look([*ordinary(4), *new])
    assert (found.newcomers, found.findings) == (1, [])


def test_history_and_period_meet_between_two_days():
    """Days are laid so that the period begins with one, however long the history is."""
    days, first_day = split_history(3 * SECOND, 10 * SECOND, 15 * SECOND, 2 * SECOND)
    assert days.begins[first_day] == 10 * SECOND
    assert days.begin_ns <= 3 * SECOND
    assert days.end_ns >= 15 * SECOND


@pytest.mark.parametrize("wrong", [{"windows_s": ()}, {"windows_s": (0,)}, {"least_targets": 1}, {"failed_share": 0}])
def test_wrong_settings_of_scans_are_refused(wrong):
    """Windows, numbers and shares outside their range are refused."""
    with pytest.raises(SettingsError):
        ScanSettings(**wrong)
