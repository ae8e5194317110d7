# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of applications and the services each of them used (Macroscope, section 2.1).

An instance is (application, pid, address of its host). A flow counts for the application that began it, if that
is known, its direction is known, and it was answered.

Where we depart from the paper: what a process says to its own host over loopback is a use too (``resp_addr`` keeps
the loopback address), but loopback is no address of the host. Such a use belongs to the instance at the process's
first other address, so that one process with a local cache and a remote database is one instance and not two.
Where a connected socket is held by several processes of one application, it counts for the oldest of them: it
made the socket, the others inherited it.
"""

from collections.abc import Iterable
from typing import Any

import ibis

from whoneeds.collector.connections import pid_of
from whoneeds.collector.flows import FAILED
from whoneeds.collector.owners import find_holders, name_processes
from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing
from whoneeds.model.conclusions import ApplicationInstance, ServiceUse
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import LOCATIONS
from whoneeds.model.schema import columns
from whoneeds.store.portable import as_whole, at_highest, at_lowest

EVERYWHERE = "all"
#: Columns of flows that `find_instances` and `sum_service_use` are made of.
SUMMED = (
    "protocol", "resp_port", "resp_addr", "resp_host", "duration_s", "samples", "period_s", "orig_bytes", "resp_bytes",
    "first_ns", "last_ns",
)  # fmt: skip
_NEEDED = (
    "flow_id", "orig_host", "orig_addr", "orig_socket_id", "resp_addr", "resp_port", "called_addr", "called_port",
    "first_ns",
)  # fmt: skip


def select_flows(flows: ibis.Table, location: str | None = None, *, failed: bool = False) -> ibis.Table:
    """Flows that a dependency may rest on, or that an application at least tried.

    Parameters
    ----------
    flows : ibis.Table
        FlowRecord.
    location : {"inside", "vpn", "outside", "all"}, optional
        Where the observing host must have been. By default, flows are left out whose host is known to have been
        elsewhere than inside; hosts without rules on their addresses are kept.
    failed : bool, default False
        Whether to keep those that were rejected or not answered.

    Raises
    ------
    SettingsError
        If the location is none of these.
    """
    used = select_location(flows.filter(flows.direction != "unknown"), location)
    return used if failed else used.filter(~is_failed(used))


def select_location(flows: ibis.Table, location: str | None = None) -> ibis.Table:
    """Flows that a host saw where it should have been; see `select_flows`."""
    if location is None:
        return flows.filter((flows.location == "inside") | flows.location.isnull())
    if location == EVERYWHERE:
        return flows
    if location not in LOCATIONS:
        raise SettingsError("location", expected=f"one of {(*LOCATIONS, EVERYWHERE)}", found=ascii(location)[:40])
    return flows.filter(flows.location == location)


def is_failed(flows: ibis.Table) -> Any:
    """Whether nobody answered, or somebody answered no."""
    return flows["end"].isin(FAILED).fill_null(False)


def find_uses(
    flows: ibis.Table,
    attributions: ibis.Table,
    sockets: ibis.Table,
    processes: ibis.Table,
    location: str | None = None,
    keep: Keep = keep_nothing,
    *,
    failed: bool = False,
    wanted: Iterable[str] | None = None,
) -> ibis.Table:
    """Flows whose application is known, each with the instance it counts for.

    Parameters
    ----------
    flows, attributions : ibis.Table
        FlowRecord and Attribution.
    sockets, processes : ibis.Table
        SocketRecord and ProcessRecord, with ``segment_id``.
    location : str, optional
        As for `select_flows`.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.
    failed : bool, default False
        As for `select_flows`.
    wanted : iterable of str, optional
        Columns of flows that are needed afterwards, such as `SUMMED`; by default all.

    Returns
    -------
    ibis.Table
        The flow's columns and app, host, pid, address, user, process_id, resp_app.
    """
    used = select_flows(flows, location, failed=failed)
    if wanted is not None:
        used = used.select(*dict.fromkeys((*_NEEDED, *wanted)))
    named = attributions.filter(attributions.app.notnull())
    orig = named.filter(named.side == "orig").select("app", "process_id", orig_flow_id="flow_id")
    resp = named.filter(named.side == "resp").select(resp_flow_id="flow_id", resp_app="app").view()
    uses = used.join(orig, used.flow_id == orig.orig_flow_id)
    uses = uses.left_join(resp, uses.flow_id == resp.resp_flow_id)
    uses = keep(_add_speakers(uses, sockets, processes, keep))
    uses = uses.mutate(
        host=uses.orig_host,
        user=uses.orig_host + ibis.literal("/") + uses.uid.cast("string"),  # of a process that was not asked: null
    )
    # first one row an address, then the address that was first: texts to order by are made for few rows
    away, near = uses.filter(~is_loopback(uses.orig_addr)), uses.filter(is_loopback(uses.orig_addr))
    by_address = away.group_by(["process_id", "orig_addr"]).aggregate(first_ns=away.first_ns.min())
    first_address = by_address.group_by("process_id").aggregate(
        home=at_lowest(by_address.orig_addr, _in_order(by_address.first_ns) + by_address.orig_addr)
    )
    near = near.left_join(first_address, "process_id").drop("process_id_right")
    near = keep(near.mutate(address=near.home.coalesce(near.orig_addr)).drop("home"))
    return away.mutate(address=away.orig_addr).union(near)


def _add_speakers(uses: ibis.Table, sockets: ibis.Table, processes: ibis.Table, keep: Keep) -> ibis.Table:
    """Uses with the one process that each counts for: ``process_id``, ``pid``, ``uid``."""
    last = name_processes(processes)
    last = keep(last.mutate(pid=pid_of(last.process_id)))
    known = uses.left_join(last.select("process_id", "changing", "pid", uid="last_uid"), "process_id")
    known = known.drop("process_id_right")
    # who is alone and always was the same needs not be looked for among the holders of the socket
    told = known.process_id.notnull() & ~known.changing.fill_null(True)
    known = known.mutate(told=told).drop("changing")
    asked = keep(known.filter(~known.told).select(socket_id="orig_socket_id").distinct())
    holders = keep(_oldest_holder(find_holders(sockets.semi_join(asked, "socket_id"), processes)))
    rest = known.filter(~known.told).drop("process_id", "pid", "uid")
    rest = rest.join(
        holders,
        [
            rest.orig_socket_id == holders.socket_id,
            rest.called_addr.coalesce(rest.resp_addr) == holders.peer_addr,
            rest.called_port.coalesce(rest.resp_port) == holders.peer_port,
        ],
    ).drop("socket_id", "peer_addr", "peer_port")
    return known.filter(known.told).select(rest.columns).union(rest).drop("told")


def find_instances(uses: ibis.Table) -> ibis.Table:
    """Instances of applications.

    Parameters
    ----------
    uses : ibis.Table
        From `find_uses`.

    Returns
    -------
    ibis.Table
        ApplicationInstance, without what `whoneeds.collector.applications.mark_parts` adds.
    """
    key = ["app", "host", "pid", "address", "process_id", "user"]
    rows = uses.group_by(key).aggregate(first_ns=uses.first_ns.min(), last_ns=uses.last_ns.max())
    rows = rows.mutate(latest=_in_order(rows.last_ns) + rows.process_id)
    instances = rows.group_by(["app", "host", "pid", "address"]).aggregate(
        user=at_highest(rows.user, rows.latest),
        process_id=at_highest(rows.process_id, rows.latest),
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
    )
    made = {
        column.name: instances[column.name] if column.name in instances.columns else ibis.null(column.type)
        for column in columns(ApplicationInstance)
    }
    return instances.select(**made)


def sum_service_use(uses: ibis.Table, instances: ibis.Table) -> ibis.Table:
    """What each instance used: one row for each process and service instance.

    Parameters
    ----------
    uses : ibis.Table
        From `find_uses`.
    instances : ibis.Table
        From `find_instances`.

    Returns
    -------
    ibis.Table
        ServiceUse.
    """
    instances = instances.select("app", "host", "pid", "address", "user")
    rows = uses.drop("user").mutate(spent_ns=as_whole(uses.duration_s * 1e9))
    # a process has one host and number; the same number may be another process later
    summed = rows.group_by(["app", "process_id", "address", "protocol", "resp_port", "resp_addr"]).aggregate(
        host=rows.host.max(),
        pid=rows.pid.max(),
        a_host=rows.resp_host.min(),
        one_host=rows.resp_host.max(),
        hostless=rows.resp_host.isnull().cast("int64").sum(),
        a_app=rows.resp_app.min(),
        one_app=rows.resp_app.max(),
        flows=rows.count(),
        samples=rows.samples.sum().cast("int64"),
        spent_ns=rows.spent_ns.sum().cast("int64"),
        period_s=rows.period_s.max(),
        orig_bytes=rows.orig_bytes.sum().cast("int64"),
        resp_bytes=rows.resp_bytes.sum().cast("int64"),
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
    )
    joined = summed.join(instances, ["app", "host", "pid", "address"])
    joined = joined.mutate(
        port=joined.resp_port,
        resp_host=ibis.ifelse(
            (joined.a_host == joined.one_host) & (joined.hostless == 0), joined.one_host, ibis.null("string")
        ),
        resp_app=ibis.ifelse(joined.a_app == joined.one_app, joined.one_app, ibis.null("string")),
        duration_s=joined.spent_ns.cast("float64") / 1e9,
    )
    return joined.select([column.name for column in columns(ServiceUse)])


def _oldest_holder(holders: ibis.Table) -> ibis.Table:
    """The holder of each socket that began first."""
    place = ["socket_id", "peer_addr", "peer_port"]
    # nearly all sockets have one holder only, who need not be looked for by age
    first = holders.group_by(place).aggregate(
        times=holders.count(), process_id=holders.process_id.max(), uid=holders.uid.max()
    )
    shared = holders.semi_join(first.filter(first.times > 1), place)
    rows = shared.mutate(age=_in_order(shared.start_ticks) + _in_order(shared.pid))
    oldest = rows.group_by(place).aggregate(
        process_id=at_lowest(rows.process_id, rows.age),
        # not known is an answer here: the oldest one's user is not that of the next
        uid=at_lowest(rows.uid.fill_null(-1), rows.age).nullif(-1),
    )
    chosen = first.filter(first.times == 1).drop("times").union(oldest)
    return chosen.mutate(pid=pid_of(chosen.process_id))


def _in_order(number: Any) -> Any:
    """A number as text that sorts as the number does."""
    return number.cast("string").lpad(20, "0")
