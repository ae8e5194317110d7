# SPDX-License-Identifier: GPL-3.0-or-later
"""What the line concludes from the evidence of a population, worked out at once.

The same as going the whole way, from socket rows over the store to uses of services, by `whoneeds.pipeline`: a test
compares both. It is a hundred times as fast, since nothing has to be found out that is known here.
"""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whoneeds.model.conclusions import ApplicationInstance, Attribution, ServiceUse
from whoneeds.model.evidence import FlowRecord
from whoneeds.scenario.connections import ENDED, REJECTED
from whoneeds.scenario.evidence import Evidence, found_end
from whoneeds.scenario.population import Population
from whoneeds.scenario.rows import fill, join_text, known, text
from whoneeds.scenario.sampling import Ends, Looks


class Conclusions:
    """Flows and what follows from them; every table is made when it is asked for.

    Parameters
    ----------
    population : Population
    looks : Looks
    period_s : float
    orig, resp : Ends
        What the calling and the called ends saw of each connection.
    evidence : Evidence
    """

    def __init__(
        self, population: Population, looks: Looks, period_s: float, orig: Ends, resp: Ends, evidence: Evidence
    ) -> None:
        self._population, self._looks, self._period_s, self._evidence = population, looks, period_s, evidence
        self._orig, self._resp = orig, resp
        self._base_ns = population.settings.begin_s * 10**9

    @cached_property
    def _seen(self) -> dict[str, Any]:
        """Connections that either end saw: their number, and what both ends together know of each."""
        made, orig, resp = self._population.made, self._orig, self._resp
        rows = np.flatnonzero(orig.seen | resp.seen)
        by_orig, by_resp = orig.seen[rows], resp.seen[rows]
        # who saw more of it is believed
        better = by_resp & (~by_orig | (resp.samples[rows] > orig.samples[rows]))
        first = np.where(better, resp.first[rows], orig.first[rows])
        last = np.where(better, resp.last[rows], orig.last[rows])
        both = by_orig & by_resp
        made_of = {
            "row": rows, "by_orig": by_orig, "by_resp": by_resp, "spent": last - first,
            "samples": np.where(better, resp.samples[rows], orig.samples[rows]),
            "first": np.where(both, np.minimum(orig.first[rows], resp.first[rows]), first),
            "last": np.where(both, np.maximum(orig.last[rows], resp.last[rows]), last),
        }  # fmt: skip
        for name, a, b in (("sent", orig.sent, resp.sent), ("got", orig.got, resp.got)):
            only = np.where(by_orig, a[rows], b[rows])
            made_of[name] = np.where(both, np.maximum(a[rows], b[rows]), only)
        udp = made["protocol"][rows] == 1
        made_of["counted"] = ~udp | self._looks.events
        made_of["end"] = found_end(made["ended"][rows], udp, events=self._looks.events)
        return made_of

    @cached_property
    def _flow_ids(self) -> pa.Array:
        """Identities of flows, as `whoneeds.collector.flows` makes them."""
        seen, made, addresses = self._seen, self._population.made, self._population.addresses
        rows, by_orig, by_resp = seen["row"], seen["by_orig"], seen["by_resp"]
        ends = []
        for called, there in ((False, by_orig), (True, by_resp)):
            near, far = (("orig_addr", "orig_port"), ("resp_addr", "port"))
            if called:
                near, far = far, near
            own = rows[there]
            socket = self._evidence.socket_ids(own, called=called)
            name = join_text(
                socket, " ", text(("tcp", "udp"), made["protocol"][own]), " ", text(addresses, made[near[0]][own]), " ",
                made[near[1]][own], " > ", text(addresses, made[far[0]][own]), " ", made[far[1]][own],
            )  # fmt: skip
            places = pa.array(np.cumsum(there) - 1, mask=~there)
            ends.append((socket.take(places), name.take(places)))
        (orig, orig_name), (resp, resp_name) = ends
        leads = pc.less(orig, resp)
        two = pc.if_else(leads, join_text(resp, "+", orig_name), join_text(orig, "+", resp_name))
        return pc.coalesce(two, orig_name, resp_name)

    def flows(self) -> pa.Table:
        """FlowRecord."""
        population, seen = self._population, self._seen
        made, uptime, rows = population.made, population.uptime, seen["row"]
        by_orig, by_resp = pa.array(seen["by_orig"]), pa.array(seen["by_resp"])
        events, count = self._looks.events, len(rows)
        none = pa.scalar(None, pa.string())
        return fill(FlowRecord, count, {
            "flow_id": self._flow_ids, "protocol": text(("tcp", "udp"), made["protocol"][rows]),
            "orig_addr": text(population.addresses, made["orig_addr"][rows]), "orig_port": made["orig_port"][rows],
            "resp_addr": text(population.addresses, made["resp_addr"][rows]), "resp_port": made["port"][rows],
            "direction": "event" if events else "listener",
            "orig_host": text(uptime.hosts, uptime.stretch_host[made["stretch"][rows]]),
            "resp_host": text(uptime.hosts, made["resp_host"][rows]),
            "orig_socket_id": pc.if_else(by_orig, self._evidence.socket_ids(rows, called=False), none),
            "resp_socket_id": pc.if_else(by_resp, self._evidence.socket_ids(rows, called=True), none),
            "first_ns": self._base_ns + seen["first"] * 1000, "last_ns": self._base_ns + seen["last"] * 1000,
            "duration_s": seen["spent"] / 1e6, "samples": seen["samples"],
            "period_s": 0.0 if events else self._period_s,
            "orig_bytes": known(seen["sent"], seen["counted"]), "resp_bytes": known(seen["got"], seen["counted"]),
            "end": text(ENDED, seen["end"]), "candidates": 0, "location": "inside",
        })  # fmt: skip

    def attributions(self) -> pa.Table:
        """Attribution: both ends of each flow, known by their sockets or by who waits there.

        Where a program was begun anew just then, the line may find two processes that can have answered, and name none;
        here the one that did is named.
        """
        population, seen = self._population, self._seen
        made, uptime, rows = population.made, population.uptime, seen["row"]
        names = [application.name for application in population.applications]
        answered = seen["end"] < REJECTED
        parts = []
        for side in ("orig", "resp"):
            called = side == "resp"
            by_socket = seen["by_resp" if called else "by_orig"]
            process = made["resp_process" if called else "process"][rows]
            host = made["resp_host"][rows] if called else uptime.stretch_host[made["stretch"][rows]]
            by_listener = called & ~by_socket & (process >= 0) & answered
            process = np.where(by_socket | by_listener, process, -1)
            rule = np.where(by_socket, 0, np.where(by_listener, 1, 2))
            parts.append(fill(Attribution, len(rows), {
                "flow_id": self._flow_ids, "side": side, "host": text(uptime.hosts, host),
                "process_id": text(self._evidence.process_ids, process),
                "app": text(names, np.where(process >= 0, population.process["app"][process], -1)),
                "rule": text(("socket", "listener", "none"), rule), "candidates": (process >= 0).astype(np.int64),
            }))  # fmt: skip
        return pa.concat_tables(parts)

    def _find_uses(self) -> pa.Table:
        """Flows that count, as numbers, with the instance that each counts for."""
        population, seen = self._population, self._seen
        made, process = population.made, population.process
        counts = seen["by_orig"] & (seen["end"] < REJECTED)
        rows = seen["row"][counts]
        own = {name: column[counts] for name, column in seen.items()}
        who = made["process"][rows]
        local = made["resp_addr"][rows] == made["orig_addr"][rows]
        local &= made["resp_host"][rows] == population.uptime.stretch_host[made["stretch"][rows]]
        loopback = np.array([address.startswith("127.") for address in population.addresses], dtype=bool)
        away = ~loopback[made["orig_addr"][rows]]
        # what is said over loopback belongs to the first other address of the process
        order = np.lexsort((own["first"][away], who[away]))
        seen_away, at = np.unique(who[away][order], return_index=True)
        home = np.full(len(process["app"]), -1, dtype=np.int64)
        home[seen_away] = made["orig_addr"][rows][away][order][at]
        address = np.where(away | (home[who] < 0), made["orig_addr"][rows], home[who])
        listener = made["resp_process"][rows]
        return pa.table({
            "app": process["app"][who], "host": population.uptime.stretch_host[made["stretch"][rows]],
            "pid": process["pid"][who], "address": address, "process": who, "uid": process["uid"][who],
            "protocol": made["protocol"][rows], "port": made["port"][rows], "resp_addr": made["resp_addr"][rows],
            "resp_host": made["resp_host"][rows],
            "resp_app": pa.array(process["app"][listener], mask=listener < 0) if len(process["app"]) else listener,
            "samples": own["samples"], "spent": own["spent"], "first": own["first"], "last": own["last"],
            "sent": known(own["sent"], own["counted"]), "got": known(own["got"], own["counted"]),
        })  # fmt: skip

    @cached_property
    def _sums(self) -> tuple[dict[str, Any], pa.Table]:
        """Instances, and what each process of one used, as numbers."""
        uses = self._find_uses()
        key = ["app", "host", "pid", "address"]
        grouped = uses.group_by([*key, "process", "protocol", "port", "resp_addr"], use_threads=False)
        return _sum_instances(uses, key), grouped.aggregate([
            ("spent", "count"), ("resp_host", "min"), ("resp_host", "max"), ("resp_app", "min"), ("resp_app", "max"),
            ("samples", "sum"), ("spent", "sum"), ("sent", "sum"), ("got", "sum"), ("first", "min"), ("last", "max"),
        ])  # fmt: skip

    def instances(self) -> pa.Table:
        """ApplicationInstance."""
        population, (rows, _grouped) = self._population, self._sums
        names, hosts = [application.name for application in population.applications], population.uptime.hosts
        identities = text(self._evidence.process_ids, rows["process"])
        return fill(ApplicationInstance, len(rows["app"]), {
            "app": text(names, rows["app"]), "host": text(hosts, rows["host"]), "pid": rows["pid"],
            "address": text(population.addresses, rows["address"]),
            "user": join_text(text(hosts, rows["host"]), "/", rows["uid"]), "process_id": identities,
            "first_ns": self._base_ns + rows["first_min"] * 1000, "last_ns": self._base_ns + rows["last_max"] * 1000,
            "leader_id": identities,
        })  # fmt: skip

    def uses(self) -> pa.Table:
        """ServiceUse."""
        population = self._population
        names, hosts = [application.name for application in population.applications], population.uptime.hosts
        key = ["app", "host", "pid", "address"]
        instances, grouped = self._sums
        people = pa.table({name: instances[name] for name in (*key, "uid")})
        grouped = grouped.join(people, key, use_threads=False)
        rows = {name: grouped[name].to_numpy() for name in ("app", "host", "protocol", "resp_addr", "address", "uid")}
        one_host = np.where(
            grouped["resp_host_min"].to_numpy() == grouped["resp_host_max"].to_numpy(),
            grouped["resp_host_max"].to_numpy(),
            -1,
        )
        least, most = (pc.fill_null(grouped[f"resp_app_{name}"], -1).to_numpy() for name in ("min", "max"))
        return fill(ServiceUse, grouped.num_rows, {
            "app": text(names, rows["app"]), "host": text(hosts, rows["host"]), "pid": grouped["pid"],
            "address": text(population.addresses, rows["address"]),
            "user": join_text(text(hosts, rows["host"]), "/", rows["uid"]),
            "protocol": text(("tcp", "udp"), rows["protocol"]), "port": grouped["port"],
            "resp_addr": text(population.addresses, rows["resp_addr"]), "resp_host": text(hosts, one_host),
            "resp_app": text(names, np.where(least == most, most, -1)), "flows": grouped["spent_count"],
            "samples": grouped["samples_sum"], "duration_s": grouped["spent_sum"].to_numpy() / 1e6,
            "period_s": 0.0 if self._looks.events else self._period_s, "orig_bytes": grouped["sent_sum"],
            "resp_bytes": grouped["got_sum"], "first_ns": self._base_ns + grouped["first_min"].to_numpy() * 1000,
            "last_ns": self._base_ns + grouped["last_max"].to_numpy() * 1000,
            "process_id": text(self._evidence.process_ids, grouped["process"].to_numpy()),
        })  # fmt: skip


def _sum_instances(uses: pa.Table, key: list[str]) -> dict[str, Any]:
    """Instances as numbers; of several processes with one number, what is known of the last one."""
    rows = uses.group_by([*key, "process", "uid"], use_threads=False).aggregate([("first", "min"), ("last", "max")])
    order = pc.sort_indices(rows, [*((name, "ascending") for name in key), ("last_max", "ascending")])
    rows = rows.take(order)
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    if not len(columns["app"]):
        return columns
    changes = np.any([columns[name][1:] != columns[name][:-1] for name in key], axis=0)
    begins = np.flatnonzero(np.append(True, changes))
    made = {name: column[np.append(changes, True)] for name, column in columns.items()}
    made["first_min"] = np.minimum.reduceat(columns["first_min"], begins)
    return made
