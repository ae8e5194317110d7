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
from whoneeds.collector.owners import count_holders, find_holders, find_sole_holders
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
    # what is known of a socket is worked out once for it, whatever the number of flows and their names
    places = _find_places(sockets, processes, keep)
    orig, resp = _sides(flows)
    called = resp.filter(resp.host.notnull(), resp.direction != "unknown", ~resp["end"].isin(FAILED).fill_null(False))
    rest = keep(called.anti_join(places, list(_PLACE)))
    by_listener = keep(_by_listener(rest, processes, sockets, segments, settings, keep))
    by_listener = by_listener.rename(
        at_flow="flow_id", at_process="process_id", at_app="app", at_candidates="candidates"
    )
    orig = orig.left_join(places, list(_PLACE))
    orig = _name_end(orig, "orig", orig.process_id, orig.app, orig.candidates, ibis.literal("none"))
    resp = resp.left_join(places, list(_PLACE)).left_join(by_listener, [resp.flow_id == by_listener.at_flow])
    rule = ibis.ifelse(resp.at_flow.notnull(), "listener", "none")
    # a place in the hands of processes that cannot be told apart has its answer too: none
    held = resp.recognised.notnull()
    process_id, app = (
        ibis.ifelse(held, resp[name], resp[f"at_{other}"])
        for name, other in (("process_id", "process"), ("app", "app"))
    )
    candidates = ibis.ifelse(held, resp.candidates, resp.at_candidates)
    return orig.union(_name_end(resp, "resp", process_id, app, candidates, rule))


def _name_end(ends: ibis.Table, side: str, process_id: Any, app: Any, candidates: Any, rule: Any) -> ibis.Table:
    """Rows of Attribution for one side; ``rule`` is what counts where the socket was in nobody's hands."""
    made = {
        "flow_id": ends.flow_id,
        "side": ibis.literal(side),
        "host": ends.host,
        "process_id": process_id,
        "app": app,
        "rule": ibis.ifelse(ends.recognised.notnull(), "socket", rule),
        "candidates": candidates.fill_null(0),
    }
    return ends.select(**{column.name: made[column.name] for column in columns(Attribution)})


def _sides(flows: ibis.Table) -> tuple[ibis.Table, ibis.Table]:
    """Originators and responders of flows; a peer is what the end's own socket saw."""
    time = {
        "first_ns": flows.first_ns, "last_ns": flows.last_ns, "period_s": flows.period_s,
        "translated": flows.translated.notnull(),
    }  # fmt: skip
    orig = flows.select(
        "flow_id", "protocol", "direction", "end", host=flows.orig_host,
        socket_id=flows.orig_socket_id, other_socket_id=flows.resp_socket_id, addr=flows.orig_addr,
        port=flows.orig_port, peer_addr=flows.called_addr.coalesce(flows.resp_addr),
        peer_port=flows.called_port.coalesce(flows.resp_port), **time,
    )  # fmt: skip
    resp = flows.select(
        "flow_id", "protocol", "direction", "end", host=flows.resp_host,
        socket_id=flows.resp_socket_id, other_socket_id=flows.orig_socket_id, addr=flows.resp_addr,
        port=flows.resp_port, peer_addr=flows.caller_addr.coalesce(flows.orig_addr),
        peer_port=flows.caller_port.coalesce(flows.orig_port), **time,
    )  # fmt: skip
    return orig, resp


def _find_places(sockets: ibis.Table, processes: ibis.Table, keep: Keep) -> ibis.Table:
    """Process, application and candidates of each socket and peer that was seen in somebody's hands."""
    sole, others = find_sole_holders(sockets, processes, keep)
    # the kernel may count more holders than were recognised: one of those may have been the speaker
    alone = sole.counted <= 1
    sole = sole.select(
        *_PLACE,
        recognised=ibis.literal(1, "int64"),
        process_id=_only_if(alone, sole.process_id),
        app=_only_if(alone, sole.app),
        candidates=ibis.ifelse(alone, 1, sole.counted),
    )
    shared = sockets.semi_join(others, "socket_id")
    shared = _agree_on_sockets(find_holders(shared, processes), shared).semi_join(others, list(_PLACE))
    return sole.union(keep(shared))


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
    called: ibis.Table,
    processes: ibis.Table,
    sockets: ibis.Table,
    segments: ibis.Table,
    settings: FlowSettings,
    keep: Keep,
) -> ibis.Table:
    """Flow, process, application and candidates of called ends that a listener stands for."""
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
    unpeered = sockets.filter(sockets.remote_addr.isnull() | (sockets.remote_addr == ""))
    holding = find_holders(unpeered, processes).select("socket_id", "process_id", "app")
    held = keep(nearest.left_join(holding, "socket_id").drop("socket_id_right"))
    agreed = _agree(held.filter(held.process_id.notnull()), ["flow_id"])
    # a listener that nobody is known to hold may be anybody's
    orphans = held.group_by("flow_id").aggregate(orphans=held.process_id.isnull().cast("int64").sum())
    known = agreed.join(orphans, "flow_id")
    clear = known.orphans == 0
    speaks = clear & ~known.app.isin(ACTIVATORS).fill_null(False)
    return known.select(
        "flow_id",
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
