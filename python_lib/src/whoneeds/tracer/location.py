# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host is, by rules set on its addresses (Macroscope looks at what hosts do inside the organisation)."""

import ipaddress
from typing import Iterable, NamedTuple, Optional, Sequence, Tuple, Union

from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import LOCATIONS

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class LocationRule(NamedTuple):
    """A host with an address in one of the networks is at the location."""

    location: str
    networks: Tuple[Network, ...]


def parse_rule(location: object, networks: object) -> LocationRule:
    """Check a rule as it stands in the configuration.

    Raises
    ------
    SettingsError
    """
    if location not in LOCATIONS or not isinstance(location, str):
        raise SettingsError(
            "location_rules", expected="a location: " + ", ".join(LOCATIONS), found=ascii(location)[:60]
        )
    if not isinstance(networks, list) or not networks:
        raise SettingsError("location_rules", expected="a list of networks", found=ascii(networks)[:60])
    made = []
    for network in networks:
        try:
            if not isinstance(network, str):
                raise ValueError("not a text")
            made.append(ipaddress.ip_network(network))
        except ValueError as error:
            raise SettingsError(
                "location_rules",
                expected="networks such as 10.0.0.0/8 or 2001:db8::/32",
                found=ascii(network)[:60],
                remedy=str(error)[:120],
            ) from error
    return LocationRule(location, tuple(made))


def locate(addresses: Iterable[str], rules: Sequence[LocationRule]) -> Optional[str]:
    """Where a host with these addresses is.

    The first rule that one of the addresses fits decides; 'outside' if there are rules and none fits, and None if
    there are no rules.

    Examples
    --------
    >>> rules = [parse_rule("vpn", ["10.9.0.0/16"]), parse_rule("inside", ["10.0.0.0/8"])]
    >>> locate(["10.9.1.2"], rules), locate(["10.1.1.1"], rules), locate(["192.0.2.1"], rules), locate([], [])
    ('vpn', 'inside', 'outside', None)
    """
    if not rules:
        return None
    own = [ipaddress.ip_address(address) for address in addresses]
    for rule in rules:
        if any(address in network for address in own for network in rule.networks):
            return rule.location
    return "outside"
