# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle itself, against flows computed by hand and the specification's own examples."""

import ipaddress

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from tests.lib.flow.forge import BEGIN_NS, MS, Talk, datagram, on_wire, pcap, pcapng, spaced
from tests.lib.flow.oracle import Oracle, community_id
from tests.lib.flow.oracle_tcp import unrolled

PORTS = {"tcp": frozenset({80, 443}), "udp": frozenset({53})}


def read(packets, **writing):
    """Flows of packets, each with its time in milliseconds."""
    return Oracle(PORTS).read(pcap(on_wire(packets), **writing))


def test_a_whole_connection():
    """Ten packets come to one flow with payload, packets and end as counted by hand."""
    talk = Talk()
    packets = [*talk.opening(), talk.say("c", "PA", bytes(100)), talk.say("s", "A"), talk.say("s", "PA", bytes(3000))]
    (flow,) = read(spaced([*packets, *talk.closing()], step_ms=10))
    assert (str(flow.orig[0]), flow.orig[1], str(flow.resp[0]), flow.resp[1]) == ("10.0.0.1", 40000, "10.0.0.2", 80)
    assert (flow.packets, flow.bytes) == ({True: 5, False: 5}, {True: 100, False: 3000})
    assert flow.ip_bytes == {True: 5 * 40 + 100, False: 5 * 40 + 3000}
    assert (flow.first_ns, flow.last_ns) == (BEGIN_NS, BEGIN_NS + 80 * MS)  # the last ACK is not productive
    assert (flow.state, flow.tcp.handshake, flow.tcp.closed_by) == ("SF", "full", "both")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("S0", "cS"),
        ("S1", "cS sSA cA"),
        ("REJ", "cS sRA"),
        ("S2", "cS sSA cA cFA"),
        ("S3", "cS sSA cA sFA"),
        ("SF", "cS sSA cA cFA sFA cA"),
        ("RSTO", "cS sSA cA cRA"),
        ("RSTR", "cS sSA cA sRA"),
        ("RSTOS0", "cS cR"),
        ("RSTRH", "sSA sRA"),
        ("SH", "cS cFA"),
        ("SHR", "sSA sFA"),
        ("OTH", "cA"),
        ("OTH", "cPA sPA"),
    ],
)
def test_every_end_that_zeek_names(state, says):
    """Each of Zeek's connection states is reached by the packets that its documents tell of."""
    talk = Talk()
    (flow,) = read(spaced(talk.say(word[0], word[1:]) for word in says.split()))
    assert flow.state == state


def test_a_gap_is_missed_once_it_is_acknowledged():
    """Bytes that the peer acknowledged and nobody saw are missed, and are payload all the same."""
    talk = Talk()
    said = [
        *talk.opening(),
        talk.say("c", "PA", bytes(10)),
        talk.say("c", "PA", bytes(10), skip=500),
        talk.say("s", "A"),
    ]
    (flow,) = read(spaced(said))
    assert (flow.bytes[True], flow.tcp.orig.missed, flow.tcp.resp.missed) == (520, 500, 0)


def test_numbers_that_wrap():
    """A stream over the end of the sequence numbers has the bytes that it has."""
    talk = Talk(client_seq=2**32 - 50)
    said = [*talk.opening(), talk.say("c", "PA", bytes(100)), talk.say("c", "PA", bytes(100)), talk.say("s", "A")]
    (flow,) = read(spaced(said))
    assert (flow.bytes[True], flow.tcp.orig.missed) == (200, 0)
    assert (unrolled(5, 2**32 - 5), unrolled(2**32 - 5, 2**32 + 5)) == (2**32 + 5, 2**32 - 5)


def test_silence_ends_a_flow():
    """A minute of silence parts two conversations by UDP, fifty seconds do not."""
    one = datagram("10.0.0.1", 5000, "10.0.0.2", 53)
    flows = read([(0, one), (50_000, one), (111_000, one)])
    assert [flow.packets[True] for flow in flows] == [2, 1]
    assert [flow.timed_out for flow in flows] == [True, False]


def test_a_port_tells_who_was_called():
    """The first packet of a conversation from a port that servers have is an answer."""
    (flow,) = read([(0, datagram("10.0.0.2", 53, "10.0.0.1", 5000, 33))])
    assert (flow.orig[1], flow.resp[1], flow.bytes[False], flow.state) == (5000, 53, 33, "SHR")


def test_fragments_are_one_packet():
    """A datagram in three pieces out of order counts once, with the length that it had."""
    whole = bytes(datagram("10.0.0.1", 5000, "10.0.0.2", 53, 1000))[20:]
    head = {"src": "10.0.0.1", "dst": "10.0.0.2", "proto": 17, "id": 9}
    pieces = [
        IP(frag=50, flags="MF", **head) / Raw(whole[400:800]),
        IP(frag=100, **head) / Raw(whole[800:]),
        IP(frag=0, flags="MF", **head) / Raw(whole[:400]),
    ]
    (flow,) = read(spaced(pieces))
    assert (flow.packets[True], flow.bytes[True], flow.ip_bytes[True]) == (1, 1000, 1028)
    assert flow.first_ns == BEGIN_NS + 2 * MS


def test_an_echo_and_its_answer_are_one_flow():
    """An echo's answer belongs to its request, a message without an answer stands alone."""
    ping = IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8) / Raw(bytes(56))
    pong = IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=0) / Raw(bytes(56))
    lost = IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=1) / Raw(bytes(28))
    flow, other = read(spaced([ping, pong, lost]))
    assert (flow.orig[1], flow.resp[1], flow.bytes) == (8, 0, {True: 56, False: 56})
    assert (other.orig[1], other.resp[1], other.one_way) == (3, 1, True)


def test_both_formats_say_the_same():
    """The oracle reads one conversation alike from every kind of file."""
    sent = on_wire(spaced([datagram("10.0.0.1", 5000, "10.0.0.2", 53)] * 3))
    files = [pcap(sent, order=order, nano=nano) for order in "<>" for nano in (True, False)]
    files += [pcapng(sent, order=order, resolution=resolution) for order in "<>" for resolution in (6, 9, None, 0x94)]
    read_back = {tuple((flow.orig, flow.packets[True]) for flow in Oracle(PORTS).read(file)) for file in files}
    assert len(read_back) == 1


@pytest.mark.parametrize(
    ("protocol", "src", "sport", "dst", "dport", "one_way", "name"),
    [
        (6, "128.232.110.120", 34855, "66.35.250.204", 80, False, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (17, "8.8.8.8", 53, "192.168.1.52", 54585, False, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        (132, "192.168.170.8", 7, "192.168.170.56", 7, False, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
        (1, "192.168.0.1", 0, "192.168.0.89", 8, False, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
        (1, "10.0.0.1", 11, "10.0.0.2", 0, True, "1:YHxtAirCG//0OzkcVAukqKQN9xM="),
        (
            58,
            "3ffe:507:0:1:200:86ff:fe05:80da",
            128,
            "3ffe:501:0:1001::2",
            129,
            False,
            "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg=",
        ),
        (46, "10.1.12.2", None, "10.1.12.1", None, False, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
    ],
)
def test_community_id_is_the_specification_s(protocol, src, sport, dst, dport, one_way, name):
    """Names of flows are those of the specification's reference data."""
    ends = (ipaddress.ip_address(src), ipaddress.ip_address(dst))
    assert community_id(protocol, *ends, None if sport is None else (sport, dport), one_way) == name
