# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows on a wire joined with what hosts recorded: by addresses and ports, and by time without a common clock.

A monitor's clock may be wrong by hours. But a client uses a port again only after a long time, so that a tuple which
came once on the wire and once on a host is one conversation, and tells how far both clocks are apart
(`compare_wires`). The difference that most of these agree on counts, for each monitor and host by itself
(`settle_wires`); where too few agree, nothing is joined with that host.

Then each flow on the wire is laid to the conversation of a host that it overlaps in time. Where two come into
question within the clocks' uncertainty (a port that was used again at once), it is laid to none. What no host recorded
becomes a conversation of its own; what a host may have recorded, and nobody can tell as which, does not: it would count
twice.
"""

from collections.abc import Iterable, Mapping
from statistics import median_low
from typing import Any, NamedTuple

import ibis
import pyarrow as pa

from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing
from whoneeds.collector.translation import resolve_far_ends
from whoneeds.store.portable import as_whole

#: Least flows that must agree on how far two clocks are apart.
LEAST_WITNESSES = 3
#: What the begin of one conversation may differ by on two clocks that are put right.
_SLACK_S = 2.0
_KEY = ["protocol", "near", "far"]


class WireClock(NamedTuple):
    """How a monitor's clock stands to a host's.

    Attributes
    ----------
    ahead_ns : int or None
        Negative if it is behind; None if it cannot be told.
    agreeing, witnesses : int
        Conversations that agree on it, and all that came once on both.
    """

    ahead_ns: int | None
    agreeing: int
    witnesses: int


def find_keys(wires: ibis.Table, translations: ibis.Table, claims: ibis.Table, clock_ns: int, keep: Keep) -> ibis.Table:
    """Flows on wires with their real ends, where addresses were translated on the way.

    Parameters
    ----------
    wires : ibis.Table
        WireFlow.
    translations, claims : ibis.Table
        TranslationRecord, and from `whoneeds.collector.addresses.find_claims`.
    clock_ns : int
        How far clocks may be apart.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        The columns of WireFlow; real_orig_addr, real_orig_port, real_resp_addr and real_resp_port.
    """
    wires = wires.filter(wires.protocol.isin(("tcp", "udp")), wires.orig_port > 0, wires.resp_port > 0)
    shared = {
        "life": wires.flow_id, "protocol": wires.protocol, "first_ns": wires.first_ns, "last_ns": wires.last_ns,
        "period_s": ibis.literal(0.0), "host": wires.host, "netns": ibis.literal(""),
    }  # fmt: skip
    caller = {"local_addr": wires.orig_addr, "local_port": wires.orig_port}
    called = {"local_addr": wires.resp_addr, "local_port": wires.resp_port}
    onwards = wires.select(
        **shared, **caller, remote_addr=wires.resp_addr, remote_port=wires.resp_port
    )  # fmt: skip
    backwards = wires.select(
        **shared, **called, remote_addr=wires.orig_addr, remote_port=wires.orig_port
    )  # fmt: skip
    real = {}
    for way, ends in (("onwards", onwards), ("backwards", backwards)):
        led = resolve_far_ends(ends, translations, claims, clock_ns, keep)
        led = led.filter(led.way == way)
        real[way] = keep(
            led.select(**{f"{way}_id": "life", f"{way}_addr": "remote_addr", f"{way}_port": "remote_port"})
        )
    known = wires.left_join(real["onwards"], wires.flow_id == real["onwards"].onwards_id)
    known = known.left_join(real["backwards"], known.flow_id == real["backwards"].backwards_id)
    return known.select(
        *wires.columns,
        real_orig_addr=known.backwards_addr.coalesce(known.orig_addr),
        real_orig_port=known.backwards_port.coalesce(known.orig_port),
        real_resp_addr=known.onwards_addr.coalesce(known.resp_addr),
        real_resp_port=known.onwards_port.coalesce(known.resp_port),
    )


def find_meetings(wires: ibis.Table, flows: ibis.Table, keep: Keep = keep_nothing) -> ibis.Table:
    """Flows on a wire and conversations of hosts that have one tuple, whenever that was.

    Parameters
    ----------
    wires : ibis.Table
        From `find_keys`.
    flows : ibis.Table
        FlowRecord, of which a host recorded at least one end.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        wire_id, monitor, flow_id, host (one row for each host that recorded an end), turned (whether what began on the
        wire was called by the host's word), wire_first_ns, wire_last_ns, first_ns, last_ns, period_s, once (whether the
        tuple came once on this wire and once on this host).
    """
    seen = ("orig_addr", "orig_port", "resp_addr", "resp_port")
    real = tuple(f"real_{name}" for name in seen)
    led = ibis.or_(*(wires[one] != wires[other] for one, other in zip(seen, real, strict=True)))
    on_wire = _key_wires(wires, *seen).union(_key_wires(wires.filter(led), *real))
    on_wire = keep(on_wire.distinct())
    both = flows.mutate(
        called_a=flows.called_addr.coalesce(flows.resp_addr), called_p=flows.called_port.coalesce(flows.resp_port),
        caller_a=flows.caller_addr.coalesce(flows.orig_addr), caller_p=flows.caller_port.coalesce(flows.orig_port),
    )  # fmt: skip
    translated = both.filter(both.called_addr.notnull() | both.caller_addr.notnull())
    rows = []
    for side in ("orig", "resp"):
        rows += [
            _key_flows(both, side, "orig_addr", "orig_port", "called_a", "called_p"),
            _key_flows(translated, side, "caller_a", "caller_p", "resp_addr", "resp_port"),
            _key_flows(translated, side, "orig_addr", "orig_port", "resp_addr", "resp_port"),
        ]
    on_hosts = rows[0]
    for more in rows[1:]:
        on_hosts = on_hosts.union(more)
    on_hosts = keep(on_hosts.distinct())
    once = on_wire.group_by(["monitor", *_KEY]).aggregate(on_wire=on_wire.wire_id.nunique())
    alone = on_hosts.group_by(["host", *_KEY]).aggregate(on_host=on_hosts.flow_id.nunique())
    met = on_wire.join(on_hosts.rename(orig_here="orig_near"), _KEY)
    met = met.filter(~met.stays | (met.monitor == met.host))
    met = met.join(once, ["monitor", *_KEY]).join(alone, ["host", *_KEY])
    return keep(
        met.select(
            "wire_id", "monitor", "flow_id", "host", "wire_first_ns", "wire_last_ns", "first_ns", "last_ns",
            "period_s", turned=met.orig_near != met.orig_here, once=(met.on_wire == 1) & (met.on_host == 1),
        ).distinct()
    )  # fmt: skip


def _key_wires(wires: ibis.Table, *ends: str) -> ibis.Table:
    """Flows on wires by the tuple in these columns."""
    told = {
        "wire_id": wires.flow_id, "monitor": wires.host, "wire_first_ns": wires.first_ns,
        "wire_last_ns": wires.last_ns, "stays": is_loopback(wires.orig_addr) | is_loopback(wires.resp_addr),
    }  # fmt: skip
    return _canonical(wires, *ends, held=told)


def _key_flows(flows: ibis.Table, side: str, *ends: str) -> ibis.Table:
    """Conversations whose end on this side a host recorded, by the tuple in these columns."""
    here = flows.filter(flows[f"{side}_socket_id"].notnull())
    held = {name: here[name] for name in ("flow_id", "first_ns", "last_ns", "period_s")}
    return _canonical(here, *ends, held={**held, "host": here[f"{side}_host"]})


def _canonical(rows: ibis.Table, addr: str, port: str, other_addr: str, other_port: str, *, held: Any) -> ibis.Table:
    """Rows with one key for a tuple and its mirror image, and whether who began is the first of both."""
    one = rows[addr] + ibis.literal(" ") + rows[port].cast("string")
    other = rows[other_addr] + ibis.literal(" ") + rows[other_port].cast("string")
    orig_near = one <= other
    return rows.select(
        **held, protocol=rows.protocol, near=ibis.ifelse(orig_near, one, other),
        far=ibis.ifelse(orig_near, other, one), orig_near=orig_near,
    )  # fmt: skip


def compare_wires(meetings: ibis.Table) -> ibis.Table:
    """How far monitors' clocks are from hosts', by tuples that came once on both.

    Parameters
    ----------
    meetings : ibis.Table
        From `find_meetings`.

    Returns
    -------
    ibis.Table
        monitor, host, exact (bool: of conversations whose begin the host was told of, else of sampled ones), ahead_ns
        (median of those that agree), agreeing, witnesses.
    """
    rows = meetings.filter(meetings.once)
    rows = rows.mutate(exact=rows.period_s == 0, ahead_ns=rows.wire_first_ns - rows.first_ns)
    group = ["monitor", "host", "exact"]
    widths = rows.group_by(group).aggregate(width_s=rows.period_s.max() + _SLACK_S, witnesses=rows.count())
    rows = rows.join(widths, group)
    rows = rows.mutate(slot=(rows.ahead_ns / (rows.width_s * 1e9)).floor().cast("int64"))
    # what agrees is less than a slot apart, and so in one slot or in two that are next to each other
    slots = rows.group_by([*group, "slot"]).aggregate(here=rows.count())
    order = ibis.window(group_by=group, order_by=slots.slot)
    slots = slots.mutate(next_slot=slots.slot.lead().over(order), next_here=slots.here.lead().over(order))
    beside = ibis.ifelse((slots.next_slot == slots.slot + 1).fill_null(False), slots.next_here, 0)
    slots = slots.mutate(together=slots.here + beside)
    best = ibis.row_number().over(group_by=group, order_by=[slots.together.desc(), slots.slot])
    slots = slots.mutate(place=best)
    chosen = slots.filter(slots.place == 0).select(*group, at_slot="slot")
    agreed = rows.join(chosen, group)
    agreed = agreed.filter(agreed.slot >= agreed.at_slot, agreed.slot <= agreed.at_slot + 1)
    return agreed.group_by([*group, "witnesses"]).aggregate(
        ahead_ns=as_whole(agreed.ahead_ns.quantile(0.5)), agreeing=agreed.count()
    )


def settle_wires(comparisons: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], WireClock]:
    """How each monitor's clock stands to each host's.

    Parameters
    ----------
    comparisons : iterable of mapping
        Rows of `compare_wires`. Those told of exactly go before sampled ones; few witnesses say nothing, nor do
        witnesses of which no more than half agree.

    Returns
    -------
    dict of (str, str) to WireClock
        By monitor and host.
    """
    known: dict[tuple[str, str], WireClock] = {}
    for row in sorted(comparisons, key=lambda one: (one["monitor"], one["host"], not one["exact"])):
        sure = row["agreeing"] >= LEAST_WITNESSES and 2 * row["agreeing"] > row["witnesses"]
        place = (row["monitor"], row["host"])
        if place not in known or (sure and known[place].ahead_ns is None):
            known[place] = WireClock(row["ahead_ns"] if sure else None, row["agreeing"], row["witnesses"])
    return known


def tabulate_clocks(clocks: Mapping[tuple[str, str], WireClock]) -> tuple[ibis.Table, ibis.Table]:
    """The same as tables: monitor, host, ahead_ns; and monitor, ahead_ns, by the middle of its hosts."""
    sure = sorted((*place, clock.ahead_ns) for place, clock in clocks.items() if clock.ahead_ns is not None)
    places = pa.schema([("at_monitor", pa.string()), ("at_host", pa.string()), ("ahead_ns", pa.int64())])
    by_host = [dict(zip(places.names, row, strict=True)) for row in sure]
    middle = pa.schema([("of_monitor", pa.string()), ("middle_ns", pa.int64())])
    monitors = sorted({row[0] for row in sure})
    by_monitor = [
        {"of_monitor": name, "middle_ns": median_low(ahead for one, _host, ahead in sure if one == name)}
        for name in monitors
    ]
    return (
        ibis.memtable(pa.Table.from_pylist(by_host, schema=places)),
        ibis.memtable(pa.Table.from_pylist(by_monitor, schema=middle)),
    )


def place_wires(meetings: ibis.Table, clocks: ibis.Table, keep: Keep = keep_nothing) -> ibis.Table:
    """To which conversation each flow on a wire belongs, of those that have its tuple.

    Parameters
    ----------
    meetings : ibis.Table
        From `find_meetings`.
    clocks : ibis.Table
        The first of `tabulate_clocks`.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        wire_id, flow_id and turned (null where it cannot be told to which). Flows that belong to none are left out: the
        clocks are known, and no conversation comes near.
    """
    met = meetings.left_join(clocks, [meetings.monitor == clocks.at_monitor, meetings.host == clocks.at_host])
    # who watches himself has one clock
    ahead_ns = met.ahead_ns.coalesce(ibis.ifelse(met.monitor == met.host, 0, ibis.null("int64")))
    met = met.mutate(unsure=ahead_ns.isnull(), ahead_ns=ahead_ns.fill_null(0))
    overlap_ns = ibis.least(met.wire_last_ns - met.ahead_ns, met.last_ns) - ibis.greatest(
        met.wire_first_ns - met.ahead_ns, met.first_ns
    )
    met = met.mutate(overlap_ns=overlap_ns, slack_ns=as_whole((met.period_s + _SLACK_S) * 1e9))
    sure = met.filter(~met.unsure)
    near = sure.filter(sure.overlap_ns >= -sure.slack_ns)
    near = near.group_by(["wire_id", "flow_id"]).aggregate(
        overlap_ns=near.overlap_ns.max(), slack_ns=near.slack_ns.max(), turned=near.turned.cast("int64").max() > 0
    )
    near = near.mutate(best_ns=near.overlap_ns.max().over(group_by=near.wire_id))
    close = keep(near.filter(near.overlap_ns >= near.best_ns - near.slack_ns))
    counted = close.group_by("wire_id").aggregate(fits=close.count())
    one = close.join(counted.filter(counted.fits == 1), "wire_id").select("wire_id", "flow_id", "turned")
    doubtful = close.select("wire_id").union(met.filter(met.unsure).select("wire_id")).distinct()
    doubtful = doubtful.anti_join(one, "wire_id").mutate(flow_id=ibis.null("string"), turned=ibis.null("boolean"))
    return keep(one.union(doubtful))
