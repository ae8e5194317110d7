# SPDX-License-Identifier: GPL-3.0-or-later
"""Which two sockets are the two ends of one conversation.

Both know the same addresses and ports, mirrored, at the same time. A tuple is used again and again, an address can
be on two hosts, and hosts' clocks differ; so two sockets are paired only if each is the other's best match:

* among sockets in one namespace of one host, which cannot hold one tuple twice at a time, the longest overlap
  in time wins;
* a tuple that is left of a closed conversation does not belong to one that is known to have begun later;
* if sockets of several namespaces or hosts come within the clocks' uncertainty of the best, nobody can tell.

What cannot be told is not paired: both sides stay as conversations of which one end was seen.
"""

from typing import Any

import ibis

from whoneeds.collector.sockets import Keep, is_loopback
from whoneeds.store.portable import as_whole


def find_candidates(lives: ibis.Table, clock_offset_ns: int, keep: Keep) -> ibis.Table:
    """All pairs of lives that could be two ends of one conversation, each in both orders.

    Parameters
    ----------
    lives : ibis.Table
        From `whoneeds.collector.translation.resolve_far_ends`.
    clock_offset_ns : int
        How far the clocks of two hosts may be apart; a sampling period of each is added.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        life, other_life, place, other_place (host and namespace), overlap_ns (negative: a pause between them),
        slack_ns, ``leads`` (bool: which of the two stands first, in every order of the rows).
    """
    # most speak to hosts that are not traced, of which no other end is to be looked for
    near = keep(lives.select(near_addr="local_addr").distinct())
    own, led = _ends(lives), keep(_led(lives))
    # who calls through a translator is known at the far end by what it was translated to, and by nothing else
    as_they_are = own.filter((own.way != "onwards").fill_null(True))
    as_seen = keep(as_they_are.semi_join(near, as_they_are.remote_addr == near.near_addr))
    found = keep(_mirrored(as_seen, as_seen, clock_offset_ns))
    led = keep(
        _mirrored(led.filter(led.way == "onwards"), own, clock_offset_ns).union(
            _mirrored(led.filter(led.way == "backwards"), as_they_are, clock_offset_ns)
        )
    )
    swapped = led.select(
        life="other_life", other_life="life", place="other_place", other_place="place", overlap_ns="overlap_ns",
        slack_ns="slack_ns", leads=~led.leads,
    )  # fmt: skip
    # the first are found in both orders already, and once
    led = led.union(swapped).distinct()
    return found.union(led.anti_join(found, ["life", "other_life"]))


def _mirrored(left: ibis.Table, right: ibis.Table, clock_offset_ns: int) -> ibis.Table:
    """Pairs of ends whose tuples mirror each other at the same time."""
    right = right.rename("other_{name}").view()
    both = left.join(
        right,
        [
            left.protocol == right.other_protocol,
            left.scope == right.other_scope,
            left.local_addr == right.other_remote_addr,
            left.local_port == right.other_remote_port,
            left.remote_addr == right.other_local_addr,
            left.remote_port == right.other_local_port,
            left.socket_id != right.other_socket_id,
        ],
    )
    begin = ibis.ifelse(both.first_ns > both.other_first_ns, both.first_ns, both.other_first_ns)
    end = ibis.ifelse(both.last_ns < both.other_last_ns, both.last_ns, both.other_last_ns)
    # what is left of a closed conversation on the same host was there before another one began: it is not that one's
    earlier = (both.host == both.other_host) & (
        _left_before(both.open, both.first_ns, both.other_initiated, both.other_first_ns)
        | _left_before(both.other_open, both.other_first_ns, both.initiated, both.first_ns)
    )
    both = both.filter(~earlier)
    both = both.mutate(
        overlap_ns=end - begin,
        slack_ns=as_whole((both.period_s + both.other_period_s) * 1e9) + clock_offset_ns,
        leads=both.socket_id < both.other_socket_id,
    )
    return both.filter(both.overlap_ns >= -both.slack_ns).select(
        "life", "other_life", "place", "other_place", "overlap_ns", "slack_ns", "leads"
    )


def choose_pairs(candidates: ibis.Table) -> ibis.Table:
    """The candidates in which each side is the other's clear best.

    Parameters
    ----------
    candidates : ibis.Table
        From `find_candidates`.

    Returns
    -------
    ibis.Table
        life, other_life, leads; each pair in both orders.
    """
    # nearly all have one candidate only, whose only candidate they are: nothing is to be weighed there
    several = candidates.group_by("life").aggregate(times=candidates.count())
    several = several.filter(several.times > 1)
    sole = candidates.anti_join(several, "life")
    sole = sole.anti_join(several.select(other_life="life"), "other_life").select("life", "other_life", "leads")
    contested = candidates.anti_join(sole, ["life", "other_life"])
    table = contested.mutate(
        best=contested.overlap_ns.max().over(group_by=contested.life),
        other_best=contested.overlap_ns.max().over(group_by=contested.other_life),
    )
    close = table.overlap_ns >= table.best - table.slack_ns
    other_close = table.overlap_ns >= table.other_best - table.slack_ns
    table = table.mutate(
        ties=(table.overlap_ns == table.best).cast("int64").sum().over(group_by=table.life),
        other_ties=(table.overlap_ns == table.other_best).cast("int64").sum().over(group_by=table.other_life),
        low=_where(close, table.other_place).min().over(group_by=table.life),
        high=_where(close, table.other_place).max().over(group_by=table.life),
        other_low=_where(other_close, table.place).min().over(group_by=table.other_life),
        other_high=_where(other_close, table.place).max().over(group_by=table.other_life),
    )
    chosen = table.filter(
        table.overlap_ns == table.best,
        table.overlap_ns == table.other_best,
        table.ties == 1,
        table.other_ties == 1,
        table.low == table.high,
        table.other_low == table.other_high,
    ).select("life", "other_life", "leads")
    return sole.union(chosen)


def find_ambiguous(candidates: ibis.Table, pairs: ibis.Table) -> ibis.Table:
    """Lives that have candidates and were paired with none of them.

    Parameters
    ----------
    candidates, pairs : ibis.Table
        From `find_candidates` and `choose_pairs`.

    Returns
    -------
    ibis.Table
        life, candidates (how many).
    """
    refused = candidates.anti_join(pairs, "life")
    return refused.group_by("life").aggregate(candidates=refused.count())


def _ends(lives: ibis.Table) -> ibis.Table:
    """Ends with their tuples as their own sockets have them."""
    place = _place(lives.host, lives.netns)
    stays = is_loopback(lives.local_addr) | is_loopback(lives.seen_addr)
    return lives.select(
        "life", "socket_id", "protocol", "local_addr", "local_port", "first_ns", "last_ns", "period_s", "host", "open",
        "initiated", "way", remote_addr="seen_addr", remote_port="seen_port", place=place,
        # loopback is another network in every namespace
        scope=ibis.ifelse(stays, place, ibis.literal("")),
    )  # fmt: skip


def _led(lives: ibis.Table) -> ibis.Table:
    """Ends that were translated, with their tuples as the far end has them."""
    lives = lives.filter(lives.way.notnull())
    stays = is_loopback(lives.led_addr) | is_loopback(lives.remote_addr)
    return lives.select(
        "life", "socket_id", "protocol", "first_ns", "last_ns", "period_s", "host", "open", "initiated", "way",
        "remote_addr", "remote_port", local_addr="led_addr", local_port="led_port",
        place=_place(lives.host, lives.netns),
        scope=ibis.ifelse(stays, _place(lives.translator, lives.translator_netns), ibis.literal("")),
    )  # fmt: skip


def _place(host: Any, netns: Any) -> Any:
    return host + ibis.literal("/") + netns


def _left_before(is_open: Any, first_ns: Any, other_initiated: Any, other_first_ns: Any) -> Any:
    return ~is_open & other_initiated.notnull() & (first_ns < other_first_ns)


def _where(condition: Any, value: Any) -> Any:
    return ibis.ifelse(condition, value, ibis.null("string"))
