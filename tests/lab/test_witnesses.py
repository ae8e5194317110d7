# SPDX-License-Identifier: GPL-3.0-or-later
"""The two witnesses: the reader of ``ss`` and the counter of connections on the wire, and what is held against them."""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .audit import audit, begun_within, confront, excused_wrongly
from .fleet import FLEET
from .truth import truth_document
from .wire import Wire, read_frame
from .witness import Seen, matches, read_sockets

FIXTURES = Path(__file__).parent / "fixtures"
SYN, ACK, FIN, RST = 2, 16, 1, 4


def frame(protocol: str, source: tuple[str, int], destination: tuple[str, int], flags: int = 0) -> bytes:
    """An Ethernet frame, made by hand."""
    transport = struct.pack("!HH", source[1], destination[1])
    transport += struct.pack("!LLBBH", 0, 0, 5 << 4, flags, 0) if protocol == "tcp" else b"\0\0\0\0"
    number = {"tcp": 6, "udp": 17}[protocol]
    if ":" in source[0]:
        ends = socket.inet_pton(socket.AF_INET6, source[0]) + socket.inet_pton(socket.AF_INET6, destination[0])
        return bytes(12) + b"\x86\xdd" + struct.pack("!LHBB", 6 << 28, len(transport), number, 64) + ends + transport
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 0, 0, 64, number, 0)
    return bytes(12) + b"\x08\x00" + head + ends + transport


def test_ss_output_gives_the_connections_that_the_host_began():
    """Listeners' own connections, waiting ends and unconnected sockets are left out; names, pids and hosts are read."""
    assert read_sockets(FLEET, "web1", (FIXTURES / "ss-web1.txt").read_text()) == [
        Seen("web1", "peerd", 65, "web2", "tcp", 54866),
        Seen("web1", "nginx", 58, "app1", "tcp", 8080),
        Seen("web1", "stranger", 99, None, "tcp", 443),
        Seen("web1", "nginx", 57, "dns1", "udp", 53),
        Seen("web1", "peerd", 65, "v6a", "tcp", 7400),
    ]


def test_seen_connections_match_the_dependencies_that_explain_them():
    """Nginx to the application server and a peer's random port are declared; the stranger is not."""
    edges = FLEET.edges()
    explained = {
        seen.app: any(matches(edge, seen) for edge in edges)
        for seen in (
            Seen("web1", "nginx", 58, "app1", "tcp", 8080),
            Seen("web1", "peerd", 65, "web2", "tcp", 54866),
            Seen("web1", "stranger", 99, None, "tcp", 443),
        )
    }
    assert explained == {"nginx": True, "peerd": True, "stranger": False}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
def test_any_text_in_place_of_ss_output_is_survived(text: str):
    """Output of any shape gives rows or none, never an error."""
    assert all(isinstance(row, Seen) for row in read_sockets(FLEET, "web1", text))


def test_a_connection_on_the_wire_is_counted_once_with_its_duration():
    """From SYN to the first FIN, repeated SYNs counted once, in both families."""
    for a, b in (("10.77.0.12", "10.77.0.14"), ("fd77:1ab::20", "fd77:1ab::21")):
        wire = Wire()
        for at_s, sent in (
            (1.0, frame("tcp", (a, 40000), (b, 8080), SYN)),
            (1.5, frame("tcp", (a, 40000), (b, 8080), SYN)),
            (1.5, frame("tcp", (b, 8080), (a, 40000), SYN | ACK)),
            (4.0, frame("tcp", (b, 8080), (a, 40000), FIN | ACK)),
            (4.1, frame("tcp", (a, 40000), (b, 8080), RST)),
        ):
            wire.take(sent, at_s)
        assert wire.rows() == [
            {
                "orig_addr": a,
                "resp_addr": b,
                "protocol": "tcp",
                "resp_port": 8080,
                "begun": 1,
                "ended": 1,
                "mean_duration_s": 3.0,
            }
        ]


def test_a_question_and_its_answer_are_one_connection():
    """UDP both ways counts for the side that sent first."""
    wire = Wire()
    wire.take(frame("udp", ("10.77.0.14", 5555), ("10.77.0.10", 53)), 0.0)
    wire.take(frame("udp", ("10.77.0.10", 53), ("10.77.0.14", 5555)), 0.1)
    rows = wire.rows()
    assert [(row["orig_addr"], row["resp_port"], row["begun"]) for row in rows] == [("10.77.0.14", 53, 1)]


def test_a_connection_in_the_middle_of_its_life_has_no_known_beginning_and_what_follows_an_end_begins_nothing():
    """Data without a SYN opens a row without ``opened_s``; acknowledgements after a FIN open none."""
    a, b = ("10.77.0.12", 40000), ("10.77.0.14", 8080)
    wire = Wire()
    wire.take(frame("tcp", b, a, ACK), 1.0)
    wire.take(frame("tcp", a, b, ACK), 2.0)
    wire.take(frame("tcp", a, b, FIN | ACK), 3.0)
    wire.take(frame("tcp", b, a, ACK), 3.1)
    wire.take(frame("tcp", b, a, FIN | ACK), 3.2)
    lives = [(row["orig_addr"], row["opened_s"], row["last_s"], row["closed_s"]) for row in wire.connections()]
    assert lives == [("10.77.0.14", None, 3.0, 3.0)]
    assert wire.rows() == []
    wire.take(frame("tcp", a, b, SYN), 9.0)
    assert [row["opened_s"] for row in wire.connections()] == [None, 9.0]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=80))
def test_any_frame_is_survived(noise: bytes):
    """Frames of any content are read or passed over, never an error."""
    wire = Wire()
    for head in (b"", bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd"):
        wire.take(head + noise, 0.0)
        read_frame(head + noise)


def test_the_audit_names_what_nobody_declared():
    """Declared services and random ports of peers pass, the controller's ssh passes, all else is named."""

    def row(orig: str, resp: str, port: int, protocol: str = "tcp") -> dict[str, object]:
        return {
            "orig_addr": orig,
            "resp_addr": resp,
            "protocol": protocol,
            "resp_port": port,
            "begun": 4,
            "ended": 0,
            "mean_duration_s": None,
        }

    good = [
        row("10.77.0.12", "10.77.0.14", 8080),
        row("10.77.0.12", "10.77.0.13", 40000),
        row("10.77.0.1", "10.77.0.12", 22),
    ]
    bad = [
        row("10.77.0.12", "10.77.0.14", 8081),
        row("10.77.0.12", "10.77.0.14", 40000),
        row("10.77.0.12", "192.0.2.1", 443),
        row("10.77.0.12", "10.77.0.13", 40000, "udp"),
        row("10.77.0.1", "10.77.0.12", 80),
    ]
    found = audit(FLEET, [*good, *bad], seconds=120)
    assert found["undeclared"] == bad
    assert [(row["declared_per_minute"], row["seen_per_minute"]) for row in found["measured"]] == [(2.0, 2.0)]


def test_the_audit_names_services_begun_too_rarely_or_too_often():
    """A declared service of which no connection, or ten times as many, begins is named with what is allowed."""
    seconds = 600.0
    bounds = begun_within(FLEET, seconds)
    addresses = {host.name: host.address for host in FLEET.hosts}
    rows = [
        {
            "orig_addr": addresses[orig], "resp_addr": addresses[resp], "protocol": protocol, "resp_port": port,
            "begun": (low + high) // 2, "ended": 0, "mean_duration_s": None,
        }
        for (orig, resp, protocol, port), (low, high) in bounds.items()
    ]  # fmt: skip
    assert all(low > 0 for low, _ in bounds.values())
    # A scrape begins anew every 120 s; of two connections that one client opens as it needs, only one is sure.
    assert bounds["mon1", "app1", "tcp", 9100] == (4.0, 7.0)
    assert bounds["lb1", "web1", "tcp", 80] == (8.0, 28.0)
    assert audit(FLEET, rows, seconds)["off_rate"] == []
    rows[0]["begun"] *= 10
    assert len(audit(FLEET, rows[:-1], seconds)["off_rate"]) == 2


def life(orig: str, orig_port: int, resp: str, resp_port: int, opened: float | None, closed: float) -> dict[str, Any]:
    """A connection as the wire tells it."""
    return {
        "protocol": "tcp", "orig_addr": orig, "orig_port": orig_port, "resp_addr": resp, "resp_port": resp_port,
        "opened_s": opened, "last_s": closed, "closed_s": closed,
    }  # fmt: skip


def claim(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same connection as a tool lists it."""
    kept = {key: value for key, value in row.items() if not key.endswith("_s")}
    return {**kept, "direction": "listener", "end": None, "orig_app": "nginx", "last_ns": 10**12, **changes}


WEB1, APP1, DB1 = "10.77.0.12", "10.77.0.14", "10.77.0.15"
LASTING = life(WEB1, 40000, APP1, 8080, 100.0, 130.0)
BRIEF = life(WEB1, 40001, APP1, 8080, 110.0, 111.0)
OLD = life(APP1, 40002, DB1, 5432, None, 190.0)
WIRE = {"began_ns": 0, "frames_lost": 0, "connections": [LASTING, BRIEF, OLD]}


@pytest.mark.parametrize(
    ("found", "overlooked", "invented", "turned"),
    [
        ([claim(LASTING), claim(OLD)], 0, 0, 0),
        ([claim(LASTING)], 1, 0, 0),
        ([claim(OLD)], 1, 0, 0),
        ([claim(LASTING), claim(OLD), claim(BRIEF, orig_port=50000)], 0, 1, 0),
        ([claim(LASTING), claim(OLD), claim(BRIEF, protocol="udp")], 0, 1, 0),
        ([claim(life(APP1, 8080, WEB1, 40000, 0, 0)), claim(OLD)], 0, 0, 1),
        ([claim(life(APP1, 8080, WEB1, 40000, 0, 0), direction="unknown"), claim(OLD)], 0, 0, 0),
    ],
)
def test_connections_of_a_tool_are_held_against_the_wire(
    found: list[dict[str, Any]], overlooked: int, invented: int, turned: int
):
    """What lasted and is not listed, what is listed and was not carried, and what was begun by the other end."""
    heard = confront(FLEET, WIRE, found, 100.0, 200.0, 15.0)
    assert (heard["on_wire"], heard["lasting"]) == (3, 2)
    assert [len(heard[key]) for key in ("overlooked", "invented", "reversed")] == [overlooked, invented, turned]


def test_only_a_remembered_connection_that_had_ended_before_is_excused():
    """A closed one without owner may have been carried before the wire was watched; open, owned or later it may not."""
    ghost = claim(BRIEF, orig_port=50000, end="fin", orig_app=None, last_ns=70 * 10**9)
    others = [{**ghost, "end": None}, {**ghost, "orig_app": "nginx"}, {**ghost, "last_ns": 80 * 10**9}]
    assert confront(FLEET, WIRE, [ghost], 100.0, 200.0, 15.0)["earlier"] == 1
    for other in others:
        assert len(confront(FLEET, WIRE, [other], 100.0, 200.0, 15.0)["invented"]) == 1


def test_the_truth_must_not_excuse_what_the_wire_carried_for_long():
    """A service that is declared as too short, yet open in many samples' time, is named; a short one is not."""
    truth = truth_document(FLEET, 300, 5)
    lookup = {**life(WEB1, 40000, "10.77.0.10", 53, 100.0, 101.0), "protocol": "udp"}
    assert excused_wrongly(truth, {"connections": [lookup]}, 0.0, 300.0) == []
    several = [{**lookup, "orig_port": port, "last_s": 140.0, "closed_s": 140.0} for port in (1, 2)]
    (found,) = excused_wrongly(truth, {"connections": several}, 0.0, 300.0)
    assert (found["orig_host"], found["resp_port"], found["samples_by_the_wire"]) == ("web1", 53, 8.0)
    assert excused_wrongly(truth, {"connections": several}, 200.0, 300.0) == []
    assert excused_wrongly(truth, {"connections": [{**LASTING, "closed_s": 300.0}]}, 0.0, 300.0) == []
