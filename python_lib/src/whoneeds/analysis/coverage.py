# SPDX-License-Identifier: GPL-3.0-or-later
"""What was looked at, and what was not seen: without it, "nothing found" could be read as "nothing there"."""

import ibis


def summarize_hosts(segment: ibis.Table) -> ibis.Table:
    """How each host was looked at.

    Parameters
    ----------
    segment : ibis.Table
        Rows of `SegmentHeader`.

    Returns
    -------
    ibis.Table
        One row a host: host, segments, samples, period_s (the longest), unprivileged (segments written without
        the right to look into other users' processes), dropped_segments (the most that one segment tells of),
        first_ns, last_ns.
    """
    return segment.group_by("host").agg(
        segments=segment.count(),
        samples=segment.samples.sum().cast("int64"),
        period_s=segment.period_s.max(),
        unprivileged=(~segment.privileged).sum().cast("int64"),
        dropped_segments=segment.dropped_segments.max(),
        first_ns=segment.opened_ns.min(),
        last_ns=segment.closed_ns.max(),
    )


def summarize_gaps(gap: ibis.Table) -> ibis.Table:
    """What could not be seen, once a host and kind.

    Parameters
    ----------
    gap : ibis.Table
        Rows of `Gap`.

    Returns
    -------
    ibis.Table
        host, source, reason, detail (one of them), times, lost (the sum of what is known).
    """
    return gap.group_by("host", "source", "reason").agg(detail=gap.detail.max(), times=gap.count(), lost=gap.lost.sum())


def count_unknown_ends(flow: ibis.Table, attribution: ibis.Table) -> ibis.Table:
    """How many conversations there are, and how many have an end that nobody could name.

    Parameters
    ----------
    flow : ibis.Table
        Rows of `FlowRecord`.
    attribution : ibis.Table
        Rows of `Attribution`.

    Returns
    -------
    ibis.Table
        One row: flows, unnamed_here (flows of which an end on a traced host has no application), undirected
        (flows of which nobody knows who began), unpaired (flows whose other end is one of several sockets, and nobody
        knows which), untraced_addresses (called addresses of no traced host).
    """
    traced = attribution.filter(attribution.host.notnull() & attribution.app.isnull())
    unnamed = traced.agg(unnamed_here=traced.flow_id.nunique())
    away = ibis.ifelse(flow.resp_host.isnull(), flow.resp_addr, ibis.null("string"))
    flows = flow.agg(
        flows=flow.count(),
        undirected=(flow.direction == "unknown").sum().fill_null(0).cast("int64"),
        unpaired=(flow.candidates > 0).sum().fill_null(0).cast("int64"),
        untraced_addresses=away.nunique(),
    )
    return flows.cross_join(unnamed)
