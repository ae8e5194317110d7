# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and instants in words for people. Programs get the plain ones from JSON and CSV."""

from datetime import UTC, datetime

#: What stands where something is not known.
UNKNOWN = "-"


def tell_count(number: int, one: str, many: str | None = None) -> str:
    """A number of things.

    Examples
    --------
    >>> tell_count(1, "host"), tell_count(0, "host"), tell_count(2, "address", "addresses")
    ('1 host', '0 hosts', '2 addresses')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def tell_bytes(amount: int | None) -> str:
    """A number of bytes with its decimal unit.

    Examples
    --------
    >>> tell_bytes(999), tell_bytes(1_234_567), tell_bytes(None)
    ('999 B', '1.2 MB', '-')
    """
    if amount is None:
        return UNKNOWN
    if amount < 1000:
        return f"{amount} B"
    value = float(amount)
    units = iter(("kB", "MB", "GB", "TB", "PB", "EB"))
    unit = "B"
    while value >= 999.95:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def tell_share(share: float) -> str:
    """A share in per cent; what is not all is never rounded up to all, and what is not nothing not down to nothing.

    Examples
    --------
    >>> tell_share(1.0), tell_share(0.999), tell_share(0.25), tell_share(0.0004)
    ('100%', '99%', '25%', '<1%')
    """
    if 0 < share < 0.01:
        return "<1%"
    return "99%" if 0.99 < share < 1 else f"{share:.0%}"


def tell_instant(instant_ns: int) -> str:
    """An instant in UTC, to the second.

    Examples
    --------
    >>> tell_instant(1_763_777_777_123_456_789)
    '2025-11-22 02:16:17Z'
    """
    return f"{datetime.fromtimestamp(instant_ns // 10**9, UTC):%Y-%m-%d %H:%M:%SZ}"
