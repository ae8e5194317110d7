# SPDX-License-Identifier: GPL-3.0-or-later
"""What was looked at, and what was not seen: without it, "nothing found" could be read as "nothing there"."""

import ibis

from whoneeds.store.portable import as_whole


def summarize_hosts(segment: ibis.Table) -> ibis.Table:
    """How each host was looked at.

    Parameters
    ----------
    segment : ibis.Table
        Rows of `SegmentHeader`. Those of who watched a network are of no host, and left out.

    Returns
    -------
    ibis.Table
        One row a host: host, segments, samples, period_s (the longest), unprivileged (segments written without
        the right to look into other users' processes), dropped_segments (the most that one segment tells of),
        first_ns, last_ns.
    """
    segment = segment.filter(~segment.sources.contains("wire"))
    return segment.group_by("host").agg(
        segments=segment.count(),
        samples=segment.samples.sum().cast("int64"),
        period_s=segment.period_s.max(),
        unprivileged=(~segment.privileged).sum().cast("int64"),
        dropped_segments=segment.dropped_segments.max(),
        first_ns=segment.opened_ns.min(),
        last_ns=segment.closed_ns.max(),
    )


def count_ends(flow: ibis.Table, attribution: ibis.Table) -> ibis.Table:
    """For each host, what the ends of its conversations were named by, and how often it could not be told.

    Parameters
    ----------
    flow, attribution : ibis.Table
        Rows of `FlowRecord` and `Attribution`.

    Returns
    -------
    ibis.Table
        One row for each host with an end: host, ends, by_socket, by_listener, ambiguous, unknown (these four add up
        to ends), unpaired; as in `HostCoverage`.
    """
    ends = attribution.filter(attribution.host.notnull())
    named = ends.process_id.notnull()
    counts = {
        "by_socket": named & (ends.rule == "socket"),
        "by_listener": named & (ends.rule == "listener"),
        "ambiguous": ~named & (ends.candidates > 0),
        "unknown": ~named & (ends.candidates == 0),
    }
    known = ends.group_by("host").agg(
        ends=ends.count(), **{name: which.sum().fill_null(0).cast("int64") for name, which in counts.items()}
    )
    lost = flow.filter(flow.candidates > 0)
    sides = lost.select("flow_id", at_host="orig_host").union(lost.select("flow_id", at_host="resp_host"))
    sides = sides.filter(sides.at_host.notnull()).distinct()
    sides = sides.group_by("at_host").agg(unpaired=sides.count())
    rows = known.left_join(sides, known.host == sides.at_host)
    return rows.select(*known.columns, unpaired=rows.unpaired.fill_null(0))


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


def find_ended_before(socket: ibis.Table, segment: ibis.Table) -> ibis.Table:
    """Sockets that were closed when their tracer began: the kernel still knew their tuple, and nobody their process.

    Parameters
    ----------
    socket : ibis.Table
        Rows of `SocketRecord`, with ``segment_id``.
    segment : ibis.Table
        Rows of `SegmentHeader`.

    Returns
    -------
    ibis.Table
        socket_id.
    """
    # a tracer that goes on opens each segment at the instant at which it closed the one before
    ends = segment.select("host", "boot_id", at="closed_mono_ns").view()
    begins = segment.anti_join(
        ends, [segment.host == ends.host, segment.boot_id == ends.boot_id, segment.opened_mono_ns == ends["at"]]
    )
    first_sample = as_whole(begins.period_s * 5e8) + begins.opened_ns
    begins = begins.select("segment_id", until_ns=first_sample)
    rows = socket.left_join(begins, "segment_id")
    left = (rows.source == "tuple_only") & (rows.first_ns < rows.until_ns).fill_null(False)
    sockets = rows.group_by("socket_id").agg(ever=left.max(), only=(rows.source == "tuple_only").min())
    return sockets.filter(sockets.ever & sockets.only).select("socket_id")


def count_unknown_ends(
    flow: ibis.Table, attribution: ibis.Table, socket: ibis.Table, segment: ibis.Table
) -> ibis.Table:
    """How many conversations there are, and how many have an end that nobody could name.

    Parameters
    ----------
    flow : ibis.Table
        Rows of `FlowRecord`.
    attribution : ibis.Table
        Rows of `Attribution`.
    socket, segment : ibis.Table
        Rows of `SocketRecord` (with ``segment_id``) and `SegmentHeader`.

    Returns
    -------
    ibis.Table
        One row: flows, unnamed_here (flows of which an end on a traced host has no application), ended_before (further
        such flows that had ended when tracing began), undirected (flows of which nobody knows who began), unpaired
        (flows whose other end is one of several sockets, and nobody knows which), astray (flows that were translated
        on the way, and nobody knows where they went), untraced_addresses (called addresses of no traced host).
    """
    traced = attribution.filter(attribution.host.notnull() & attribution.app.isnull()).select("flow_id").distinct()
    old = find_ended_before(socket, segment)
    ends = flow.select("flow_id", end="orig_socket_id").union(flow.select("flow_id", end="resp_socket_id"))
    # seen while it was open, from either end, is seen
    seen = ends.filter(ends.end.notnull()).anti_join(old, ends.end == old.socket_id).select("flow_id").distinct()
    traced = traced.left_join(seen, "flow_id")
    unnamed = traced.agg(
        unnamed_here=traced.flow_id_right.notnull().sum().fill_null(0).cast("int64"),
        ended_before=traced.flow_id_right.isnull().sum().fill_null(0).cast("int64"),
    )
    away = ibis.ifelse(flow.resp_host.isnull(), flow.resp_addr, ibis.null("string"))
    flows = flow.agg(
        flows=flow.count(),
        undirected=(flow.direction == "unknown").sum().fill_null(0).cast("int64"),
        unpaired=(flow.candidates > 0).sum().fill_null(0).cast("int64"),
        astray=(flow.translated == "unresolved").sum().fill_null(0).cast("int64"),
        untraced_addresses=away.nunique(),
    )
    return flows.cross_join(unnamed)
