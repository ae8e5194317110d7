# SPDX-License-Identifier: GPL-3.0-or-later
"""Which UDP socket spoke in which conversation: packets joined with sockets by namespace, address, port and time.

A socket table knows the far end of a UDP socket only if the socket is connected; packets know it always. So each
conversation is laid to the socket that had its local end then: one connected to that very peer before one bound to the
address, that before one bound to every address. The socket must have been seen around the whole of it, since a port is
somebody else's a moment later; where several sockets fit equally, it is nobody's.

Where packets were taken in without a loss, their silence tells: a connected UDP socket that no packet is of did not
speak, and its row is left out. Name resolution connects such sockets by the dozen, and nothing is ever sent.
"""

from typing import Any

import ibis

from whoneeds.collector.sockets import ADDED, Keep, keep_nothing, without_packets
from whoneeds.model.evidence import SocketRecord
from whoneeds.model.schema import columns
from whoneeds.store.portable import as_whole, at_lowest

#: Filters that let all of UDP pass.
WHOLE = ("headers", "all")
#: What a conversation may outlast the samples that saw its socket, beside one period: samples come late.
_LATE_NS = 1_000_000_000
_KINDS = {"bool": "boolean"}
_PLACE = ["host", "netns", "protocol"]
_PEER = ["remote_addr", "remote_port"]
_ENDS = ["local_addr", "local_port", *_PEER]
_NUMBER = ["segment_id", "number"]


def join_exchanges(
    sockets: ibis.Table,
    exchanges: ibis.Table,
    captures: ibis.Table,
    segments: ibis.Table,
    keep: Keep = keep_nothing,
) -> ibis.Table:
    """Socket rows, UDP sockets with everybody they spoke to.

    Parameters
    ----------
    sockets, exchanges, captures : ibis.Table
        SocketRecord, ExchangeRecord and CaptureRecord, with ``segment_id``.
    segments : ibis.Table
        SegmentHeader.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        The columns of `sockets` and those of `whoneeds.collector.sockets.ADDED`. Rows of connected sockets that are
        known not to have spoken are left out. An unconnected socket has a row more for each peer, holder and segment in
        which it spoke, with the state ``established``. A conversation whose socket is not known has rows with an
        identity of its own and without a process.
    """
    tcp = sockets.filter(sockets.protocol != "udp")
    udp = keep(sockets.filter(sockets.protocol == "udp"))
    spoken = keep(_find_speakers(exchanges, udp, segments))
    sums = keep(_sum_up(spoken.filter(spoken.socket_id.notnull()), udp))
    heard = udp.left_join(sums, ["socket_id", *_ENDS])
    heard = heard.select(*udp.columns, *ADDED, "spoken_bytes", "heard_bytes")
    told = heard.mutate(
        sent_bytes=ibis.coalesce(heard.spoken_bytes, heard.sent_bytes),
        received_bytes=ibis.coalesce(heard.heard_bytes, heard.received_bytes),
    )
    # an event that knows of an unconnected socket's peer does not know its own address; packets do
    wider = told.remote_addr.notnull() & _is_any(told.local_addr)
    told = told.filter(~wider).union(told.filter(wider).anti_join(sums, ["socket_id", *_PEER]))
    silent = told.remote_addr.notnull() & told.sent_packets.isnull() & (told.source != "event")
    parts = (
        told.filter(~silent),
        _unwatched(told.filter(silent), captures),
        _tell_peers(spoken, sums, udp),
        _tell_strangers(spoken, segments),
    )
    # the rest, most of all rows, is read where it is used: as it lies it takes less room than anything made of it
    return _align(without_packets(tcp)).union(keep(ibis.union(*(_align(part) for part in parts))))


def _align(rows: ibis.Table) -> ibis.Table:
    """The columns in one order, each of which may be absent: only tables of equal types can be put together."""
    kinds = {column.name: _KINDS.get(column.type, column.type) for column in columns(SocketRecord)}
    kinds |= {"segment_id": "string", **ADDED}
    return rows.select(**{name: rows[name].cast(kind) for name, kind in kinds.items()})


def _is_any(address: Any) -> Any:
    return address.isin(("0.0.0.0", "::"))  # noqa: S104


def _find_speakers(exchanges: ibis.Table, udp: ibis.Table, segments: ibis.Table) -> ibis.Table:
    """Exchanges with the ``socket_id`` of the one socket that can have spoken; null where there is none."""
    periods = segments.select("segment_id", "period_s")
    timed = udp.join(periods, "segment_id")
    lives = timed.group_by(["socket_id", *_PLACE, *_ENDS]).aggregate(
        seen_first_ns=timed.first_ns.min(), seen_last_ns=timed.last_ns.max(), seen_period_s=timed.period_s.max()
    )
    lives = lives.rename(at_socket="socket_id", at_addr="local_addr", to_addr="remote_addr", to_port="remote_port")
    # by segments, not all together: Spark would bring all to one worker
    number = ibis.row_number().over(group_by="segment_id", order_by=[*_PLACE, *_ENDS, "first_ns"])
    numbered = exchanges.mutate(number=number)
    both = numbered.join(lives, [*_PLACE, "local_port"])
    slack_ns = as_whole(both.seen_period_s * 1e9) + _LATE_NS
    is_v6 = both.local_addr.contains(":")
    nearness = ibis.cases(
        (both.at_addr == both.local_addr, 3),
        ((both.at_addr == "0.0.0.0") & ~is_v6, 2),  # noqa: S104
        ((both.at_addr == "::") & is_v6, 2),
        ((both.at_addr == "::") & ~is_v6, 1),
        else_=0,
    )
    to_peer = (both.to_addr == both.remote_addr) & (both.to_port == both.remote_port)
    both = both.mutate(rank=nearness + ibis.ifelse(to_peer.fill_null(False), 4, 0))
    fitting = both.filter(
        nearness > 0,
        both.to_addr.isnull() | to_peer,
        both.seen_first_ns - slack_ns <= both.first_ns,
        both.last_ns <= both.seen_last_ns + slack_ns,
    )
    best = fitting.mutate(most=fitting["rank"].max().over(group_by=[fitting.segment_id, fitting.number]))
    best = best.filter(best["rank"] == best.most)
    one = best.group_by(_NUMBER).aggregate(fits=best.at_socket.nunique(), socket_id=best.at_socket.max())
    one = one.filter(one.fits == 1).drop("fits")
    return numbered.left_join(one, _NUMBER).drop("segment_id_right", "number_right")


def _sum_up(spoken: ibis.Table, udp: ibis.Table) -> ibis.Table:
    """What each socket said and heard in all, by both ends."""
    rows = spoken
    sums = rows.group_by(["socket_id", *_ENDS]).aggregate(
        sent_packets=rows.sent_packets.sum().cast("int64"),
        received_packets=rows.received_packets.sum().cast("int64"),
        spoken_bytes=rows.sent_bytes.sum().cast("int64"),
        heard_bytes=rows.received_bytes.sum().cast("int64"),
        spoke_first_ns=rows.first_ns.min(),
        spoke_last_ns=rows.last_ns.max(),
        spoke_first=at_lowest(rows.initiated, rows.first_ns),
    )
    bound = udp.filter(udp.remote_addr.isnull()).select(bound_id="socket_id").distinct()
    known = sums.left_join(bound, sums.socket_id == bound.bound_id)
    return known.mutate(unconnected=known.bound_id.notnull()).drop("bound_id")


def _unwatched(silent: ibis.Table, captures: ibis.Table) -> ibis.Table:
    """Of silent connections those whose packets, if there were any, need not have been seen."""
    watched = captures.group_by(["segment_id", "netns"]).aggregate(
        watch_first_ns=captures.first_ns.min(),
        watch_last_ns=captures.last_ns.max(),
        whole=(captures["filter"].isin(WHOLE) & (captures.lost_packets == 0)).cast("int64").min(),
        stretches=captures.count(),
    )
    rows = silent.left_join(watched, ["segment_id", "netns"])
    covered = (
        (rows.whole == 1)
        & (rows.stretches == 1)
        & (rows.watch_first_ns <= rows.first_ns)
        & (rows.watch_last_ns >= rows.last_ns)
    ).fill_null(False)
    rows = rows.mutate(covered=covered.cast("int64"))
    rows = rows.mutate(all_covered=rows.covered.min().over(group_by=["socket_id", *_ENDS]))
    return rows.filter(rows.all_covered == 0)


def _tell_peers(spoken: ibis.Table, sums: ibis.Table, udp: ibis.Table) -> ibis.Table:
    """Rows for peers that the socket table does not know: in each segment, one for each holder of the socket."""
    new = sums.anti_join(udp, ["socket_id", *_ENDS])
    when = spoken.filter(spoken.socket_id.notnull())
    when = when.group_by(["segment_id", "socket_id", *_PLACE, *_ENDS]).aggregate(
        first_ns=when.first_ns.min(), last_ns=when.last_ns.max()
    )
    when = when.join(new, ["socket_id", *_ENDS])
    when = when.select(
        "segment_id", "socket_id", *_PLACE, *_ENDS, "first_ns", "last_ns", *ADDED,
        sent_bytes=when.spoken_bytes, received_bytes=when.heard_bytes,
    )  # fmt: skip
    held = udp.select(
        held_id="socket_id", held_segment="segment_id", peer_addr="remote_addr", peer_port="remote_port",
        process_id="process_id", owners="owners", inode="inode", uid="uid", samples="samples", held_ns="last_ns",
    )  # fmt: skip
    both = when.join(held, when.socket_id == held.held_id)
    of_peer = ((both.peer_addr == both.remote_addr) & (both.peer_port == both.remote_port)).fill_null(False)
    both = both.filter(both.peer_addr.isnull() | of_peer)
    # who is known to have spoken with this peer, else who held the socket then, else who held it last
    both = both.mutate(nearness=ibis.ifelse(of_peer, 2, 0) + ibis.ifelse(both.held_segment == both.segment_id, 1, 0))
    each = [both.segment_id, both.socket_id, *(both[name] for name in _ENDS)]
    both = both.mutate(
        most=both.nearness.max().over(group_by=each), latest_ns=both.held_ns.max().over(group_by=[*each, both.nearness])
    )
    both = both.filter(both.nearness == both.most, (both.nearness % 2 == 1) | (both.held_ns == both.latest_ns))
    return both.mutate(
        state=ibis.literal("established"),
        source=ibis.literal("table"),
        initiated=ibis.null("boolean"),
        end=ibis.null("string"),
    )


def _tell_strangers(spoken: ibis.Table, segments: ibis.Table) -> ibis.Table:
    """Rows for conversations whose socket is not known."""
    strangers = spoken.filter(spoken.socket_id.isnull()).drop("socket_id")
    boots = segments.select("segment_id", "boot_id")
    strangers = strangers.join(boots, "segment_id")
    tuple_words = (
        strangers.host + "/" + strangers.boot_id + "/" + strangers.netns + "/udp:" + strangers.local_addr + ":"
        + strangers.local_port.cast("string") + ">" + strangers.remote_addr + ":" + strangers.remote_port.cast("string")
    )  # fmt: skip
    named = strangers.mutate(socket_id=tuple_words)
    named = named.mutate(began_ns=ibis.ifelse(named.initiated.notnull(), named.first_ns, ibis.null("int64")))
    rows = named.group_by(["segment_id", "socket_id", *_PLACE, *_ENDS]).aggregate(
        first_ns=named.first_ns.min(),
        last_ns=named.last_ns.max(),
        began=at_lowest(named.initiated, named.first_ns),
        began_ns=named.began_ns.min(),
        sent_packets=named.sent_packets.sum().cast("int64"),
        received_packets=named.received_packets.sum().cast("int64"),
        sent_bytes=named.sent_bytes.sum().cast("int64"),
        received_bytes=named.received_bytes.sum().cast("int64"),
    )
    whole = ibis.window(group_by=["socket_id", *_ENDS])
    return rows.mutate(
        sent_packets=rows.sent_packets.sum().over(whole).cast("int64"),
        received_packets=rows.received_packets.sum().over(whole).cast("int64"),
        sent_bytes=rows.sent_bytes.sum().over(whole).cast("int64"),
        received_bytes=rows.received_bytes.sum().over(whole).cast("int64"),
        spoke_first_ns=rows.first_ns.min().over(whole),
        spoke_last_ns=rows.last_ns.max().over(whole),
        spoke_first=ibis.ifelse(rows.began_ns == rows.began_ns.min().over(whole), rows.began, ibis.null("boolean")),
        unconnected=ibis.literal(True),
        state=ibis.literal("established"),
        inode=ibis.literal(0, "int64"),
        uid=ibis.null("int64"),
        process_id=ibis.null("string"),
        owners=ibis.null("int64"),
        samples=ibis.literal(0, "int64"),
        source=ibis.literal("table"),
        initiated=ibis.null("boolean"),
        end=ibis.null("string"),
    )
