# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside or outside: which addresses belong to the organisation (Macroscope, section 4.3).

The paper's hosts asked a proxy configuration service; it names "knowledge of enterprise IP address range" as the way
without one. Here a called address is inside if it lies in one of the given ranges, or if a traced host listed it as
its own. By default the ranges are those that no router of the Internet carries.

Addresses are compared as text of one width, in which a range is all that sorts between its first and its last
address: that needs no type for addresses, which engines do not share. What is no address in canonical text is
neither inside nor outside: not known.
"""

import ipaddress
from dataclasses import dataclass
from typing import Any

import ibis

from whoneeds.model.errors import SettingsError

#: Private, link-local and loopback ranges, and the groups that routers keep within a site or a link.
DEFAULT_RANGES = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
    "169.254.0.0/16", "fe80::/10", "127.0.0.0/8", "::1/128",
    "224.0.0.0/24", "239.0.0.0/8", "255.255.255.255/32", "ff01::/16", "ff02::/16", "ff05::/16",
)  # fmt: skip

_MOST_RANGES = 1024
_V4 = r"^(\d{1,3})[.](\d{1,3})[.](\d{1,3})[.](\d{1,3})$"
_GROUPS = 8


def _parse(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A range out of its text.

    Raises
    ------
    SettingsError
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(
            "address range", expected="network/bits, as in 192.0.2.0/24 or 2001:db8::/32",
            found=f"{ascii(text)[:60]}, {error}"[:160], remedy="leave bits behind the network at 0",
        ) from error  # fmt: skip


@dataclass(frozen=True)
class AddressRanges:
    """What counts as inside.

    Attributes
    ----------
    networks : tuple of str
        Ranges as network/bits.
    own : bool
        Whether addresses that traced hosts listed as their own are inside as well.

    Raises
    ------
    SettingsError
        If a range is none, or has bits set behind its network, or there are more than 1024.

    Examples
    --------
    >>> AddressRanges(("192.0.2.0/24",)).networks
    ('192.0.2.0/24',)
    """

    networks: tuple[str, ...] = DEFAULT_RANGES
    own: bool = True

    def __post_init__(self) -> None:
        if len(self.networks) > _MOST_RANGES:
            raise SettingsError("address ranges", expected=f"at most {_MOST_RANGES}", found=str(len(self.networks)))
        for text in self.networks:
            _parse(text)


def list_own_addresses(segment: ibis.Table) -> ibis.Table:
    """Addresses that traced hosts listed as their own at any time.

    Parameters
    ----------
    segment : ibis.Table
        Rows of `SegmentHeader`.

    Returns
    -------
    ibis.Table
        address.
    """
    return segment.select(address=segment.addresses.unnest()).distinct()


def tell_inside(
    rows: ibis.Table, name: str, ranges: AddressRanges = AddressRanges(), own: ibis.Table | None = None
) -> ibis.Table:
    """Tell of each row whether an address of it is inside.

    Parameters
    ----------
    rows : ibis.Table
        Any rows with a column of addresses.
    name : str
        That column.
    ranges : AddressRanges, optional
    own : ibis.Table, optional
        From `list_own_addresses`.

    Returns
    -------
    ibis.Table
        The rows, and ``inside``: a truth value, null where the column holds no address.
    """
    addresses = rows.select(place=rows[name]).distinct()
    addresses = addresses.filter(addresses.place.notnull())
    bare = addresses.place.re_extract(r"^[^%]*", 0)
    addresses = addresses.mutate(four=_spread_v4(bare), six=_spread_v6(bare))
    known = addresses.four.notnull() | addresses.six.notnull()
    within: Any = ibis.literal(False)
    for text in ranges.networks:
        network = _parse(text)
        column = addresses.four if network.version == 4 else addresses.six
        first, last = (_spread(address) for address in (network.network_address, network.broadcast_address))
        within = within | column.between(first, last).fill_null(False)
    told = addresses.select("place", inside=ibis.ifelse(known, within, ibis.null("boolean")))
    if own is not None and ranges.own:
        listed = own.select(own_place="address").distinct()
        told = told.left_join(listed, told.place == listed.own_place)
        told = told.select("place", inside=told.inside | (told.own_place.notnull() & told.inside.notnull()))
    return rows.left_join(told, rows[name] == told.place).drop("place")


def _spread(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as text of the width of its family."""
    if isinstance(address, ipaddress.IPv4Address):
        return "".join(f"{int(part):03d}" for part in str(address).split("."))
    return address.exploded.replace(":", "")


def _spread_v4(address: Any) -> Any:
    """The same of a column; null where it is no address of IPv4."""
    parts = [address.re_extract(_V4, number).lpad(3, "0") for number in (1, 2, 3, 4)]
    return ibis.ifelse(address.re_search(_V4), parts[0] + parts[1] + parts[2] + parts[3], ibis.null("string"))


def _spread_v6(address: Any) -> Any:
    """The same for IPv6 in canonical text: groups before the gap count from the front, those behind it from the end."""
    legal = address.re_search(r"^[0-9a-f:]{2,39}$") & address.contains(":")
    front, rear = address.re_extract(r"^(.*?)(::|$)", 1), address.re_extract(r"::(.*)$", 1)
    whole: Any = ibis.literal("")
    for at in range(_GROUPS):
        from_front = front.re_extract(rf"^(?:[0-9a-f]{{1,4}}:){{{at}}}([0-9a-f]{{1,4}})", 1)
        from_rear = rear.re_extract(rf"([0-9a-f]{{1,4}})(?::[0-9a-f]{{1,4}}){{{_GROUPS - 1 - at}}}$", 1)
        whole = whole + ibis.ifelse(from_front == "", from_rear, from_front).lpad(4, "0")
    return ibis.ifelse(legal, whole, ibis.null("string"))
