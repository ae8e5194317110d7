# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clocks are wrong, and by how much, out of what connections witness."""

import ibis
import pyarrow as pa
import pytest
from fleet import Host

from whoneeds.collector.clocks import Boot, ClockOffset, find_shifts, find_steps, settle_clocks
from whoneeds.questions import _describe_clock

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def compared(one, other, ahead_ns, witnesses=3, spread_ns=0):
    """A row of `compare_clocks`."""
    return {
        "host": one, "boot_id": "1", "other_host": other, "other_boot_id": "1", "ahead_ns": ahead_ns,
        "low_ns": ahead_ns, "high_ns": ahead_ns + spread_ns, "witnesses": witnesses,
    }  # fmt: skip


def test_most_hosts_are_right():
    """The clock that differs from what most hosts agree on is wrong by the difference, also over a third host."""
    rows = [compared("a", "b", 5), compared("b", "c", -7), compared("c", "d", HOUR), compared("d", "e", -2 * HOUR)]
    assert settle_clocks(rows) == {
        Boot("d", "1"): ClockOffset(HOUR - 2, 3, True), Boot("e", "1"): ClockOffset(-HOUR - 2, 3, True)
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [compared("a", "b", HOUR)],
        [compared("a", "b", 5), compared("b", "c", HOUR), compared("c", "d", -7)],
    ],
)
def test_between_as_many_hosts_nobody_is_called_wrong(rows):
    """Where no clock has most hosts on its side, times are put together, and it is said that none is sure."""
    found = settle_clocks(rows)
    assert [offset.by_most for offset in found.values()] == [False] * (len(rows) + 1 >> 1)
    assert "which is right cannot be told" in _describe_clock(next(iter(found.values())))


@pytest.mark.parametrize(
    "row",
    [
        compared("a", "b", HOUR, witnesses=2),
        compared("a", "b", HOUR, spread_ns=2 * SECOND),
        compared("a", "b", SECOND // 2),
    ],
)
def test_little_evidence_is_none(row):
    """Few witnesses, witnesses that disagree, and differences that all clocks have make no clock wrong."""
    assert settle_clocks([row]) == {}


def shifts_of(host, offsets):
    """What is added to the times of each segment of a host, in the order of the segments."""
    names = ("segment_id", "host", "boot_id", "opened_ns", "opened_mono_ns")
    headers = [header for header, _ in host.segments]
    rows = [{name: getattr(header, name) for name in names} for header in headers]
    made = find_shifts(find_steps(ibis.memtable(pa.Table.from_pylist(rows))), offsets).to_pyarrow().to_pylist()
    known = {row["segment_id"]: row["shift_ns"] for row in made}
    return [known.get(header.segment_id, 0) for header in headers]


def test_steps_and_offsets_add_up():
    """Segments before a step of the clock are moved by it, and all of a boot by how far its clock is ahead."""
    host = Host("a", ("10.0.0.1",))
    for begin in (0, 60, 120):
        host.segment(begin, begin + 60)
    for number, stepped in ((0, HOUR), (1, HOUR)):
        header, tables = host.segments[number]
        moved = {"opened_ns": header.opened_ns + stepped, "closed_ns": header.closed_ns + stepped}
        host.segments[number] = (type(header)(**{**vars(header), **moved}), tables)
    boot = Boot("a", host.segments[0][0].boot_id)
    assert shifts_of(host, {}) == [-HOUR, -HOUR, 0]
    assert shifts_of(host, {boot: ClockOffset(2 * HOUR, 2, True)}) == [-3 * HOUR, -3 * HOUR, -2 * HOUR]
