# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run found, as rows that the scorer reads, and the figures that it is judged by."""

from __future__ import annotations

from typing import Any

from .score import lives_long_enough

Row = dict[str, Any]


def needs_of(document: Row) -> list[Row]:
    """Every need that the facts document publishes between two hosts, with its kind."""
    return [
        {
            "orig_host": host,
            "orig_app": need["app"],
            "resp_host": need["host"],
            "resp_app": need["provider"],
            "protocol": need["protocol"],
            "resp_port": need["port"],
            "kind": need["kind"],
        }
        for host, facts in document["hosts"].items()
        for need in facts["needs"]
        if need["host"] != host
    ]


def conversations_of(connections: list[Row]) -> list[Row]:
    """Every connection between two hosts of which it is known who began it; it claims names, but no kind."""
    return [row for row in connections if row["direction"] != "unknown" and row["orig_host"] != row["resp_host"]]


def peers_of(dependencies: list[Row], app: str) -> Row:
    """Instances of a peer-to-peer application, and its peers' ports by kind.

    Parameters
    ----------
    dependencies : list of dict
        Rows of level 4.
    app : str
    """
    uses = [row for row in dependencies if row["app"] == app]
    ports = [row for row in uses if row["resp_app"] == app]
    kinds = {kind: len({row["port"] for row in ports if row["kind"] == kind}) for kind in ("transient", "static")}
    return {
        "instances": len({(row["host"], row["pid"]) for row in uses}),
        "dialling_instances": len({(row["host"], row["pid"]) for row in ports}),
        **kinds,
        "other": len(ports) - sum(row["kind"] in kinds for row in ports),
    }


def dependents_of(truth: Row, host: str, load_s: float, period_s: float) -> tuple[set[str], set[str]]:
    """Hosts that must be found to need a host, and those that may be: the rest live too short to be counted on."""
    needing = [
        edge
        for edge in truth["dependencies"]
        if edge["resp_host"] == host and edge["kind"] == "static" and edge["dependent_host"] != host
    ]
    must = {edge["dependent_host"] for edge in needing if lives_long_enough(edge, load_s, period_s)}
    return must, {edge["dependent_host"] for edge in needing}
