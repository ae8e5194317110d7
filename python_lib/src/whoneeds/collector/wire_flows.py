# SPDX-License-Identifier: GPL-3.0-or-later
"""What flows on a wire add to the conversations that hosts recorded, and those that no host recorded.

A host that samples its sockets does not count packets, and may miss who began; the wire fills in what is absent and
overrules nothing. Counts of a TCP connection are taken only where the wire saw its opening and its end, and packets
only where no payload is missing: anything less would be a wrong figure that looks exact. (Payload itself is known by
sequence numbers, also where packets were cut or missed.)
"""

from typing import Any

import ibis

from whoneeds.collector.addresses import find_owners
from whoneeds.collector.flows import WELL_KNOWN
from whoneeds.collector.sockets import is_loopback
from whoneeds.model.evidence import FlowRecord
from whoneeds.model.schema import columns

_COUNTS = ("packets", "bytes")
#: Ends after which nothing more can come.
_OVER = ("fin", "rst", "rejected", "unanswered")
#: Columns of a flow that change places when it turns out who began.
_SIDES = ("addr", "port", "host", "socket_id", "bytes", "packets")
#: Who began, as the wire tells it; that somebody merely spoke first tells nothing.
_TOLD = ("handshake", "listener", "port", "told")


def add_counts(flows: ibis.Table, wires: ibis.Table, places: ibis.Table) -> ibis.Table:
    """Conversations of hosts with what is known of them from the wire alone.

    Parameters
    ----------
    flows : ibis.Table
        FlowRecord.
    wires, places : ibis.Table
        From `whoneeds.collector.wires.find_keys` and `place_wires`.

    Returns
    -------
    ibis.Table
        FlowRecord.
    """
    seen = _sum_up(wires, places)
    known = flows.left_join(seen, flows.flow_id == seen.to_flow)
    counts = {
        f"{side}_{what}": known[f"{side}_{what}"].coalesce(known[f"wire_{side}_{what}"])
        for side in ("orig", "resp")
        for what in _COUNTS
    }
    filled = known.mutate(
        **counts,
        end=known.end.coalesce(known.wire_end),
        begun=((known.direction == "unknown") & known.wire_turned.notnull()).fill_null(False),
    )
    turn = filled.begun & filled.wire_turned.fill_null(False)
    made = {name: filled[name] for name in flows.columns}
    for what in _SIDES:
        orig, resp = filled[f"orig_{what}"], filled[f"resp_{what}"]
        made[f"orig_{what}"] = ibis.ifelse(turn, resp, orig)
        made[f"resp_{what}"] = ibis.ifelse(turn, orig, resp)
    for what in ("addr", "port"):
        called, caller = filled[f"called_{what}"], filled[f"caller_{what}"]
        made[f"called_{what}"] = ibis.ifelse(turn, caller, called)
        made[f"caller_{what}"] = ibis.ifelse(turn, called, caller)
    made["direction"] = ibis.ifelse(filled.begun, "handshake", filled.direction)
    return filled.select(**made)


def _sum_up(wires: ibis.Table, places: ibis.Table) -> ibis.Table:
    """What was seen of each conversation, by the watcher that saw most of it."""
    known = places.filter(places.flow_id.notnull()).rename(to_flow="flow_id")
    rows = wires.join(known, wires.flow_id == known.wire_id)
    opened, udp = rows.handshake != "none", rows.protocol == "udp"
    parts = rows.select(
        "to_flow",
        "host",
        "source",
        **{
            f"wire_{side}_{what}": ibis.ifelse(rows.turned, rows[f"{other}_{what}"], rows[f"{side}_{what}"])
            for side, other in (("orig", "resp"), ("resp", "orig"))
            for what in _COUNTS
        },
        # a router's export knows no handshake, and ends with the connection
        begun=(opened | (rows.source == "netflow") | udp).cast("int64"),
        finished=(rows.end.isin(_OVER) | udp).cast("int64"),
        missed=rows.missed_bytes.fill_null(0),
        reset=(rows.end == "rst").cast("int64"),
        closed=(rows.end == "fin").cast("int64"),
        told=ibis.ifelse(opened, rows.turned.cast("int64"), ibis.null("int64")),
    )
    names = [name for name in parts.columns if name.startswith("wire_")]
    summed = parts.group_by(["to_flow", "host", "source"]).aggregate(
        **{name: _sum_all(parts[name]) for name in names},
        begun=parts.begun.max(),
        finished=parts.finished.max(),
        missed=parts.missed.sum(),
        reset=parts.reset.max(),
        closed=parts.closed.max(),
        low=parts.told.min(),
        high=parts.told.max(),
    )
    packets = summed.wire_orig_packets.fill_null(0) + summed.wire_resp_packets.fill_null(0)
    best = ibis.row_number().over(group_by=summed.to_flow, order_by=[packets.desc(), summed.host, summed.source])
    summed = summed.mutate(place=best)
    summed = summed.filter(summed.place == 0)
    whole = (summed.begun > 0) & (summed.finished > 0)
    every = whole & (summed.missed == 0)
    return summed.select(
        "to_flow",
        **{
            name: ibis.ifelse(every if name.endswith("packets") else whole, summed[name], ibis.null("int64"))
            for name in names
        },
        wire_end=ibis.cases((summed.reset > 0, "rst"), (summed.closed > 0, "fin"), else_=ibis.null("string")),
        wire_turned=ibis.ifelse(summed.low == summed.high, summed.low > 0, ibis.null("boolean")),
    )


def _sum_all(count: Any) -> Any:
    """The sum, if every part is known."""
    return ibis.ifelse(count.isnull().cast("int64").sum() == 0, count.sum().cast("int64"), ibis.null("int64"))


def tell_unrecorded(
    wires: ibis.Table, places: ibis.Table, monitors: ibis.Table, claims: ibis.Table, clock_ns: int
) -> ibis.Table:
    """Conversations that went over a wire and that no host recorded.

    Parameters
    ----------
    wires, places : ibis.Table
        From `whoneeds.collector.wires.find_keys` and `place_wires`.
    monitors : ibis.Table
        The second of `whoneeds.collector.wires.tabulate_clocks`: times are put on the hosts' clock by it, where known.
    claims : ibis.Table
        From `whoneeds.collector.addresses.find_claims`.
    clock_ns : int
        How far clocks may be apart.

    Returns
    -------
    ibis.Table
        FlowRecord.
    """
    rest = wires.anti_join(places, wires.flow_id == places.wire_id)
    rest = rest.left_join(monitors, rest.host == monitors.of_monitor)
    ahead_ns = rest.middle_ns.fill_null(0)
    rest = rest.mutate(first_ns=rest.first_ns - ahead_ns, last_ns=rest.last_ns - ahead_ns)
    stays = is_loopback(rest.orig_addr) | is_loopback(rest.resp_addr)
    traced = claims.select(traced="host").distinct()
    rest = rest.mutate(stays=stays).left_join(traced, rest.host == traced.traced)
    times = ["first_ns", "last_ns"]
    orig = rest.filter(~rest.stays).select(*times, end="flow_id", address="real_orig_addr")
    resp = rest.filter(~rest.stays).select(*times, end="flow_id", address="real_resp_addr")
    callers = find_owners(orig, claims, clock_ns).rename(caller_id="end", caller_host="owner")
    called = find_owners(resp, claims, clock_ns).rename(called_id="end", called_host="owner").view()
    rows = rest.left_join(callers, rest.flow_id == callers.caller_id)
    rows = rows.left_join(called, rows.flow_id == called.called_id)
    onwards = (rows.real_resp_addr != rows.resp_addr) | (rows.real_resp_port != rows.resp_port)
    backwards = (rows.real_orig_addr != rows.orig_addr) | (rows.real_orig_port != rows.orig_port)
    by_port = (rows.resp_port < WELL_KNOWN) & (rows.orig_port >= WELL_KNOWN)
    text, whole = ibis.null("string"), ibis.null("int64")
    made: dict[str, Any] = {
        "flow_id": rows.flow_id,
        "protocol": rows.protocol,
        "orig_addr": rows.real_orig_addr,
        "orig_port": rows.real_orig_port,
        "resp_addr": rows.real_resp_addr,
        "resp_port": rows.real_resp_port,
        "direction": ibis.cases(
            (rows.handshake != "none", "handshake"),
            (rows.direction.isin(_TOLD), rows.direction),
            (by_port, "port"),
            else_="unknown",
        ),
        "orig_host": ibis.ifelse(rows.stays, rows.traced, rows.caller_host),
        "resp_host": ibis.ifelse(rows.stays, rows.traced, rows.called_host),
        "orig_socket_id": text,
        "resp_socket_id": text,
        "first_ns": rows.first_ns,
        "last_ns": rows.last_ns,
        "duration_s": (rows.last_ns - rows.first_ns).cast("float64") / 1e9,
        "samples": ibis.literal(0, "int64"),
        "period_s": ibis.literal(0.0),
        "orig_bytes": rows.orig_bytes,
        "resp_bytes": rows.resp_bytes,
        "orig_packets": rows.orig_packets,
        "resp_packets": rows.resp_packets,
        "end": ibis.ifelse(rows.end.isin(_OVER), rows.end, text),
        "candidates": ibis.literal(0, "int64"),
        "location": text,
        "called_addr": ibis.ifelse(onwards, rows.resp_addr, text),
        "called_port": ibis.ifelse(onwards, rows.resp_port, whole),
        "caller_addr": ibis.ifelse(backwards, rows.orig_addr, text),
        "caller_port": ibis.ifelse(backwards, rows.orig_port, whole),
        "translated": ibis.ifelse(onwards | backwards, "resolved", text),
    }
    return rows.select(**{column.name: made[column.name] for column in columns(FlowRecord)})


def count_joined(meetings: ibis.Table, places: ibis.Table) -> ibis.Table:
    """How many flows of each monitor were laid to conversations of each host, and of how many it cannot be told.

    Parameters
    ----------
    meetings, places : ibis.Table
        From `whoneeds.collector.wires.find_meetings` and `place_wires`.

    Returns
    -------
    ibis.Table
        monitor, host, joined, doubtful.
    """
    met = meetings.select("monitor", "host", "wire_id", met_flow="flow_id").distinct()
    known = met.join(places, "wire_id")
    sure = known.filter(known.flow_id.isnull() | (known.flow_id == known.met_flow))
    return sure.group_by(["monitor", "host"]).aggregate(
        joined=sure.wire_id.nunique(where=sure.flow_id.notnull()),
        doubtful=sure.wire_id.nunique(where=sure.flow_id.isnull()),
    )
