# SPDX-License-Identifier: GPL-3.0-or-later
"""A second opinion on the truth file: what ``ss`` on the hosts, a tool that is not ours, says about their sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .declaration import Edge, Fleet, Host
from .ssh import on_host
from .truth import EPHEMERAL_PORTS

_OWNER = re.compile(r'\("([^"]+)",pid=(\d+)')


@dataclass(frozen=True)
class Seen:
    """One connection that a host began.

    Attributes
    ----------
    host, app : str
        Where, and which program (its kernel name).
    pid : int
    resp_host : str or None
        Host of the far address; None outside the fleet.
    protocol : str
    port : int
        Port of the far end.
    """

    host: str
    app: str
    pid: int
    resp_host: str | None
    protocol: str
    port: int


def read_sockets(fleet: Fleet, host: str, text: str) -> list[Seen]:
    """Connections that a host began, from the output of ``ss -H -t -u -a -n -p``.

    Parameters
    ----------
    fleet : Fleet
    host : str
        Whose output it is.
    text : str

    Returns
    -------
    list of Seen
        One row for each connection and owner; connections to this host's own listeners are left out.
    """
    owners = {address: member.name for member in fleet.hosts for address in (member.ipv4, member.ipv6) if address}
    rows = [row for line in text.splitlines() if len(row := line.split(None, 6)) >= 6]
    listening = {(row[0], _split(row[4])[1]) for row in rows if row[1] in ("LISTEN", "UNCONN")}
    seen = []
    for row in rows:
        protocol, state, local, peer = row[0], row[1], row[4], row[5]
        if state != "ESTAB" or (protocol, _split(local)[1]) in listening or len(row) < 7:
            continue
        address, port = _split(peer)
        for app, pid in _OWNER.findall(row[6]):
            if port.isdecimal():
                seen.append(Seen(host, app, int(pid), owners.get(address), protocol, int(port)))
    return seen


def _split(end: str) -> tuple[str, str]:
    """Address and port of one end, without brackets, interface and mapping to IPv6."""
    address, _, port = end.rpartition(":")
    address = address.strip("[]").partition("%")[0]
    return address.removeprefix("::ffff:"), port


def sockets_on(fleet: Fleet, host: Host) -> list[Seen]:
    """Ask a host for its sockets now; nothing when it does not answer."""
    return read_sockets(fleet, host.name, on_host(host, "ss -H -t -u -a -n -p").stdout)


def matches(edge: Edge, seen: Seen) -> bool:
    """Whether a connection belongs to a declared dependency."""
    if (edge.dependent_host, edge.dependent_app, edge.resp_host) != (seen.host, seen.app, seen.resp_host):
        return False
    if edge.protocol != seen.protocol:
        return False
    if edge.port is None:
        return EPHEMERAL_PORTS[0] <= seen.port <= EPHEMERAL_PORTS[1]
    return edge.port == seen.port
