# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of what was observed, held against a walk over every minute and against Python's own time zones."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.analysis.filters import Filters, Hours, find_users, measure_observation, select_flows, select_in_time
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import FlowRecord, ProcessRecord, SegmentHeader
from whoneeds.store.columns import arrow_schema, to_arrow

MINUTE = 60 * 10**9
BERLIN = ZoneInfo("Europe/Berlin")
#: The night in which Berlin's clocks go back an hour, three days around it.
BEGIN = datetime(2026, 10, 24, tzinfo=UTC)
BEGIN_NS = int(BEGIN.timestamp()) * 10**9
CHANGE_NS = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()) * 10**9
OFFSETS = ((BEGIN_NS, 120 * MINUTE), (CHANGE_NS, 60 * MINUTE))
SPAN = 3 * 1440


def counts(minute, filters):
    """Whether a minute since the begin counts, by Python's own time zones."""
    at_ns = BEGIN_NS + minute * MINUTE
    if filters.since_ns is not None and at_ns < filters.since_ns:
        return False
    if filters.until_ns is not None and at_ns >= filters.until_ns:
        return False
    if filters.hours is None:
        return True
    local = (BEGIN + timedelta(minutes=minute)).astimezone(BERLIN)
    of_day, begin, end = local.hour * 60 + local.minute, filters.hours.begin_minute, filters.hours.end_minute
    return begin <= of_day < end if begin < end else of_day >= begin or of_day < end


def run(expression):
    """The rows of an expression."""
    return ibis.duckdb.connect().to_pyarrow(expression).to_pylist()


# whole hours most of the time, so that edges meet
MINUTES = st.integers(0, SPAN // 60).map(lambda hour: hour * 60) | st.integers(0, SPAN)
OF_DAY = st.integers(0, 23).map(lambda hour: hour * 60) | st.integers(0, 1439)
TIMES = st.builds(
    lambda edges, hours: Filters(
        since_ns=None if edges[0] is None else BEGIN_NS + edges[0] * MINUTE,
        until_ns=None if edges[1] is None else BEGIN_NS + edges[1] * MINUTE,
        hours=hours,
    ),
    st.tuples(st.none() | MINUTES, st.none() | MINUTES).filter(lambda edges: None in edges or edges[0] < edges[1]),
    st.none()
    | st.tuples(OF_DAY, OF_DAY)
    .filter(lambda pair: pair[0] != pair[1])
    .map(lambda pair: Hours(*pair, OFFSETS, "Europe/Berlin")),
)
SPANS = st.lists(st.tuples(MINUTES, st.sampled_from([0, 1, 60, 600, 1440, 2000])), min_size=8, max_size=12)


@settings(max_examples=25, deadline=None)
@given(spans=SPANS, filters=TIMES)
def test_a_row_counts_if_any_minute_of_it_does(spans, filters):
    """On any window and any hours, across a change of the clocks, a row stays exactly if a minute of it counts."""
    firsts = [BEGIN_NS + first * MINUTE for first, _length in spans]
    lasts = [BEGIN_NS + (first + length) * MINUTE for first, length in spans]
    rows = ibis.memtable(pa.table({"at": list(range(len(spans))), "first_ns": firsts, "last_ns": lasts}))
    wanted = [
        at for at, (first, length) in enumerate(spans)
        if any(counts(minute, filters) for minute in range(first, first + length + 1))
    ]  # fmt: skip
    assert sorted(row["at"] for row in run(select_in_time(rows, filters))) == wanted


def segments(spans):
    """Segments of hosts: name, first and last minute, location."""
    made = []
    for at, (host, first, last, location) in enumerate(spans):
        made.append(
            SegmentHeader(
                f"{host}/b/{at}", host, "b", at, 1, "0", BEGIN_NS + first * MINUTE, 1, BEGIN_NS + last * MINUTE, 2,
                5.0, 1, ("table",), True, ("10.0.0.1",), location, 0,
            )
        )  # fmt: skip
    return ibis.memtable(to_arrow(SegmentHeader, made))


@settings(max_examples=25, deadline=None)
@given(spans=SPANS, filters=TIMES)
def test_the_time_that_is_left_is_the_sum_of_its_minutes(spans, filters):
    """The observation that filters leave is the number of minutes in them, all hosts together."""
    held = [(f"h{at % 2}", first, first + length, None) for at, (first, length) in enumerate(spans)]
    (found,) = run(measure_observation(segments(held), filters))
    left = [sum(counts(minute, filters) for minute in range(first, last)) for _host, first, last, _location in held]
    assert found["observed_s"] == 60 * sum(last - first for _host, first, last, _location in held)
    assert found["observed_left_s"] == 60 * sum(left)
    assert found["hosts_left"] == len({host for (host, *_), minutes in zip(held, left, strict=True) if minutes})


@pytest.mark.parametrize(
    ("filters", "hosts", "minutes"),
    [
        (Filters(), 2, 30), (Filters(location="all"), 3, 70), (Filters(location="vpn"), 1, 40),
        (Filters(hosts=("a",)), 1, 10), (Filters(hosts=("nobody",)), 0, 0),
    ],
)  # fmt: skip
def test_hosts_and_locations_leave_their_own_time(filters, hosts, minutes):
    """Time of other hosts, and of hosts that were elsewhere, is not part of what is left."""
    (found,) = run(
        measure_observation(segments([("a", 0, 10, None), ("b", 0, 20, "inside"), ("c", 0, 40, "vpn")]), filters)
    )
    assert (found["hosts_left"], found["observed_left_s"]) == (hosts, minutes * 60)


def test_an_empty_store_leaves_nothing():
    """Of no segments at all nothing is left, and that is a number."""
    (found,) = run(measure_observation(ibis.memtable(arrow_schema(SegmentHeader).empty_table()), Filters(since_ns=1)))
    assert found == {"hosts": 0, "observed_s": 0.0, "hosts_left": 0, "observed_left_s": 0.0}


def flow(host, address):
    """A flow from a host to an address."""
    return FlowRecord(
        f"{host}>{address}", "tcp", "10.0.0.1", 40000, address, 443, "event", host, None, None, None, BEGIN_NS,
        BEGIN_NS, 0.0, 1, 5.0, None, None, None, None, None, 0, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (Filters(hosts=("a",)), {"a>10.0.0.9", "a>203.0.113.9"}),
        (Filters(place="inside"), {"a>10.0.0.9"}),
        (Filters(place="outside"), {"a>203.0.113.9", "b>203.0.113.9"}),
        (Filters(place="outside", hosts=("b",)), {"b>203.0.113.9"}),
        (Filters(), {"a>10.0.0.9", "a>203.0.113.9", "b>203.0.113.9"}),
    ],
)
def test_hosts_and_places(filters, left):
    """A flow stays if it began on one of the hosts and went where the filter says."""
    flows = ibis.memtable(
        to_arrow(FlowRecord, [flow("a", "10.0.0.9"), flow("a", "203.0.113.9"), flow("b", "203.0.113.9")])
    )
    assert {row["flow_id"] for row in run(select_flows(flows, filters, segments([("a", 0, 1, None)])))} == left


def test_users_go_by_name_or_number_on_one_host_or_all():
    """A user's name or number means that user on every host, and on one host where that stands before it."""
    known = [("a", 26, "postgres"), ("b", 26, "mail"), ("b", 99, "postgres"), ("b", None, None), ("a", 7, None)]
    processes = [
        ProcessRecord(f"{host}/b/{at}/1", host, at, 1, 1, "p", None, uid, user, None, None, 1, 2)
        for at, (host, uid, user) in enumerate(known)
    ]
    table = ibis.memtable(to_arrow(ProcessRecord, processes, "s"))

    def found(*words):
        return {row["user"] for row in run(find_users(table, words))}

    assert found("postgres") == {"a/26", "b/99"}
    assert found("26") == {"a/26", "b/26"}
    assert found("a/postgres", "b/26") == {"a/26", "b/26"}
    assert found("a/7") == {"a/7"}
    assert found("nobody") == set()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Filters(location="home"), lambda: Filters(place="vpn"), lambda: Filters(hosts=("",)),
        lambda: Filters(since_ns=5, until_ns=5), lambda: Filters(since_ns=-1), lambda: Filters(until_ns=True),
        lambda: Hours(480, 480), lambda: Hours(0, 0), lambda: Hours(1440, 0), lambda: Hours(-1, 5),
        lambda: Hours(0, 1441), lambda: Hours(1, 2, ()), lambda: Hours(1, 2, ((5, 0), (5, 1))),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make):
    """Words of no closed set, empty names, windows that end before they begin, and hours of no length are refused."""
    with pytest.raises(SettingsError, match=r"of the day|location|place|window|zone|hosts|_ns"):
        make()


def test_only_what_changes_the_population_says_so():
    """Filters that ask for nothing change no population, and each that asks for something does."""
    assert not Filters().changes_population
    assert all(
        one.changes_population
        for one in (Filters(location="all"), Filters(hosts=("a",)), Filters(users=("b",)), Filters(place="inside"),
                    Filters(since_ns=0), Filters(hours=Hours(0, 1)))
    )  # fmt: skip


def test_edges_are_where_they_are_said_to_be():
    """The first instant of hours and windows belongs to them, and the one at which they end does not."""
    eight, ten = BEGIN_NS + 480 * MINUTE, BEGIN_NS + 600 * MINUTE
    spans = [(eight - 8, eight - 1), (eight - 9, eight), (ten - 1, ten + 9), (ten, ten + 9)]
    rows = ibis.memtable(pa.table({"first_ns": [one for one, _ in spans], "last_ns": [other for _, other in spans]}))
    for filters in (Filters(hours=Hours(480, 600)), Filters(since_ns=eight, until_ns=ten)):
        assert {row["first_ns"] for row in run(select_in_time(rows, filters))} == {eight - 9, ten - 1}
