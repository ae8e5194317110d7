# SPDX-License-Identifier: GPL-3.0-or-later
"""The declaration held against the wire: what went over the bridge undeclared, and how declared connections lived."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .declaration import Fleet
from .failure import LabError
from .rundir import read_state
from .truth import EPHEMERAL_PORTS

WIRE = Path(__file__).resolve().parent / "wire.py"


def watch_wire(seconds: float) -> list[dict[str, Any]]:
    """Rows of ``wire.watch`` from the bridge of the running lab; LabError when none is up."""
    state = read_state()
    if state is None or state.anchor_pid == 0:
        raise LabError("no lab is up; start it with `python -m tests.lab up`")
    words = ["nsenter", f"--target={state.anchor_pid}", "--net", sys.executable, "-I", str(WIRE), str(seconds)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=seconds + 30)
    if done.returncode != 0:
        raise LabError(f"the wire could not be watched (exit code {done.returncode})")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def audit(fleet: Fleet, rows: list[dict[str, Any]], seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Hold connections that were seen on the wire against the declaration.

    Parameters
    ----------
    fleet : Fleet
    rows : list of dict
        As ``wire.watch`` returns them.
    seconds : float
        How long it watched.

    Returns
    -------
    dict
        ``undeclared``: rows between hosts of the fleet that no dependency explains, and rows that leave the fleet.
        ``measured``: for each declared pair of hosts and service, begun per minute as declared (all applications
        together) and as seen, and the mean duration of connections that began and ended while it was watched.
    """
    owners = {address: host.name for host in fleet.hosts for address in (host.ipv4, host.ipv6) if address}
    controller = {fleet.controller_ipv4, fleet.controller_ipv6}
    declared: dict[tuple[str, str, str, int | None], float] = {}
    for edge in fleet.edges():
        key = (edge.dependent_host, edge.resp_host, edge.protocol, edge.port)
        declared[key] = declared.get(key, 0.0) + edge.per_minute
    undeclared, measured = [], []
    for row in rows:
        if row["orig_addr"] in controller and row["resp_port"] == 22:
            continue
        pair = owners.get(row["orig_addr"]), owners.get(row["resp_addr"])
        key = (pair[0] or "", pair[1] or "", row["protocol"], row["resp_port"])
        if key in declared:
            measured.append(
                {
                    "orig_host": pair[0],
                    "resp_host": pair[1],
                    "protocol": row["protocol"],
                    "resp_port": row["resp_port"],
                    "declared_per_minute": round(declared[key], 3),
                    "seen_per_minute": round(row["begun"] * 60.0 / seconds, 3),
                    "seen_duration_s": row["mean_duration_s"],
                }
            )
        elif (*key[:3], None) not in declared or not EPHEMERAL_PORTS[0] <= row["resp_port"] <= EPHEMERAL_PORTS[1]:
            undeclared.append(row)
    return {"undeclared": undeclared, "measured": measured}
