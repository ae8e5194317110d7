# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire as a judge: what went over the bridge undeclared, and what a tool claims or overlooks beside it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .declaration import Fleet
from .failure import LabError
from .rundir import read_state
from .truth import EPHEMERAL_PORTS

WIRE = Path(__file__).resolve().parent / "wire.py"
END_LIMIT_S = 30.0
# For so long the kernel remembers a closed connection, which can therefore be listed after its last frame.
TIME_WAIT_S = 60.0
# Pauses and lives of connections stretch on a busy machine; so far a cycle may differ from what is declared.
CYCLE_SLACK = 0.25
Row = dict[str, Any]
# orig_host, resp_host, protocol, resp_port
Service = tuple[str, str, str, int]


class Watch:
    """A look at the bridge of the running lab, from now until ``finish``; it ends with this process in any case."""

    def __init__(self) -> None:
        state = read_state()
        if state is None or state.anchor_pid == 0:
            raise LabError("no lab is up; start it with `python -m tests.lab up`")
        words = ["nsenter", f"--target={state.anchor_pid}", "--net", sys.executable, "-I", str(WIRE)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "watching\n":
            raise LabError(f"the wire could not be watched (exit code {self._process.wait()})")

    def finish(self) -> Row:
        """Stop looking; what ``wire.watch`` returns."""
        text = self._process.communicate(timeout=END_LIMIT_S)[0]
        if self._process.returncode != 0:
            raise LabError(f"the wire could not be watched (exit code {self._process.returncode})")
        seen: Row = json.loads(text)
        return seen


def watch_wire(seconds: float) -> list[Row]:
    """Look at the wire for some seconds; its rows by service."""
    watch = Watch()
    time.sleep(seconds)
    rows: list[Row] = watch.finish()["rows"]
    return rows


def begun_within(fleet: Fleet, seconds: float, slack: float = CYCLE_SLACK) -> dict[Service, tuple[float, float]]:
    """Fewest and most TCP connections that may begin between two hosts, by service, with some slack in each cycle."""
    bounds: dict[Service, tuple[float, float]] = {}
    for application in fleet.applications:
        for host, need in itertools.product(application.hosts, application.needs):
            cycle_s = need.pool.duration_s + need.pool.pause_s
            for resp in need.hosts:
                if need.port is not None and need.protocol == "tcp" and resp != host:
                    low, high = bounds.get((host, resp, "tcp", need.port), (0.0, 0.0))
                    least = need.pool.connections if need.pool.least is None else need.pool.least
                    low += least * (seconds // (cycle_s * (1 + slack)))
                    high += need.pool.connections * (seconds // (cycle_s * (1 - slack)) + 1)
                    bounds[host, resp, "tcp", need.port] = low, high
    return bounds


def audit(fleet: Fleet, rows: list[Row], seconds: float) -> dict[str, list[Row]]:
    """Hold connections that were seen on the wire against the declaration.

    Parameters
    ----------
    fleet : Fleet
    rows : list of dict
        As ``Wire.rows`` returns them.
    seconds : float
        How long it watched.

    Returns
    -------
    dict
        ``undeclared``: rows between hosts of the fleet that no dependency explains, and rows that leave the fleet.
        ``measured``: for each declared pair of hosts and service, begun per minute as declared (all applications
        together) and as seen, and the mean duration of connections that began and ended while it was watched.
        ``off_rate``: declared TCP services of which fewer or more connections began than ``begun_within`` allows.
    """
    owners = _owners(fleet)
    controller = {fleet.controller_ipv4, fleet.controller_ipv6}
    declared: dict[tuple[str, str, str, int | None], float] = {}
    for edge in fleet.edges():
        key = (edge.dependent_host, edge.resp_host, edge.protocol, edge.port)
        declared[key] = declared.get(key, 0.0) + edge.per_minute
    undeclared, measured = [], []
    begun: dict[Service, int] = {}
    for row in rows:
        if row["orig_addr"] in controller and row["resp_port"] == 22:
            continue
        pair = owners.get(row["orig_addr"]), owners.get(row["resp_addr"])
        key = (pair[0] or "", pair[1] or "", row["protocol"], row["resp_port"])
        if key in declared:
            begun[key] = begun.get(key, 0) + row["begun"]
            measured.append(
                {
                    **_named(key),
                    "declared_per_minute": round(declared[key], 3),
                    "seen_per_minute": round(row["begun"] * 60.0 / seconds, 3),
                    "seen_duration_s": row["mean_duration_s"],
                }
            )
        elif (*key[:3], None) not in declared or not EPHEMERAL_PORTS[0] <= row["resp_port"] <= EPHEMERAL_PORTS[1]:
            undeclared.append(row)
    off_rate = [
        {**_named(service), "begun": begun.get(service, 0), "allowed": [low, high]}
        for service, (low, high) in begun_within(fleet, seconds).items()
        if not low <= begun.get(service, 0) <= high
    ]
    return {"undeclared": undeclared, "measured": measured, "off_rate": off_rate}


def excused_wrongly(truth: Row, wire: Row, began_s: float, ended_s: float) -> list[Row]:
    """Services that the truth excuses as too short to be found, though the wire carried them for long enough.

    Parameters
    ----------
    truth : dict
        The truth document; its period and count of samples decide what is long enough.
    wire : dict
        As ``wire.watch`` returns it.
    began_s, ended_s : float
        When the tool was looking, on the wire's clock.
    """
    owners = {address: host for host, addresses in truth["hosts"].items() for address in addresses}
    counted: dict[Service, bool] = {}
    for edge in truth["dependencies"]:
        if edge["port"] is not None:
            service = (edge["dependent_host"], edge["resp_host"], edge["protocol"], edge["port"])
            enough = edge["expected_samples"] >= truth["counted_samples"]
            counted[service] = counted.get(service, False) or enough
    open_s: dict[Service, list[tuple[float, float]]] = {service: [] for service in counted}
    for row in wire["connections"]:
        for ends in (_ends(row), _turned(row)):
            service = (owners.get(ends[1], ""), owners.get(ends[3], ""), ends[0], ends[4])
            if service in open_s:
                open_s[service].append(_open_within(row, began_s, ended_s))
    found = []
    for service, spans in open_s.items():
        samples = _covered_s(spans) / truth["period_s"]
        if not counted[service] and samples >= truth["counted_samples"]:
            found.append({**_named(service), "samples_by_the_wire": round(samples, 2)})
    return found


def confront(fleet: Fleet, wire: Row, found: list[Row], began_s: float, ended_s: float, least_life_s: float) -> Row:
    """Hold the connections that a tool lists against those that the wire carried, end by end; no declaration is asked.

    Parameters
    ----------
    fleet : Fleet
        Only its addresses are used.
    wire : dict
        As ``wire.watch`` returns it. It must have been watched from before the tool looked until after.
    found : list of dict
        The tool's connections, with protocol, orig_addr, orig_port, resp_addr, resp_port and direction.
    began_s, ended_s : float
        When the tool was looking on every host, on the wire's clock.
    least_life_s : float
        A TCP connection that was open in that time for at least this long must be listed.

    Returns
    -------
    dict
        ``on_wire``: connections that the wire carried between hosts. ``lasting``: TCP connections that must be
        listed, and ``overlooked``: those of them that are not. ``listed``: connections of the tool between hosts;
        ``invented``: those that the wire did not carry; ``reversed``: those begun by the other end. ``earlier``: how
        many had ended before the wire was watched, so that it cannot tell. ``frames_lost``: how many frames the
        witness itself missed.
    """
    owners = _owners(fleet)

    def between_hosts(row: Row) -> bool:
        ends = owners.get(row["orig_addr"]), owners.get(row["resp_addr"])
        return None not in ends and ends[0] != ends[1]

    def ended_earlier(row: Row) -> bool:
        remembered_ns = wire["began_ns"] + int((TIME_WAIT_S + least_life_s) * 1e9)
        return row["end"] is not None and row["orig_app"] is None and row["last_ns"] < remembered_ns

    carried = [row for row in wire["connections"] if between_hosts(row)]
    listed = [row for row in found if between_hosts(row)]
    begun = {_ends(row) for row in carried if row["opened_s"] is not None}
    either_way = {ends for row in carried for ends in (_ends(row), _turned(row))}
    known = {ends for row in listed for ends in (_ends(row), _turned(row))}
    unheard = [row for row in listed if _ends(row) not in either_way]
    invented = [row for row in unheard if not ended_earlier(row)]
    lasting = [
        row
        for row in carried
        if row["protocol"] == "tcp" and _covered_s([_open_within(row, began_s, ended_s)]) >= least_life_s
    ]
    return {
        "on_wire": len(carried),
        "lasting": len(lasting),
        "overlooked": [row for row in lasting if _ends(row) not in known],
        "listed": len(listed),
        "invented": invented,
        "earlier": len(unheard) - len(invented),
        "reversed": [
            row for row in listed if row["direction"] != "unknown" and _ends(row) not in begun and _turned(row) in begun
        ],
        "frames_lost": wire["frames_lost"],
    }


def _owners(fleet: Fleet) -> dict[str, str]:
    return {address: host.name for host in fleet.hosts for address in (host.ipv4, host.ipv6) if address}


def _ends(row: Row) -> tuple[Any, ...]:
    return row["protocol"], row["orig_addr"], row["orig_port"], row["resp_addr"], row["resp_port"]


def _turned(row: Row) -> tuple[Any, ...]:
    return row["protocol"], row["resp_addr"], row["resp_port"], row["orig_addr"], row["orig_port"]


def _named(service: tuple[Any, ...]) -> Row:
    return dict(zip(("orig_host", "resp_host", "protocol", "resp_port"), service, strict=True))


def _open_within(row: Row, began_s: float, ended_s: float) -> tuple[float, float]:
    """From when to when a connection was open within a time; the end is not after the beginning where it was not."""
    opened_s = began_s if row["opened_s"] is None else max(began_s, row["opened_s"])
    # One that was not seen to end may have lost its far end: only its frames prove that it was open.
    closed_s = row["last_s"] if row["closed_s"] is None else row["closed_s"]
    return opened_s, min(ended_s, closed_s)


def _covered_s(spans: list[tuple[float, float]]) -> float:
    """Time that at least one of some spans covers."""
    covered_s, reached_s = 0.0, float("-inf")
    for begin_s, end_s in sorted(spans):
        covered_s += max(0.0, end_s - max(begin_s, reached_s))
        reached_s = max(reached_s, end_s)
    return covered_s
