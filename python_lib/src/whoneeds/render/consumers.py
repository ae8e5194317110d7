# SPDX-License-Identifier: GPL-3.0-or-later
"""Services by who uses them, and destinations by name, in words."""

from collections.abc import Mapping
from typing import Any

from whoneeds.render.quantity import UNKNOWN, tell_bytes, tell_count, tell_instant
from whoneeds.render.table import Shown

Row = Mapping[str, Any]

CONSUMER_NAMES = [
    "protocol", "port", "resp_host", "place", "resp_app", "applications", "static_applications", "hosts", "users",
    "instances", "flows", "orig_bytes", "resp_bytes", "first_ns", "last_ns",
]  # fmt: skip


def consumer_columns(level: str) -> list[Shown]:
    """Columns of the table of services.

    Parameters
    ----------
    level : {"service", "place"}
    """
    places = [Shown("OFFERED BY", _provider)] if level == "place" else [Shown("PROVIDER", _app)]
    return [
        Shown("SERVICE", lambda row: f"{row['protocol']}/{row['port']}"),
        *places,
        Shown("APPLICATIONS", lambda row: str(row["applications"]), 90, right=True),
        Shown("STATIC", lambda row: str(row["static_applications"]), 85, right=True),
        Shown("HOSTS", lambda row: str(row["hosts"]), 80, right=True),
        Shown("USERS", lambda row: UNKNOWN if row["users"] is None else str(row["users"]), 70, right=True),
        Shown("INSTANCES", lambda row: str(row["instances"]), 60, right=True),
        Shown("FLOWS", lambda row: str(row["flows"]), 75, right=True),
        Shown("RECEIVED", lambda row: tell_bytes(row["orig_bytes"]), 40, right=True),
        Shown("SENT", lambda row: tell_bytes(row["resp_bytes"]), 41, right=True),
        Shown("FIRST SEEN", lambda row: tell_instant(row["first_ns"]), 20),
        Shown("LAST SEEN", lambda row: tell_instant(row["last_ns"]), 30),
    ]


def sort_consumers(rows: list[Row]) -> list[Row]:
    """What most applications use first; equal ones by name."""
    return sorted(
        rows,
        key=lambda row: (
            -row["applications"], -row["hosts"], row["protocol"], row["port"], row.get("place") or "",
        ),
    )  # fmt: skip


def tell_consumers(node: str, total: Row) -> str:
    """How many need a node, in one sentence.

    Parameters
    ----------
    node : str
    total : mapping
        The one row of `whoneeds.analysis.consumers.count_consumers` without a level.
    """
    users = "" if total["users"] is None else f", run by {tell_count(total['users'], 'known user')},"
    needing = tell_count(total["applications"], "application")
    return (
        f"{node} is used by {needing}{users} on {tell_count(total['hosts'], 'host')}; "
        f"{total['static_applications']} of the applications need it statically."
    )


DESTINATION_COLUMNS = [
    Shown("DEPENDENT", lambda row: f"{row['app']}@{row['host']}"),
    Shown("NAME", lambda row: row["name"] or ("ambiguous" if row["told_by"] == "ambiguous" else UNKNOWN)),
    Shown("SERVICE", lambda row: f"{row['protocol']}/{row['port']}"),
    Shown("ADDRESS", lambda row: str(row["resp_addr"])),
    Shown("HOST", lambda row: row["resp_host"] or UNKNOWN, 60),
    Shown("ORGANISATION", lambda row: row["organisation"] or UNKNOWN, 70),
    Shown("ANY OF", lambda row: row["any_of"] or UNKNOWN, 65),
    Shown("TOLD BY", lambda row: str(row["told_by"]), 40),
    Shown("FLOWS", lambda row: str(row["flows"]), 50, right=True),
    Shown("FIRST SEEN", lambda row: tell_instant(row["first_ns"]), 20),
    Shown("LAST SEEN", lambda row: tell_instant(row["last_ns"]), 30),
]


def _app(row: Row) -> str:
    return row["resp_app"] or UNKNOWN


def _provider(row: Row) -> str:
    return f"{row['resp_app']}@{row['place']}" if row["resp_app"] else str(row["place"])
