# SPDX-License-Identifier: GPL-3.0-or-later
"""Socket rows of all segments, put together to one row for each socket and peer: its *life*.

A segment says of a socket what it saw while it was open; a connection that lasts an hour is in sixty of them, once
for each process that held it. Bytes are running totals, so the largest counts; samples add up over segments, but
not over the owners of one segment. A UDP socket can be pointed at one peer after the other: each is a life of its own.
"""

from typing import Any, Protocol

import ibis

from whoneeds.store.portable import as_whole, at_highest


class Keep(Protocol):
    """What makes an intermediate table be worked out once where it is used several times.

    A pure function takes it as an argument and must give the same answer with any: ``Store.keep`` has the engine hold
    the rows. With ``number``, a column of this name is added with another whole number in every row: what is joined
    often is joined by it, since identities are long texts.
    """

    def __call__(self, table: ibis.Table, number: str | None = None, /) -> ibis.Table:
        """The table, held."""


#: States that a TCP socket has only after both ends agreed to speak.
ANSWERED = ("established", "fin_wait1", "fin_wait2", "time_wait", "close_wait", "last_ack", "closing")
#: States of sockets that wait for whoever comes; UDP knows no other way to wait.
WAITING = ("listen", "bound")

_TUPLE = ["protocol", "local_addr", "local_port", "remote_addr", "remote_port"]
_KEY = ["socket_id", "host", "netns", *_TUPLE]


#: What packets add to a socket's row (see `whoneeds.collector.exchanges`): packets both ways, when the first and the
#: last one passed, whether the local end sent the first, and whether the socket was not connected.
ADDED = {
    "sent_packets": "int64",
    "received_packets": "int64",
    "spoke_first_ns": "int64",
    "spoke_last_ns": "int64",
    "spoke_first": "boolean",
    "unconnected": "boolean",
}


def without_packets(sockets: ibis.Table) -> ibis.Table:
    """Socket rows with the columns of `ADDED`, all unknown."""
    return sockets.mutate(**{name: ibis.null(kind) for name, kind in ADDED.items()})


def merge_sockets(sockets: ibis.Table, segments: ibis.Table) -> ibis.Table:
    """Lives of sockets.

    Parameters
    ----------
    sockets : ibis.Table
        SocketRecord, with ``segment_id``, as it is or as `whoneeds.collector.exchanges.join_exchanges` gives it.
    segments : ibis.Table
        SegmentHeader.

    Returns
    -------
    ibis.Table
        socket_id, host, netns, protocol, local_addr, local_port, remote_addr, remote_port (all of these make a life),
        first_ns, last_ns, samples, ``period_s`` and ``location`` (of its segments: longest, latest known),
        sent_bytes, received_bytes, ``answered``, ``finished``, ``waiting``, ``open`` (bool: ever seen while it was
        more than a tuple), ``established`` (bool: ever seen with both ends open, or told of to its end), ``initiated``
        and ``end`` (as events told; null where they did not), and of `ADDED` sent_packets, received_packets,
        spoke_first and unconnected (null where no packets were seen); where there were some, first_ns and last_ns are
        those of the packets.
    """
    if "sent_packets" not in sockets.columns:
        sockets = without_packets(sockets)
    headers = segments.select("segment_id", "period_s", "location", "opened_ns")
    # the kernel counts the peer's data only when there is a peer that answers
    heard = (
        sockets.state.isin(ANSWERED)
        | (sockets.received_bytes.fill_null(0) > 0)
        | sockets.end.isin(("fin", "rst")).fill_null(False)
    )
    whole = (sockets.state == "established") | sockets.end.isin(("fin", "rst")).fill_null(False)
    rows = sockets.mutate(
        answered=heard.cast("int64"),
        finished=(sockets.state == "time_wait").cast("int64"),
        begun_here=sockets.initiated.cast("int64"),
        waiting=(sockets.state.isin(WAITING)).cast("int64"),
        open=(sockets.source != "tuple_only").cast("int64"),
        established=whole.cast("int64"),
        spoke_first=sockets.spoke_first.cast("int64"),
        unconnected=sockets.unconnected.cast("int64"),
    ).join(headers, "segment_id")
    by_segment = rows.group_by([*_KEY, "segment_id"]).aggregate(
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
        samples=rows.samples.max(),
        all_samples=rows.samples.sum(),
        period_s=rows.period_s.max(),
        location=rows.location.max(),
        opened_ns=rows.opened_ns.max(),
        sent_bytes=rows.sent_bytes.max(),
        received_bytes=rows.received_bytes.max(),
        answered=rows.answered.max(),
        finished=rows.finished.max(),
        waiting=rows.waiting.max(),
        open=rows["open"].max(),
        established=rows.established.max(),
        begun_here=rows.begun_here.max(),
        end=rows.end.max(),
        **{name: rows[name].max() for name in ADDED},
    )
    # one row for each holder: at the same time, or one after the other, and then no more than there was time for
    room = as_whole((by_segment.last_ns - by_segment.first_ns) / (by_segment.period_s * 1e9)) + 1
    most = ibis.ifelse(by_segment.all_samples < room, by_segment.all_samples, room)
    by_segment = by_segment.mutate(samples=ibis.ifelse(most > by_segment.samples, most, by_segment.samples))
    lives = by_segment.group_by(_KEY).aggregate(
        first_ns=by_segment.first_ns.min(),
        last_ns=by_segment.last_ns.max(),
        samples=by_segment.samples.sum().cast("int64"),
        period_s=by_segment.period_s.max(),
        location=at_highest(by_segment.location, by_segment.opened_ns),
        sent_bytes=by_segment.sent_bytes.max(),
        received_bytes=by_segment.received_bytes.max(),
        answered=by_segment.answered.max() > 0,
        finished=by_segment.finished.max() > 0,
        waiting=by_segment.waiting.max() > 0,
        open=by_segment["open"].max() > 0,
        established=by_segment.established.max() > 0,
        initiated=by_segment.begun_here.max() > 0,
        end=by_segment.end.max(),
        sent_packets=by_segment.sent_packets.max(),
        received_packets=by_segment.received_packets.max(),
        spoke_first_ns=by_segment.spoke_first_ns.min(),
        spoke_last_ns=by_segment.spoke_last_ns.max(),
        spoke_first=by_segment.spoke_first.max() > 0,
        unconnected=by_segment.unconnected.max() > 0,
    )
    return lives.mutate(
        first_ns=ibis.coalesce(lives.spoke_first_ns, lives.first_ns),
        last_ns=ibis.coalesce(lives.spoke_last_ns, lives.last_ns),
    ).drop("spoke_first_ns", "spoke_last_ns")


def keep_nothing(table: ibis.Table, number: str | None = None, /) -> ibis.Table:
    """Leave it to the engine how often it works a table out; numbers follow from all columns."""
    return table if number is None else table.mutate(**{number: ibis.row_number().over(order_by=table.columns)})


def connected_lives(lives: ibis.Table) -> ibis.Table:
    """Lives with a peer. Port 0 is no peer: name resolution asks the kernel for a route that way and sends nothing."""
    return lives.filter(lives.remote_addr.notnull(), lives.remote_port > 0, lives.local_port > 0)


def waiting_lives(lives: ibis.Table) -> ibis.Table:
    """Lives of listening TCP sockets and of UDP sockets that are bound without a peer."""
    return lives.filter(lives.waiting, lives.remote_addr.isnull(), lives.local_port > 0)


def is_loopback(address: Any) -> Any:
    """Whether an address column means the machine, or rather the network namespace, itself."""
    return address.startswith("127.") | (address == "::1")


def name_life(socket_id: Any, protocol: Any, local: tuple[Any, Any], remote: tuple[Any, Any]) -> Any:
    """A life in words: its socket, and the tuple as that socket saw it."""
    ends = [address + ibis.literal(" ") + port.cast("string") for address, port in (local, remote)]
    return socket_id + ibis.literal(" ") + protocol + ibis.literal(" ") + ends[0] + ibis.literal(" > ") + ends[1]
