# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes held a socket, and what they were called while they did."""

import ibis

from whoneeds.store.portable import at_highest

#: Later than any instant.
_BEYOND = 1 << 62


def find_holders(sockets: ibis.Table, processes: ibis.Table) -> ibis.Table:
    """Each process that held a socket.

    Parameters
    ----------
    sockets, processes : ibis.Table
        SocketRecord and ProcessRecord, both with ``segment_id``.

    Returns
    -------
    ibis.Table
        socket_id, peer_addr, peer_port (empty text and 0 for sockets without a peer), process_id, ``app`` (its last
        name in the segments that saw it hold the socket; null if it has none), pid, start_ticks, uid.
    """
    held = sockets.filter(sockets.process_id.notnull())
    held = held.select(
        "socket_id", "process_id", "segment_id", "last_ns",
        peer_addr=held.remote_addr.fill_null(""), peer_port=held.remote_port.fill_null(0),
    )  # fmt: skip
    named = processes.select(
        "process_id", "segment_id", name="name", uid="uid", named_ns="last_ns", pid="pid", start_ticks="start_ticks"
    )
    # a process can run another program without becoming another process: its name belongs to a time
    rows = held.left_join(named, ["process_id", "segment_id"]).drop("process_id_right", "segment_id_right")
    # of several names in one segment the first that lasted to the end of the holding, or beyond; else the last one
    lasted = rows.named_ns >= rows.last_ns
    rows = rows.mutate(fit=ibis.ifelse(lasted, _BEYOND - rows.named_ns, rows.named_ns - _BEYOND))
    holding = ["socket_id", "peer_addr", "peer_port", "process_id", "segment_id", "last_ns"]
    rows = rows.group_by(holding).aggregate(
        name=at_highest(rows.name, rows.fit),
        uid=at_highest(rows.uid, rows.fit),
    )
    by_socket = rows.group_by(["socket_id", "peer_addr", "peer_port", "process_id"]).aggregate(
        then_name=at_highest(rows.name, rows.last_ns),
        then_uid=at_highest(rows.uid, rows.last_ns),
    )
    last = named.group_by("process_id").aggregate(
        last_name=at_highest(named.name, named.named_ns),
        last_uid=at_highest(named.uid, named.named_ns),
    )
    known = by_socket.left_join(last, "process_id").drop("process_id_right")
    parts = known.process_id.split("/")
    return known.select(
        "socket_id", "peer_addr", "peer_port", "process_id",
        app=ibis.coalesce(known.then_name, known.last_name),
        uid=ibis.coalesce(known.then_uid, known.last_uid),
        pid=parts[2].cast("int64"),
        start_ticks=parts[3].cast("int64"),
    )  # fmt: skip


def count_holders(sockets: ibis.Table) -> ibis.Table:
    """How many processes held a socket by the kernel's count, which can be more than were recognised.

    Parameters
    ----------
    sockets : ibis.Table
        SocketRecord.

    Returns
    -------
    ibis.Table
        socket_id, peer_addr, peer_port, counted.
    """
    rows = sockets.select(
        "socket_id", "owners",
        peer_addr=sockets.remote_addr.fill_null(""), peer_port=sockets.remote_port.fill_null(0),
    )  # fmt: skip
    return rows.group_by(["socket_id", "peer_addr", "peer_port"]).aggregate(counted=rows.owners.max().fill_null(0))
