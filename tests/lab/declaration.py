# SPDX-License-Identifier: GPL-3.0-or-later
"""The words in which a fleet is declared: hosts, applications, what they need, and how their connections live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["tcp", "udp"]
Kind = Literal["static", "transient"]


def expected_samples(per_minute: float, duration_s: float, load_s: float, period_s: float) -> float:
    """Samples expected to see at least one of a dependency's connections.

    Parameters
    ----------
    per_minute : float
        Connections begun per minute.
    duration_s : float
        Mean life of one, seconds.
    load_s : float
        Time under load, seconds.
    period_s : float
        Sampling period, seconds.

    Returns
    -------
    float
        Samples taken, times the share of time at which a connection is open (Little's law, at most 1).

    Examples
    --------
    >>> expected_samples(per_minute=2, duration_s=10, load_s=300, period_s=5)
    20.0
    """
    return load_s / period_s * min(1.0, per_minute / 60.0 * duration_s)


@dataclass(frozen=True)
class Host:
    """One host of the lab.

    Attributes
    ----------
    name : str
        Inventory name and host name.
    group : str
        Inventory group.
    ipv4, ipv6 : str or None
        Its addresses; at least one.
    """

    name: str
    group: str
    ipv4: str | None = None
    ipv6: str | None = None

    @property
    def address(self) -> str:
        """The address at which the controller reaches it."""
        address = self.ipv4 or self.ipv6
        if address is None:
            raise ValueError(f"host {self.name} is declared without an address; give it ipv4 or ipv6")
        return address


@dataclass(frozen=True)
class Pool:
    """How a client keeps the connections of one dependency.

    Attributes
    ----------
    connections : float
        How many the client opens side by side, each again and again; a mean, where they spread over several hosts.
    duration_s : float
        Mean life of one connection.
    pause_s : float
        Mean time from the end of one to the beginning of the next.
    least : float or None
        Fewest that are open side by side, where the client opens one only when all others are at work; None where it
        always keeps them all.
    """

    connections: float
    duration_s: float
    pause_s: float = 0.0
    least: float | None = None

    @property
    def per_minute(self) -> float:
        """Connections begun per minute."""
        return 60.0 * self.connections / (self.duration_s + self.pause_s)


@dataclass(frozen=True)
class Need:
    """An application needs a service.

    Attributes
    ----------
    provider : str
        Name of the application that listens.
    hosts : tuple of str
        Hosts where it is needed.
    port : int or None
        Listening port; None for ports chosen at random at run time.
    pool : Pool
        The connections from one host to one host.
    protocol : {"tcp", "udp"}
    kind : {"static", "transient"}
        What Macroscope's rule has to say about it.
    asks_dns : {"each", "start", "never"}
        Whether the client asks DNS before each connection, once when it starts, or not at all.
    """

    provider: str
    hosts: tuple[str, ...]
    port: int | None
    pool: Pool
    protocol: Protocol = "tcp"
    kind: Kind = "static"
    asks_dns: Literal["each", "start", "never"] = "each"


@dataclass(frozen=True)
class Application:
    """One application, the same on each of its hosts.

    Attributes
    ----------
    name : str
        What an operator calls it: the program's file name, or the script's where an interpreter runs it.
    hosts : tuple of str
        Where it runs.
    unit : str
        The systemd unit to be active once the host is up (a timer for a job).
    listens : tuple of (protocol, port)
        Fixed services it offers.
    needs : tuple of Need
    executable : str
        Base name of /proc/PID/exe where it is not ``name``.
    """

    name: str
    hosts: tuple[str, ...]
    unit: str
    listens: tuple[tuple[Protocol, int], ...] = ()
    needs: tuple[Need, ...] = ()
    executable: str | None = None


@dataclass(frozen=True)
class Edge:
    """A dependency between two applications on two hosts, as declared.

    Attributes
    ----------
    duration_s : float
        Mean life of one connection.
    per_minute : float
        Connections begun per minute.
    """

    dependent_host: str
    dependent_app: str
    resp_host: str
    resp_app: str
    protocol: Protocol
    port: int | None
    kind: Kind
    duration_s: float
    per_minute: float

    def expected_samples(self, load_s: float, period_s: float) -> float:
        """As the function of that name, for this dependency."""
        return expected_samples(self.per_minute, self.duration_s, load_s, period_s)


@dataclass(frozen=True)
class Fleet:
    """All hosts and applications, and the resolver that they use.

    Attributes
    ----------
    domain : str
        DNS domain of the host names.
    ipv4_network, ipv6_network : str
        Networks of the lab's bridge.
    controller_ipv4, controller_ipv6 : str
        Addresses of the controller's namespace on it.
    resolver : str
        Host that answers DNS.
    resolver_app : str
        Application that answers there.
    """

    domain: str
    ipv4_network: str
    ipv6_network: str
    controller_ipv4: str
    controller_ipv6: str
    resolver: str
    resolver_app: str
    hosts: tuple[Host, ...]
    applications: tuple[Application, ...]

    def host(self, name: str) -> Host:
        """The host of that name; KeyError says which one is not declared."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(f"no host {name!r} in the fleet")

    def application(self, name: str) -> Application:
        """The application of that name; KeyError says which one is not declared."""
        for application in self.applications:
            if application.name == name:
                return application
        raise KeyError(f"no application {name!r} in the fleet")

    def applications_on(self, host: str) -> list[Application]:
        """What runs on a host, in the order of declaration."""
        return [application for application in self.applications if host in application.hosts]

    def edges(self) -> list[Edge]:
        """Every declared dependency between hosts, DNS included, one row for each pair of hosts."""
        return [edge for application in self.applications for edge in self._edges_of(application)]

    def _edges_of(self, application: Application) -> Iterator[Edge]:
        for host in application.hosts:
            lookups_per_minute: float | None = None
            for need in application.needs:
                for resp in need.hosts:
                    if resp == host:
                        continue
                    if need.asks_dns != "never":
                        asked = need.pool.per_minute if need.asks_dns == "each" else 0.0
                        lookups_per_minute = (lookups_per_minute or 0.0) + asked
                    yield Edge(
                        host, application.name, resp, need.provider, need.protocol, need.port, need.kind,
                        need.pool.duration_s, need.pool.per_minute,
                    )  # fmt: skip
            if lookups_per_minute is not None and host != self.resolver:
                yield Edge(
                    host, application.name, self.resolver, self.resolver_app, "udp", 53, "static",
                    LOOKUP_S, lookups_per_minute,
                )  # fmt: skip


# How long a stub resolver's socket lives for one answer from the next host.
LOOKUP_S = 0.005
