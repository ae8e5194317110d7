# SPDX-License-Identifier: GPL-3.0-or-later
"""The real far end of a conversation whose addresses were translated on the way.

A socket knows what it called, or who seemed to call it. A translator (a router, a host that publishes its containers'
ports) knows both sides. So the tuple of a socket is led through the translations that hold at its time: from the
caller's side onwards, from the called side backwards, over at most `STEPS` translators. What a socket saw stays with
it; both real ends are what pairs it, and what a dependency is named by.

A tuple is not unique: private addresses are used in many networks, loopback exists in every namespace. So a
translation counts for a socket only if it was made on the socket's own host, or if the socket's address is one that
exactly one traced host ever listed as its own; on loopback, in its own namespace only. Where translations disagree, the
tuple stays as it is and is marked.

Where no translation is known and the far end cannot be the one in the tuple, the far end is nobody's: `find_misled`.
"""

from typing import Any

import ibis

from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing
from whoneeds.store.portable import as_whole

#: Most translators between two ends.
STEPS = 3
_LOCAL, _REMOTE = ("local_addr", "local_port"), ("remote_addr", "remote_port")
_RULE_KEY = ["protocol", *_LOCAL, *_REMOTE]


def resolve_far_ends(
    ends: ibis.Table,
    translations: ibis.Table,
    claims: ibis.Table,
    clock_offset_ns: int,
    keep: Keep = keep_nothing,
) -> ibis.Table:
    """Lives with the real far end in the place of the one that their socket saw.

    Parameters
    ----------
    ends : ibis.Table
        From `whoneeds.collector.sockets.connected_lives`.
    translations : ibis.Table
        TranslationRecord.
    claims : ibis.Table
        From `whoneeds.collector.addresses.find_claims`.
    clock_offset_ns : int
        How far the clocks of two hosts may be apart.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        The columns of ``ends``; ``seen_addr`` and ``seen_port`` (the far end as the socket saw it), ``led_addr`` and
        ``led_port`` (what the far end sees of this one), ``translator`` and ``translator_netns`` (the last one that is
        known), ``way`` ('onwards' from who called, 'backwards' from who was called; these five are null where there is
        no translation), ``disagreed`` (bool: translations are known, but not which of them counts).
    """
    rules = keep(_rules(translations))
    owned = claims.group_by("address").aggregate(hosts=claims.host.nunique())
    owned = keep(owned.filter(owned.hosts == 1).select(owned_address="address"))
    now = ends.select(
        "life", "protocol", *_LOCAL, *_REMOTE, "first_ns", "last_ns", "period_s", at_host="host", at_netns="netns",
        way=ibis.null("string"),
    )  # fmt: skip
    moved: list[ibis.Table] = []
    for _step in range(STEPS):
        now = keep(_lead_on(now, rules, owned, clock_offset_ns))
        moved.append(now)
        now = now.filter(now.way.notnull())
    ways = moved[0]
    for further in moved[1:]:
        ways = _prefer(ways, further.filter(further.way.notnull()))
    ways = keep(
        ways.select(
            to_life="life", to_addr="remote_addr", to_port="remote_port", to_led_addr="local_addr",
            to_led_port="local_port", to_host="at_host", to_netns="at_netns", way="way",
        )
    )  # fmt: skip
    known = ends.left_join(ways, ends.life == ways.to_life)
    moved_on = known.way.notnull()
    return known.mutate(
        seen_addr=known.remote_addr,
        seen_port=known.remote_port,
        remote_addr=ibis.ifelse(moved_on, known.to_addr, known.remote_addr),
        remote_port=ibis.ifelse(moved_on, known.to_port, known.remote_port),
        led_addr=ibis.ifelse(moved_on, known.to_led_addr, ibis.null("string")),
        led_port=ibis.ifelse(moved_on, known.to_led_port, ibis.null("int64")),
        translator=ibis.ifelse(moved_on, known.to_host, ibis.null("string")),
        translator_netns=ibis.ifelse(moved_on, known.to_netns, ibis.null("string")),
        disagreed=known.to_life.notnull() & ~moved_on,
    ).drop("to_life", "to_addr", "to_port", "to_led_addr", "to_led_port", "to_host", "to_netns")


def resolve_nothing(ends: ibis.Table) -> ibis.Table:
    """Lives as `resolve_far_ends` gives them where no translation is known."""
    return ends.mutate(
        seen_addr=ends.remote_addr,
        seen_port=ends.remote_port,
        led_addr=ibis.null("string"),
        led_port=ibis.null("int64"),
        translator=ibis.null("string"),
        translator_netns=ibis.null("string"),
        way=ibis.null("string"),
        disagreed=ibis.literal(False),
    )


def find_misled(alone: ibis.Table, segments: ibis.Table, clock_offset_ns: int) -> ibis.Table:
    """Ends of conversations that cannot be where their tuple says.

    The host that owns the address was sampled while the conversation was surely open, and has no such socket: what
    answers is somewhere behind.

    Parameters
    ----------
    alone : ibis.Table
        end (any unique key), owner (host by its address), first_ns, last_ns; established TCP conversations of which
        one end was seen only.
    segments : ibis.Table
        SegmentHeader.
    clock_offset_ns : int
        How far the clocks of two hosts may be apart.

    Returns
    -------
    ibis.Table
        end.
    """
    looks = segments.filter(segments.samples > 0).select(
        looker="host", opened_ns="opened_ns", closed_ns="closed_ns", look_ns=as_whole(segments.period_s * 1e9)
    )
    both = alone.join(looks, alone.owner == looks.looker)
    begin = ibis.greatest(both.first_ns + clock_offset_ns, both.opened_ns)
    end = ibis.least(both.last_ns - clock_offset_ns, both.closed_ns)
    return both.filter(end - begin > both.look_ns).select("end").distinct()


def _rules(translations: ibis.Table) -> ibis.Table:
    """Translations as rules: who has this tuple has that one further on, the caller's way and the called end's."""
    rows = translations.filter(translations.orig_port > 0, translations.resp_port > 0)
    onwards = rows.select(
        "protocol", "host", "netns", "first_ns", "last_ns",
        local_addr="orig_addr", local_port="orig_port", remote_addr="resp_addr", remote_port="resp_port",
        to_local_addr="new_orig_addr", to_local_port="new_orig_port",
        to_remote_addr="new_resp_addr", to_remote_port="new_resp_port", to_way=ibis.literal("onwards"),
    )  # fmt: skip
    backwards = rows.select(
        "protocol", "host", "netns", "first_ns", "last_ns",
        local_addr="new_resp_addr", local_port="new_resp_port", remote_addr="new_orig_addr",
        remote_port="new_orig_port", to_local_addr="resp_addr", to_local_port="resp_port",
        to_remote_addr="orig_addr", to_remote_port="orig_port", to_way=ibis.literal("backwards"),
    )  # fmt: skip
    return onwards.union(backwards).distinct()


def _lead_on(now: ibis.Table, rules: ibis.Table, owned: ibis.Table, clock_offset_ns: int) -> ibis.Table:
    """The tuples one translator further, where there is one; ``way`` is null where rules disagree."""
    rule = rules.rename("r_{name}")
    on = [now[name] == rule[f"r_{name}"] for name in _RULE_KEY]
    both = now.join(rule, on)
    both = both.left_join(owned, both.local_addr == owned.owned_address)
    same_host = both.r_host == both.at_host
    stays = is_loopback(both.local_addr) | is_loopback(both.remote_addr)
    here = ibis.ifelse(stays, same_host & (both.r_netns == both.at_netns), same_host | both.owned_address.notnull())
    slack_ns = as_whole(both.period_s * 1e9) + clock_offset_ns
    overlap_ns = ibis.least(both.last_ns, both.r_last_ns) - ibis.greatest(both.first_ns, both.r_first_ns)
    same_way = both.way.isnull() | (both.way == both.r_to_way)
    fitting = both.filter(here, same_way, overlap_ns >= -slack_ns).mutate(overlap_ns=overlap_ns)
    fitting = fitting.mutate(target=_words(fitting))
    counted = fitting.group_by("life").aggregate(
        targets=fitting.target.nunique(),
        a_target=fitting.target.max(),
        sure_targets=fitting.target.nunique(where=fitting.overlap_ns >= 0),
        sure_target=fitting.target.max(where=fitting.overlap_ns >= 0),
    )
    counted = counted.select(
        in_life="life",
        chosen=ibis.cases(
            (counted.targets == 1, counted.a_target),
            (counted.sure_targets == 1, counted.sure_target),
            else_=ibis.null("string"),
        ),
    )
    rows = fitting.join(counted, fitting.life == counted.in_life)
    rows = rows.filter(rows.chosen.isnull() | (rows.target == rows.chosen))
    led = rows.group_by("life").aggregate(
        protocol=rows.protocol.max(),
        local_addr=rows.r_to_local_addr.max(),
        local_port=rows.r_to_local_port.max(),
        remote_addr=rows.r_to_remote_addr.max(),
        remote_port=rows.r_to_remote_port.max(),
        first_ns=rows.first_ns.max(),
        last_ns=rows.last_ns.max(),
        period_s=rows.period_s.max(),
        at_host=rows.r_host.max(),
        at_netns=rows.r_netns.max(),
        way=rows.r_to_way.max(),
        chosen=rows.chosen.max(),
    )
    return led.mutate(way=ibis.ifelse(led.chosen.isnull(), ibis.null("string"), led.way)).drop("chosen")


def _prefer(ways: ibis.Table, further: ibis.Table) -> ibis.Table:
    """Where the way goes on, its later part."""
    rest = ways.anti_join(further, "life")
    names = list(ways.columns)
    return rest.select(names).union(further.select(names))


def _words(rows: Any) -> Any:
    parts = (rows.r_to_way, rows.r_to_local_addr, rows.r_to_local_port, rows.r_to_remote_addr, rows.r_to_remote_port)
    text = parts[0]
    for part in parts[1:]:
        text = text + ibis.literal(" ") + part.cast("string")
    # on loopback, whose loopback it is
    home = is_loopback(rows.r_to_local_addr) | is_loopback(rows.r_to_remote_addr)
    return text + ibis.ifelse(
        home, ibis.literal(" ") + rows.r_host + ibis.literal("/") + rows.r_netns, ibis.literal("")
    )
