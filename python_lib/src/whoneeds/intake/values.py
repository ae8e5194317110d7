# SPDX-License-Identifier: GPL-3.0-or-later
"""Values out of somebody else's log: each becomes exactly what its column holds, or the line is refused.

Nothing is repaired: a port of 70000 is no port, and a count of -1 is no count. What a log leaves out is None.
"""

import ipaddress
import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from whoneeds.model.errors import InvalidRecord
from whoneeds.model.identity import DOMAIN_NAME
from whoneeds.model.schema import is_whole_number

#: 2000-01-01 in UTC nanoseconds: no log that is of use is older.
EARLIEST_NS = 946_684_800 * 10**9
_LATEST_NS = 4_102_444_800 * 10**9
_MOST = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = re.compile(r"(\d{1,12})(?:\.(\d{1,18}))?(?:[eE]\+?(\d{1,2}))?\Z", re.ASCII)
_WHOLE = re.compile(r"\d{1,19}\Z", re.ASCII)


class BadLine(InvalidRecord):
    """A line that is not what its format says."""


def read_object(line: bytes) -> dict[str, Any]:
    """A line of JSON that holds one object; fractions stay as they are written.

    Raises
    ------
    BadLine
    """
    try:
        held = json.loads(line.decode("utf-8"), parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise BadLine("line", expected="one JSON object", found=ascii(line[:60])[2:-1]) from error
    if not isinstance(held, dict):
        raise BadLine("line", expected="one JSON object", found=ascii(line[:60])[2:-1])
    return held


def is_absent(value: Any) -> bool:
    """Whether a log says nothing here."""
    return value is None or value in ("", "-", "(empty)")


def as_text(value: Any, max_length: int) -> str | None:
    """Text that any UTF-8 file can hold, cut at the column's length; None if there is none."""
    if is_absent(value) or not isinstance(value, str):
        return None
    if not value.isascii():
        value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return str(value[:max_length])


@lru_cache(1 << 14)
def _canonical(text: str) -> str:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def as_address(value: Any, what: str) -> str:
    """An address in its one canonical spelling, without the zone that it was seen in.

    Raises
    ------
    BadLine
    """
    if isinstance(value, str) and len(value) <= 100:
        try:
            return _canonical(value)
        except ValueError:
            pass
    raise BadLine(what, expected="an IPv4 or IPv6 address", found=ascii(value)[:60])


def as_whole(value: Any, what: str, most: int = _MOST) -> int:
    """A whole number from 0 to a limit, written as a number or as text.

    Raises
    ------
    BadLine
    """
    number = int(value) if isinstance(value, str) and _WHOLE.match(value) else value
    if is_whole_number(number) and 0 <= number <= most:
        return number
    raise BadLine(what, expected=f"a whole number from 0 to {most}", found=ascii(value)[:60])


def as_port(value: Any, what: str) -> int:
    """A port."""
    return as_whole(value, what, 65_535)


def as_count(value: Any, what: str) -> int | None:
    """A count; None if the log has none."""
    return None if is_absent(value) else as_whole(value, what)


def as_duration_ns(value: Any, what: str) -> int:
    """A time span in seconds, exact to the nanosecond.

    Raises
    ------
    BadLine
    """
    found = _SECONDS.match(str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if found is None:
        raise BadLine(what, expected="seconds", found=ascii(value)[:60])
    digits, raised = (found[2] or "").ljust(9, "0")[:9], int(found[3] or 0)
    made: int = (int(found[1]) * 10**9 + int(digits)) * 10 ** min(raised, 19)
    if made > _LATEST_NS:
        raise BadLine(what, expected="seconds of a time that can be", found=ascii(value)[:60])
    return made


def as_instant_ns(value: Any, what: str) -> int:
    """An instant in UTC nanoseconds, written as seconds since 1970 or as ISO 8601; without a zone it is UTC.

    Raises
    ------
    BadLine
    """
    if isinstance(value, (str, int)) and not isinstance(value, bool) and _SECONDS.match(str(value)):
        made = as_duration_ns(value, what)
    else:
        try:
            if not isinstance(value, str) or len(value) > 40:
                raise ValueError
            read = datetime.fromisoformat(value)
            read = read.replace(tzinfo=UTC) if read.tzinfo is None else read
            made = (read - _EPOCH) // timedelta(microseconds=1) * 1000
        except (ValueError, OverflowError):
            raise BadLine(what, expected="seconds since 1970 or an ISO 8601 time", found=ascii(value)[:60]) from None
    if not EARLIEST_NS <= made <= _LATEST_NS:
        raise BadLine(what, expected="a time from 2000 to 2100", found=ascii(value)[:60])
    return made


def as_domain_name(value: Any) -> str | None:
    """A name of the domain name system as it is kept; None if it is none."""
    if not isinstance(value, str) or len(value) > 255:
        return None
    name = value.lower().removesuffix(".")
    return name if DOMAIN_NAME.match(name) else None


def as_known_address(value: Any) -> str | None:
    """An address, or None for anything else: an answer of a name service may hold whatever it likes."""
    try:
        return as_address(value, "answer")
    except BadLine:
        return None
