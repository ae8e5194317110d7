# SPDX-License-Identifier: GPL-3.0-or-later
"""Small random worlds of hosts that talk: meter and oracle say the same, however their capture is written and cut."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from tests.lib.flow.forge import FRAMES, Talk, datagram, on_wire, pcap, pcapng
from tests.lib.flow.side_by_side import by_meter, by_oracle, difference

_HOSTS = [["10.0.0.1", "10.0.0.2", "192.0.2.77"], ["2001:db8::1", "2001:db8::2", "fe80::77"]]
#: No sum of these is a timeout of any state.
_PAUSES_MS = [0.013, 0.7, 1.9, 41.3, 2003.1, 7007.3, 61009.7, 305003.9]
_SAYS = ["A", "A", "PA", "PA", "PA", "FA", "FA", "FA", "RA", "R", "S", "SA"]


@st.composite
def connections(draw):
    """A TCP connection: mostly opened well, then anything."""
    hosts = draw(st.sampled_from(_HOSTS))
    client, server = draw(st.permutations(hosts))[:2]
    talk = Talk(
        client=client,
        server=server,
        client_port=draw(st.integers(40000, 40002)),
        server_port=draw(st.sampled_from([80, 443, 41000])),
        client_seq=draw(st.sampled_from([1, 1000, 2**32 - 700, 2**31])),
        server_seq=draw(st.sampled_from([5, 77_000, 2**32 - 1])),
    )
    opened = draw(st.sampled_from(["cS sSA cA", "cS sSA cA", "cS", "cS sSA", "sSA cA", ""])).split()
    packets = [talk.say(word[0], word[1:]) for word in opened]
    for _number in range(draw(st.integers(0, 10))):
        who, flags = draw(st.sampled_from("cs")), draw(st.sampled_from(_SAYS))
        count = draw(st.sampled_from([1, 100, 600])) if "P" in flags else draw(st.sampled_from([0, 0, 0, 20]))
        skip = draw(st.sampled_from([0, 0, 0, 0, 300])) if count else 0
        sent = talk.next[who] - (1 if "S" in flags else 0)
        back = draw(st.sampled_from([0, 0, 0, 50])) if count and not skip and sent > 0 else 0
        packets.append(talk.say(who, flags, bytes(count), skip=skip, back=back))
    return packets


@st.composite
def datagrams(draw):
    """Datagrams between two ports, both ways."""
    one, other = draw(st.permutations(draw(st.sampled_from(_HOSTS))))[:2]
    sport, dport = draw(st.sampled_from([40000, 53])), draw(st.sampled_from([53, 41000]))
    ways = [(one, sport, other, dport), (other, dport, one, sport)]
    return [
        datagram(*draw(st.sampled_from(ways)), draw(st.integers(0, 300))) for _number in range(draw(st.integers(1, 5)))
    ]


@st.composite
def messages(draw):
    """Messages of ICMP."""
    one, other = draw(st.permutations(_HOSTS[0]))[:2]
    kinds = st.sampled_from([(8, 0), (0, 0), (3, 1), (3, 3), (11, 0), (13, 0), (14, 0)])
    made = []
    for _number in range(draw(st.integers(1, 5))):
        src, dst = draw(st.permutations([one, other]))
        kind, code = draw(kinds)
        made.append(IP(src=src, dst=dst) / ICMP(type=kind, code=code) / Raw(bytes(draw(st.integers(12, 60)))))
    return made


@st.composite
def captures(draw):
    """A capture of such conversations, in some kind of file, in some pieces."""
    timed = []
    talks = draw(st.lists(st.one_of(connections(), connections(), datagrams(), messages()), min_size=1, max_size=5))
    for packets in talks:
        at_ms = draw(st.floats(0, 5000))
        for packet in packets:
            timed.append((at_ms, packet))
            at_ms += draw(st.sampled_from(_PAUSES_MS))
    timed.sort(key=lambda each: each[0])
    link_type, frame = FRAMES[draw(st.sampled_from(sorted(FRAMES)))]
    sent = on_wire(timed, frame, draw(st.sampled_from([None, None, 200])))
    order = draw(st.sampled_from("<>"))
    if draw(st.booleans()):
        content = pcap(sent, link_type, order, draw(st.booleans()))
    else:
        content = pcapng(sent, link_type, order, draw(st.sampled_from([None, 6, 9])))
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
    return content, [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True) if a < b]


@settings(max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(captures())
def test_random_worlds(capture):
    """Whatever is said on the wire, the meter's flows are the oracle's."""
    content, pieces = capture
    assert difference(by_meter(pieces), by_oracle(content)) == []
