# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows with the programs at both ends: the rows that people ask for."""

from typing import Any

import ibis

from whoneeds.model.conclusions import Connection
from whoneeds.model.schema import columns


def join_connections(flows: ibis.Table, attributions: ibis.Table, processes: ibis.Table | None = None) -> ibis.Table:
    """Put flows and the attribution of both their ends side by side.

    Parameters
    ----------
    flows, attributions : ibis.Table
        FlowRecord and Attribution.
    processes : ibis.Table, optional
        ProcessRecord; without it no container is known.

    Returns
    -------
    ibis.Table
        Connection.
    """
    named = attributions.select("flow_id", "side", "process_id", "app", "rule")
    orig = named.filter(named.side == "orig").drop("side").rename("orig_{name}")
    resp = named.filter(named.side == "resp").drop("side").rename("resp_{name}").view()
    joined = flows.left_join(orig, flows.flow_id == orig.orig_flow_id)
    joined = joined.left_join(resp, joined.flow_id == resp.resp_flow_id)
    made: dict[str, Any] = {
        column.name: joined[column.name] for column in columns(Connection) if column.name in joined.columns
    }
    made["orig_pid"] = pid_of(joined.orig_process_id)
    made["resp_pid"] = pid_of(joined.resp_process_id)
    made["rule"] = _rule(joined)
    made["orig_container"] = made["resp_container"] = ibis.null("string")
    if processes is not None:
        called = processes.container_name.coalesce(processes.container)
        inside = processes.mutate(called=called).filter(called.notnull())
        inside = inside.group_by("process_id").aggregate(called=inside.called.max())
        for side in ("orig", "resp"):
            at_side = inside.select(**{f"{side}_inside": "process_id", f"{side}_container": "called"}).view()
            joined = joined.left_join(at_side, joined[f"{side}_process_id"] == at_side[f"{side}_inside"])
        made = {name: joined[name] if name in joined.columns else value for name, value in made.items()}
        made["orig_pid"], made["resp_pid"] = pid_of(joined.orig_process_id), pid_of(joined.resp_process_id)
        made["rule"] = _rule(joined)
    return joined.select(**{column.name: made[column.name] for column in columns(Connection)})


def _rule(joined: ibis.Table) -> Any:
    return joined.orig_rule.fill_null("none") + ibis.literal("/") + joined.resp_rule.fill_null("none")


def pid_of(process_id: Any) -> Any:
    """The process number in a column of process identities (host/boot/pid/start)."""
    return process_id.split("/")[2].cast("int64")
