# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of all traffic each application, or each user, is responsible for (Macroscope, section 4.1).

An application is responsible for what went over connections that it began, both ways. *All* traffic is that of every
connection that was seen: those whose application or user is not known, and those of which nobody knows who began,
stand together in a row without a name, so that shares never leave anything out.
"""

import ibis

from whoneeds.analysis.attempts import INSTANCE, measure_failures, tell_share
from whoneeds.analysis.usage import NOT_KNOWN

_SUMS = ("connections", "uncounted", "orig_bytes", "resp_bytes")


def measure_traffic(attempts: ibis.Table, flow: ibis.Table, *, by_user: bool = False) -> ibis.Table:
    """Measure each application's share of all traffic.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`.
    flow : ibis.Table
        Rows of `FlowRecord`: all that was seen in the same period and at the same location; the attempts are among
        them.
    by_user : bool, default False
        One row an application and user.

    Returns
    -------
    ibis.Table
        app (null: not known), user (by user; null: not known), instances, connections, connections_share, uncounted
        (without bytes), orig_bytes, orig_share, resp_bytes, resp_share, rejected, unanswered, failed_share.
    """
    rows = attempts.mutate(user_key=attempts.user.fill_null(NOT_KNOWN))
    key = ("app", "user_key") if by_user else ("app",)
    named = rows.group_by(*key).agg(**_sum(rows), **measure_failures(rows))
    instances = rows.select(*dict.fromkeys((*key, *INSTANCE))).distinct()
    counted = instances.group_by(*key).agg(instances=instances.count())
    named = named.join(counted, list(key)).select(
        *key, "instances", *_SUMS, "rejected", "unanswered", failed_share=tell_share(named.told_failed, named.told)
    )
    rest = flow.anti_join(attempts.select("flow_id"), "flow_id")
    nameless = rest.agg(**_sum(rest))
    nameless = nameless.filter(nameless.connections > 0).select(
        **{name: ibis.null("string") for name in key},
        instances=ibis.null("int64"), **{name: nameless[name] for name in _SUMS},
        rejected=ibis.null("int64"), unanswered=ibis.null("int64"), failed_share=ibis.null("float64"),
    )  # fmt: skip
    made = named.union(nameless).cross_join(flow.agg(**{f"all_{name}": value for name, value in _sum(flow).items()}))
    user = {"user": made.user_key.nullif(NOT_KNOWN)} if by_user else {}
    return made.select(
        "app", **user, instances="instances",
        connections="connections", connections_share=tell_share(made.connections, made.all_connections),
        uncounted="uncounted",
        orig_bytes="orig_bytes", orig_share=tell_share(made.orig_bytes, made.all_orig_bytes),
        resp_bytes="resp_bytes", resp_share=tell_share(made.resp_bytes, made.all_resp_bytes),
        rejected="rejected", unanswered="unanswered", failed_share="failed_share",
    )  # fmt: skip


def _sum(rows: ibis.Table) -> dict[str, ibis.Value]:
    return {
        "connections": rows.count(),
        "uncounted": (rows.orig_bytes.isnull() | rows.resp_bytes.isnull()).cast("int64").sum().cast("int64"),
        "orig_bytes": rows.orig_bytes.sum().cast("int64"),
        "resp_bytes": rows.resp_bytes.sum().cast("int64"),
    }
