# SPDX-License-Identifier: GPL-3.0-or-later
"""The truth file: what runs where and who needs whom, as the fleet's declaration says."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .declaration import Fleet

SCHEMA = 1
LOAD_S = 300.0
PERIOD_S = 5.0
# A static dependency counts once at least this many samples are expected to see it.
COUNTED_SAMPLES = 5.0
EPHEMERAL_PORTS = (32768, 60999)


def truth_document(fleet: Fleet, load_s: float = LOAD_S, period_s: float = PERIOD_S) -> dict[str, Any]:
    """The truth about a fleet under load.

    Parameters
    ----------
    fleet : Fleet
    load_s : float
        Time under load, seconds.
    period_s : float
        Sampling period, seconds.

    Returns
    -------
    dict
        ``hosts`` (addresses by name), ``applications`` (what runs on each host), ``dependencies`` (one row per pair of
        hosts; ``port`` is null where it is chosen at random within ``ephemeral_ports``).
    """
    applications = {
        host.name: [
            {
                "name": application.name,
                "executable": application.executable or application.name,
                "listens": [f"{protocol}/{port}" for protocol, port in application.listens],
            }
            for application in fleet.applications_on(host.name)
        ]
        for host in fleet.hosts
    }
    dependencies = [
        {**asdict(edge), "expected_samples": round(edge.expected_samples(load_s, period_s), 3)}
        for edge in fleet.edges()
    ]
    return {
        "schema": SCHEMA,
        "load_s": load_s,
        "period_s": period_s,
        "counted_samples": COUNTED_SAMPLES,
        "ephemeral_ports": list(EPHEMERAL_PORTS),
        "hosts": {host.name: [address for address in (host.ipv4, host.ipv6) if address] for host in fleet.hosts},
        "applications": applications,
        "dependencies": dependencies,
    }
