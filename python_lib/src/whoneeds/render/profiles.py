# SPDX-License-Identifier: GPL-3.0-or-later
"""How profiles are told: which columns each view has, in which order its rows stand, and findings in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from whoneeds.render.quantity import UNKNOWN, tell_bytes, tell_count, tell_instant, tell_share
from whoneeds.render.table import Shown

Row = Mapping[str, Any]

_APP = Shown("APPLICATION", lambda row: row["app"] or UNKNOWN)
_NAMELESS = Shown("APPLICATION", lambda row: row["app"] or "(not known)")
_USER = Shown("USER", lambda row: row["user"] or "not known")


def tell_service(row: Row) -> str:
    """A service in words.

    Examples
    --------
    >>> tell_service({"protocol": "tcp", "port": 443}), tell_service({"protocol": "udp", "port": None, "ports": 7})
    ('tcp/443', 'udp, 7 ports')
    """
    if row["port"] is not None:
        return f"{row['protocol']}/{row['port']}"
    return f"{row['protocol']}, {row['ports']} ports" if "ports" in row else f"{row['protocol']}, several ports"


def tell_finding(row: Row) -> str:
    """What was found, how much of it, and against what, in words.

    Parameters
    ----------
    row : mapping
        With the columns of `whoneeds.analysis.findings.COLUMNS`.
    """
    if row["what"] == "port_scan":
        usual = "" if row["usual_most"] is None else f"; at most {row['usual_most']} in another instance"
        asked = f"{tell_count(row['services'], 'service')} on {tell_count(row['addresses'], 'address', 'addresses')}"
        return (
            f"{row['targets']} targets without an answer in {row['window_s']} s, in all {asked}{usual}; "
            f"against {_AGAINST[row['against']]}"
        )
    now = f"{row['now']} of {row['now_of']} days, before {row['before']} of {row['before_of']}"
    if row["fleet_before_of"] is not None:
        return f"used in {now}; on all hosts before in {row['fleet_before']} of {row['fleet_before_of']}"
    words = {
        "sends_more": "sent", "receives_more": "received", "traffic_moved": "of what was sent went there",
        "fails_more": "of attempts failed",
    }  # fmt: skip
    whole = row["what"] in ("sends_more", "receives_more")
    above = tell_bytes(int(row["threshold"])) if whole else tell_share(row["threshold"])
    return f"more than {above} {words[row['what']]} on {now}"


def _place(row: Row) -> str:
    pid = "" if row["pid"] is None else f"[{row['pid']}]"
    return f"{row['app']}{pid}@{row['host']}"


_SERVICE = Shown("SERVICE", tell_service)
_SENT = Shown("SENT", lambda row: tell_bytes(row["orig_bytes"]), 60, right=True)
_SENT_SHARE = Shown("OF SENT", lambda row: _share(row["orig_share"]), 90, right=True)
_RECEIVED = Shown("RECEIVED", lambda row: tell_bytes(row["resp_bytes"]), 61, right=True)
_RECEIVED_SHARE = Shown("OF RECEIVED", lambda row: _share(row["resp_share"]), 91, right=True)
_CONNECTIONS = Shown("CONNECTIONS", lambda row: _number(row["connections"]), 70, right=True)
_REJECTED = Shown("REJECTED", lambda row: _number(row["rejected"]), 80, right=True)
_UNANSWERED = Shown("UNANSWERED", lambda row: _number(row["unanswered"]), 81, right=True)
_FAILED = Shown("FAILED", lambda row: _share(row["failed_share"]), 85, right=True)
_FIRST = Shown("FIRST", lambda row: _instant(row["first_ns"]), 20)
_LAST = Shown("LAST", lambda row: _instant(row["last_ns"]), 30)

_USAGE = [
    _APP, _SERVICE, Shown("KIND", lambda row: str(row["kind"]), 75),
    Shown("USED BY", lambda row: _share(row["usage_share"]), right=True),
    Shown("INSTANCES", lambda row: f"{row['instances']}/{row['population']}", 65, right=True),
    Shown("USERS", lambda row: _number(row["users"]), 50, right=True),
    _CONNECTIONS, _SENT, _SENT_SHARE, _RECEIVED, _RECEIVED_SHARE, _FIRST, _LAST,
]  # fmt: skip
_TRAFFIC = [
    _NAMELESS, Shown("INSTANCES", lambda row: _number(row["instances"]), 50, right=True), _CONNECTIONS,
    Shown("OF ALL", lambda row: _share(row["connections_share"]), 86, right=True),
    _SENT, _SENT_SHARE, _RECEIVED, _RECEIVED_SHARE, _REJECTED, _UNANSWERED, _FAILED,
]  # fmt: skip
_FAILURES = [
    _APP, Shown("ATTEMPTS", lambda row: str(row["attempts"]), 70, right=True), _REJECTED, _UNANSWERED, _FAILED,
    Shown("INSTANCES", lambda row: _number(row["instances"]), 50, right=True),
    Shown("SERVICES", lambda row: _number(row["services"]), 75, right=True),
    Shown("ADDRESSES", lambda row: _number(row["addresses"]), 76, right=True), _FIRST, _LAST,
]  # fmt: skip
_CAUSAL = [
    _APP, Shown("FIRST", lambda row: f"{row['before_protocol']}/{row['before_port']}"),
    Shown("THEN", tell_service),
    Shown("OF BEGINS", lambda row: f"{row['preceded']}/{row['begins']}", right=True),
    Shown("SHARE", lambda row: tell_share(row["preceded_share"]), 90, right=True),
    Shown("BY CHANCE", lambda row: tell_share(row["expected_share"]), 85, right=True),
    Shown("REVERSE", lambda row: _share(row["reverse_share"]), 80, right=True),
    Shown("INSTANCES", lambda row: f"{row['ordered_instances']}/{row['instances']}", 70, right=True),
    Shown("P", lambda row: _chance(row["p_value"]), 60, right=True),
    Shown("CORRECTED", lambda row: _chance(row["q_value"]), 86, right=True),
    Shown("ORDERED", lambda row: "yes" if row["ordered"] else "no", 50),
]  # fmt: skip
_SLICES = [
    _APP, _SERVICE, Shown("SLICE", lambda row: _instant(row["begin_ns"])),
    Shown("USED BY", lambda row: _share(row["usage_share"]), right=True),
    Shown("INSTANCES", lambda row: _of(row["instances"], row["population"]), 65, right=True),
    _CONNECTIONS, _SENT, _SENT_SHARE, _RECEIVED, _RECEIVED_SHARE, _FAILED,
    Shown("HOSTS SEEN", lambda row: str(row["hosts"]), 88, right=True),
]  # fmt: skip
_FINDINGS = [
    Shown("WHAT", lambda row: str(row["what"]).replace("_", " ")),
    Shown("WHERE", _place),
    Shown("SERVICE", lambda row: tell_service(row) if row["protocol"] else UNKNOWN, 70),
    Shown("FINDING", tell_finding),
    Shown("CORRECTED", lambda row: _chance(row["q_value"]), 85, right=True),
    Shown("FROM", lambda row: _instant(row["first_ns"]), 40),
    Shown("TO", lambda row: _instant(row["last_ns"]), 30),
]  # fmt: skip
_POPULATION = [
    Shown("FIGURE", lambda row: str(row["figure"])),
    Shown("RANK", lambda row: _number(row["rank"]), 50, right=True),
    Shown("APPLICATION", lambda row: row["app"] or ""),
    Shown("SERVICE", lambda row: tell_service(row) if row["protocol"] else ""),
    Shown("SERVICES", lambda row: "" if row["services"] is None else str(row["services"]), right=True),
    Shown("APPLICATIONS", lambda row: "" if row["applications"] is None else str(row["applications"]), right=True),
    Shown("VALUE", lambda row: "" if row["value"] is None else f"{row['value']:.4g}", right=True),
]  # fmt: skip

_BY_VIEW = {
    "usage": _USAGE, "traffic": _TRAFFIC, "users": [_NAMELESS, _USER, *_TRAFFIC[1:]], "failures": _FAILURES,
    "causal": _CAUSAL, "slices": _SLICES, "findings": _FINDINGS, "population": _POPULATION,
}  # fmt: skip

_AGAINST = {
    "own_history": "the host's own history", "other_hosts": "other hosts before",
    "other_windows": "what the application usually does", "no_history": "nothing: the application was new",
}  # fmt: skip


def profile_columns(view: str, *, by_user: bool = False) -> list[Shown]:
    """Columns of the table of a view.

    Parameters
    ----------
    view : {"usage", "traffic", "users", "failures", "causal", "slices", "findings", "population"}
    by_user : bool, default False
        Whether its rows speak of users.
    """
    columns = _BY_VIEW[view]
    return [columns[0], _USER, *columns[1:]] if by_user and view != "users" else list(columns)


def sort_profile(view: str, rows: Sequence[Row]) -> list[Row]:
    """Rows of a view with what matters on top; those of findings, causal orders and populations have their order."""
    keys: dict[str, Callable[[Row], tuple[Any, ...]]] = {
        "usage": lambda row: (row["app"], -row["usage_share"]),
        "traffic": lambda row: (row["app"] is None, -_volume(row), -row["connections"]),
        "failures": lambda row: (-(row["rejected"] or 0) - (row["unanswered"] or 0),),
        "slices": lambda row: (row["app"], row["protocol"], row["port"] or 0, row["kind"], row["slice"]),
    }
    keys["users"] = keys["traffic"]
    if view not in keys:
        return list(rows)
    names = ("app", "user", "protocol", "port", "kind")
    return sorted(rows, key=lambda row: (*keys[view](row), *(_sortable(row.get(name)) for name in names)))


def _volume(row: Row) -> int:
    return int((row["orig_bytes"] or 0) + (row["resp_bytes"] or 0))


def _sortable(value: Any) -> tuple[bool, str, int]:
    return (value is None, value if isinstance(value, str) else "", value if isinstance(value, int) else 0)


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else tell_share(value)


def _of(part: int | None, whole: int | None) -> str:
    return UNKNOWN if whole is None else f"{0 if part is None else part}/{whole}"


def _instant(value: int | None) -> str:
    return UNKNOWN if value is None else tell_instant(value)


def _chance(value: float) -> str:
    return "<1e-12" if value < 1e-12 else f"{value:.2g}"
