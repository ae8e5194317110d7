# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host an address belongs to, and when.

An address can move from host to host, and some are on many at once (every Docker host has its 172.17.0.1). So a
host's claim to an address holds for the time in which its segments list it, and two claims at one time cancel out.
"""

from typing import Any

import ibis

from whoneeds.collector.sockets import is_loopback


def find_claims(segments: ibis.Table) -> ibis.Table:
    """When each host had each address.

    Parameters
    ----------
    segments : ibis.Table
        SegmentHeader.

    Returns
    -------
    ibis.Table
        host, address, first_ns, last_ns: one row for each run of segments of a host that all list the address.
    """
    headers = segments.select("host", "segment_id", "opened_ns", "closed_ns", "addresses")
    numbered = headers.mutate(
        at=ibis.row_number().over(group_by=headers.host, order_by=[headers.opened_ns, headers.segment_id])
    )
    rows = numbered.select("host", "at", "opened_ns", "closed_ns", address=numbered.addresses.unnest()).distinct()
    rows = rows.filter(~is_loopback(rows.address), ~_is_link_local(rows.address))
    # in a run without a break, the number among all and the number among those with the address go in step
    rows = rows.mutate(run=rows["at"] - ibis.row_number().over(group_by=[rows.host, rows.address], order_by=rows["at"]))
    return (
        rows.group_by(["host", "address", "run"])
        .aggregate(first_ns=rows.opened_ns.min(), last_ns=rows.closed_ns.max())
        .select("host", "address", "first_ns", "last_ns")
    )


def find_owners(ends: ibis.Table, claims: ibis.Table, tolerance_ns: int) -> ibis.Table:
    """The one host that an address belonged to at a time.

    Parameters
    ----------
    ends : ibis.Table
        end (any unique key), address, first_ns, last_ns.
    claims : ibis.Table
        From `find_claims`.
    tolerance_ns : int
        How far the clocks of two hosts may be apart.

    Returns
    -------
    ibis.Table
        end, owner. Ends without exactly one owner are left out: several hosts claim it, or none does at that time
        and not just one ever.
    """
    both = ends.join(claims.rename(claimed_first_ns="first_ns", claimed_last_ns="last_ns"), "address")
    both = both.mutate(
        then=(both.claimed_first_ns <= both.last_ns + tolerance_ns)
        & (both.claimed_last_ns >= both.first_ns - tolerance_ns)
    )
    counted = both.group_by("end").aggregate(
        ever=both.host.nunique(),
        ever_host=both.host.max(),
        at_the_time=both.host.nunique(where=both.then),
        then_host=both.host.max(where=both.then),
    )
    sole = ibis.ifelse(counted.at_the_time == 1, counted.then_host, counted.ever_host)
    known = (counted.at_the_time == 1) | ((counted.at_the_time == 0) & (counted.ever == 1))
    return counted.filter(known).select("end", owner=sole)


def home_namespaces(lives: ibis.Table, claims: ibis.Table) -> ibis.Table:
    """The network namespace in which a host's own addresses are.

    Parameters
    ----------
    lives : ibis.Table
        From `whoneeds.collector.sockets.merge_sockets`, or the sockets themselves.
    claims : ibis.Table

    Returns
    -------
    ibis.Table
        host, netns. Where no socket tells, every namespace of the host could be the one.
    """
    places = lives.select("host", "netns", "local_addr").distinct()
    spaces = places.select("host", "netns").distinct()
    own = claims.select(own_host="host", address="address").distinct()
    home = places.join(own, [places.host == own.own_host, places.local_addr == own.address])
    home = home.select("host", "netns").distinct()
    return home.union(spaces.anti_join(home, "host"))


def _is_link_local(address: Any) -> Any:
    v6 = address.startswith("fe8") | address.startswith("fe9") | address.startswith("fea") | address.startswith("feb")
    return v6 | address.startswith("169.254.")
