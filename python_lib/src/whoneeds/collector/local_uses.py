# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asked which daemon of its own host, over loopback or AF_UNIX.

A resolver, a proxy or a database pool speaks for others: what it does can be laid to those who asked it only if it is
known who did. Over AF_UNIX the kernel tells both processes; a daemon's socket that a service manager holds beside the
daemon is the daemon's.
"""

import ibis

from whoneeds.collector.attribution import ACTIVATORS
from whoneeds.collector.sockets import is_loopback
from whoneeds.model.conclusions import LocalUse
from whoneeds.model.schema import columns
from whoneeds.store.portable import at_highest


def find_local_uses(service_uses: ibis.Table, unix_connections: ibis.Table, processes: ibis.Table) -> ibis.Table:
    """Uses of daemons on the user's own host.

    Parameters
    ----------
    service_uses : ibis.Table
        ServiceUse.
    unix_connections, processes : ibis.Table
        UnixConnectionRecord and ProcessRecord, with ``segment_id``.

    Returns
    -------
    ibis.Table
        LocalUse.
    """
    over_unix, over_loopback = (
        made.select(**{column.name: made[column.name].cast(column.type) for column in columns(LocalUse)})
        for made in (_over_unix(unix_connections, processes), _over_loopback(service_uses))
    )
    return over_unix.union(over_loopback)


def _over_loopback(service_uses: ibis.Table) -> ibis.Table:
    rows = service_uses.filter(is_loopback(service_uses.resp_addr))
    address = ibis.ifelse(
        rows.resp_addr.contains(":"), ibis.literal("[") + rows.resp_addr + ibis.literal("]"), rows.resp_addr
    )
    service = rows.protocol + ibis.literal(":") + address + ibis.literal(":") + rows.port.cast("string")
    rows = rows.mutate(service=service, daemon=rows.resp_app)
    return rows.group_by(["app", "host", "service", "daemon"]).aggregate(
        processes=rows.pid.nunique(),
        connections=rows.flows.sum().cast("int64"),
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
    )


def _over_unix(unix_connections: ibis.Table, processes: ibis.Table) -> ibis.Table:
    named = processes.group_by("process_id").aggregate(name=at_highest(processes.name, processes.last_ns))
    client = named.select(client_id="process_id", app="name")
    server = named.select(server_id="process_id", daemon="name").view()
    rows = unix_connections.join(client, unix_connections.process_id == client.client_id)
    rows = rows.join(server, rows.server_process_id == server.server_id)
    rows = rows.filter(~rows.daemon.isin(ACTIVATORS), rows.app != rows.daemon)
    by_process = rows.group_by(["host", "path", "process_id", "app"]).aggregate(
        daemons=rows.daemon.nunique(),
        a_daemon=rows.daemon.max(),
        ends=rows.server_process_id.nunique(),
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
    )
    told = by_process.mutate(
        service=ibis.literal("unix:") + by_process.path,
        daemon=ibis.ifelse(by_process.daemons == 1, by_process.a_daemon, ibis.null("string")),
    )
    return told.group_by(["app", "host", "service", "daemon"]).aggregate(
        processes=told.process_id.nunique(),
        connections=told.ends.sum().cast("int64"),
        first_ns=told.first_ns.min(),
        last_ns=told.last_ns.max(),
    )
