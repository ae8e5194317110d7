# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes held a socket, and what they were called while they did."""

import ibis

from whoneeds.collector.sockets import Keep
from whoneeds.store.portable import at_highest

#: Later than any instant.
_BEYOND = 1 << 62
_PLACE = ("socket_id", "peer_addr", "peer_port")


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
    last = name_processes(processes)
    # a process can run another program without becoming another process: its name belongs to a time. Few ever do, and
    # where there is one name only, it need not be looked for in each segment
    changing = last.filter(last.changing).select("process_id")
    then = _names_of_the_time(held.semi_join(changing, "process_id"), named.semi_join(changing, "process_id"))
    holders = held.select(*_PLACE, "process_id").distinct()
    owners = holders.select("process_id").distinct().left_join(last, "process_id").drop("process_id_right")
    parts = owners.process_id.split("/")
    owners = owners.select(
        "process_id", "last_name", "last_uid", pid=parts[2].cast("int64"), start_ticks=parts[3].cast("int64")
    )
    known = holders.join(owners, "process_id")
    known = known.left_join(then, [*_PLACE, "process_id"])
    return known.select(
        *_PLACE, "process_id", "pid", "start_ticks",
        app=ibis.coalesce(known.then_name, known.last_name),
        uid=ibis.coalesce(known.then_uid, known.last_uid),
    )  # fmt: skip


def name_processes(processes: ibis.Table) -> ibis.Table:
    """What each process was called at last.

    Parameters
    ----------
    processes : ibis.Table
        ProcessRecord.

    Returns
    -------
    ibis.Table
        process_id, last_name, last_uid, ``changing`` (bool: it had several names or users, each at a time of its own).
    """
    last = processes.group_by("process_id").aggregate(
        last_name=at_highest(processes.name, processes.last_ns),
        last_uid=at_highest(processes.uid, processes.last_ns),
        names=processes.name.nunique(),
        uids=processes.uid.nunique(),
    )
    return last.select("process_id", "last_name", "last_uid", changing=(last.names > 1) | (last.uids > 1))


def find_sole_holders(sockets: ibis.Table, processes: ibis.Table, keep: Keep) -> tuple[ibis.Table, ibis.Table]:
    """Sockets in the hands of one process that never changed its name: nearly all, and told at once.

    Parameters
    ----------
    sockets, processes : ibis.Table
        SocketRecord and ProcessRecord.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    sole : ibis.Table
        socket_id, peer_addr, peer_port, process_id, app, counted (holders by the kernel's count).
    others : ibis.Table
        socket_id, peer_addr, peer_port of all other sockets that were seen in somebody's hands.
    """
    held = sockets.select(
        "socket_id", "process_id", "owners",
        peer_addr=sockets.remote_addr.fill_null(""), peer_port=sockets.remote_port.fill_null(0),
    )  # fmt: skip
    holders = keep(held.filter(held.process_id.notnull()).select("process_id").distinct(), "holder")
    rows = held.left_join(holders, "process_id")
    places = rows.group_by(list(_PLACE)).aggregate(
        holder=rows.holder.min(), last_holder=rows.holder.max(), counted=rows.owners.max().fill_null(0)
    )
    places = keep(places.filter(places.holder.notnull()))
    names = keep(holders.left_join(name_processes(processes), "process_id").drop("process_id_right"))
    known = places.join(names, "holder")
    sole = (known.holder == known.last_holder) & ~known.changing.fill_null(False)
    others = keep(known.filter(~sole).select(*_PLACE))
    return known.filter(sole).select(*_PLACE, "process_id", "counted", app="last_name"), others


def _names_of_the_time(held: ibis.Table, named: ibis.Table) -> ibis.Table:
    """What processes were called while they held sockets: ``then_name`` and ``then_uid`` of each holding."""
    rows = held.left_join(named, ["process_id", "segment_id"]).drop("process_id_right", "segment_id_right")
    # of several names in one segment the first that lasted to the end of the holding, or beyond; else the last one
    lasted = rows.named_ns >= rows.last_ns
    rows = rows.mutate(fit=ibis.ifelse(lasted, _BEYOND - rows.named_ns, rows.named_ns - _BEYOND))
    rows = rows.group_by([*_PLACE, "process_id", "segment_id", "last_ns"]).aggregate(
        name=at_highest(rows.name, rows.fit),
        uid=at_highest(rows.uid, rows.fit),
    )
    return rows.group_by([*_PLACE, "process_id"]).aggregate(
        then_name=at_highest(rows.name, rows.last_ns),
        then_uid=at_highest(rows.uid, rows.last_ns),
    )


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
