# SPDX-License-Identifier: GPL-3.0-or-later
"""Traces for the methods that watch packets: written by hand, and drawn at random."""

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from whoneeds.analysis.trace import FlowTrace

MS = 10**6
S = 10**9
#: (first_ns, last_ns, orig, resp, service)
Flow = tuple[int, int, int, int, int]


def trace_of(flows: Iterable[Flow], services: int = 6) -> FlowTrace:
    """A trace of these flows."""
    rows = np.array(sorted(flows, key=lambda flow: flow[0]), dtype=np.int64).reshape(-1, 5)
    names = tuple(("tcp", 1000 + number) for number in range(services))
    return FlowTrace(*(np.ascontiguousarray(rows[:, column]) for column in range(5)), services=names)


@st.composite
def small_traces(draw: st.DrawFn) -> FlowTrace:
    """Few hosts and services at near instants, many of them equal."""
    flow = st.tuples(
        st.integers(0, 400).map(lambda tick: tick * 5 * MS),
        st.integers(0, 60).map(lambda tick: tick * 20 * MS),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 4),
    )
    flows = draw(st.lists(flow, max_size=60))
    return trace_of((first, first + length, orig, resp, service) for first, length, orig, resp, service in flows)
