# SPDX-License-Identifier: GPL-3.0-or-later
"""Traits of services, against loops over lists, on random uses."""

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pytest

from whoneeds.collector.traits import BLOCK_PORTS, EARLY_NS, find_traits
from whoneeds.model.conclusions import ServiceTrait, ServiceUse
from whoneeds.model.evidence import FlowRecord, NameRecord, ProcessRecord, SocketRecord
from whoneeds.model.schema import columns
from whoneeds.store.columns import arrow_schema, ibis_schema

DAY_NS = 86400 * 10**9


def table(record: type[Any], rows: list[dict[str, Any]]) -> pa.Table:
    """Rows in the store's schema; what is left out is not known."""
    schema = arrow_schema(record)
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema)


def draw_uses(rng: random.Random) -> list[ServiceUse]:
    """Uses by few programs of few services at few places, so that they meet."""
    uses = {}
    for _ in range(rng.randrange(1, 90)):
        host, pid, start = rng.choice(["h1", "h2"]), rng.randrange(1, 5), rng.choice([5, 9])
        first_ns = rng.randrange(3 * DAY_NS)
        use = ServiceUse(
            app=rng.choice(["a", "b"]), host=host, pid=pid, address=rng.choice(["10.0.0.1", "10.0.0.2"]),
            user=rng.choice([None, f"{host}/0", f"{host}/7"]), protocol=rng.choice(["tcp", "udp"]),
            port=rng.choice([53, 1024, 1500, 1501, 5432, 40001, 40002, 40300]),
            resp_addr=rng.choice(["10.0.0.8", "10.0.0.9", "127.0.0.1"]), resp_host=rng.choice([None, "h1"]),
            resp_app=None, flows=rng.randrange(1, 4), samples=rng.randrange(1, 9), duration_s=rng.randrange(30) / 2,
            period_s=rng.choice([0.0, 5.0]), orig_bytes=None, resp_bytes=None, first_ns=first_ns,
            last_ns=first_ns + rng.randrange(2 * DAY_NS), process_id=rng.choice([None, f"{host}/boot/{pid}/{start}"]),
        )  # fmt: skip
        uses[use.app, use.process_id, use.pid, use.host, use.address, use.protocol, use.port, use.resp_addr] = use
    return list(uses.values())


def run_of(use: ServiceUse) -> tuple[Any, ...]:
    """What makes an instance: the process where it is known, and the address."""
    return (use.process_id or f"{use.host}/{use.pid}", use.address)


def known(values: Any) -> int | None:
    """How many different known values there are; none is not known."""
    return len(set(values) - {None}) or None


def days_of(uses: list[ServiceUse]) -> int:
    """Days on which some use began or ended."""
    return len({instant // DAY_NS for use in uses for instant in (use.first_ns, use.last_ns)})


def boot_of(use: ServiceUse) -> str:
    """The boot where the process is known, else the host."""
    return "/".join(use.process_id.split("/")[:2]) if use.process_id else use.host


def oracle(uses: list[ServiceUse], names: set[str] | None) -> list[dict[str, Any]]:
    """Traits without listeners and given ports, one service after the other."""
    rows = []
    supports = {
        service: len({run_of(use) for use in uses if (use.app, use.protocol, use.port) == service})
        for service in {(use.app, use.protocol, use.port) for use in uses}
    }
    for (app, protocol, port), support in supports.items():
        own = [use for use in uses if use.app == app]
        these = [use for use in own if (use.protocol, use.port) == (protocol, port)]
        others = {s: n for s, n in supports.items() if s[0] == app and s != (app, protocol, port)}
        near = [n for s, n in others.items() if s[1] == protocol and s[2] // BLOCK_PORTS == port // BLOCK_PORTS]
        began: dict[Any, int] = {}
        for use in own:
            began[run_of(use)] = min(use.first_ns, began.get(run_of(use), use.first_ns))
        places = Counter()
        for use_place in {(use.resp_addr, use.resp_host or "", run_of(use)) for use in these}:
            places[use_place[:2]] += 1
        there: Counter[str] = Counter()
        for place in places:
            at_place: dict[int, set[Any]] = {}
            for use in own:
                if (use.resp_addr, use.resp_host or "") == place and use.protocol == protocol and use.port != port:
                    at_place.setdefault(use.port, set()).add(run_of(use))
            there["ports"] += len(at_place)
            there["singles"] += sum(len(runs) == 1 for runs in at_place.values())
            here = (protocol, port, *place)
            there["shared"] += any(
                use.app != app and (use.protocol, use.port, use.resp_addr, use.resp_host or "") == here for use in uses
            )
        flows = sum(use.flows for use in these)
        rows.append({
            "app": app, "protocol": protocol, "port": port,
            "population": len({run_of(use) for use in own}), "support": support,
            "support_in_all": support + sum(others.values()),
            "users_in_all": known(use.user for use in own), "users": known(use.user for use in these),
            "hosts_in_all": len({use.host for use in own}), "hosts": len({use.host for use in these}),
            "boots_in_all": len({boot_of(use) for use in own}), "boots": len({boot_of(use) for use in these}),
            "days_in_all": days_of(own), "days": days_of(these),
            "flows": flows, "samples": sum(use.samples for use in these),
            "duration_s": pytest.approx(sum(use.duration_s for use in these) / flows),
            "period_s": pytest.approx(sum(use.period_s * use.flows for use in these) / flows),
            "early": sum(
                min(use.first_ns for use in these if run_of(use) == run) - began[run] <= EARLY_NS
                for run in {run_of(use) for use in these}
            ),
            "other_services": len(others), "other_single_services": sum(n == 1 for n in others.values()),
            "near_services": len(near), "near_support": sum(near),
            "service_apps": sum(s[1:] == (protocol, port) and s[0] != app for s in supports),
            "destinations": len(places), "repeated_destinations": sum(n >= 2 for n in places.values()),
            "top_support": max(places.values()), "place_support": sum(places.values()),
            "other_ports": there["ports"], "other_single_ports": there["singles"],
            "shared_destinations": there["shared"],
            "named_destinations": None if names is None else sum(place[0] in names for place in places),
            "loopback_destinations": sum(place[0] == "127.0.0.1" for place in places),
            "traced_destinations": sum(place[1] != "" for place in places),
            "first_ns": min(use.first_ns for use in these), "last_ns": max(use.last_ns for use in these),
            "app_first_ns": min(use.first_ns for use in own), "app_last_ns": max(use.last_ns for use in own),
        })  # fmt: skip
    return rows


def find(
    uses: list[ServiceUse],
    *,
    flows: tuple[dict[str, Any], ...] = (),
    sockets: tuple[dict[str, Any], ...] = (),
    processes: tuple[dict[str, Any], ...] = (),
    names: tuple[dict[str, Any], ...] = (),
) -> list[dict[str, Any]]:
    """The traits that the expression finds."""
    given = (
        (FlowRecord, flows), (SocketRecord, sockets), (ProcessRecord, processes), (NameRecord, names),
    )  # fmt: skip
    rows = [{column.name: getattr(use, column.name) for column in columns(ServiceUse)} for use in uses]
    engine = duckdb.connect(config={"threads": 1})
    for record, held in ((ServiceUse, rows), *given):
        engine.register(record.__name__, table(record, list(held)))
    found: list[dict[str, Any]] = engine.sql(as_sql()).to_arrow_table().to_pylist()
    return found


@cache
def as_sql() -> str:
    """The traits in the engine's language; translating takes longer than running on a few rows."""
    records = (ServiceUse, FlowRecord, SocketRecord, ProcessRecord, NameRecord)
    made = find_traits(*(ibis.table(ibis_schema(record), name=record.__name__) for record in records))
    assert made.columns == tuple(column.name for column in columns(ServiceTrait))
    return str(ibis.to_sql(made, dialect="duckdb"))


@pytest.mark.parametrize("seed", range(6))
def test_traits_are_what_loops_find(seed):
    """On random uses every figure of every service is that of a loop over the list."""
    rng = random.Random(seed)
    uses = draw_uses(rng)
    named = {"10.0.0.8"} if seed % 2 else None
    wanted = {(row["app"], row["protocol"], row["port"]): row for row in oracle(uses, named)}
    found = find(uses, names=({"host": "h", "name": "db", "address": "10.0.0.8"},) if named else ())
    assert len(found) == len(wanted)
    for row in found:
        for name, value in wanted[row["app"], row["protocol"], row["port"]].items():
            assert row[name] == value, name


def one_use() -> ServiceUse:
    """A call of a database on a traced host."""
    return replace(
        draw_uses(random.Random(0))[0], app="web", protocol="tcp", port=40001, resp_addr="10.0.0.8", resp_host="db1"
    )


@pytest.mark.parametrize(
    ("holder", "unit", "wanted"),
    [("postgres", "postgres.service", (1, 0, 1)), ("web", "session-1.scope", (1, 1, 0)), (None, None, (0, 0, 0))],
)
def test_who_waits_there_is_known_where_the_host_is_traced(holder, unit, wanted):
    """A waiting socket at the place counts, and whether the application itself or a unit of the host holds it."""
    socket = {
        "socket_id": "s", "host": "db1", "netns": "1", "protocol": "tcp", "local_addr": "0.0.0.0", "local_port": 40001,
        "state": "listen", "process_id": "db1/b/7/1", "segment_id": "x", "last_ns": 5,
    }  # fmt: skip
    process = {
        "process_id": "db1/b/7/1", "pid": 7, "start_ticks": 1, "name": holder, "unit": unit, "segment_id": "x",
        "last_ns": 5,
    }  # fmt: skip
    (row,) = find([one_use()], sockets=(socket,) if holder else (), processes=(process,))
    assert (row["listened_destinations"], row["own_destinations"], row["unit_destinations"]) == wanted


@pytest.mark.parametrize(("ports", "wanted"), [((40000, 41000), True), ((20000, 21000), False), ((40000, 40010), None)])
def test_given_ports_are_those_that_callers_here_have(ports, wanted):
    """A port is one that kernels give if callers have such ones, and with too few callers that is not known."""
    flows = tuple({"direction": "event", "orig_port": port} for port in range(*ports, 5))
    assert find([one_use()], flows=flows)[0]["dynamic"] is wanted


def test_nothing_has_no_traits():
    """Where nothing was used there is no row, and no failure."""
    assert find([]) == []
