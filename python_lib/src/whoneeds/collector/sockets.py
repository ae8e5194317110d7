# SPDX-License-Identifier: GPL-3.0-or-later
"""Socket rows of all segments, put together to one row for each socket and peer: its *life*.

A segment says of a socket what it saw while it was open; a connection that lasts an hour is in sixty of them, once
for each process that held it. Bytes are running totals, so the largest counts; samples add up over segments, but
not over the owners of one segment. A UDP socket can be pointed at one peer after the other: each is a life of its own.
"""

from typing import Any, Protocol

import ibis

from whoneeds.model.evidence import ENDS, LOCATIONS
from whoneeds.store.portable import as_whole, count_bits, merge_bits


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


#: What is seen of a socket, or not; and what is told of one, so that there are two ways of it and none.
_SEEN = ("answered", "finished", "waiting", "open", "established")
_TOLD = ("initiated", "spoke_first", "unconnected")
#: Where ends disagree, the last of these counts.
_ENDS = tuple(sorted(ENDS))
_FLAGS = (*_SEEN, *(word for name in _TOLD for word in (name, f"not_{name}")), *(f"end_{word}" for word in _ENDS))
#: So many segments of one host, one after the other, can be told apart by one bit each of a number.
_MARKS = 63


def without_packets(sockets: ibis.Table) -> ibis.Table:
    """Socket rows with the columns of `ADDED`, all unknown."""
    return sockets.mutate(**{name: ibis.null(kind) for name, kind in ADDED.items()})


def merge_sockets(sockets: ibis.Table, segments: ibis.Table, keep: Keep) -> ibis.Table:
    """Lives of sockets.

    Parameters
    ----------
    sockets : ibis.Table
        SocketRecord, with ``segment_id``, as it is or as `whoneeds.collector.exchanges.join_exchanges` gives it.
    segments : ibis.Table
        SegmentHeader.
    keep : callable
        See `Keep`.

    Returns
    -------
    ibis.Table
        ``life`` (a number), socket_id, host, netns, protocol, local_addr, local_port, remote_addr, remote_port (all of
        these make a life), first_ns, last_ns, samples, ``period_s`` and ``location`` (of its segments: longest, latest
        known), sent_bytes, received_bytes, ``answered``, ``finished``, ``waiting``, ``open`` (bool: ever seen while it
        was more than a tuple), ``established`` (bool: ever seen with both ends open, or told of to its end),
        ``initiated`` and ``end`` (as events told; null where they did not), and of `ADDED` sent_packets,
        received_packets, spoke_first and unconnected (null where no packets were seen); where there were some, first_ns
        and last_ns are those of the packets.
    """
    if "sent_packets" not in sockets.columns:
        sockets = without_packets(sockets)
    rows = _flag(sockets).join(_number(segments), "segment_id")
    peered = rows.remote_addr.notnull() & rows.remote_port.notnull()
    # those that wait are few and seen in every segment; of the others nearly all have one row in each
    waiting = _sum_segments(rows.filter(~peered))
    waiting = _sum_up(waiting, _KEY).mutate(marks=ibis.literal(0, "int64"), times=ibis.literal(0, "int64"))
    talking = rows.filter(peered)
    talking = _sum_up(talking, _KEY, marks=merge_bits(talking.mark), times=talking.count())
    lives = keep(talking.union(waiting), "life")
    # rows that all have marks of their own are of segments of their own, and their samples add up
    doubtful = lives.filter(count_bits(lives.marks) != lives.times).select("life", *_KEY)
    doubtful = _sum_segments(rows.filter(peered).join(doubtful, _KEY), "life")
    corrected = keep(doubtful.group_by("life").aggregate(fewer=doubtful.samples.sum().cast("int64")))
    return _read_flags(lives.left_join(corrected, "life").drop("life_right"))


def _number(segments: ibis.Table) -> ibis.Table:
    """What a row needs of its segment: ``placed`` (its number on the host, and where that was), ``mark``."""
    rows = segments.select("segment_id", "host", "period_s", "location", "opened_ns")
    latest = ibis.row_number().over(group_by=rows.host, order_by=[rows.opened_ns, rows.segment_id])
    place = ibis.cases(*((rows.location == word, number) for number, word in enumerate(LOCATIONS)))
    return rows.select(
        "segment_id",
        "period_s",
        placed=latest * len(LOCATIONS) + place,
        mark=ibis.literal(1, "int64") << latest % _MARKS,
    )


def _flag(sockets: ibis.Table) -> ibis.Table:
    """Socket rows with all that is true or not of them in one number: what holds of any row, holds of their sum."""
    # the kernel counts the peer's data only when there is a peer that answers
    closed = sockets.end.isin(("fin", "rst"))
    true = {
        "answered": sockets.state.isin(ANSWERED) | (sockets.received_bytes > 0) | closed,
        "finished": sockets.state == "time_wait",
        "waiting": sockets.state.isin(WAITING),
        "open": sockets.source != "tuple_only",
        "established": (sockets.state == "established") | closed,
    }
    for name in _TOLD:
        true |= {name: sockets[name], f"not_{name}": ~sockets[name]}
    true |= {f"end_{word}": sockets.end == word for word in _ENDS}
    bits = [ibis.ifelse(true[name].fill_null(False), 1 << number, 0) for number, name in enumerate(_FLAGS)]
    return sockets.select(
        *_KEY, "segment_id", "first_ns", "last_ns", "samples", "sent_bytes", "received_bytes",
        *(name for name, kind in ADDED.items() if kind == "int64"), flags=sum(bits[1:], bits[0]).cast("int64"),
    )  # fmt: skip


def _sum_up(rows: ibis.Table, key: list[str], **further: Any) -> ibis.Table:
    """One row for each key, of rows of which no two count the same samples."""
    return rows.group_by(key).aggregate(
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
        samples=rows.samples.sum().cast("int64"),
        period_s=rows.period_s.max(),
        placed=rows.placed.max(),
        sent_bytes=rows.sent_bytes.max(),
        received_bytes=rows.received_bytes.max(),
        flags=merge_bits(rows.flags),
        sent_packets=rows.sent_packets.max(),
        received_packets=rows.received_packets.max(),
        spoke_first_ns=rows.spoke_first_ns.min(),
        spoke_last_ns=rows.spoke_last_ns.max(),
        **further,
    )


def _sum_segments(rows: ibis.Table, *named: str) -> ibis.Table:
    """One row for each life and segment: there is one for each holder."""
    summed = _sum_up(rows, [*_KEY, *named, "segment_id"], most=rows.samples.max())
    # at the same time, or one after the other, and then no more than there was time for
    room = as_whole((summed.last_ns - summed.first_ns) / (summed.period_s * 1e9)) + 1
    fewer = ibis.least(summed.samples, room)
    return summed.mutate(samples=ibis.greatest(fewer, summed.most))


def _read_flags(lives: ibis.Table) -> ibis.Table:
    """Lives with what was put into numbers as columns again."""
    true = {name: (lives.flags & (1 << number)) != 0 for number, name in enumerate(_FLAGS)}
    told = {
        name: ibis.cases((true[name], True), (true[f"not_{name}"], False), else_=ibis.null("boolean")) for name in _TOLD
    }
    place = lives.placed % len(LOCATIONS)
    return lives.select(
        "life", *_KEY, "period_s", "sent_bytes", "received_bytes", "sent_packets", "received_packets",
        first_ns=ibis.coalesce(lives.spoke_first_ns, lives.first_ns),
        last_ns=ibis.coalesce(lives.spoke_last_ns, lives.last_ns),
        samples=ibis.coalesce(lives.fewer, lives.samples),
        location=ibis.cases(*((place == number, word) for number, word in enumerate(LOCATIONS))),
        end=ibis.cases(*((true[f"end_{word}"], word) for word in reversed(_ENDS))),
        **{name: true[name] for name in _SEEN}, **told,
    )  # fmt: skip


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
