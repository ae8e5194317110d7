# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows on a wire meet what hosts recorded: against plain loops, and against what is known of made-up worlds."""

import ibis
import pytest
from fleet import ANY, Host, at
from line import evidence_of
from wire_worlds import SECOND, join_by_hand, make_flow, make_wire, make_world

from whoneeds.collector.clocks import STEP_NS
from whoneeds.collector.watched import join_watched, of_hosts, tell_wire_clocks
from whoneeds.collector.wires import compare_wires, find_meetings, place_wires, settle_wires, tabulate_clocks
from whoneeds.model.evidence import FlowRecord, SegmentHeader, TranslationRecord, WireFlow
from whoneeds.store.columns import to_arrow

HOUR = 3600 * SECOND


def keep(table):
    """Work a table out at once."""
    return ibis.memtable(table.to_pyarrow())


def read(table):
    """The rows of a table."""
    return table.to_pyarrow().to_pylist()


def as_table(record, rows):
    """Records as a table."""
    return ibis.memtable(to_arrow(record, rows))


def bare(wires):
    """Flows on a wire where nothing is translated."""
    table = as_table(WireFlow, wires)
    ends = ("orig_addr", "orig_port", "resp_addr", "resp_port")
    return keep(table.mutate(**{f"real_{name}": table[name] for name in ends}))


def place(world):
    """To which flow each wire belongs, by the expressions; and the clocks."""
    meetings = find_meetings(bare(world.wires), as_table(FlowRecord, world.flows), keep)
    clocks = settle_wires(read(compare_wires(meetings)))
    return {row["wire_id"]: row["flow_id"] for row in read(place_wires(meetings, tabulate_clocks(clocks)[0]))}, clocks


@pytest.mark.parametrize(("seed", "ahead_ns"), [(1, 0), (2, HOUR), (3, -HOUR), (4, 7 * SECOND)])
def test_joined_as_known_and_as_by_hand(seed, ahead_ns):
    """Whatever the monitor's clock says, each flow goes to its own conversation or to none, as plain loops say too."""
    world = make_world(seed, ahead_ns)
    placed, clocks = place(world)
    assert placed == join_by_hand(world.flows, world.wires)
    told = {wire: flow for wire, flow in placed.items() if flow is not None}
    assert all(world.truth[wire] == flow for wire, flow in told.items())
    assert {wire for wire, flow in placed.items() if flow is None} == world.doubtful
    assert {wire for wire, flow in world.truth.items() if flow is None} == set(world.truth) - set(placed)
    assert len(clocks) == 5
    assert all(abs(clock.ahead_ns - ahead_ns) < 5 * SECOND for clock in clocks.values())


def test_too_few_in_common_join_nothing():
    """Two conversations in common tell nothing of a clock, so that none is joined and it is said."""
    world = make_world(1, HOUR)
    flows = [one for one in world.flows if one.orig_host == "h1" and one.flow_id.endswith(".0")][:2]
    world.flows = flows
    placed, clocks = place(world)
    assert set(placed.values()) == {None}
    assert [(clock.ahead_ns, clock.agreeing) for clock in clocks.values()] in ([(None, 2)], [(None, 1)])


def test_half_of_the_witnesses_is_not_most():
    """Where as many conversations speak for one difference as for others, no clock is settled on."""
    row = {"monitor": "m", "host": "h", "exact": True, "ahead_ns": 5, "agreeing": 4, "witnesses": 8}
    assert settle_wires([row])["m", "h"].ahead_ns is None
    assert settle_wires([{**row, "witnesses": 7}])["m", "h"].ahead_ns == 5
    sampled = {**row, "exact": False, "ahead_ns": 9, "witnesses": 4}
    assert settle_wires([row, sampled])["m", "h"].ahead_ns == 9
    assert settle_wires([sampled, {**row, "witnesses": 4}])["m", "h"].ahead_ns == 5


def join(flows, wires, hosts=()):
    """All conversations and joins, with the addresses and translations of hosts."""
    evidence = evidence_of(hosts)
    made, joins = join_watched(
        as_table(FlowRecord, flows), as_table(WireFlow, wires), ibis.memtable(evidence[TranslationRecord]),
        of_hosts(ibis.memtable(evidence[SegmentHeader])), keep, read,
    )  # fmt: skip
    rows = read(made)
    assert len({row["flow_id"] for row in rows}) == len(rows)
    return {row["flow_id"]: row for row in rows}, joins


def own(number, **values):
    """A conversation of host web1 that it recorded by events, at second `number`."""
    plain = {
        "flow_id": f"f{number}", "orig_addr": "10.0.0.1", "orig_port": 40_000 + number, "resp_addr": "10.0.0.2",
        "resp_port": 443, "orig_host": "web1", "orig_socket_id": f"web1/{number}", "first_ns": at(number),
        "last_ns": at(number + 1),
    }  # fmt: skip
    return make_flow(**(plain | values))


def seen(number, ahead_ns=0, **values):
    """The same on a wire."""
    plain = {
        "flow_id": f"w{number}", "orig_addr": "10.0.0.1", "orig_port": 40_000 + number, "resp_addr": "10.0.0.2",
        "resp_port": 443, "first_ns": at(number) + ahead_ns, "last_ns": at(number + 1) + ahead_ns,
    }  # fmt: skip
    return make_wire(**(plain | values))


BASE = range(10, 100, 10)


def test_wire_fills_in_what_is_absent():
    """Counts, end and roles that no host knows come from the wire; what a host counted stays."""
    flows = [own(number) for number in BASE]
    flows[0] = own(10, orig_bytes=7)
    flows[1] = own(
        20, direction="unknown", orig_addr="10.0.0.2", orig_port=443, resp_addr="10.0.0.1", resp_port=40_020,
        orig_host="db1", resp_host="web1", orig_socket_id=None, resp_socket_id="web1/20",
    )  # fmt: skip
    made, joins = join(flows, [seen(number, -HOUR) for number in BASE])
    assert len(made) == len(BASE)
    assert [made["f10"][name] for name in ("orig_bytes", "resp_bytes", "orig_packets", "end")] == [7, 900, 6, "fin"]
    turned = made["f20"]
    assert (turned["direction"], turned["orig_addr"], turned["orig_host"], turned["orig_socket_id"]) == (
        "handshake", "10.0.0.1", "web1", "web1/20"
    )  # fmt: skip
    assert (turned["resp_host"], turned["orig_packets"], turned["resp_packets"]) == ("db1", 6, 5)
    assert [(one.monitor, one.host, one.ahead_ns, one.joined, one.doubtful) for one in joins] == [
        ("mon1", "web1", -HOUR, len(BASE), 0)
    ]


def test_part_of_a_connection_gives_no_counts():
    """A wire that missed the opening or the end gives no counts, and one that missed a byte no packets."""
    partial = [{"handshake": "none", "direction": "port"}, {"end": "active"}, {"missed_bytes": 1}, {"end": "idle"}]
    wires = [seen(number, **kept) for number, kept in zip(BASE, [*partial, *([{}] * 5)], strict=True)]
    made, _ = join([own(number) for number in BASE], wires)
    assert [made[f"f{number}"]["orig_bytes"] for number in BASE] == [None, None, 100, None] + [100] * 5
    assert [made[f"f{number}"]["resp_packets"] for number in BASE] == [None] * 4 + [5] * 5


def test_parts_of_one_conversation_add_up():
    """Several flows on the wire within one conversation of a host are counted together, each from its own side."""
    flows = [own(number) for number in BASE]
    flows.append(own(200, protocol="udp", last_ns=at(400), direction="listener"))
    there = seen(200, protocol="udp", handshake="none", direction="first", end="idle", closed_by="none")
    back = {
        "orig_addr": "10.0.0.2", "orig_port": 443, "resp_addr": "10.0.0.1", "resp_port": 40_200, "first_ns": at(300),
        "last_ns": at(310), "flow_id": "w201",
    }  # fmt: skip
    wires = [seen(number) for number in BASE]
    made, _ = join(flows, [*wires, there, type(there)(**{**vars(there), **back})])
    assert len(made) == len(flows)
    assert (made["f200"]["orig_packets"], made["f200"]["resp_packets"]) == (11, 11)


def test_unrecorded_becomes_a_conversation_between_hosts():
    """What no host recorded is told by the wire, on the hosts' clock, with the hosts that own its addresses."""
    web, db = Host("web1", ("10.0.0.1",)).segment(), Host("db1", ("10.0.0.2",)).segment()
    db.socket((ANY, 443), by=db.process("postgres", 7))
    wires = [seen(number, HOUR) for number in BASE] + [seen(55, HOUR), seen(56, HOUR, protocol="icmp")]
    made, _ = join([own(number) for number in BASE], wires, [web, db])
    assert set(made) - {f"f{number}" for number in BASE} == {"w55"}
    found = made["w55"]
    assert (found["orig_host"], found["resp_host"], found["first_ns"]) == ("web1", "db1", at(55))
    assert (found["direction"], found["orig_bytes"], found["orig_packets"], found["samples"]) == (
        "handshake",
        100,
        6,
        0,
    )
    assert (found["orig_socket_id"], found["duration_s"], found["period_s"]) == (None, 1.0, 0.0)


def test_who_began_an_unrecorded_conversation():
    """What a watcher knows by openings of others, by ports or from a meter counts; who merely spoke first does not."""
    words = ("listener", "port", "told", "first")
    unseen = {"handshake": "none", "orig_addr": "10.9.0.1", "resp_port": 42_000}
    wires = [seen(number, **unseen, direction=word) for number, word in enumerate(words, 300)]
    made, _ = join([own(number) for number in BASE], [*map(seen, BASE), *wires])
    assert [made[f"w{number}"]["direction"] for number in range(300, 304)] == ["listener", "port", "told", "unknown"]


def test_translated_on_the_way():
    """Before and behind a translator a wire carries what a host recorded, and nothing is told twice."""
    real = ("172.17.0.2", 5432)
    gate = Host("gate1", ("10.0.0.2",)).segment(0, 300)
    web, app = Host("web1", ("10.0.0.1",)).segment(0, 300), Host("app1", ("172.17.0.2",)).segment(0, 300)
    for number in (*BASE, 55, 56):
        caller = ("10.0.0.1", 40_000 + number)
        gate.translation((caller, ("10.0.0.2", 443)), (("172.17.0.1", 50_000 + number), real), (number, number + 1))
    behind = {"host": "mon2", "orig_addr": "172.17.0.1", "resp_addr": real[0], "resp_port": real[1]}
    wires = [seen(number) for number in (*BASE, 55)]
    wires += [seen(number, flow_id=f"v{number}", orig_port=50_000 + number, **behind) for number in (*BASE, 56)]
    flows = [
        own(
            number, resp_addr=real[0], resp_port=real[1], called_addr="10.0.0.2", called_port=443,
            caller_addr="172.17.0.1", caller_port=50_000 + number, translated="resolved",
        )
        for number in BASE
    ]  # fmt: skip
    made, joins = join(flows, wires, [gate, web, app])
    assert set(made) == {f"f{number}" for number in BASE} | {"w55", "v56"}
    assert [(one.monitor, one.joined, one.doubtful) for one in joins] == [("mon1", 9, 0), ("mon2", 9, 0)]
    for name, number in (("w55", 55), ("v56", 56)):
        found = made[name]
        assert (found["orig_addr"], found["orig_port"], found["orig_host"]) == ("10.0.0.1", 40_000 + number, "web1")
        assert (found["resp_addr"], found["resp_port"], found["resp_host"]) == (*real, "app1")
        assert found["translated"] == "resolved"


def test_two_monitors_do_not_add_up():
    """What two watchers saw of one conversation counts once, by the one that saw more of it."""
    wires = [seen(number) for number in BASE]
    wires += [seen(number, HOUR, host="mon2", flow_id=f"v{number}", orig_packets=8) for number in BASE]
    made, joins = join([own(number) for number in BASE], wires)
    assert {(row["orig_packets"], row["resp_packets"]) for row in made.values()} == {(8, 5)}
    assert [(one.monitor, one.ahead_ns) for one in joins] == [("mon1", 0), ("mon2", HOUR)]


def test_loopback_is_everybodys_own():
    """A loopback tuple on a host's own capture meets only that host's sockets."""
    loop = {"orig_addr": "127.0.0.1", "resp_addr": "127.0.0.1"}
    wires = [seen(number, host="db1", flow_id=f"v{number}", **loop) for number in BASE]
    wires += [seen(number, host="web1", **loop) for number in BASE]
    made, joins = join([own(number, **loop) for number in BASE], wires)
    assert set(made) == {f"{kind}{number}" for number in BASE for kind in "fv"}
    assert [(one.monitor, one.host, one.joined) for one in joins] == [("web1", "web1", len(BASE))]


def test_clocks_are_told():
    """A monitor's clock that is off is said with the host, and so is one that cannot be compared."""
    rows = [
        {"monitor": "m", "host": "a", "ahead_ns": HOUR, "agreeing": 9, "witnesses": 9, "joined": 9, "doubtful": 0},
        {"monitor": "m", "host": "b", "ahead_ns": None, "agreeing": 1, "witnesses": 2, "joined": 0, "doubtful": 2},
        {"monitor": "m", "host": "c", "ahead_ns": 5, "agreeing": 9, "witnesses": 9, "joined": 9, "doubtful": 0},
    ]  # fmt: skip
    told = tell_wire_clocks(rows, STEP_NS)
    assert [row["host"] for row in told] == ["a", "b"]
    assert "3600.0 s ahead" in told[0]["detail"]
    assert "2 flows that it saw were not joined" in told[1]["detail"]
    assert all(len(row["detail"]) <= 255 for row in told)
