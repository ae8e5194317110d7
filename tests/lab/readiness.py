# SPDX-License-Identifier: GPL-3.0-or-later
"""When the lab is up: every host answers by ssh, its services are active, and its lasting connections are open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from .declaration import Edge, Fleet, Host
from .failure import LabError
from .hostfiles import active_units
from .ssh import on_host
from .witness import Seen, matches, sockets_on

Progress = Callable[[str], None]
PAUSE_S = 1.0


def lasting_edges(fleet: Fleet) -> list[Edge]:
    """Static dependencies of which a connection is open nearly all the time."""
    return [edge for edge in fleet.edges() if edge.kind == "static" and edge.expected_samples(100.0, 1.0) >= 95.0]


def await_hosts(fleet: Fleet, limit_s: float, alive: Callable[[], bool], progress: Progress) -> None:
    """Wait until the whole fleet is up.

    Parameters
    ----------
    fleet : Fleet
    limit_s : float
        Time limit for all of it, seconds.
    alive : callable
        Whether the lab still runs.
    progress : callable

    Raises
    ------
    LabError
        When the lab ends or the time is over, with what was missing.
    """
    began_s = time.monotonic()

    def check(host: Host) -> str:
        units = active_units(fleet, host.name)
        answer = on_host(host, f"systemctl is-active {' '.join(units)}")
        if answer.returncode == 255:
            return f"{host.name}: no ssh ({answer.stderr.strip()[-120:]})"
        states = answer.stdout.split()
        idle = [f"{unit} {state}" for unit, state in zip(units, states, strict=False) if state != "active"]
        return f"{host.name}: {', '.join(idle)}" if idle or len(states) != len(units) else ""

    waiting = {host.name: "" for host in fleet.hosts}
    with ThreadPoolExecutor(4) as threads:
        while waiting:
            _heed(began_s, limit_s, alive, f"not ready: {'; '.join(waiting.values())}")
            found = threads.map(check, [host for host in fleet.hosts if host.name in waiting])
            for name, missing in zip(list(waiting), list(found), strict=True):
                if missing:
                    waiting[name] = missing
                else:
                    del waiting[name]
                    progress(f"host {name} is up ({time.monotonic() - began_s:.0f} s)")
            if waiting:
                time.sleep(PAUSE_S)
        wanted = lasting_edges(fleet)
        while wanted:
            _heed(began_s, limit_s, alive, f"connections not open: {_in_words(wanted)}")
            hosts = {edge.dependent_host for edge in wanted}
            seen: list[Seen] = []
            for rows in threads.map(lambda name: sockets_on(fleet, fleet.host(name)), hosts):
                seen += rows
            wanted = [edge for edge in wanted if not any(matches(edge, row) for row in seen)]
            if wanted:
                time.sleep(PAUSE_S)
    progress(f"all services are active and all lasting connections open ({time.monotonic() - began_s:.0f} s)")


def _heed(began_s: float, limit_s: float, alive: Callable[[], bool], missing: str) -> None:
    if not alive():
        raise LabError(f"the lab ended while it was awaited; {missing}")
    if time.monotonic() - began_s > limit_s:
        raise LabError(f"the lab was not up within {limit_s:.0f} s; {missing}")


def _in_words(edges: Iterable[Edge]) -> str:
    return "; ".join(f"{e.dependent_host}/{e.dependent_app} -> {e.resp_host} {e.protocol}/{e.port}" for e in edges)
