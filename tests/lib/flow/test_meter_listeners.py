# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows whose beginning was not seen, told by who answered an opening elsewhere in the capture."""

from itertools import chain

import numpy as np
import pytest

from tests.lib.flow.forge import Talk, ethernet, on_wire, pcap, spaced, vlan
from tests.lib.flow.side_by_side import SMALL, by_meter, by_oracle, difference, of_rows
from whoneeds.flow import meter_capture
from whoneeds.flow.compiled.endings import OUTCOME
from whoneeds.flow.listeners import Listeners
from whoneeds.model.evidence import ENDS, HANDSHAKES, WIRE_DIRECTIONS

_PORT = 41000


def _opened(number=0, port=_PORT, **ends):
    talk = Talk(client_port=50000 + number, server_port=port, **ends)
    return [*talk.opening(), talk.say("c", "PA", bytes(9)), *talk.closing()]


def _midstream(first="s", count=700):
    """A conversation whose beginning is missing; the server may be seen first."""
    talk = Talk(client_port=45000, server_port=_PORT)
    return [talk.say(first, "PA", bytes(count)), talk.say("c", "A"), talk.say("c", "PA", bytes(20))]


def _told(*conversations):
    content = pcap(on_wire(spaced(chain(*conversations))))
    told = by_meter([content])
    assert difference(told, by_oracle(content)) == []
    return told


def _of(told, port=45000):
    (flow,) = (flow for flow in told if port in (flow["orig"][1], flow["resp"][1]) and flow["direction"] != "handshake")
    return flow


@pytest.mark.parametrize("first", ["c", "s"])
@pytest.mark.parametrize("order", [1, -1])
def test_who_answered_elsewhere_was_called(first, order):
    """Whoever is seen first, before the opening that tells or after it, the end that answered was called."""
    flow = _of(_told(*[_opened(), _midstream(first)][::order]))
    assert (flow["direction"], flow["orig"][1], flow["resp"][1]) == ("listener", 45000, _PORT)
    assert flow["bytes"] == ((20, 700) if first == "s" else (720, 0))


def test_without_evidence_the_first_one_counts():
    """With nobody who answered, a flow between ports of nobody is told by who spoke first."""
    assert (_of(_told(_midstream()))["direction"], _of(_told(_midstream()))["orig"][1]) == ("first", _PORT)


def test_it_goes_before_the_ports():
    """An end that answered elsewhere was called, also by somebody on a port that services have."""
    talk = Talk(client_port=443, server_port=_PORT)
    flow = _of(_told(_opened(), [talk.say("c", "PA", bytes(5)), talk.say("s", "A")]), 443)
    assert (flow["direction"], flow["resp"][1]) == ("listener", _PORT)


@pytest.mark.parametrize("says", ["cS sRA", "cS sFA cRA", "cS sFA sRA", "cS sA cRA"])
def test_what_is_no_answer_tells_nothing(says):
    """A port that refused a connection, or sent what opens none, is not known to wait."""
    talk = Talk(client_port=50001, server_port=_PORT)
    assert _of(_told([talk.say(word[0], word[1:]) for word in says.split()], _midstream()))["direction"] == "first"


def test_two_ends_that_answered_tell_nothing():
    """Where both ends are known to wait, neither is taken for the one that was called."""
    other = Talk(client="10.0.0.9", server="10.0.0.1", client_port=50002, server_port=45000)
    assert _of(_told(_opened(), [*other.opening(), *other.closing()], _midstream()))["direction"] == "first"


def test_an_end_that_both_answered_and_began_tells_nothing():
    """From a port that answered and began connections, nothing follows for others."""
    caller = Talk(client="10.0.0.2", server="10.0.0.9", client_port=_PORT, server_port=42000)
    assert _of(_told(_opened(), [*caller.opening(), *caller.closing()], _midstream()))["direction"] == "first"


def test_another_vlan_is_another_network():
    """Who answered in one VLAN says nothing of the same address in another."""
    there = on_wire(spaced(_opened()), vlan)
    content = pcap([*there, *on_wire(spaced(_midstream(), 100), ethernet)], 1)
    told = by_meter([content])
    assert difference(told, by_oracle(content)) == []
    assert (_of(told)["direction"], {flow["vlans"][0] for flow in told}) == ("first", {None, 7})


@pytest.mark.parametrize(
    ("says", "state"),
    [
        ("sPA:9 sFA", "SHR"), ("sPA:9 cFA", "SH"), ("sPA:9 cA sRA", "RSTRH"), ("sPA:9 cA cRA", "OTH"),
        ("sPA:9 cFA sFA", "SF"), ("sSA cA sPA:7", "OTH"), ("sSA cRA", "RSTO"), ("sPA:9 cRA sRA", "RSTO"),
    ],
)  # fmt: skip
def test_ends_change_sides_too(says, state):
    """How a flow ended is said of the sides that it has once it is known who was called."""
    talk = Talk(client_port=45000, server_port=_PORT)
    packets = [
        talk.say(word[0], word[1:].split(":")[0], bytes(int((word + ":0").split(":")[1]))) for word in says.split()
    ]
    flow = _of(_told(_opened(), packets))
    assert (flow["direction"], flow["resp"][1], flow["state"]) == ("listener", _PORT, state)


def test_a_syn_that_nobody_answered_is_its_sender_s():
    """A flow that ends with a SYN was begun by who sent it, whoever else was answered there."""
    talk = Talk(client_port=45000, server_port=_PORT)
    flow = _of(_told(_opened(), [talk.say("s", "A"), talk.say("s", "S", seq=499_999)]))
    assert (flow["direction"], flow["orig"][1]) == ("first", _PORT)


def test_at_the_end_of_a_capture_order_is_nothing():
    """What is over since the capture ends is told by all of it, in however many batches it is handed out."""
    done = np.zeros(2, OUTCOME)
    done["protocol"], done["orig_port"], done["resp_port"] = 6, (_PORT, 50000), (45000, _PORT)
    done["direction"] = [WIRE_DIRECTIONS.index(word) for word in ("first", "handshake")]
    done["end"], done["handshake"] = ENDS.index("idle"), HANDSHAKES.index("full")
    listeners = Listeners()
    listeners.hold()
    assert [len(listeners.settle(done[at : at + 1])) for at in range(2)] == [0, 1]
    (late,) = listeners.release()
    assert (WIRE_DIRECTIONS[late["direction"][0]], late["resp_port"].tolist()) == ("listener", [_PORT])


def test_more_ends_than_are_remembered_are_not_known(monkeypatch):
    """Beyond the ends that are remembered nothing is known, and what was remembered stays."""
    monkeypatch.setattr("whoneeds.flow.meter.Listeners", lambda: Listeners(1))
    others = Talk(client_port=46000, server_port=_PORT + 1)
    packets = [*_opened(), *_opened(1, _PORT + 1), *_midstream(), others.say("s", "PA", bytes(5))]
    told = of_rows(list(meter_capture([pcap(on_wire(spaced(packets)))], SMALL)))
    assert [_of(told, port)["direction"] for port in (45000, 46000)] == ["listener", "first"]


def test_what_is_known_lasts_over_many_flows():
    """Of a capture with more flows than are remembered at once, the last is told by the first."""
    timed = spaced(_opened())
    timed += [(1000 + number, Talk(client_port=1025 + number).say("c", "S")) for number in range(2100)]
    timed += spaced(_midstream(), 400_000)
    told = of_rows(list(meter_capture([pcap(on_wire(timed))], SMALL)))
    assert (len(told), _of(told)["direction"]) == (2102, "listener")
