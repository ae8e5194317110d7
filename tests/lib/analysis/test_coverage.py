# SPDX-License-Identifier: GPL-3.0-or-later
"""Coverage: hosts, gaps and unknown ends are counted as they are."""

from dataclasses import replace

import duckdb
import ibis
import pytest

from whoneeds.analysis.coverage import count_ends, count_unknown_ends, summarize_gaps, summarize_hosts
from whoneeds.model.conclusions import Attribution
from whoneeds.model.evidence import FlowRecord, Gap, SegmentHeader, SocketRecord
from whoneeds.segment.layout import TABLES
from whoneeds.store.columns import arrow_schema, to_arrow

SECOND = 10**9
SEGMENT = SegmentHeader(
    "web1/boot/1", "web1", "boot", 1, 1, "0.1.0", 100, 100, 160, 160, 5.0, 12, ("table",), True, (), None, 0
)  # fmt: skip
FLOW = FlowRecord(
    "f1", "tcp", "10.0.0.1", 40000, "10.0.0.2", 80, "listener", "web1", "app1", "s1", "s2", 1, 2, 0.0, 1, 5.0,
    None, None, None, None, None, 0, None,
)  # fmt: skip


@pytest.fixture
def ask():
    """Run a summary on lists of records."""
    engine = duckdb.connect()

    def run(summary, **rows):
        tables = []
        for record in (Gap, FlowRecord, Attribution, SocketRecord, SegmentHeader):
            if record.__name__ in rows:
                held = rows[record.__name__]
                made = to_arrow(record, held, "s") if record in TABLES else to_arrow(record, held)
                engine.register(record.__name__, made)
                tables.append(ibis.table(ibis.Schema.from_pyarrow(arrow_schema(record)), name=record.__name__))
        return engine.sql(ibis.to_sql(summary(*tables), dialect="duckdb")).to_arrow_table().to_pylist()

    return run


def test_hosts(ask):
    """Segments of one host add up, the longest period and the earliest and latest time stand, losses do not add."""
    rows = ask(
        summarize_hosts,
        SegmentHeader=[
            SEGMENT,
            replace(SEGMENT, opened_ns=200, closed_ns=300, period_s=30.0, privileged=False, dropped_segments=2),
            replace(SEGMENT, opened_ns=300, closed_ns=400, samples=1, dropped_segments=3),
            replace(SEGMENT, host="db1"),
        ],
    )
    (web,) = (row for row in rows if row["host"] == "web1")
    assert web == {
        "host": "web1", "segments": 3, "samples": 25, "period_s": 30.0, "unprivileged": 1, "dropped_segments": 3,
        "first_ns": 100, "last_ns": 400,
    }  # fmt: skip
    assert len(rows) == 2


def test_gaps(ask):
    """Gaps of one kind on one host are one row, and what is lost is the sum of what is known."""
    gap = Gap("web1", "owners", "permission", "b", 1, 2, 3)
    rows = ask(
        summarize_gaps,
        Gap=[gap, replace(gap, detail="a", lost=None), replace(gap, lost=4), replace(gap, reason="late", lost=None)],
    )
    assert sorted((row["reason"], row["detail"], row["times"], row["lost"]) for row in rows if row["lost"]) == [
        ("permission", "b", 3, 7)
    ]
    assert [(row["times"], row["lost"]) for row in rows if row["reason"] == "late"] == [(1, None)]


def test_unknown_ends(ask):
    """A flow counts once however many of its ends on traced hosts have no name, and untraced ends do not count."""
    flows = [
        FLOW,
        replace(FLOW, flow_id="f2", resp_host=None, candidates=2),
        replace(FLOW, flow_id="f3", direction="unknown", translated="unresolved"),
    ]
    ends = [
        Attribution("f1", "orig", "web1", None, None, "none", 0),
        Attribution("f1", "resp", "app1", None, None, "none", 2),
        Attribution("f2", "orig", "web1", "p", "curl", "socket", 1),
        Attribution("f2", "resp", None, None, None, "none", 0),
        Attribution("f3", "orig", "web1", None, "nginx", "socket", 2),
        Attribution("f3", "resp", "app1", None, None, "none", 0),
    ]
    (row,) = ask(count_unknown_ends, FlowRecord=flows, Attribution=ends, SocketRecord=[], SegmentHeader=[])
    assert row == {
        "flows": 3, "undirected": 1, "unpaired": 1, "untraced_addresses": 1, "unnamed_here": 2, "ended_before": 0,
        "astray": 1,
    }  # fmt: skip
    (nothing,) = ask(count_unknown_ends, FlowRecord=[], Attribution=[], SocketRecord=[], SegmentHeader=[])
    assert set(nothing.values()) == {0}


def test_ends_of_each_host(ask):
    """Each end of a host is counted by what names it, or by whether anything could, and the counts add up."""
    flows = [FLOW, replace(FLOW, flow_id="f2", resp_host=None, candidates=2), replace(FLOW, flow_id="f3")]
    flows.append(replace(FLOW, flow_id="f4", resp_host="web1", candidates=3))
    ends = [
        Attribution("f1", "orig", "web1", "p", "curl", "socket", 1),
        Attribution("f1", "resp", "app1", "q", "nginx", "listener", 1),
        Attribution("f2", "orig", "web1", None, None, "none", 0),
        Attribution("f2", "resp", None, None, None, "none", 0),
        Attribution("f3", "orig", "web1", None, "nginx", "socket", 2),
        Attribution("f3", "resp", "app1", None, None, "listener", 1),
        Attribution("f4", "orig", "web1", "p", "curl", "socket", 1),
        Attribution("f4", "resp", "web1", None, None, "none", 0),
    ]
    rows = {row.pop("host"): row for row in ask(count_ends, FlowRecord=flows, Attribution=ends)}
    assert rows == {
        "web1": {"ends": 5, "by_socket": 2, "by_listener": 0, "ambiguous": 1, "unknown": 2, "unpaired": 2},
        "app1": {"ends": 2, "by_socket": 0, "by_listener": 1, "ambiguous": 1, "unknown": 0, "unpaired": 0},
    }


@pytest.mark.parametrize(
    ("change", "header", "before"),
    [
        ({}, {}, 1),
        ({"source": "table"}, {}, 0),
        ({"first_ns": 100 + 5 * SECOND}, {}, 0),
        ({}, {"segment_id": "s0", "opened_mono_ns": 50, "closed_mono_ns": 100}, 0),
    ],
)
def test_what_ended_before_tracing_began_is_told_apart(ask, change, header, before):
    """A tuple left of a connection counts as ended before only in the first sample of a tracer's first segment."""
    socket = SocketRecord(
        "s1", "web1", "1", "tcp", "10.0.0.1", 40000, "10.0.0.2", 80, "time_wait", 0, None, None, 0, None, None, 101,
        101, 1, "tuple_only", None, None,
    )  # fmt: skip
    segments = [replace(SEGMENT, segment_id="s"), *([replace(SEGMENT, **header)] if header else [])]
    (row,) = ask(
        count_unknown_ends,
        FlowRecord=[replace(FLOW, resp_socket_id=None)],
        Attribution=[Attribution("f1", "orig", "web1", None, None, "none", 0)],
        SocketRecord=[replace(socket, **change)],
        SegmentHeader=segments,
    )
    assert (row["ended_before"], row["unnamed_here"]) == (before, 1 - before)
