# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that narrow what counts, the same for every verb that asks, and how their words are read."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from whoneeds.cli.options import Location
from whoneeds.model.errors import SettingsError

if TYPE_CHECKING:
    from whoneeds.analysis.filters import Filters
    from whoneeds.store.session import Store


class Place(StrEnum):
    """Where a called address lies."""

    INSIDE = "inside"
    OUTSIDE = "outside"


AppOption = Annotated[
    list[str] | None, typer.Option("--app", metavar="NAME", help="Only these applications; may be given again.")
]
ServiceOption = Annotated[
    list[str] | None,
    typer.Option("--service", metavar="PROTOCOL/PORT", help="Only these services, as tcp/5432; may be given again."),
]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="Only what ran on these hosts; may be given again. Decides anew."),
]
UserOption = Annotated[
    list[str] | None,
    typer.Option(
        "--user", metavar="USER",
        help="Only what these users ran: a name or number, or HOST/ before it; may be given again. Decides anew.",
    ),
]  # fmt: skip
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME",
        help="Only connections that lasted until then: a date, an instant, or as long ago as 90m, 12h or 2d. "
        "Decides anew.",
    ),
]  # fmt: skip
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only connections that began before then. Decides anew.")
]
HoursOption = Annotated[
    str | None,
    typer.Option(
        "--hours", metavar="HH:MM-HH:MM",
        help="Only connections within these hours of the day; 22:00-06:00 goes over midnight. Decides anew.",
    ),
]  # fmt: skip
TimezoneOption = Annotated[
    str, typer.Option("--timezone", metavar="ZONE", help="Time zone of dates and hours, as Europe/Berlin.")
]
DEFAULT_TIMEZONE = "UTC"
PlaceOption = Annotated[
    Place | None, typer.Option("--place", help="Only calls to addresses inside or outside. Decides anew.")
]
RangesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--inside-range", metavar="NETWORK/BITS", envvar="WHONEEDS_INSIDE_RANGES",
        help="What is inside, beside the hosts' own addresses; may be given again. Private addresses by default.",
    ),
]  # fmt: skip
LocationOption = Annotated[
    Location | None, typer.Option("--location", help="Only what hosts saw while they were there. Decides anew.")
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d{1,9})([smhdw])\Z", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?\Z", re.ASCII)
_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)\Z", re.ASCII)


@dataclass(frozen=True)
class Rows:
    """Which rows of an answer are shown; what an answer rests on is not changed by it.

    Attributes
    ----------
    apps : tuple of str
    services : tuple of (str, int)
        Protocol and port.
    """

    apps: tuple[str, ...]
    services: tuple[tuple[str, int], ...]

    def select(self, table: Any, apps: Sequence[str] = ("app",), port: str = "port") -> Any:
        """Rows of a table of which one of the columns ``apps`` is one of the applications, and that are of a service.

        Parameters
        ----------
        table : ibis.Table
        apps : sequence of str
        port : str
        """
        if self.apps:
            named = [table[name].isin(self.apps).fill_null(False) for name in apps]
            table = table.filter(named[0] if len(named) == 1 else named[0] | named[1])
        if self.services:
            wanted = [(table.protocol == protocol) & (table[port] == number) for protocol, number in self.services]
            either = wanted[0]
            for one in wanted[1:]:
                either = either | one
            table = table.filter(either)
        return table


def read_rows(apps: Sequence[str] | None, services: Sequence[str] | None) -> Rows:
    """Rows that were asked for.

    Raises
    ------
    SettingsError
    """
    for app in apps or ():
        if not 0 < len(app) <= 64:  # longer ones are cut when they are recorded, and never match
            raise SettingsError("--app", expected="a name of 1 to 64 characters", found=f"{len(app)} characters")
    return Rows(tuple(apps or ()), tuple(map(read_service, services or ())))


def read_service(text: str) -> tuple[str, int]:
    """Protocol and port of a service.

    Raises
    ------
    SettingsError
    """
    protocol, slash, port = text.partition("/")
    if slash and protocol in ("tcp", "udp") and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
        return protocol, int(port)
    raise SettingsError(
        "--service", expected="protocol/port, as in tcp/5432", found=ascii(text)[:40], remedy="ports go from 1 to 65535"
    )


@dataclass(frozen=True)
class Narrowing:
    """Words of the options, as they were given."""

    hosts: Sequence[str] | None = None
    users: Sequence[str] | None = None
    since: str | None = None
    until: str | None = None
    hours: str | None = None
    timezone: str = DEFAULT_TIMEZONE
    place: Place | None = None
    ranges: Sequence[str] | None = None
    location: Location | None = None

    def read(self, store: "Store", now_ns: int | None = None) -> "Filters":
        """The filters that they mean.

        Parameters
        ----------
        store : Store
            Whose observation tells in which years the time zone is looked at.
        now_ns : int, optional
            What "ago" is counted from; by default the clock.

        Raises
        ------
        SettingsError
        """
        from whoneeds.analysis.filters import Filters, Hours
        from whoneeds.analysis.ranges import AddressRanges
        from whoneeds.cli.evidence import require_segments

        zone = read_zone(self.timezone)
        now_ns = time.time_ns() if now_ns is None else now_ns
        hours = None
        if self.hours is not None:
            seen = require_segments(store)
            # a day more on both sides: connections may have been there before the first look
            first = min(row["first_ns"] for row in seen) // 10**9 - 86400
            last = max(row["last_ns"] for row in seen) // 10**9 + 86400
            hours = Hours(*read_hours(self.hours), find_offsets(zone, first, last), self.timezone)
        return Filters(
            location=None if self.location is None else self.location.value,
            hosts=tuple(self.hosts or ()),
            users=tuple(self.users or ()),
            since_ns=None if self.since is None else read_time("--since", self.since, zone, now_ns),
            until_ns=None if self.until is None else read_time("--until", self.until, zone, now_ns),
            hours=hours,
            place=None if self.place is None else self.place.value,
            ranges=AddressRanges(tuple(self.ranges)) if self.ranges else AddressRanges(),
        )


def read_zone(name: str) -> tzinfo:
    """A time zone by its name.

    Raises
    ------
    SettingsError
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            "--timezone", expected="a zone that this machine knows, as UTC or Europe/Berlin", found=ascii(name)[:60],
            remedy="install the package tzdata if no zone is known",
        ) from error  # fmt: skip


def read_time(option: str, text: str, zone: tzinfo, now_ns: int) -> int:
    """An instant in nanoseconds UTC.

    Parameters
    ----------
    option : str
        Where the text comes from.
    text : str
        A date (its first instant in the zone), an instant (in the zone unless it names an offset), or how long ago.
    zone : tzinfo
    now_ns : int

    Raises
    ------
    SettingsError

    Examples
    --------
    >>> read_time("--since", "2026-11-24", ZoneInfo("UTC"), 0)
    1795478400000000000
    >>> read_time("--since", "2d", ZoneInfo("UTC"), 172_800_000_000_001)
    1
    """
    made_ns = -1
    if ago := _AGO.match(text):
        made_ns = now_ns - int(ago[1]) * _UNITS[ago[2]] * 10**9
    elif _DATE.match(text) or _INSTANT.match(text):
        try:
            at = datetime.fromisoformat(text)
            whole = at if at.tzinfo else at.replace(tzinfo=zone)
            made_ns = int(whole.replace(microsecond=0).timestamp()) * 10**9 + whole.microsecond * 1000
        except (ValueError, OverflowError):
            made_ns = -1
    if not 0 <= made_ns < 2**62:
        raise SettingsError(
            option, expected="a date (2026-11-24), an instant (2026-11-24T08:00Z), or how long ago (90m, 12h, 2d, 1w)",
            found=ascii(text)[:40], remedy="times go from 1970 to 2116",
        )  # fmt: skip
    return made_ns


def read_hours(text: str) -> tuple[int, int]:
    """Begin and end of hours of the day, in minutes.

    Raises
    ------
    SettingsError

    Examples
    --------
    >>> read_hours("22:00-06:30")
    (1320, 390)
    """
    if found := _HOURS.match(text):
        begin, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
        if begin < 1440 and end <= 1440:
            return begin, end
    raise SettingsError("--hours", expected="two times of the day, as in 08:00-18:00", found=ascii(text)[:40])


def find_offsets(zone: tzinfo, first_s: int, last_s: int) -> tuple[tuple[int, int], ...]:
    """Offsets of a zone from UTC in a span of time, and from when each holds.

    Parameters
    ----------
    zone : tzinfo
    first_s, last_s : int
        Seconds UTC.

    Returns
    -------
    tuple of (int, int)
        Instant and offset, both in nanoseconds.
    """

    def offset_s(second: int) -> int:
        return int((datetime.fromtimestamp(second, zone).utcoffset() or timedelta()).total_seconds())

    made = [(first_s, offset_s(first_s))]
    at = first_s
    while at < last_s:
        step = min(at + 86400, last_s)
        if offset_s(step) != made[-1][1]:
            low, high = at, step
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_s(middle) == made[-1][1] else (low, middle)
            made.append((high, offset_s(high)))
        at = step
    return tuple((second * 10**9, offset * 10**9) for second, offset in made)
