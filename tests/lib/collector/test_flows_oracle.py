# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows and attribution against a second implementation, on fleets that nobody thought of."""

from typing import Any

from fleet import Host
from flow_oracle import expected_attribution, expected_flows
from hypothesis import given, settings
from hypothesis import strategies as st
from line import run_line

#: Few values, so that sockets meet: an address that two hosts have, loopback, both families, ports of both kinds.
ADDRESSES = ("10.0.0.1", "10.0.0.2", "172.17.0.1", "127.0.0.1", "::1", "fd00::1")
WILD = ("0.0.0.0", "::")
PORTS = (80, 443, 8080, 40000)
STATES = ("established", "syn_sent", "time_wait", "close_wait", "syn_recv")
NAMES = ("nginx", "app", "systemd")
LENGTH_S = 60


@st.composite
def fleets(draw: st.DrawFn) -> list[Host]:
    """One to three hosts with one or two segments each, and sockets that are about very few conversations."""
    ends = st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(PORTS))
    talks = draw(st.lists(st.tuples(ends, ends), min_size=1, max_size=2))
    hosts = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        own = tuple(sorted(draw(st.sets(st.sampled_from(ADDRESSES), max_size=3))))
        place = draw(st.sampled_from((None, "inside", "vpn")))
        host = Host(name, own, location=place, period_s=draw(st.sampled_from((1.0, 5.0))))
        for number in range(draw(st.integers(1, 2))):
            begin = number * (LENGTH_S + 2)
            addresses = own if draw(st.booleans()) else own[:1]
            host.segment(begin, begin + LENGTH_S, addresses=addresses)
            running = [
                host.process(draw(st.sampled_from(NAMES)), pid) for pid in draw(st.sets(st.integers(1, 3), max_size=3))
            ]
            _add_sockets(draw, host, begin, running, talks)
        hosts.append(host)
    return hosts


def _add_sockets(draw: st.DrawFn, host: Host, begin: int, running: list[str], talks: list[Any]) -> None:
    used: set[Any] = set()
    bound = host.bound
    for _ in range(draw(st.integers(0, 6))):
        first = begin + draw(st.integers(0, LENGTH_S))
        span = (first, draw(st.integers(first, begin + LENGTH_S)))
        by = tuple(draw(st.sets(st.sampled_from(running), max_size=2))) if running else ()
        protocol = draw(st.sampled_from(("tcp", "tcp", "tcp", "udp")))
        # a cookie that comes back is the same socket in another segment, or one that found another peer
        cookie = draw(st.integers(1, 6)) + 100 * (protocol == "udp")
        netns = draw(st.sampled_from(("4026531840", "4026531840", "4026532000")))
        owners = draw(st.sampled_from((None, len(by), len(by) + 1)))
        local, remote = draw(st.permutations(draw(st.sampled_from(talks))))
        local = bound.setdefault((cookie, netns), local)  # a socket keeps its own end
        if draw(st.integers(0, 3)) == 0:
            remote = None
            cookie += 50
            local = bound.setdefault((cookie, netns), (draw(st.sampled_from((local[0], *WILD))), local[1]))
        elif draw(st.integers(0, 15)) == 0:
            remote = (remote[0], 0)
        if (cookie, netns, protocol, local, remote) in used:
            continue
        used.add((cookie, netns, protocol, local, remote))
        state = None if remote is None or protocol == "udp" else draw(st.sampled_from(STATES))
        counted = st.one_of(st.none(), st.integers(0, 9))
        host.socket(
            local, remote, span, by, protocol=protocol, cookie=cookie, netns=netns, state=state, owners=owners,
            sent=draw(counted), received=draw(counted), source=draw(st.sampled_from(("table", "tuple_only", "event"))),
            initiated=draw(st.sampled_from((None, None, True, False))),
            end=draw(st.sampled_from((None, None, "fin", "rst", "rejected", "unanswered"))),
        )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(fleets())
def test_flows_and_attribution_are_those_of_the_oracle(hosts: list[Host]) -> None:
    """Whatever sockets a fleet has, flows and attribution are those that plain loops over the records find."""
    made = run_line(hosts)
    flows = expected_flows(hosts)

    keys = {
        flow["flow_id"]: {name: flow[name] for name in flow if name not in ("flow_id", "period_s")}
        for flow in made["flow"]
    }
    assert len(keys) == len(made["flow"])
    assert sorted(map(repr, (_sorted(row) for row in keys.values()))) == sorted(
        repr(_sorted(flow.values)) for flow in flows
    )

    found = [
        (
            _sorted(keys[row["flow_id"]]),
            row["side"],
            _sorted({k: v for k, v in row.items() if k not in ("flow_id", "side")}),
        )
        for row in made["attribution"]
    ]
    wanted = [
        (_sorted(flow.values), side, _sorted(expected_attribution(flow, side, hosts)))
        for flow in flows
        for side in ("orig", "resp")
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))


def _sorted(row: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(row.items())
