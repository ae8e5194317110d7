# SPDX-License-Identifier: GPL-3.0-or-later
"""How connections and dependencies are told: which columns, in which words, in which order."""

from collections.abc import Iterable, Mapping
from typing import Any

from whoneeds.analysis.naming import Names
from whoneeds.render.quantity import UNKNOWN, tell_bytes, tell_instant, tell_share
from whoneeds.render.table import Shown

Row = Mapping[str, Any]

_KINDS = ("static", "unclassified", "transient")


def name_ends(row: Row) -> dict[str, str]:
    """Both ends of a dependency in words: ``dependent`` and ``depends_on``.

    Parameters
    ----------
    row : mapping
        A row of `Dependency`, or of the view by host.

    Examples
    --------
    >>> row = {"app": "api", "host": "web1", "pid": None, "address": None, "protocol": "tcp", "port": 5432,
    ...        "resp_app": "postgres", "resp_host": "db1", "resp_addr": None}
    >>> name_ends(row)
    {'dependent': 'api@web1', 'depends_on': 'postgres@db1 tcp/5432'}
    """
    return {"dependent": _dependent(row), "depends_on": f"{_provider(row)} {_service(row)}".strip()}


def name_service(row: Row, naming: Names) -> dict[str, Any]:
    """The row with the name that its service is called by, and the set of services that it is one of."""
    called = naming.look_up(row)
    return {**row, "name": called.name, "any_of": called.any_of}


def name_parts(row: Row) -> tuple[str, str, str]:
    """Who needs, who is needed (empty where only a service is), and the service, in words."""
    return _dependent(row), _provider(row), _service(row)


def sort_dependencies(rows: Iterable[Row]) -> list[Row]:
    """Static needs first, then by name, so that what matters stands on top and the order is always the same."""
    return sorted(
        rows,
        key=lambda row: (
            _KINDS.index(row["kind"]), row["app"], row["host"] or "", row["protocol"], row["port"],
            row["resp_host"] or "", row["resp_addr"] or "", row["pid"] or 0, row["address"] or "",
        ),
    )  # fmt: skip


def sort_connections(rows: Iterable[Row]) -> list[Row]:
    """In the order in which they were seen."""
    return sorted(rows, key=lambda row: (row["first_ns"], row["flow_id"]))


def dependency_columns(level: str) -> list[Shown]:
    """Columns of the table of dependencies.

    Parameters
    ----------
    level : {"host", "1", "2", "3", "4"}
    """
    here = level == "host"
    columns = [
        Shown("DEPENDENT", _dependent),
        Shown("DEPENDS ON", lambda row: _provider(row) or "any"),
        Shown("SERVICE", _service),
        Shown("KIND", lambda row: str(row["kind"])),
        Shown("SHARE", _share, 90, right=True),
        Shown(
            "INSTANCES",
            lambda row: str(row["support"]) if here else f"{row['support']}/{row['population']}",
            60, right=True,
        ),
        Shown("USERS", lambda row: UNKNOWN if row["users"] is None else str(row["users"]), 50, right=True),
        Shown("FLOWS", lambda row: str(row["flows"]), 80, right=True),
        Shown("SENT", lambda row: tell_bytes(row["orig_bytes"]), 40, right=True),
        Shown("RECEIVED", lambda row: tell_bytes(row["resp_bytes"]), 41, right=True),
        Shown("FIRST SEEN", lambda row: tell_instant(row["first_ns"]), 20),
        Shown("LAST SEEN", lambda row: tell_instant(row["last_ns"]), 30),
        Shown("BECAUSE", lambda row: str(row["reason"]).replace("_", " "), 35),
    ]  # fmt: skip
    if level in ("host", "2", "4"):
        columns.insert(
            3,
            Shown("ADDRESS", lambda row: row["resp_addr"] or (UNKNOWN if row["protocol"] == "unix" else "several"), 55),
        )
        columns.insert(4, Shown("NAME", _name, 58))
    if level in ("1", "3"):
        columns[1:2] = [Shown("PROVIDER", lambda row: row["resp_app"] or UNKNOWN, 70)]
    return columns


CONNECTION_COLUMNS = [
    Shown("PROTOCOL", lambda row: str(row["protocol"]), 70),
    Shown("FROM", lambda row: _end(row, "orig")),
    Shown("TO", lambda row: _end(row, "resp")),
    Shown("CALLING ADDRESS", lambda row: _translated(row, "orig", "caller", "as"), 60),
    Shown("CALLED ADDRESS", lambda row: _translated(row, "resp", "called", "by"), 90),
    Shown("SENT", lambda row: tell_bytes(row["orig_bytes"]), 40, right=True),
    Shown("RECEIVED", lambda row: tell_bytes(row["resp_bytes"]), 41, right=True),
    Shown("SAMPLES", lambda row: str(row["samples"]), 50, right=True),
    Shown("KNOWN BY", lambda row: str(row["rule"]), 35),
    Shown("DIRECTION", lambda row: str(row["direction"]), 34),
    Shown("END", lambda row: row["end"] or UNKNOWN, 20),
    Shown("FIRST SEEN", lambda row: tell_instant(row["first_ns"]), 25),
    Shown("LAST SEEN", lambda row: tell_instant(row["last_ns"]), 30),
]


INSTANCE_COLUMNS = [
    Shown("APPLICATION", lambda row: f"{row['app']}[{row['pid']}]@{row['host']}"),
    Shown("ADDRESS", lambda row: str(row["address"]), 60),
    Shown("CONTAINER", lambda row: shown_container(row["container"]) if row["container"] else UNKNOWN, 70),
    Shown("FORKED FROM", lambda row: _other_process(row, "leader_id"), 65),
    Shown("PART OF", lambda row: f"{row['part_of']}[{_pid(row['part_of_id'])}]" if row["part_of"] else UNKNOWN, 80),
    Shown("USER", lambda row: row["user"] or UNKNOWN, 40),
    Shown("FIRST SEEN", lambda row: tell_instant(row["first_ns"]), 25),
    Shown("LAST SEEN", lambda row: tell_instant(row["last_ns"]), 30),
]
LOCAL_COLUMNS = [
    Shown("DEPENDENT", lambda row: f"{row['app']}@{row['host']}"),
    Shown("DAEMON", lambda row: row["daemon"] or UNKNOWN),
    Shown("SERVICE", lambda row: str(row["service"])),
    Shown("PROCESSES", lambda row: str(row["processes"]), 60, right=True),
    Shown("CONNECTIONS", lambda row: str(row["connections"]), 70, right=True),
    Shown("FIRST SEEN", lambda row: tell_instant(row["first_ns"]), 20),
    Shown("LAST SEEN", lambda row: tell_instant(row["last_ns"]), 30),
]


def view_unix_uses(uses: Iterable[Row]) -> list[dict[str, Any]]:
    """Uses of daemons over AF_UNIX as rows of the view of dependencies by host.

    Parameters
    ----------
    uses : iterable of mapping
        Rows of `LocalUse` whose service is ``unix:PATH``; ``port`` is none, and what no method decides is not known.
    """
    rows = [
        {
            "level": None, "app": use["app"], "host": use["host"], "pid": None, "address": None, "protocol": "unix",
            "port": None, "path": use["service"].removeprefix("unix:"), "resp_addr": None, "resp_host": use["host"],
            "resp_app": use["daemon"], "kind": "unclassified", "method": None, "reason": "local daemon",
            "support": use["processes"], "population": None, "users": None, "usage_share": None,
            "adjusted_share": None, "flows": use["connections"], "orig_bytes": None, "resp_bytes": None,
            "first_ns": use["first_ns"], "last_ns": use["last_ns"],
        }
        for use in uses
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["app"], row["host"], row["path"], row["resp_app"] or ""))


def _pid(process_id: str) -> str:
    return process_id.split("/")[2]


def _other_process(row: Row, name: str) -> str:
    """The number of another process that a row speaks of; nothing where it is the row's own."""
    return UNKNOWN if row[name] is None or row[name] == row["process_id"] else _pid(row[name])


def _dependent(row: Row) -> str:
    if "dependents" in row:
        return f"{row['app']} on {row['dependents']} hosts"
    host = f"@{row['host']}" if row["host"] else ""
    if row["pid"] is None:
        return f"{row['app']}{host}"
    return f"{row['app']}[{row['pid']}]{host}/{row['address']}"


def _provider(row: Row) -> str:
    """The application and host, or else the address, that is needed; empty where only a service is."""
    app, host = row["resp_app"], row["resp_host"]
    if "dependents" in row:
        return f"{app or 'a daemon'} of the same host"
    if "choices" in row:
        return f"any of {row['choices']}: {app or row['name'] or 'not known'}"
    if "providers" in row:
        return f"{app or 'several'} on {row['providers']} hosts"
    if host:
        return f"{app}@{host}" if app else str(host)
    if row["resp_addr"]:
        return f"{app}@{row['resp_addr']}" if app else str(row["resp_addr"])
    return app or ""


def _name(row: Row) -> str:
    """What the service is called, and whether others would do."""
    if row.get("any_of") and "choices" not in row:
        return f"any of {row['any_of']}"
    return row.get("name") or UNKNOWN


def _share(row: Row) -> str:
    return UNKNOWN if row["usage_share"] is None else tell_share(row["usage_share"])


def _service(row: Row) -> str:
    if row["protocol"] == "unix":
        return f"unix:{row['path']}"
    ports = row.get("ports", 1)
    return f"{row['protocol']}/{row['port']}" if ports == 1 else f"{row['protocol']}, {ports} ports"


def _end(row: Row, side: str) -> str:
    app, host, pid = row[f"{side}_app"], row[f"{side}_host"], row[f"{side}_pid"]
    if app is None and host is None:
        return UNKNOWN
    number = "" if pid is None else f"[{pid}]"
    inside = row.get(f"{side}_container")
    return f"{app or '?'}{number}" + (f"@{host}" if host else "") + (f" in {shown_container(inside)}" if inside else "")


def shown_container(container: str) -> str:
    """A container's name; of an identity as many digits as people are used to.

    Examples
    --------
    >>> shown_container("shop_db.1"), shown_container("docker:" + 64 * "a")
    ('shop_db.1', 'docker:aaaaaaaaaaaa')
    """
    runtime, colon, identity = container.partition(":")
    return f"{runtime}:{identity[:12]}" if colon and len(identity) == 64 else container


def _translated(row: Row, real: str, seen: str, word: str) -> str:
    """A real end, and what the other one knows of it where it was translated on the way."""
    end = _endpoint(row[f"{real}_addr"], row[f"{real}_port"])
    if row[f"{seen}_addr"] is not None:
        return f"{end} {word} {_endpoint(row[f'{seen}_addr'], row[f'{seen}_port'])}"
    return f"{end} translated" if real == "resp" and row["translated"] == "unresolved" else end


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
