# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside or outside, held against Python's own arithmetic of addresses."""

import ipaddress
import random

import ibis
import pyarrow as pa
import pytest

from whoneeds.analysis.ranges import DEFAULT_RANGES, AddressRanges, list_own_addresses, tell_inside
from whoneeds.model.errors import SettingsError


def told(addresses, ranges=AddressRanges(), own=None):
    """What each address is told to be."""
    text, number = pa.string(), pa.int64()
    rows = ibis.memtable(
        pa.table({"address": pa.array(addresses, text), "at": pa.array(range(len(addresses)), number)})
    )
    held = None if own is None else ibis.memtable(pa.table({"address": pa.array(own, text)}))
    expression = tell_inside(rows, "address", ranges, held).order_by("at")
    found = ibis.duckdb.connect().to_pyarrow(expression).to_pylist()
    assert len(found) == len(addresses)
    return [row["inside"] for row in found]


def at_edges(networks, chance):
    """Addresses at the edges of networks and just beyond, and some anywhere."""
    for network in networks:
        kind = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        most = 2 ** (32 if network.version == 4 else 128) - 1
        low, high = int(network.network_address), int(network.broadcast_address)
        for number in (low, high, low - 1, high + 1, chance.randint(low, high), chance.randint(0, most)):
            if 0 <= number <= most:
                yield str(kind(number))


def test_every_edge_is_told_as_pythons_own_arithmetic_tells_it():
    """Addresses at both edges of each range, one beyond, and anywhere are inside exactly where Python says so."""
    chance = random.Random(5)
    texts = (*DEFAULT_RANGES, "2001:db8:1:8000::/49", "192.0.2.128/25", "2001:db8::ff00:0:0/96", "198.51.100.7/32")
    networks = [ipaddress.ip_network(text) for text in texts]
    # in canonical text as the kernel's; dotted ends are not told apart from names
    addresses = sorted(address for address in at_edges(networks, chance) if not ("." in address and ":" in address))
    wanted = [any(ipaddress.ip_address(one) in network for network in networks) for one in addresses]
    assert len(set(wanted)) == 2
    assert dict(zip(addresses, told(addresses, AddressRanges(texts)), strict=True)) == dict(
        zip(addresses, wanted, strict=True)
    )


def test_what_is_no_address_is_not_known():
    """Text that is no address is neither inside nor outside, and unknown stays unknown."""
    found = told(["db1", "", None, "10.0.0", "::ffff:10.0.0.1", "fe80::1%eth0", "8.8.8.8"])
    assert found == [None, None, None, None, None, True, False]


def test_addresses_of_traced_hosts_are_inside_unless_they_are_left_out():
    """An address outside of all ranges that a traced host listed as its own is inside, unless that is turned off."""
    addresses = ["203.0.113.9", "203.0.113.8"]
    assert told(addresses, own=["203.0.113.9", "10.0.0.1"]) == [True, False]
    assert told(addresses, AddressRanges(own=False), own=["203.0.113.9"]) == [False, False]


def test_own_addresses_are_listed_once():
    """Addresses of all segments are listed, each once, and a segment without any adds none."""
    lists = pa.array([["10.0.0.1", "::1"], ["10.0.0.1"], []], pa.list_(pa.string()))
    segment = ibis.memtable(pa.table({"addresses": lists}))
    found = ibis.duckdb.connect().to_pyarrow(list_own_addresses(segment)).to_pydict()["address"]
    assert sorted(found) == ["10.0.0.1", "::1"]


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "10/8", "x", "10.0.0.0/33", "", "::/129"])
def test_what_is_no_range_is_refused(wrong):
    """A range that is none is refused with the form that is expected."""
    with pytest.raises(SettingsError, match="network/bits"):
        AddressRanges((wrong,))
