# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts again, by questions asked of every row: slow and obvious, to compare the document with.

It says which entries there are and what their counts are, in its own words and with raw names; it knows neither inert
text nor limits.
"""

from typing import Any

Row = dict[str, Any]


def kind_of(use: Row, dependencies: list[Row]) -> str:
    """The kind of the one dependency that covers the use."""
    (kind,) = [
        row["kind"]
        for row in dependencies
        if all(row[word] == use[word] for word in ("app", "protocol", "port")) and row["level"] == 1
    ]
    return str(kind)


def needs(host: str, uses: list[Row], dependencies: list[Row]) -> list[tuple[Any, ...]]:
    """(app, kind, protocol, port, address, host, support, flows, orig_bytes, first, last) of each need."""
    words = ("app", "protocol", "port", "resp_addr", "resp_host")
    mine = [row for row in uses if row["host"] == host]
    found = []
    for one in mine:
        alike = [row for row in mine if all(row[word] == one[word] for word in words)]
        counted = [row["orig_bytes"] for row in alike if row["orig_bytes"] is not None]
        entry = (
            one["app"], kind_of(one, dependencies), one["protocol"], one["port"], one["resp_addr"], one["resp_host"],
            len({(row["pid"], row["address"]) for row in alike}), sum(row["flows"] for row in alike),
            sum(counted) if counted else None,
            min(row["first_ns"] for row in alike), max(row["last_ns"] for row in alike),
        )  # fmt: skip
        if entry not in found:
            found.append(entry)
    return found


def dependents(host: str, uses: list[Row], dependencies: list[Row]) -> set[tuple[Any, ...]]:
    """(host, app, kind, protocol, port) of each dependent."""
    return {
        (row["host"], row["app"], kind_of(row, dependencies), row["protocol"], row["port"])
        for row in uses
        if row["resp_host"] == host
    }


def services(host: str, uses: list[Row], listeners: list[Row], dependencies: list[Row]) -> set[tuple[str, int]]:
    """(protocol, port) of each service that is offered here or that others rely on here."""
    upon = [row for row in uses if row["resp_host"] == host]
    relied = {(row["protocol"], row["port"]) for row in upon if kind_of(row, dependencies) == "static"}
    here = [row for row in listeners if row["host"] == host]
    listening = {(row["protocol"], row["local_port"]) for row in here if row["state"] == "listen"}
    bound = {
        (row["protocol"], row["local_port"])
        for row in here
        if row["state"] == "bound"
        and (
            row["local_port"] < 1024
            or (row["protocol"], row["local_port"]) in {(u["protocol"], u["port"]) for u in upon}
        )
    }
    return relied | listening | bound


def needed_hosts(host: str, uses: list[Row], dependencies: list[Row]) -> set[str]:
    """The other hosts that something on this host has a static need for."""
    return {
        row["resp_host"]
        for row in uses
        if row["host"] == host and row["resp_host"] not in (None, host) and kind_of(row, dependencies) == "static"
    }
