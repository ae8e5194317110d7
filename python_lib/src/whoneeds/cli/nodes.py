# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody means who names a node: a host, an application, one on the other, a service, or an address."""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address

from whoneeds.cli.narrowing import read_service
from whoneeds.model.errors import SettingsError

#: How a name is said to be of one kind, where it could be of two.
PREFIXES = ("host", "app", "service", "address")


@dataclass(frozen=True)
class Node:
    """What a name means; what it says nothing about is None.

    Attributes
    ----------
    app, host, address : str or None
    service : tuple of (str, int) or None
    """

    app: str | None = None
    host: str | None = None
    address: str | None = None
    service: tuple[str, int] | None = None


def read_node(text: str, apps: Collection[str], hosts: Collection[str]) -> Node:
    """What a name means, among the applications and hosts that are known.

    Parameters
    ----------
    text : str
        NAME, APP@HOST, PROTOCOL/PORT, an address, or KIND:NAME with one of `PREFIXES`.
    apps, hosts : collection of str
        Names that occur in the store.

    Raises
    ------
    SettingsError
        If nothing has that name, or an application and a host have it.

    Examples
    --------
    >>> read_node("postgres@db1", {"postgres"}, {"db1"})
    Node(app='postgres', host='db1', address=None, service=None)
    >>> read_node("tcp/5432", (), ()).service
    ('tcp', 5432)
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in PREFIXES:
        return _read_as(kind, rest, apps, hosts)
    kinds = [kind for kind, names in (("app", apps), ("host", hosts)) if text in names]
    if len(kinds) == 2:
        raise SettingsError(
            f"node {ascii(text)[:60]}", expected="the name of one thing",
            found="an application and a host of that name",
            remedy=f"say app:{text} or host:{text}",
        )  # fmt: skip
    if kinds:
        return _read_as(kinds[0], text, apps, hosts)
    if text.startswith(("tcp/", "udp/")):
        return _read_as("service", text, apps, hosts)
    app, at, host = text.rpartition("@")
    if at and app in apps and host in hosts:
        return Node(app=app, host=host)
    return _read_as("address", text, apps, hosts)


def _read_as(kind: str, text: str, apps: Collection[str], hosts: Collection[str]) -> Node:
    if kind == "service":
        return Node(service=read_service(text))
    if kind == "app" and text in apps:
        return Node(app=text)
    if kind == "host" and text in hosts:
        return Node(host=text)
    if kind == "address":
        try:
            return Node(address=str(ip_address(text)))
        except ValueError:
            pass
    raise SettingsError(
        f"node {ascii(text)[:60]}",
        expected="a host, an application, APP@HOST, PROTOCOL/PORT or an address that was seen",
        found="nothing of that name",
        remedy="whoneeds deps and whoneeds who-needs list what there is",
    )
