# SPDX-License-Identifier: GPL-3.0-or-later
"""Part of what was observed: some hosts, users, hours, days, or calls inside or outside (Macroscope, section 4.1).

Each of these makes another population: what an application needs is decided anew from the connections that are left,
as if nothing else had been seen. So a filter comes before the method, not behind it.

A connection lies in a window of time if any instant of it does, and then counts whole: what of its bytes went over in
which hour is not known. Hours of the day are those of a time zone. Its offset from UTC changes at few instants, and
between two of them a day is a plain number of nanoseconds: each such piece is looked at by itself, exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ibis

from whoneeds.analysis.ranges import AddressRanges, list_own_addresses, tell_inside
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import LOCATIONS
from whoneeds.model.schema import is_whole_number

EVERYWHERE = "all"
PLACES = ("inside", "outside")

_MINUTE_NS = 60 * 10**9
_DAY_NS = 24 * 60 * _MINUTE_NS
_FIRST_NS, _LAST_NS = -(2**62), 2**62


@dataclass(frozen=True)
class Hours:
    """Hours of the day in a time zone.

    Attributes
    ----------
    begin_minute, end_minute : int
        Minutes since midnight; the end does not belong to them. An end before the begin lies on the next day.
    offsets : tuple of (int, int)
        From which instant (nanoseconds UTC) the zone is how far ahead of UTC (nanoseconds), in order of time; the
        first one holds before as well.
    zone : str
        What the zone is called.

    Raises
    ------
    SettingsError
        If a minute is none of a day, begin and end are equal, or the offsets are empty or out of order.
    """

    begin_minute: int
    end_minute: int
    offsets: tuple[tuple[int, int], ...] = ((0, 0),)
    zone: str = "UTC"

    def __post_init__(self) -> None:
        minutes = (self.begin_minute, self.end_minute)
        if not all(is_whole_number(minute) and 0 <= minute <= 1440 for minute in minutes):
            raise SettingsError("hours of the day", expected="times from 00:00 to 24:00", found=f"minutes {minutes}")
        if self.begin_minute % 1440 == self.end_minute % 1440 and self.length_ns != _DAY_NS:
            raise SettingsError(
                "hours of the day", expected="an end that is not the begin", found=f"minutes {minutes}",
                remedy="leave hours away for the whole day",
            )  # fmt: skip
        instants = [instant for instant, _offset in self.offsets]
        if not instants or instants != sorted(set(instants)):
            raise SettingsError("offsets of a time zone", expected="one or more in order of time", found=str(instants))

    @property
    def length_ns(self) -> int:
        """How long they last."""
        if (self.begin_minute, self.end_minute) == (0, 1440):
            return _DAY_NS
        return (self.end_minute - self.begin_minute) % 1440 * _MINUTE_NS


@dataclass(frozen=True)
class Filters:
    """Which connections count.

    Attributes
    ----------
    location : {"inside", "vpn", "outside", "all"} or None
        Where the observing host must have been; None leaves out only hosts known to have been elsewhere than inside.
    hosts : tuple of str
        Hosts on which the application runs; none for all.
    users : tuple of str
        Who runs it: a user's name or number, alone or behind ``host/``; none for all.
    since_ns, until_ns : int or None
        First instant, and the first one that does not count any more.
    hours : Hours or None
    place : {"inside", "outside"} or None
        Where the called address lies. One that is neither (no address) is left out by both.
    ranges : AddressRanges
        What inside is.

    Raises
    ------
    SettingsError
        If a word is none of the closed sets, a name is empty, or the window ends before it begins.
    """

    location: str | None = None
    hosts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    hours: Hours | None = None
    place: str | None = None
    ranges: AddressRanges = field(default_factory=AddressRanges)

    def __post_init__(self) -> None:
        for name, words in (("location", (*LOCATIONS, EVERYWHERE)), ("place", PLACES)):
            found = getattr(self, name)
            if found is not None and found not in words:
                raise SettingsError(name, expected=f"one of {words}", found=ascii(found)[:40])
        for name in ("hosts", "users"):
            if not all(isinstance(word, str) and word for word in getattr(self, name)):
                raise SettingsError(name, expected="names that are not empty", found=ascii(getattr(self, name))[:80])
        for name in ("since_ns", "until_ns"):
            instant = getattr(self, name)
            if instant is not None and not (is_whole_number(instant) and 0 <= instant < 2**62):
                raise SettingsError(name, expected="nanoseconds UTC from 1970 on", found=ascii(instant)[:40])
        if self.since_ns is not None and self.until_ns is not None and self.since_ns >= self.until_ns:
            raise SettingsError(
                "window of time", expected="an end that comes after the begin",
                found=f"{self.since_ns} to {self.until_ns}",
            )  # fmt: skip

    @property
    def changes_population(self) -> bool:
        """Whether anything else is asked for than what was decided when the store was analysed."""
        return self != Filters(ranges=self.ranges)

    @property
    def is_in_time(self) -> bool:
        """Whether only a part of the time counts."""
        return (self.since_ns, self.until_ns, self.hours) != (None, None, None)


def select_in_time(rows: ibis.Table, filters: Filters) -> ibis.Table:
    """Rows of which an instant from ``first_ns`` to ``last_ns`` lies in the filters' time."""
    if not filters.is_in_time:
        return rows
    lies: Any = ibis.literal(False)
    for begin_ns, end_ns, offset_ns in _pieces(filters):
        first = ibis.greatest(rows.first_ns, ibis.literal(begin_ns, "int64"))
        last = ibis.least(rows.last_ns, ibis.literal(end_ns - 1, "int64"))
        here = first <= last
        if filters.hours is not None:
            since_begin = _since_begin(first, filters.hours, offset_ns)
            reaches = last - first >= _DAY_NS - since_begin
            here = here & ((since_begin < filters.hours.length_ns) | reaches)
        lies = lies | here
    return rows.filter(lies)


def select_flows(flows: ibis.Table, filters: Filters, segment: ibis.Table) -> ibis.Table:
    """Flows that the filters leave; users are told apart later, when processes are known.

    Parameters
    ----------
    flows : ibis.Table
        Rows of `FlowRecord`.
    filters : Filters
        ``location`` and ``users`` are passed over here.
    segment : ibis.Table
        Rows of `SegmentHeader`: whose addresses are the hosts' own.
    """
    if filters.hosts:
        flows = flows.filter(flows.orig_host.isin(filters.hosts).fill_null(False))
    return select_in_place(select_in_time(flows, filters), filters, segment)


def select_in_place(flows: ibis.Table, filters: Filters, segment: ibis.Table) -> ibis.Table:
    """Flows whose called address is where the filters say."""
    if filters.place is None:
        return flows
    told = tell_inside(flows, "resp_addr", filters.ranges, list_own_addresses(segment))
    return told.filter((told.inside == ibis.literal(filters.place == "inside")).fill_null(False)).drop("inside")


def find_users(processes: ibis.Table, words: Sequence[str]) -> ibis.Table:
    """Users who are called by any of the words.

    Parameters
    ----------
    processes : ibis.Table
        Rows of `ProcessRecord`.
    words : sequence of str
        A user's name or number, alone or behind ``host/``.

    Returns
    -------
    ibis.Table
        user: host and number, as in `ServiceUse`.
    """
    known = processes.filter(processes.uid.notnull()).select("host", "uid", "user").distinct()
    number, host = known.uid.cast("string"), known.host + ibis.literal("/")
    called = number.isin(words) | (host + number).isin(words)
    by_name = known.user.isin(words) | (host + known.user).isin(words)
    return known.filter(called | by_name.fill_null(False)).select(user=host + number).distinct()


def measure_observation(segment: ibis.Table, filters: Filters) -> ibis.Table:
    """How much of the observation the filters leave.

    Parameters
    ----------
    segment : ibis.Table
        Rows of `SegmentHeader`. Those of who watched a network are of no host, and left out.
    filters : Filters

    Returns
    -------
    ibis.Table
        One row: hosts and observed_s (time of all hosts together), hosts_left and observed_left_s (the same within the
        filters; hosts with no such time left are not counted).
    """
    spans = segment.filter(~segment.sources.contains("wire"))
    spans = spans.select("host", "location", first_ns="opened_ns", last_ns="closed_ns")
    within: Any = ibis.literal(0, "int64")
    for begin_ns, end_ns, offset_ns in _pieces(filters):
        first = ibis.greatest(spans.first_ns, ibis.literal(begin_ns, "int64"))
        last = ibis.greatest(ibis.least(spans.last_ns, ibis.literal(end_ns, "int64")), first)
        if filters.hours is None:
            within = within + (last - first)
        else:
            hours = filters.hours
            within = within + _passed(last, hours, offset_ns) - _passed(first, hours, offset_ns)
    counts: Any = spans.host.isin(filters.hosts) if filters.hosts else ibis.literal(True)
    if filters.location is None:
        counts = counts & ((spans.location == "inside") | spans.location.isnull())
    elif filters.location != EVERYWHERE:
        counts = counts & (spans.location == filters.location).fill_null(False)
    # milliseconds: nanoseconds of a thousand hosts in a year are too many for 64 bits
    spans = spans.mutate(whole_ms=(spans.last_ns - spans.first_ns) // 10**6, left_ns=ibis.ifelse(counts, within, 0))
    left = spans.left_ns > 0
    return spans.agg(
        hosts=spans.host.nunique(),
        observed_s=spans.whole_ms.sum().fill_null(0).cast("float64") / 1e3,
        hosts_left=ibis.ifelse(left, spans.host, ibis.null("string")).nunique(),
        observed_left_s=(spans.left_ns // 10**6).sum().fill_null(0).cast("float64") / 1e3,
    )


def _pieces(filters: Filters) -> Iterator[tuple[int, int, int]]:
    """Spans in which the zone keeps its offset: begin, end, offset; within the filters' window, in order."""
    since_ns = _FIRST_NS if filters.since_ns is None else filters.since_ns
    until_ns = _LAST_NS if filters.until_ns is None else filters.until_ns
    offsets = filters.hours.offsets if filters.hours else ((0, 0),)
    for at, (instant, offset_ns) in enumerate(offsets):
        begin_ns = max(since_ns, instant if at else _FIRST_NS)
        end_ns = min(until_ns, offsets[at + 1][0] if at + 1 < len(offsets) else _LAST_NS)
        if begin_ns < end_ns:
            yield begin_ns, end_ns, offset_ns


def _since_begin(instant: Any, hours: Hours, offset_ns: int) -> Any:
    """Time since the hours last began; engines keep the sign of what is divided, so it is made positive first."""
    rest = (instant + (offset_ns - hours.begin_minute * _MINUTE_NS)) % _DAY_NS
    return (rest + _DAY_NS) % _DAY_NS


def _passed(instant: Any, hours: Hours, offset_ns: int) -> Any:
    """How much time of the hours has passed since a midnight long ago; of use as a difference only."""
    since = _since_begin(instant, hours, offset_ns)
    begun = instant + (offset_ns - hours.begin_minute * _MINUTE_NS) - since  # a whole number of days
    return (begun // _DAY_NS) * hours.length_ns + ibis.least(since, ibis.literal(hours.length_ns, "int64"))
