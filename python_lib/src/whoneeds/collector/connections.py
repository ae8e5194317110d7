# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows with the programs at both ends: the rows that people ask for."""

from typing import Any

import ibis

from whoneeds.model.conclusions import Connection
from whoneeds.model.schema import columns


def join_connections(flows: ibis.Table, attributions: ibis.Table) -> ibis.Table:
    """Put flows and the attribution of both their ends side by side.

    Parameters
    ----------
    flows, attributions : ibis.Table
        FlowRecord and Attribution.

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
    made["rule"] = joined.orig_rule.fill_null("none") + ibis.literal("/") + joined.resp_rule.fill_null("none")
    return joined.select(**{column.name: made[column.name] for column in columns(Connection)})


def pid_of(process_id: Any) -> Any:
    """The process number in a column of process identities (host/boot/pid/start)."""
    return process_id.split("/")[2].cast("int64")
