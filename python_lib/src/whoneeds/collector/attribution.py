# SPDX-License-Identifier: GPL-3.0-or-later
"""Who stands behind both ends of a flow, and how that is known. A wrong name is worse than none.

Two rules, the first that gives an answer counts:

* ``socket``: the very socket was seen in the hands of a process;
* ``listener``: the end was called, and a process waits on that port, address and namespace at that time. It is
  not used for programs that wait on behalf of others (socket activation): they never speak; nor for connections that
  did not come about: nobody spoke.

Several candidates: no process is named, and an application only if all of them are the same one.
"""

from typing import Any

import ibis

from whoneeds.collector.addresses import find_claims, home_namespaces
from whoneeds.collector.flows import FAILED, FlowSettings, far_ends
from whoneeds.collector.listeners import match_listeners
from whoneeds.collector.owners import count_holders, find_holders
from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing, merge_sockets, waiting_lives
from whoneeds.model.conclusions import Attribution
from whoneeds.model.schema import columns

_PLACE = ("socket_id", "peer_addr", "peer_port")
#: Programs that hold listening sockets for others.
ACTIVATORS = ("systemd", "init", "inetd", "xinetd", "launchd")


def attribute_flows(
    flows: ibis.Table,
    sockets: ibis.Table,
    processes: ibis.Table,
    segments: ibis.Table,
    settings: FlowSettings = FlowSettings(),
    keep: Keep = keep_nothing,
) -> ibis.Table:
    """Name the process at each end of each flow.

    Parameters
    ----------
    flows : ibis.Table
        FlowRecord.
    sockets, processes, segments : ibis.Table
        SocketRecord and ProcessRecord (with ``segment_id``), SegmentHeader.
    settings : FlowSettings
        Those that the flows were built with.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        Attribution: two rows a flow.
    """
    holders = keep(find_holders(sockets, processes))
    # what is known of a socket is worked out once for it, whatever the number of flows and their names
    places = keep(_agree_on_sockets(holders, sockets))
    ends = _sides(flows)
    by_socket = ends.left_join(places, list(_PLACE))
    rest = keep(by_socket.filter(by_socket.recognised.isnull()).select(ends.columns))
    by_listener = keep(_by_listener(rest, holders, sockets, segments, settings, keep))
    by_listener = by_listener.rename(
        at_flow="flow_id", at_side="side", at_process="process_id", at_app="app", at_candidates="candidates"
    )
    joined = by_socket.left_join(
        by_listener, [by_socket.flow_id == by_listener.at_flow, by_socket.side == by_listener.at_side]
    )
    # a place in the hands of processes that cannot be told apart has its answer too: none
    held = joined.recognised.notnull()
    made = {
        "flow_id": joined.flow_id,
        "side": joined.side,
        "host": joined.host,
        "process_id": ibis.ifelse(held, joined.process_id, joined.at_process),
        "app": ibis.ifelse(held, joined.app, joined.at_app),
        "rule": ibis.cases((held, "socket"), (joined.at_flow.notnull(), "listener"), else_="none"),
        "candidates": ibis.ifelse(held, joined.candidates, joined.at_candidates.fill_null(0)),
    }
    return joined.select(**{column.name: made[column.name] for column in columns(Attribution)})


def _sides(flows: ibis.Table) -> ibis.Table:
    """Both ends of each flow as rows; a peer is what the end's own socket saw."""
    time = {
        "first_ns": flows.first_ns, "last_ns": flows.last_ns, "period_s": flows.period_s,
        "translated": flows.translated.notnull(),
    }  # fmt: skip
    orig = flows.select(
        "flow_id", "protocol", "direction", "end", side=ibis.literal("orig"), host=flows.orig_host,
        socket_id=flows.orig_socket_id, other_socket_id=flows.resp_socket_id, addr=flows.orig_addr,
        port=flows.orig_port, peer_addr=flows.called_addr.coalesce(flows.resp_addr),
        peer_port=flows.called_port.coalesce(flows.resp_port), **time,
    )  # fmt: skip
    resp = flows.select(
        "flow_id", "protocol", "direction", "end", side=ibis.literal("resp"), host=flows.resp_host,
        socket_id=flows.resp_socket_id, other_socket_id=flows.orig_socket_id, addr=flows.resp_addr,
        port=flows.resp_port, peer_addr=flows.caller_addr.coalesce(flows.orig_addr),
        peer_port=flows.caller_port.coalesce(flows.orig_port), **time,
    )  # fmt: skip
    return orig.union(resp)


def _agree_on_sockets(holders: ibis.Table, sockets: ibis.Table) -> ibis.Table:
    """Process, application and candidates of each socket and peer that was seen in somebody's hands."""
    agreed = _agree(holders, list(_PLACE), once=True)
    known = agreed.join(count_holders(sockets), list(_PLACE))
    # the kernel may count more holders than were recognised: one of those may have been the speaker
    all_known = known.counted <= known.recognised
    return known.select(
        *_PLACE,
        "recognised",
        process_id=_only_if(all_known, known.process_id),
        app=_only_if(all_known, known.app),
        candidates=ibis.ifelse(all_known, known.recognised, known.counted),
    )


def _by_listener(
    ends: ibis.Table,
    holders: ibis.Table,
    sockets: ibis.Table,
    segments: ibis.Table,
    settings: FlowSettings,
    keep: Keep,
) -> ibis.Table:
    """Flow, side, process, application and candidates of ends that a listener stands for."""
    answered = ~ends["end"].isin(FAILED).fill_null(False)
    called = ends.filter(ends.side == "resp", ends.host.notnull(), ends.direction != "unknown", answered)
    waiting = keep(waiting_lives(merge_sockets(sockets.filter(sockets.remote_addr.isnull()), segments, keep)))
    asked = called.select(asked_id="socket_id").union(called.select(asked_id="other_socket_id")).distinct()
    spaces = sockets.semi_join(asked, sockets.socket_id == asked.asked_id)
    spaces = keep(spaces.group_by("socket_id").aggregate(netns=spaces.netns.max()))
    seen = spaces.rename(seen_id="socket_id", seen_netns="netns")
    other = spaces.rename(other_id="socket_id", other_netns="netns").view()
    called = called.left_join(seen, called.socket_id == seen.seen_id)
    called = called.left_join(other, called.other_socket_id == other.other_id)
    stays = is_loopback(called.addr) | (is_loopback(called.peer_addr) & ~called.translated)
    called = called.select(
        "host", "protocol", "addr", "port", "first_ns", "last_ns", "period_s", "seen_netns",
        end=called.flow_id, own_socket_id=called.socket_id, home_netns=_only_if(stays, called.other_netns),
    )  # fmt: skip
    homes = home_namespaces(sockets, find_claims(segments))
    reached = keep(match_listeners(keep(far_ends(called, homes)), waiting, settings.clock_offset_ns))
    nearest = reached.mutate(most=reached.specificity.max().over(group_by=reached.end))
    nearest = nearest.filter(nearest.specificity == nearest.most).select(flow_id="end", socket_id="listener_id")
    holding = holders.filter(holders.peer_addr == "").select("socket_id", "process_id", "app")
    held = keep(nearest.left_join(holding, "socket_id").drop("socket_id_right"))
    agreed = _agree(held.filter(held.process_id.notnull()), ["flow_id"])
    # a listener that nobody is known to hold may be anybody's
    orphans = held.group_by("flow_id").aggregate(orphans=held.process_id.isnull().cast("int64").sum())
    known = agreed.join(orphans, "flow_id")
    clear = known.orphans == 0
    speaks = clear & ~known.app.isin(ACTIVATORS).fill_null(False)
    return known.select(
        "flow_id",
        side=ibis.literal("resp"),
        process_id=_only_if(speaks, known.process_id),
        app=_only_if(speaks, known.app),
        candidates=known.recognised + known.orphans,
    )


def _agree(rows: ibis.Table, key: list[str], *, once: bool = False) -> ibis.Table:
    """For each key: how many processes there are, the one if it is one, the application if they agree on it.

    With ``once``, no process stands twice under a key; counting different ones takes several times as long.
    """
    counted = rows.group_by(key).aggregate(
        recognised=rows.count() if once else rows.process_id.nunique(),
        one_process=rows.process_id.max(),
        first_app=rows.app.min(),
        one_app=rows.app.max(),
        nameless=rows.app.isnull().cast("int64").sum(),
    )
    return counted.select(
        *key,
        "recognised",
        process_id=_only_if(counted.recognised == 1, counted.one_process),
        app=_only_if((counted.first_app == counted.one_app) & (counted.nameless == 0), counted.one_app),
    )


def _only_if(condition: Any, value: Any) -> Any:
    return ibis.ifelse(condition, value, ibis.null("string"))
