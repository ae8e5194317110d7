# SPDX-License-Identifier: GPL-3.0-or-later
"""The two witnesses: the reader of ``ss`` and the counter of connections on the wire, and the audit of both."""

import socket
import struct
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .audit import audit
from .fleet import FLEET
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
