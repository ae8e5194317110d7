# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own store as something to evaluate on: what was called, and what packets alone would have told of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whoneeds.analysis.trace import FlowTrace
from whoneeds.evaluation.known_services import Key, Place
from whoneeds.model.conclusions import Attribution, ServiceUse
from whoneeds.model.evidence import FlowRecord

#: From a record to its table, as an expression.
TableOf = Callable[[type[Any]], Any]
#: From an expression to its rows.
Read = Callable[[Any], pa.Table]


@dataclass(frozen=True)
class Packets:
    """What a network shows of a store's flows.

    Attributes
    ----------
    trace : FlowTrace
    offered : mapping
        The application behind each service instance, (number of the address, (protocol, port)), where that is known
        and unambiguous.
    """

    trace: FlowTrace
    offered: Mapping[tuple[int, tuple[str, int]], str]


def find_called(table_of: TableOf, read: Read) -> dict[Key, tuple[Place, ...]]:
    """Service instances that each application called, of each service.

    Parameters
    ----------
    table_of, read : callable

    Returns
    -------
    dict
        From (application, protocol, port) to (protocol, address, port), the most used first, in an order of its own
        where they are equally used.
    """
    uses = table_of(ServiceUse)
    made = uses.group_by("app", "protocol", "port", "resp_addr").agg(flows=uses.flows.sum().cast("int64"))
    rows = read(made).to_pylist()
    rows.sort(key=lambda row: (row["app"], row["protocol"], row["port"], -row["flows"], row["resp_addr"]))
    called: dict[Key, list[Place]] = {}
    for row in rows:
        place = (row["protocol"], row["resp_addr"], row["port"])
        called.setdefault((row["app"], row["protocol"], row["port"]), []).append(place)
    return {key: tuple(places) for key, places in called.items()}


def collect_packets(table_of: TableOf, read: Read) -> Packets:
    """The flows as packets would have told of them: those of TCP and UDP that left their host, and no programs.

    Who offers what is what a human would have to tell NSDMiner; it is taken from the attributions.

    Parameters
    ----------
    table_of, read : callable
    """
    flows = table_of(FlowRecord)
    flows = flows.filter(flows.protocol.isin(("tcp", "udp")), flows.last_ns >= flows.first_ns)
    # a host that calls itself shows nothing on the wire
    stays = (flows.orig_host == flows.resp_host).fill_null(False)
    stays |= flows.resp_addr.startswith("127.") | (flows.resp_addr == "::1")
    flows = flows.filter(~stays)
    columns = ("first_ns", "last_ns", "orig_addr", "resp_addr", "protocol", "resp_port", "flow_id")
    rows = read(flows.select(*columns).order_by("first_ns", "flow_id"))
    addresses = pa.chunked_array([*rows["orig_addr"].chunks, *rows["resp_addr"].chunks], type=pa.string()).unique()
    services = rows.select(["protocol", "resp_port"]).group_by(["protocol", "resp_port"]).aggregate([])
    named = sorted(zip(services["protocol"].to_pylist(), services["resp_port"].to_pylist(), strict=True))
    numbers = {service: number for number, service in enumerate(named)}
    # one whole number for both, since engines and arrays look up single values
    code = pa.array([port * 2 + (protocol == "udp") for protocol, port in named], type=pa.int64())
    udp = pc.equal(rows["protocol"], "udp").cast(pa.int64())
    of_rows = pc.add(pc.multiply(rows["resp_port"].cast(pa.int64()), 2), udp)
    trace = FlowTrace(
        first_ns=_whole(rows["first_ns"]),
        last_ns=_whole(rows["last_ns"]),
        orig=_whole(pc.index_in(rows["orig_addr"], value_set=addresses)),
        resp=_whole(pc.index_in(rows["resp_addr"], value_set=addresses)),
        service=_whole(pc.index_in(of_rows, value_set=code)),
        services=tuple(named),
    )
    where = {address: number for number, address in enumerate(addresses.to_pylist())}
    return Packets(trace, _find_offered(table_of, read, flows, where, numbers))


def _find_offered(
    table_of: TableOf, read: Read, flows: Any, where: Mapping[str, int], services: Mapping[tuple[str, int], int]
) -> dict[tuple[int, tuple[str, int]], str]:
    ends = table_of(Attribution)
    ends = ends.filter(ends.side == "resp", ends.app.notnull()).select("flow_id", "app")
    met = flows.select("flow_id", "protocol", "resp_addr", "resp_port").join(ends, "flow_id")
    made = met.group_by("protocol", "resp_addr", "resp_port").agg(app=met.app.min(), apps=met.app.nunique())
    return {
        (where[row["resp_addr"]], (row["protocol"], row["resp_port"])): row["app"]
        for row in read(made).to_pylist()
        if row["apps"] == 1 and (row["protocol"], row["resp_port"]) in services
    }


def _whole(column: Any) -> Any:
    return np.ascontiguousarray(column.to_numpy(), dtype=np.int64)
