# SPDX-License-Identifier: GPL-3.0-or-later
"""Usage, traffic, failures, slices and orders, held against plain loops."""

import pytest
from attempts_world import ATTEMPTS, SECOND, attempt, ordered, run
from hypothesis import HealthCheck, given, settings
from profile_oracle import failing, orders, sliced, traffic, usage

from whoneeds.analysis.attempts import name_services, select_period
from whoneeds.analysis.causal import CausalSettings, count_orders, count_timed, judge_orders, select_timed
from whoneeds.analysis.failures import measure_failures_of
from whoneeds.analysis.slices import Slices, cut, measure_slices, observe_slices
from whoneeds.analysis.traffic import measure_traffic
from whoneeds.analysis.usage import measure_usage
from whoneeds.model.errors import AnalysisError, SettingsError

MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SLICES = Slices(2 * SECOND, 3 * SECOND, 4)
CAUSAL = CausalSettings(window_s=1.0, least_begins=2)


def usage_of(attempt):
    """Usage over all users."""
    return measure_usage(attempt)


def usage_by_user(attempt):
    """Usage of each user."""
    return measure_usage(attempt, by_user=True)


def traffic_of(attempt, flow):
    """Traffic of each application."""
    return measure_traffic(attempt, flow)


def traffic_by_user(attempt, flow):
    """Traffic of each user of an application."""
    return measure_traffic(attempt, flow, by_user=True)


def failures_of(attempt):
    """Failures of each application."""
    return measure_failures_of(attempt)


def failures_by_user(attempt):
    """Failures of each user of an application."""
    return measure_failures_of(attempt, by_user=True)


def slices_of(attempt, segment):
    """Figures of each slice."""
    return measure_slices(attempt, segment, SLICES)


def orders_of(attempt):
    """Which service precedes which."""
    return count_orders(select_timed(attempt, CAUSAL), CAUSAL)


def timed_of(attempt):
    """How many uses can be put in order."""
    return count_timed(attempt, CAUSAL)


def segment(host, opened, closed, **chosen):
    """A segment's header as far as profiles read it."""
    row = {
        "segment_id": f"{host}/b/{opened}", "host": host, "boot_id": "b", "sequence": 1, "schema": 1,
        "tracer_version": "1", "opened_ns": opened * SECOND, "opened_mono_ns": 0, "closed_ns": closed * SECOND,
        "closed_mono_ns": 0, "period_s": 5.0, "samples": 1, "sources": ["event"], "privileged": True, "addresses": [],
        "dropped_segments": 0,
    }  # fmt: skip
    return row | chosen


def same(found, wanted):
    """Two lists of rows are one, numbers within rounding."""
    found, wanted = ordered(found), ordered(wanted)
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    key = [name for name in (found[0] if found else {}) if name not in ("expected",)]
    found, wanted = (sorted(rows, key=lambda row: repr([row[name] for name in key])) for rows in (found, wanted))
    for row, right in zip(found, wanted, strict=True):
        assert row == pytest.approx(right, rel=1e-9, abs=2e-6, nan_ok=False) if "expected" in row else row == right


@given(rows=ATTEMPTS)
@MANY
def test_usage_equals_the_oracle(rows):
    """Usage of any connections is what the loops count, over all users and for each."""
    same(run(usage_of, attempt=rows), usage(rows, by_user=False))
    same(run(usage_by_user, attempt=rows), usage(rows, by_user=True))


@given(rows=ATTEMPTS)
@MANY
def test_traffic_and_failures_equal_the_oracle(rows):
    """Shares of traffic, the nameless part included, and failures are what the loops count."""
    tried, flows = rows[len(rows) // 4 :], rows
    plain = [
        {name: value for name, value in row.items() if name not in ("app", "user", "kind", "port")} for row in flows
    ]
    same(run(traffic_of, attempt=tried, flow=plain), traffic(tried, flows, by_user=False))
    same(run(traffic_by_user, attempt=tried, flow=plain), traffic(tried, flows, by_user=True))
    same(run(failures_of, attempt=tried), failing(tried, by_user=False))
    same(run(failures_by_user, attempt=tried), failing(tried, by_user=True))


@given(rows=ATTEMPTS)
@MANY
def test_slices_equal_the_oracle(rows):
    """Figures of each slice are what the loops count, with slices that nobody observed and those half observed."""
    segments = [segment("h1", 0, 4), segment("h2", 6, 7), segment("h1", 11, 30), segment("h2", 8, 8)]
    same(run(slices_of, attempt=rows, segment=segments), sliced(rows, segments, SLICES))


@given(rows=ATTEMPTS)
@MANY
def test_orders_equal_the_oracle(rows):
    """What precedes what, how often, and how often by chance, is what the loops count."""
    same(run(orders_of, attempt=rows), orders(rows, SECOND, CAUSAL.least_begins))


def test_users_who_are_not_known_are_a_row_of_their_own():
    """A user who is not known is neither nobody nor left out."""
    rows = [attempt(user=None, pid=1), attempt(user=None, pid=2), attempt(user="h1/7", pid=3)]
    found = {row["user"]: row for row in run(usage_by_user, attempt=rows)}
    assert {user: (row["instances"], row["users"]) for user, row in found.items()} == {None: (2, None), "h1/7": (1, 1)}


def test_failures_that_nobody_could_know_are_no_zeros():
    """Of an application that was only sampled, failures are not known; of one that events told of, none are none."""
    rows = [attempt(app="sampled", period_s=5.0), attempt(app="told"), attempt(app="failing", end="rejected")]
    found = {row["app"]: row for row in run(failures_of, attempt=rows)}
    assert set(found) == {"sampled", "failing"}
    assert (found["sampled"]["rejected"], found["sampled"]["failed_share"]) == (None, None)
    assert (found["failing"]["rejected"], found["failing"]["unanswered"]) == (1, 0)


def test_slices_tell_unknown_from_zero():
    """A slice without observation has no figures, one without the application no share, and one without the use a 0."""
    rows = [
        attempt(first_ns=2 * SECOND, last_ns=3 * SECOND),
        attempt(first_ns=11 * SECOND, last_ns=12 * SECOND, resp_port=80),
    ]
    found = run(slices_of, attempt=rows, segment=[segment("h1", 0, 7), segment("h1", 11, 14)])
    told = {row["slice"]: (row["hosts"], row["population"], row["usage_share"]) for row in found if row["port"] == 5432}
    assert told == {0: (1, 1, 1.0), 1: (1, 0, None), 2: (0, None, None), 3: (1, 1, 0.0)}


def named(attempt, dependency):
    """Attempts with services named by dependencies."""
    return name_services(attempt.drop("port", "kind"), dependency)


def test_many_transient_ports_are_one_service():
    """Services of an application are named, unless it has more than 20 transient ones or 1000 static ones."""
    base = dict.fromkeys(("host", "pid", "address", "resp_addr", "resp_host", "resp_app", "users"))
    needs, rows = [], []
    for app, number, statics in (("few", 20, 1000), ("many", 21, 1), ("scan", 0, 1001)):
        ports = [(at + 1, "static") for at in range(statics)] + [(40000 + at, "transient") for at in range(number)]
        for port, kind in ports:
            needs.append({**base, "level": 1, "app": app, "protocol": "tcp", "port": port, "kind": kind})
            rows.append(attempt(app=app, resp_port=port, flow_id=f"{app}{port}"))
    rows.append(attempt(app="few", resp_port=9999, flow_id="new"))
    found = run(named, attempt=rows, dependency=needs)
    assert {row["port"] for row in found if row["app"] == "many"} == {1, -1}
    assert {row["port"] for row in found if row["app"] == "scan"} == {-1}
    assert len({row["port"] for row in found if row["app"] == "few"}) == 1021
    assert [row["kind"] for row in found if row["port"] == 9999] == ["unclassified"]


def period_of(attempt):
    """Attempts of a period of three seconds."""
    return select_period(attempt, 2 * SECOND, 5 * SECOND)


def test_a_period_holds_what_was_seen_in_any_part_of_it():
    """Connections that touch the period belong to it; its end lies outside."""
    spans = [(0, 1), (0, 2), (1, 9), (4, 5), (5, 6)]
    rows = [attempt(first_ns=first * SECOND, last_ns=last * SECOND, pid=at) for at, (first, last) in enumerate(spans)]
    assert sorted(row["pid"] for row in run(period_of, attempt=rows)) == [1, 2, 3]


def in_turn(times, gap=0.2, **chosen):
    """Uses of a service and, a moment after each, of another, at random times of a long life."""
    rows = []
    for second in times:
        for port, begin in ((53, second), (443, second + 0.1 + gap)):
            rows.append(
                attempt(
                    resp_port=port, first_ns=int(begin * SECOND), last_ns=int((begin + 0.1) * SECOND), **chosen
                )
            )  # fmt: skip
    return rows


def judged(rows):
    """Verdicts by pair of ports."""
    return {(row["before_port"], row["port"]): row for row in judge_orders(run(orders_of, attempt=rows), CAUSAL)}


def test_an_order_is_found_in_one_direction():
    """A service that always ends just before another one begins precedes it, and not the other way round."""
    found = judged(in_turn(range(10, 1000, 50)))
    row = found[(53, 443)]
    assert row["ordered"]
    assert (row["begins"], row["preceded"], row["preceded_share"], row["instances_share"]) == (20, 20, 1.0, 1.0)
    assert row["expected"] < 1
    assert row["q_value"] < 1e-5
    assert (row["reverse_preceded"], row["reverse_share"]) == (0, 0.0)
    assert not found[(443, 53)]["ordered"]


def test_two_services_of_one_burst_are_in_no_order():
    """Where each follows the other equally often, far more often than by chance, neither precedes."""
    rows = []
    for at, second in enumerate(range(10, 1000, 20)):
        first, second_port = (53, 443) if at % 2 else (443, 53)
        rows += [
            attempt(resp_port=port, first_ns=int(begin * SECOND), last_ns=int((begin + 0.1) * SECOND))
            for port, begin in ((first, second), (second_port, second + 0.2))
        ]
    found = judged(rows)
    assert len(found) == 2
    assert not any(row["ordered"] for row in found.values())
    assert all(row["lift"] > 5 for row in found.values())


def test_a_service_that_is_used_all_the_time_precedes_nothing():
    """What ends every half second is within a second of everything, and that is chance."""
    rows = [
        attempt(resp_port=53, first_ns=at * SECOND // 2, last_ns=at * SECOND // 2 + 1) for at in range(400)
    ] + [attempt(resp_port=443, first_ns=at * SECOND, last_ns=at * SECOND + 1) for at in range(5, 200, 10)]  # fmt: skip
    row = judged(rows)[(53, 443)]
    assert row["preceded_share"] == 1.0
    assert row["p_value"] == 1.0
    assert not row["ordered"]


def test_too_few_uses_claim_nothing():
    """Below the least number of begins a pair has no row at all."""
    few = CausalSettings(window_s=1.0, least_begins=5)
    counted = run(lambda attempt: count_orders(select_timed(attempt, few), few), attempt=in_turn(range(10, 200, 50)))
    assert counted == []
    assert judge_orders([], few) == []


def test_times_that_cannot_be_used_are_counted():
    """Connections that were sampled too seldom for the window, or end before they begin, are counted and left out."""
    rows = [attempt(period_s=0.5), attempt(period_s=5.0), attempt(first_ns=5, last_ns=4), attempt(end="rejected")]
    assert run(timed_of, attempt=rows) == [{"uses": 3, "coarse": 1, "contradicting": 1}]


def test_nothing_in_nothing_out():
    """Without a connection there is no row, of whatever view."""
    for build in (usage_of, usage_by_user, failures_of, orders_of):
        assert run(build, attempt=[]) == []
    assert run(traffic_of, attempt=[], flow=[]) == []
    assert run(slices_of, attempt=[], segment=[]) == []
    assert run(timed_of, attempt=[]) == [{"uses": 0, "coarse": 0, "contradicting": 0}]


@pytest.mark.parametrize(
    "wrong",
    [{"window_s": 0.0}, {"window_s": float("nan")}, {"window_s": "1"}, {"often_share": 0}, {"least_begins": 1}],
)
def test_wrong_settings_of_orders_are_refused(wrong):
    """A window, share or number outside its range is refused with what was expected."""
    with pytest.raises(SettingsError) as refused:
        CausalSettings(**wrong)
    assert refused.value.expected is not None


def test_slices_that_cannot_be_are_refused():
    """Slices of no length, too many of them, and an empty period are refused."""
    for begin, length, number in ((0, SECOND - 1, 1), (0, SECOND, 0), (0, SECOND, 4001)):
        with pytest.raises(SettingsError):
            Slices(begin, length, number)
    with pytest.raises(AnalysisError, match="empty"):
        cut(10, 9, SECOND)
    assert cut(10, 10 + 2 * SECOND, SECOND).number == 3


def observed(segment):
    """How slices were looked at."""
    return observe_slices(segment, SLICES)


def test_monitors_and_clocks_that_ran_backwards_observe_nothing():
    """Who watched a wire looked at no host, and a segment that closed before it opened tells nothing of a time."""
    rows = [segment("h1", 3, 2), segment("m", 0, 9, sources=["wire"])]
    assert run(observed, segment=rows) == []
