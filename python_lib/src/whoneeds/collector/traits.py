# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be said of an application and a service beside how many use it: the traits that `evidence` weighs.

One row for each (application, protocol, port). All of it is counted from uses that are summed already, one row for
each process and service instance, so that it costs little beside making those; of flows only the ports that callers
were given are read, and of sockets those that wait.

What a row speaks of:

- the application and who runs it: instances, users, hosts, days, and how many of each used the service. An instance is
  a process at an address; where the process is known, one that began later under the same number is another;
- the port: whether the kernels of this fleet give such ports to callers, and how many ports near it the application
  uses as well. A service that is built in has a port by itself, a port that was given out is one of a crowd;
- the places: how many, whether the same come again, what else the application does there (who calls one machine at ever
  other ports once each talks to a peer, or asked a mapper), whether somebody resolved a name for them, who else
  calls them, and who listens there where that is a traced host.

Counts, not shares: what is not known stays unknown, and a share of few is not worth that of many.
"""

from typing import Any

import ibis

from whoneeds.collector.owners import find_holders
from whoneeds.collector.sockets import WAITING, Keep, is_loopback, keep_nothing
from whoneeds.model.conclusions import ServiceTrait
from whoneeds.model.schema import columns
from whoneeds.store.portable import as_whole

_SERVICE = ("app", "protocol", "port")
_PLACE = ("protocol", "port", "resp_addr", "resp_host")
_DAY_NS = 86400 * 10**9
#: How soon after its instance's first use a first use is one of the start.
EARLY_NS = 60 * 10**9
#: Ports are near each other if they are in the same run of so many.
BLOCK_PORTS = 256
#: Ports that callers are given are looked at in runs of so many; so many flows must be known, and a run must hold
#: that share of them to be one out of which kernels give ports. Linux by default has 55 runs, Windows 8 or 32.
_RANGE_PORTS = 512
_RANGE_FLOWS = 100
_RANGE_SHARE = 0.004
_WELL_KNOWN = 1024


def find_traits(
    service_use: ibis.Table,
    flow: ibis.Table,
    socket: ibis.Table,
    process: ibis.Table,
    name: ibis.Table,
    keep: Keep = keep_nothing,
) -> ibis.Table:
    """Traits of every application and service.

    Parameters
    ----------
    service_use : ibis.Table
        ServiceUse: the rows that count.
    flow : ibis.Table
        FlowRecord, of which only the ports of callers are read.
    socket, process : ibis.Table
        SocketRecord and ProcessRecord, with ``segment_id``: who waits where.
    name : ibis.Table
        NameRecord.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        ServiceTrait, in no particular order.
    """
    uses = keep(_number_runs(service_use))
    services = _count_services(uses)
    rows = services
    for further in (
        _count_starts(uses),
        _count_places(uses, name, find_listening(socket, process, service_use), keep),
        _count_neighbours(services),
    ):
        rows = _join(rows, further, _SERVICE)
    rows = _join(rows, _count_applications(uses, services), ("app",))
    everywhere = services.group_by("protocol", "port").agg(service_apps=services.count() - 1)
    rows = _join(rows, everywhere, ("protocol", "port"))
    rows = _join(rows.mutate(range=rows.port // _RANGE_PORTS), find_given_ports(flow), ("range",))
    rows = _beside(rows, _count_flows(flow))
    given = rows.given_ports.notnull() & (rows.port >= _WELL_KNOWN)
    rows = rows.mutate(
        dynamic=ibis.ifelse(rows.flows_in_all >= _RANGE_FLOWS, given, ibis.null("boolean")),
        other_services=rows.services - 1,
        other_single_services=rows.single_services - ibis.ifelse(rows.support == 1, 1, 0),
    )
    return rows.select(**{column.name: rows[column.name].cast(column.type) for column in columns(ServiceTrait)})


def find_listening(socket: ibis.Table, process: ibis.Table, service_use: ibis.Table) -> ibis.Table:
    """Who waits at the services that are used on traced hosts.

    Parameters
    ----------
    socket, process : ibis.Table
        SocketRecord and ProcessRecord, with ``segment_id``.
    service_use : ibis.Table
        ServiceUse.

    Returns
    -------
    ibis.Table
        protocol, port, resp_host; ``listener`` (the application, null if it is not known or not one only), and
        ``listener_unit`` (bool: a service manager's unit runs it).
    """
    used = service_use.filter(service_use.resp_host.notnull())
    used = used.select("protocol", "port", used_host="resp_host").distinct()
    waiting = socket.filter(socket.state.isin(WAITING), socket.remote_addr.isnull())
    waiting = waiting.semi_join(
        used,
        [waiting.protocol == used.protocol, waiting.local_port == used.port, waiting.host == used.used_host],
    )
    holders = find_holders(waiting, process).select(held_id="socket_id", held_by="process_id", app="app")
    units = process.filter(process.unit.notnull()).select(unit_id="process_id", unit="unit").distinct()
    holders = holders.left_join(units, holders.held_by == units.unit_id)
    waiting = waiting.select("socket_id", "protocol", port="local_port", resp_host="host").distinct()
    held = waiting.left_join(holders, waiting.socket_id == holders.held_id)
    made = held.group_by("protocol", "port", "resp_host").agg(
        apps=held.app.nunique(), one_app=held.app.max(), has_unit=held.unit.like("%.service").fill_null(False).max()
    )
    return made.select(
        "protocol", "port", "resp_host",
        listener=ibis.ifelse(made.apps == 1, made.one_app, ibis.null("string")),
        listener_unit=made.has_unit.fill_null(False),
    )  # fmt: skip


def find_given_ports(flow: ibis.Table) -> ibis.Table:
    """Runs of ports out of which the kernels of this fleet give ports to callers.

    Parameters
    ----------
    flow : ibis.Table
        FlowRecord.

    Returns
    -------
    ibis.Table
        range (port // 512), given_ports (flows whose caller had one of them).
    """
    called = flow.filter(flow.direction != "unknown", flow.orig_port >= _WELL_KNOWN)
    called = called.mutate(range=called.orig_port // _RANGE_PORTS)
    counted = called.group_by("range").agg(given_ports=called.count())
    counted = _beside(counted, _count_flows(flow))
    enough = counted.given_ports.cast("float64") >= counted.flows_in_all.cast("float64") * _RANGE_SHARE
    return counted.filter(enough).select("range", "given_ports")


def _count_flows(flow: ibis.Table) -> ibis.Table:
    called = flow.filter(flow.direction != "unknown", flow.orig_port >= _WELL_KNOWN)
    return called.agg(flows_in_all=called.count())


def _join(left: ibis.Table, right: ibis.Table, key: tuple[str, ...]) -> ibis.Table:
    """Left join on equal columns that all have a value, keeping each of them once."""
    wanted = [name for name in right.columns if name not in left.columns]
    joined = left.left_join(right.select(*key, *wanted), list(key))
    return joined.select(*left.columns, *wanted)


def _beside(rows: ibis.Table, figures: ibis.Table) -> ibis.Table:
    """Rows with the figures of the one row of another table."""
    return rows.cross_join(figures).select(*rows.columns, *figures.columns)


def _number_runs(service_use: ibis.Table) -> ibis.Table:
    """Uses with ``run`` (process and address), ``boot``, and the days on which they began and ended."""
    place = service_use.host + ibis.literal("/") + service_use.pid.cast("string")
    process_id = service_use.process_id.coalesce(place)
    parts = service_use.process_id.split("/")
    return service_use.select(
        *_SERVICE, "host", "user", "resp_addr", "flows", "samples", "first_ns", "last_ns",
        resp_host=service_use.resp_host.fill_null(""),
        run=process_id + ibis.literal(" ") + service_use.address,
        # of a process that is not known, its host stands for the boot
        boot=(parts[0] + ibis.literal("/") + parts[1]).coalesce(service_use.host),
        first_day=_day(service_use.first_ns), last_day=_day(service_use.last_ns),
        # broken numbers add up to another sum in every order, and so on every engine: whole microseconds do not
        spent_us=as_whole(service_use.duration_s * 1e6),
        period_us=as_whole(service_use.period_s * 1e6) * service_use.flows,
    )  # fmt: skip


def _day(instant: Any) -> Any:
    # what is left is a whole number of days, which no engine's division makes less exact
    return (instant - instant % _DAY_NS) // _DAY_NS


def _count_days(uses: ibis.Table, key: tuple[str, ...], name: str) -> ibis.Table:
    """Days on which some use began or ended."""
    days = uses.select(*key, day="first_day").union(uses.select(*key, day="last_day")).distinct()
    return days.group_by(*key).agg(**{name: days.count()})


def _count_services(uses: ibis.Table) -> ibis.Table:
    """What the uses of each service add up to."""
    summed = uses.group_by(*_SERVICE).agg(
        support=uses.run.nunique(),
        users=uses.user.nunique().nullif(0),
        hosts=uses.host.nunique(),
        boots=uses.boot.nunique(),
        flows=uses.flows.sum().cast("int64"),
        samples=uses.samples.sum().cast("int64"),
        spent_us=uses.spent_us.sum().cast("int64"),
        period_us=uses.period_us.sum().cast("int64"),
        first_ns=uses.first_ns.min(),
        last_ns=uses.last_ns.max(),
    )
    flows = summed.flows.cast("float64")
    summed = summed.mutate(
        duration_s=summed.spent_us.cast("float64") / 1e6 / flows,
        period_s=summed.period_us.cast("float64") / 1e6 / flows,
    )
    return _join(summed.drop("spent_us", "period_us"), _count_days(uses, _SERVICE, "days"), _SERVICE)


def _count_applications(uses: ibis.Table, services: ibis.Table) -> ibis.Table:
    """The same of all that an application does."""
    summed = uses.group_by("app").agg(
        population=uses.run.nunique(),
        users_in_all=uses.user.nunique().nullif(0),
        hosts_in_all=uses.host.nunique(),
        boots_in_all=uses.boot.nunique(),
        app_first_ns=uses.first_ns.min(),
        app_last_ns=uses.last_ns.max(),
    )
    own = services.group_by("app").agg(
        services=services.count(),
        single_services=(services.support == 1).sum().cast("int64"),
        support_in_all=services.support.sum().cast("int64"),
    )
    return _join(_join(summed, own, ("app",)), _count_days(uses, ("app",), "days_in_all"), ("app",))


def _count_starts(uses: ibis.Table) -> ibis.Table:
    """How many instances used a service soon after they used anything at all."""
    began = uses.group_by("app", "run").agg(began_ns=uses.first_ns.min())
    used = uses.group_by(*_SERVICE, "run").agg(used_ns=uses.first_ns.min())
    used = _join(used, began, ("app", "run"))
    return used.group_by(*_SERVICE).agg(early=(used.used_ns - used.began_ns <= EARLY_NS).sum().cast("int64"))


def _count_places(uses: ibis.Table, name: ibis.Table, listening: ibis.Table, keep: Keep) -> ibis.Table:
    """What is known of the places at which a service was used."""
    by_app = uses.group_by("app", *_PLACE).agg(place_support=uses.run.nunique())
    by_app = keep(by_app)
    everyone = by_app.group_by(*_PLACE).agg(place_apps=by_app.count())
    there = by_app.group_by("app", "protocol", "resp_addr", "resp_host").agg(
        place_services=by_app.count(), place_singles=(by_app.place_support == 1).sum().cast("int64")
    )
    named = name.select("address").distinct().select(resp_addr="address", has_name=ibis.literal(1, "int64"))
    rows = _join(by_app, everyone, _PLACE)
    rows = _join(rows, there, ("app", "protocol", "resp_addr", "resp_host"))
    rows = _join(rows, named, ("resp_addr",))
    rows = _join(
        rows,
        listening.mutate(resp_host=listening.resp_host.fill_null(""), listens=ibis.literal(1, "int64")),
        ("protocol", "port", "resp_host"),
    )
    single = ibis.ifelse(rows.place_support == 1, 1, 0)
    heard = rows.listens == 1
    places = rows.group_by(*_SERVICE).agg(
        destinations=rows.count(),
        repeated_destinations=_times(rows.place_support >= 2),
        top_support=rows.place_support.max(),
        place_support=rows.place_support.sum().cast("int64"),
        other_ports=(rows.place_services - 1).sum().cast("int64"),
        other_single_ports=(rows.place_singles - single).sum().cast("int64"),
        shared_destinations=_times(rows.place_apps >= 2),
        named=_times(rows.has_name == 1),
        loopback_destinations=_times(is_loopback(rows.resp_addr)),
        traced_destinations=_times(rows.resp_host != ""),
        listened_destinations=_times(heard),
        own_destinations=_times(heard & (rows.listener == rows.app)),
        unit_destinations=_times(heard & rows.listener_unit),
    )
    places = _beside(places, name.agg(names=name.count()))
    return places.mutate(
        # where nobody told of any name, none is known; that no place has one is another matter
        named_destinations=ibis.ifelse(places.names > 0, places.named, ibis.null("int64"))
    ).drop("named", "names")


def _count_neighbours(services: ibis.Table) -> ibis.Table:
    """How many ports near a service's own the application uses as well, and how often those are used."""
    rows = services.select(*_SERVICE, "support", block=services.port // BLOCK_PORTS)
    block = rows.group_by("app", "protocol", "block").agg(
        in_block=rows.count(), block_support=rows.support.sum().cast("int64"), block_most=rows.support.max()
    )
    rows = _join(rows, block, ("app", "protocol", "block"))
    return rows.select(
        *_SERVICE, near_services=rows.in_block - 1, near_support=rows.block_support - rows.support,
    )  # fmt: skip


def _times(condition: Any) -> Any:
    """How often a condition holds; where it is not known, it does not."""
    return condition.fill_null(False).sum().cast("int64")
