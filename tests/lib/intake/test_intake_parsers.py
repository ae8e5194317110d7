# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsers of other tools' logs: files written by hand in their formats, and lines that nobody should write."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.intake.hosts import HostRows
from whoneeds.intake.lines import read_lines
from whoneeds.intake.netflow import NetflowParser
from whoneeds.intake.rows import HostConnection, Label, SeenName
from whoneeds.intake.suricata import SuricataParser
from whoneeds.intake.values import BadLine, as_duration_ns, as_instant_ns
from whoneeds.intake.windows import WindowsParser
from whoneeds.intake.zeek import ZeekParser
from whoneeds.model.errors import InvalidRecord
from whoneeds.model.evidence import WireFlow
from whoneeds.model.schema import check_value, columns

FIXTURES = Path(__file__).parent / "fixtures"
DAY_NS = 1_704_067_200 * 10**9
MILLI = 10**6
PARSERS = {
    "zeek": lambda: ZeekParser(Label("mon1", "ab")),
    "suricata": lambda: SuricataParser(Label("mon1", "ab")),
    "netflow": lambda: NetflowParser(Label("mon1", "ab")),
    "windows": WindowsParser,
}


def parse(kind, name):
    """All rows of a file, and its parser."""
    parser = PARSERS[kind]()
    with (FIXTURES / name).open("rb") as file:
        rows = [row for _number, line in read_lines(file) for row in parser.read(line)]
    return rows + list(parser.finish()), parser


def ends(flow):
    """The tuple of a flow."""
    return flow.protocol, flow.orig_addr, flow.orig_port, flow.resp_addr, flow.resp_port


def test_zeek_with_tabs():
    """Each line of conn.log becomes a flow with Zeek's roles, times to the microsecond, counts, and how it ended."""
    rows, _ = parse("zeek", "conn.log")
    assert ends(rows[0]) == ("tcp", "10.0.0.1", 40001, "10.0.0.2", 8080)
    assert (rows[0].first_ns - DAY_NS, rows[0].last_ns - DAY_NS) == (1500 * MILLI, 1750 * MILLI)
    assert (rows[0].orig_bytes, rows[0].resp_bytes, rows[0].orig_packets, rows[0].resp_packets) == (1000, 20000, 12, 18)
    assert (rows[0].orig_ip_bytes, rows[0].resp_ip_bytes, rows[0].missed_bytes) == (1624, 20936, 0)
    assert [row.end for row in rows] == ["fin", "idle", "unanswered", "rejected", "rst", "idle"]
    assert [row.handshake for row in rows] == ["full", "none", "orig", "orig", "resp", "none"]
    assert [row.closed_by for row in rows] == ["both", "none", "none", "resp", "resp", "none"]
    assert (rows[2].orig_bytes, rows[4].resp_bytes, rows[4].missed_bytes) == (None, None, 7)
    assert rows[1].first_ns - DAY_NS == 2_000_001_000
    assert {row.tunnel for row in rows} == {None}
    assert {(row.source, row.host, row.direction) for row in rows} == {("zeek", "mon1", "told")}
    assert len({row.flow_id for row in rows}) == 6


def test_zeek_as_json_says_the_same():
    """JSON lines give the rows that tabs give, whether times are numbers or ISO 8601."""
    assert parse("zeek", "conn.json")[0] == parse("zeek", "conn.log")[0][:2]


def test_zeek_answers_are_names():
    """Addresses in an answer stand for the name that was asked for; aliases and refusals give no row."""
    assert parse("zeek", "dns.log")[0] == [SeenName("app1.example.org", "10.0.0.2", "dns", DAY_NS + 2_000_001_000)]


def test_zeek_with_other_separators():
    """The file's own header says what separates, what is unset and what is empty."""
    parser = PARSERS["zeek"]()
    head = ["#separator |", "#set_separator|;", "#empty_field|E", "#unset_field|N", "#fields|ts|query|answers"]
    for line in head:
        assert list(parser.read(line.encode())) == []
    rows = list(parser.read(b"1704067200.0|a\\x2eb|10.0.0.1;x;2001:DB8::1"))
    assert [(row.name, row.address) for row in rows] == [("a.b", "10.0.0.1"), ("a.b", "2001:db8::1")]
    assert list(parser.read(b"1704067200.0|a.b|N")) == []
    with pytest.raises(BadLine, match="expected 3 fields"):
        parser.read(b"1704067200.0|a.b")


def test_suricata():
    """Flows end as the flags of both sides say; answers and TLS hellos give names; the rest is passed over."""
    rows, parser = parse("suricata", "eve.json")
    flows = [row for row in rows if isinstance(row, WireFlow)]
    assert ends(flows[0]) == ("tcp", "10.0.0.1", 40001, "10.0.0.2", 8080)
    assert (flows[0].first_ns - DAY_NS, flows[0].last_ns - DAY_NS) == (1500 * MILLI, 1750 * MILLI)
    assert [(flow.end, flow.handshake, flow.closed_by) for flow in flows] == [
        ("fin", "full", "both"), ("unanswered", "orig", "none"), ("rejected", "orig", "resp")
    ]  # fmt: skip
    assert (flows[0].orig_packets, flows[0].resp_packets, flows[0].orig_bytes) == (12, 18, None)
    assert (flows[0].vlan, flows[0].inner_vlan, flows[0].community_id) == (7, 8, "1:abc=")
    names = [(row.name, row.address, row.source) for row in rows if isinstance(row, SeenName)]
    assert names == [("app1.example.org", "10.0.0.2", "dns"), ("shop.example.org", "10.0.0.4", "sni")]
    assert parser.recognised == 6


def test_netflow_puts_both_directions_together():
    """Two rows of one conversation become one flow, turned to the lower port, each direction counted once."""
    old, _ = parse("netflow", "nfdump-old.csv")
    assert ends(old[0]) == ("tcp", "10.0.0.1", 40001, "10.0.0.2", 443)
    assert (old[0].orig_packets, old[0].resp_packets, old[0].orig_ip_bytes, old[0].resp_ip_bytes) == (
        12,
        18,
        1624,
        20936,
    )
    assert (old[0].end, old[0].direction, old[0].orig_bytes, old[0].handshake) == ("fin", "port", None, "none")
    assert [row.protocol for row in old] == ["tcp", "icmp"]
    new, _ = parse("netflow", "nfdump-new.csv")
    assert [ends(row) for row in new] == [
        ("tcp", "10.0.0.1", 40001, "10.0.0.2", 8080), ("udp", "10.0.0.1", 50000, "10.0.0.53", 53)
    ]  # fmt: skip
    assert [(row.orig_packets, row.resp_packets, row.direction) for row in new] == [
        (12, 18, "first"),
        (1, None, "port"),
    ]
    assert new[0].last_ns - DAY_NS == 1750 * MILLI


def test_netflow_rows_far_apart_stay_apart():
    """A row of the other direction an hour later is of another conversation."""
    parser = PARSERS["netflow"]()
    parser.read(b"ts,td,pr,sa,sp,da,dp,ipkt,ibyt")
    lines = [
        b"2024-01-01 00:00:00,1.0,6,10.0.0.1,9000,10.0.0.2,80,1,60",
        b"2024-01-01 01:00:00,1.0,6,10.0.0.2,80,10.0.0.1,9000,2,90",
    ]
    rows = [row for line in lines for row in parser.read(line)] + list(parser.finish())
    assert [(row.orig_packets, row.resp_packets) for row in rows] == [(1, None), (None, 2)]
    assert {ends(row) for row in rows} == {("tcp", "10.0.0.1", 9000, "10.0.0.2", 80)}


def test_windows():
    """Both kinds of events in every layout give connections with the same roles; other events are passed over."""
    rows, parser = parse("windows", "sysmon.json")
    assert {type(row) for row in rows} == {HostConnection}
    told = sorted((row.host, row.name, row.pid, row.initiated, row.orig_port, row.resp_port) for row in rows)
    assert told == [
        ("desk1", "till.exe", 4321, True, 50123, 8080), ("desk2", "stock.exe", 888, False, 50123, 8080),
        ("desk2", "stock.exe", 888, True, 50200, 1433), ("desk3", "server.exe", 1200, False, 50200, 1433),
    ]  # fmt: skip
    assert [row.user for row in rows if row.host == "desk1"] == ["SHOP\\anna"]
    assert (parser.recognised, parser.untold) == (5, 0)
    assert [row.at_ns - DAY_NS for row in rows if row.initiated] == [1500 * MILLI, 3250 * MILLI]


@pytest.mark.parametrize("turned", [False, True])
def test_windows_called_end_is_the_hosts_own(turned):
    """Where the host was called, its own address tells which end is its own, whichever the log calls the source."""
    parser = WindowsParser()
    own = {"SourceIp": "10.0.0.5", "SourcePort": 40000, "DestinationIp": "10.0.0.9", "DestinationPort": 443}
    far, near = ("10.0.0.7", 51000), ("10.0.0.5", 3389)
    source, target = (near, far) if turned else (far, near)
    called = {"SourceIp": source[0], "SourcePort": source[1], "DestinationIp": target[0], "DestinationPort": target[1]}
    common = {"EventID": 3, "Computer": "a", "UtcTime": "2024-01-01 00:00:00", "ProcessId": 4, "Protocol": "tcp"}
    events = [{**common, **called, "Initiated": "false"}, {**common, **own, "Initiated": "true"}]
    rows = [row for event in events for row in parser.read(json.dumps(event).encode())] + list(parser.finish())
    assert (rows[1].orig_addr, rows[1].orig_port, rows[1].resp_addr, rows[1].resp_port) == (*far, *near)
    assert (rows[1].initiated, parser.untold) == (False, 0)


def test_windows_does_not_guess_who_was_called():
    """Without an address that is known to be the host's, a connection that others began is left out and counted."""
    parser = WindowsParser()
    event = {
        "EventID": 3, "Computer": "a", "UtcTime": "2024-01-01 00:00:00", "ProcessId": 4, "Protocol": "tcp",
        "Initiated": "false", "SourceIp": "10.0.0.5", "SourcePort": 1, "DestinationIp": "10.0.0.6",
        "DestinationPort": 2,
    }  # fmt: skip
    assert list(parser.read(json.dumps(event).encode())) == []
    assert list(parser.finish()) == []
    assert parser.untold == 1


def test_host_rows_keep_what_is_not_known_absent():
    """A process of a log has no begin, no parent and no user number, and is the same in every event that names it."""
    rows, _ = parse("windows", "sysmon.json")
    held = HostRows("desk2")
    for row in rows:
        if row.host == "desk2":
            held.add(row)
    assert len(held.processes) == 1
    process = held.processes[0]
    assert (process.start_ticks, process.ppid, process.uid, process.container) == (None, None, None, None)
    assert process.last_ns - process.first_ns == 1749 * MILLI
    assert held.addresses == {"10.0.0.12"}
    assert [(socket.local_port, socket.remote_port) for socket in held.sockets] == [(50200, 1433), (8080, 50123)]
    for record in (*held.sockets, *held.processes):
        for column in columns(type(record)):
            check_value(column, getattr(record, column.name))


def test_times_are_exact():
    """Times keep the digits that a log writes, up to a nanosecond, and mean UTC where no zone stands."""
    assert as_instant_ns("1704067201.123456789", "t") == DAY_NS + 1_123_456_789
    assert as_instant_ns(1704067201, "t") == as_instant_ns("2024-01-01T01:00:01+01:00", "t")
    assert as_instant_ns("2024-01-01 00:00:01", "t") == DAY_NS + 10**9
    assert as_instant_ns("2024-01-01T00:00:01.1234567Z", "t") == DAY_NS + 1_123_456_000
    assert as_duration_ns("0.000001", "d") == 1000


@pytest.mark.parametrize(
    ("kind", "line", "expected"),
    [
        ("zeek", b'{"ts":1,"id.orig_h":"10.0.0.1","proto":"tcp"}', "2000 to 2100"),
        ("zeek", b'{"ts":1704067200,"id.orig_h":"10.0.0","id.orig_p":1,"id.resp_p":1,"proto":"tcp"}', "IPv4"),
        ("zeek", b'{"ts":1704067200,"id.orig_h":"10.0.0.1","id.orig_p":70000,"proto":"tcp"}', "0 to 65535"),
        ("zeek", b'{"ts":NaN,"id.orig_h":"10.0.0.1","proto":"tcp"}', "seconds since 1970"),
        ("suricata", b"[" * 100_000, "one JSON object"),
        ("zeek", b"1704067200\t10.0.0.1", "Zeek"),
        ("suricata", b'{"event_type":"flow","timestamp":"x","proto":"TCP"}', "a field flow"),
        ("suricata", b'{"a":1}', "eve.json"),
        ("netflow", b"a,b,c", "line of names"),
        ("windows", b'{"EventID":3,"SourceIp":"10.0.0.1","Protocol":"tcp"}', "a field Initiated"),
        ("windows", b'{"a":1}', "event number"),
    ],
)  # fmt: skip
def test_bad_lines_say_what_was_expected(kind, line, expected):
    """A line that is not of the format is refused with what would have been right."""
    with pytest.raises(InvalidRecord, match=expected):
        list(PARSERS[kind]().read(line))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text(), max_size=3),
    st.sampled_from(["10.0.0.1", "::1", "tcp", "6", "3"]), st.dictionaries(st.text(), st.text(), max_size=3),
)  # fmt: skip
KEYS = (
    "ts id.orig_h id.orig_p id.resp_h id.resp_p proto conn_state history duration orig_bytes query answers event_type "
    "timestamp flow tcp src_ip src_port dest_ip dest_port dns tls vlan EventID Event winlog Payload System EventData "
    "Protocol Initiated SourceIp SourcePort DestinationIp DestinationPort ProcessId UtcTime Direction Computer"
)
GOOD = [line for path in sorted(FIXTURES.iterdir()) for line in path.read_bytes().splitlines()]


@given(
    st.sampled_from(sorted(PARSERS)),
    st.one_of(st.dictionaries(st.sampled_from(KEYS.split()), VALUES), st.sampled_from(GOOD)),
    st.data(),
)
def test_any_line_gives_legal_rows_or_is_refused(kind, held, data):
    """Whatever a line holds, what comes out fits its columns, and what does not is refused in the one known way."""
    if isinstance(held, dict):
        line = json.dumps(held).encode()
    else:
        at = data.draw(st.integers(0, len(held)))
        line = held[:at] + data.draw(st.binary(max_size=6)) + held[at + data.draw(st.integers(0, 3)) :]
    parser = PARSERS[kind]()
    if kind == "netflow":
        parser.read(GOOD[[one.startswith(b"firstSeen") for one in GOOD].index(True)])
    try:
        rows = [*parser.read(line), *parser.finish()]
    except InvalidRecord:
        return
    for row in rows:
        records = [row]
        if isinstance(row, HostConnection):
            holder = HostRows("desk1")
            holder.add(row)
            records = [*holder.sockets, *holder.processes]
        for record in (one for one in records if not isinstance(one, SeenName)):
            for column in columns(type(record)):
                check_value(column, getattr(record, column.name))
            assert record.first_ns <= record.last_ns
