# SPDX-License-Identifier: GPL-3.0-or-later
"""Forged conversations of every kind that the meter must get right, by name: packets with their times in ms.

Long, because it is one list: what is in it, meter and oracle must agree on.
"""

from collections.abc import Callable

from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit, SCTPChunkInitAck
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.lib.flow.forge import Talk, datagram, ethernet, spaced, vlan

Timed = list[tuple[float, Packet | bytes]]
C6, S6 = "2001:db8::1", "2001:db8::2"
_OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}
_OUTER6 = {"src": "2001:db8:ffff::1", "dst": "2001:db8:ffff::2"}


def _script(says: str, step_ms: float = 1, **ends) -> Timed:
    """A connection by a script: c or s, its flags, after a colon the bytes; +N loses N bytes, -N says N again."""
    talk, packets = Talk(**ends), []
    for word in says.split():
        who, flags, count, change = word[0], word[1:].split(":")[0], 0, {}
        if ":" in word:
            number = word.split(":")[1]
            for sign, name in (("+", "skip"), ("-", "back")):
                if sign in number:
                    number, by = number.split(sign)
                    change = {name: int(by)}
            count = int(number)
        packets.append(talk.say(who, flags, bytes(count), **change))
    return spaced(packets, step_ms=step_ms)


_OPEN = "cS sSA cA"
_TALK = f"{_OPEN} cPA:120 sA sPA:3000 cA"

#: TCP, by scripts.
SCRIPTS = {
    "full, closed by the client": f"{_TALK} cFA sA sFA cA",
    "full, closed by the server": f"{_TALK} sFA cA cFA sA",
    "data with the FIN": f"{_OPEN} cPA:10 sFA:700 cFA:5 sA",
    "simultaneous close": f"{_TALK} cFA sFA cA sA",
    "no answer": "cS cS:0-1 cS:0-1",
    "half open: the answer is not taken": "cS sSA sSA:0-1",
    "rejected": "cS sRA",
    "aborted by the client": f"{_TALK} cRA",
    "aborted by the server": f"{_TALK} sRA",
    "a RST without ACK": f"{_TALK} cR",
    "FIN, then RST by the same end": f"{_TALK} cFA cR",
    "FIN, then RST by the other": f"{_TALK} cFA sRA",
    "FIN each, then RST": f"{_TALK} cFA sFA cR",
    "SYN, then RST": "cS cR",
    "SYN, then FIN": "cS cFA",
    "half closed by the client": f"{_TALK} cFA sA sPA:50 cA",
    "half closed by the server": f"{_TALK} sFA cA cPA:50 sA",
    "retransmissions": f"{_OPEN} cPA:100 cPA:100-100 sA sPA:300 sPA:300-300 sPA:300-300 cA cFA sFA cA",
    "a retransmission of a part": f"{_OPEN} cPA:100 cPA:50-100 sA cFA sFA cA",
    "a repeated opening": "cS cS:0-1 sSA sSA:0-1 cA cPA:7 sA cFA sFA cA",
    "a gap that is acknowledged": f"{_OPEN} cPA:10 cPA:10+500 sA cFA sFA cA",
    "a gap that is filled": f"{_OPEN} cPA:10 cPA:10+30 cPA:30-40 sA cFA sFA cA",
    "a gap that is filled too late": f"{_OPEN} cPA:10 cPA:10+30 sA cPA:30-40 sA cFA sFA cA",
    "a gap in what the server sent": f"{_OPEN} cPA:10 sPA:1000 sPA:1000+2000 cA sFA cFA sA",
    "a gap at the end": f"{_OPEN} cPA:10 sA cFA:0+90 sA sFA cA",
    "midstream, from the client": "cPA:10 sA sPA:900 cA cFA sFA cA",
    "midstream, from the server": "sPA:900 cA cPA:10 sA",
    "midstream, a gap": "cPA:10 sA cPA:10+40 sA",
    "midstream, a lonely RST": "sRA",
    "midstream, a lonely FIN": "cFA sA",
    "without its SYN": "sSA cA cPA:10 sA cFA sFA cA",
    "without its SYN and ACK": "cS cA cPA:10 sA sPA:9 cFA sFA cA",
    "keep-alives": f"{_TALK} cA:1-1 sA cA:1-1 sA",
    "data in the SYN": "cS:20 sSA cA cPA:5 sA",
    "an acknowledgement before the answer": "cS sA sSA cA cPA:3 sA",
    "nothing but ACKs": "cA sA cA",
    "SYN and FIN at once": "cSF sRA",
    "all flags": "cFSRPAU sRA",
    "no flags": "c sRA",
}


def _tcp_others() -> dict[str, Timed]:
    made = {name: _script(says) for name, says in SCRIPTS.items()}
    made["over IPv6"] = _script(f"{_TALK} cFA sA sFA cA", client=C6, server=S6)
    made["numbers that wrap"] = _script(f"{_TALK} cFA sFA cA", client_seq=2**32 - 60, server_seq=2**32 - 1500)
    made["numbers that wrap at the SYN"] = _script(f"{_TALK} cFA sFA cA", client_seq=2**32 - 1, server_seq=2**32 - 2)
    made["a gap over the wrap"] = _script(f"{_OPEN} cPA:10 cPA:10+90 sA cFA sFA cA", client_seq=2**32 - 50)
    made["both ports of servers, midstream"] = _script("sPA:9 cA cPA:10", client_port=443)
    made["no port of servers, midstream"] = _script("sPA:9 cA cPA:10", server_port=41000)
    made["no port of servers, without its SYN"] = _script("sSA cA cPA:10 sA", server_port=41000)
    made["long silence in an open one"] = [*_script(_TALK), *_script("cPA:5 sA", client_seq=1121, server_seq=503001)]
    made["long silence in an open one"][-2:] = [
        (400_000 + at, one) for at, one in made["long silence in an open one"][-2:]
    ]
    made["a short silence in an open one"] = _script(_TALK, step_ms=250_000)
    made["a SYN again after a minute"] = [(0, Talk().say("c", "S")), (61_000, Talk().say("c", "S"))]
    made["a SYN again after four and six seconds"] = [(at, Talk().say("c", "S")) for at in (0, 4000, 6000)]
    whole = f"{_OPEN} cPA:10 sA cFA sFA cA"
    made["ports used again at once"] = [*_script(whole), *_later(_script(whole, client_seq=70_000, server_seq=1), 500)]
    made["ports used again later"] = [*_script(whole), *_later(_script(whole, client_seq=70_000, server_seq=1), 90_000)]
    made["late packets of a closed one"] = [
        *_script(whole),
        *_later(_script("sA"), 3000),
        *_later(_script("sA"), 20_000),
    ]
    made["reset, then another"] = [*_script("cS sRA"), *_later(_script("cS sRA", client_seq=9), 1000)]
    reply = Talk()
    reply.next["c"] = 1001
    made["its answer seen before its SYN"] = [
        (0, reply.say("s", "SA")),
        (1, Talk().say("c", "S")),
        (2, reply.say("c", "A")),
    ]
    lost = Talk()
    made["not one byte acknowledged"] = spaced([*lost.opening(), *(lost.say("c", "PA", bytes(500)) for _ in range(5))])
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)]
    made["options"] = [(at, _with_options(one, options)) for at, one in _script(_TALK)]
    return made


def _later(timed: Timed, by_ms: float) -> Timed:
    return [(at + by_ms, packet) for at, packet in timed]


def _with_options(packet: Packet, options: list) -> Packet:
    packet[TCP].options = options
    return packet


def _others() -> dict[str, Timed]:
    ask, answer = datagram("10.0.0.1", 5000, "10.0.0.2", 53, 30), datagram("10.0.0.2", 53, "10.0.0.1", 5000, 300)
    made: dict[str, Timed] = {
        "UDP, asked and answered": spaced([ask, answer, ask, answer]),
        "UDP, not answered": spaced([ask, ask]),
        "UDP, the answer alone": spaced([answer]),
        "UDP, between servers": spaced(
            [datagram("10.0.0.1", 53, "10.0.0.2", 53), datagram("10.0.0.2", 53, "10.0.0.1", 53)]
        ),
        "UDP, between no servers": spaced([datagram("10.0.0.9", 40001, "10.0.0.2", 40000)] * 2),
        "UDP, silence of 50 s and of 70 s": [(0, ask), (50_000, answer), (120_001, ask)],
        "UDP, empty": spaced([datagram("10.0.0.1", 5000, "10.0.0.2", 53, 0)]),
        "UDP over IPv6": spaced([datagram(C6, 5000, S6, 53), datagram(S6, 53, C6, 5000, 99)]),
        "UDP to oneself": spaced(
            [datagram("127.0.0.1", 5000, "127.0.0.1", 53), datagram("127.0.0.1", 53, "127.0.0.1", 5000)]
        ),
        "UDP to all": spaced(
            [datagram("10.0.0.1", 5000, "255.255.255.255", 40000), datagram("10.0.0.1", 5000, "224.0.0.251", 40000)]
        ),
        "other protocols": spaced(
            [IP(src="10.0.0.1", dst="10.0.0.2", proto=number) / Raw(bytes(40)) for number in (89, 112, 89)]
        ),
        "options of IPv4": spaced(
            [IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01" * 8) / UDP(sport=1025, dport=53) / Raw(bytes(9))]
        ),
    }
    made |= _icmp() | _sctp() | _fragments() | _extensions()
    return made


def _icmp() -> dict[str, Timed]:
    there, back = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"src": "10.0.0.2", "dst": "10.0.0.1"}
    there6, back6 = {"src": C6, "dst": S6}, {"src": S6, "dst": C6}
    ping, pong = IP(**there) / ICMP(type=8, id=1) / Raw(bytes(56)), IP(**back) / ICMP(type=0, id=1) / Raw(bytes(56))
    ping6, pong6 = IPv6(**there6) / ICMPv6EchoRequest(data=bytes(40)), IPv6(**back6) / ICMPv6EchoReply(data=bytes(40))
    lost = IP(**back) / ICMP(type=3, code=1) / IP(**there) / UDP(sport=1, dport=2)
    return {
        "ICMP echo": spaced([ping, pong, ping, pong]),
        "ICMP echo's answer alone": spaced([pong]),
        "ICMP echo both ways": spaced([ping, IP(**back) / ICMP(type=8) / Raw(bytes(5)), pong]),
        "ICMP without an answer": spaced([lost, lost, IP(**there) / ICMP(type=11, code=0) / Raw(bytes(28))]),
        "ICMP, unreachable both ways": spaced([lost, IP(**there) / ICMP(type=3, code=1) / Raw(bytes(28))]),
        "ICMP timestamps": spaced(
            [IP(**there) / ICMP(type=13) / Raw(bytes(12)), IP(**back) / ICMP(type=14) / Raw(bytes(12))]
        ),
        "ICMPv6 echo": spaced([ping6, pong6]),
        "ICMPv6 neighbours": spaced([IPv6(**there6) / ICMPv6ND_NS(tgt=S6), IPv6(**back6) / ICMPv6ND_NA(tgt=S6)]),
        "ICMPv6 unreachable": spaced([IPv6(**back6) / ICMPv6DestUnreach(code=4) / Raw(bytes(48))]),
    }


def _sctp() -> dict[str, Timed]:
    there, back = IP(src="10.0.0.1", dst="10.0.0.2"), IP(src="10.0.0.2", dst="10.0.0.1")
    init = there / SCTP(sport=36412, dport=36413) / SCTPChunkInit(init_tag=1)
    answer = back / SCTP(sport=36413, dport=36412, tag=1) / SCTPChunkInitAck(init_tag=2)
    data = there / SCTP(sport=36412, dport=36413, tag=2) / SCTPChunkData(data=bytes(100))
    return {"SCTP": spaced([init, answer, data]), "SCTP, midstream": spaced([data, data])}


def _fragments() -> dict[str, Timed]:
    whole = datagram("10.0.0.1", 5000, "10.0.0.2", 53, 1200)
    whole[IP].id = 77
    one, two, three, *_rest = pieces = fragment(whole, 400)
    head = {"src": "10.0.0.1", "dst": "10.0.0.2", "proto": 17, "id": 77}
    body = bytes(IP(bytes(whole)).payload)
    over = [IP(flags="MF", frag=0, **head) / Raw(body[:408]), IP(flags="MF", frag=25, **head) / Raw(body[200:808])]
    over += [IP(frag=101, **head) / Raw(body[808:])]
    plain = IPv6(src=C6, dst=S6) / UDP(sport=5000, dport=53) / Raw(bytes(1000))
    body6 = bytes(IPv6(bytes(plain)).payload)
    cuts = [(0, 400), (400, 800), (800, len(body6))]
    pieces6 = [
        IPv6(src=C6, dst=S6) / IPv6ExtHdrFragment(nh=17, offset=a // 8, m=int(b < len(body6)), id=5) / Raw(body6[a:b])
        for a, b in cuts
    ]
    atomic = (
        IPv6(src=C6, dst=S6)
        / IPv6ExtHdrFragment(nh=17, offset=0, m=0, id=6)
        / UDP(sport=5000, dport=53)
        / Raw(bytes(9))
    )
    talk = Talk()
    opening = talk.opening()
    cut = fragment(talk.say("c", "PA", bytes(900)), 296)
    return {
        "fragments in order": spaced(pieces),
        "fragments the other way round": spaced(pieces[::-1]),
        "fragments in disorder": spaced([two, one, three, *_rest]),
        "fragments that overlap": spaced(over),
        "fragments twice": spaced([one, one, two, three, *_rest]),
        "a fragment missing": spaced([one, three, *_rest]),
        "fragments of two datagrams mixed": spaced(
            [each for pair in zip(pieces, _renamed(pieces), strict=True) for each in pair]
        ),
        "fragments of TCP": spaced([*opening, *cut, talk.say("s", "A"), *talk.closing()]),
        "fragments of IPv6": spaced(pieces6),
        "fragments of IPv6 in disorder": spaced([pieces6[2], pieces6[0], pieces6[1]]),
        "a fragment of IPv6 missing": spaced([pieces6[0], pieces6[2]]),
        "a fragment of IPv6 that is whole": spaced([atomic]),
    }


def _renamed(pieces: list[Packet]) -> list[Packet]:
    made = [IP(bytes(piece)) for piece in pieces]
    for piece in made:
        piece.id = 78
        del piece.chksum
    return made


def _extensions() -> dict[str, Timed]:
    head, body = IPv6(src=C6, dst=S6), UDP(sport=5000, dport=53) / Raw(bytes(30))
    between = {
        "hop by hop": IPv6ExtHdrHopByHop(),
        "to the destination": IPv6ExtHdrDestOpt(),
        "a routing header that is done": IPv6ExtHdrRouting(addresses=[S6], segleft=0),
        "a routing header on its way": IPv6ExtHdrRouting(addresses=["2001:db8::8", "2001:db8::9"], segleft=2),
        "a routing header of another type": IPv6ExtHdrRouting(type=2, addresses=["2001:db8::9"], segleft=1),
        "a routing header of odd length": IPv6ExtHdrRouting(len=3, addresses=["2001:db8::9"], segleft=1)
        / Raw(b"\x3b\0\1\4\0\0\0\0"),
        "two routing headers": IPv6ExtHdrRouting(addresses=["2001:db8::8"], segleft=1)
        / IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=1),
        "authentication": AH(nh=17, payloadlen=4, spi=1, seq=1, icv=bytes(12)),
    }
    made = {f"IPv6, {name}": spaced([head / between / body]) for name, between in between.items()}
    made["IPv6, several"] = spaced(
        [head / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=[], segleft=0) / body]
    )
    made["IPv6, no next header"] = spaced([IPv6(src=C6, dst=S6, nh=59), head / body])
    made["encrypted"] = spaced([IP(src="10.0.0.1", dst="10.0.0.2") / ESP(spi=1, seq=1, data=bytes(40)), head / body])
    return made


def _tunnels() -> dict[str, Timed]:
    inner, inner6 = _script(f"{_TALK} cFA sFA cA"), _script(f"{_TALK} cFA sFA cA", client=C6, server=S6)
    udp = {"sport": 50001}
    wraps: dict[str, tuple[Timed, Callable[[Packet], Packet]]] = {
        "4in4": (inner, lambda one: IP(**_OUTER) / one),
        "6in4": (inner6, lambda one: IP(**_OUTER, proto=41) / one),
        "4in6": (inner, lambda one: IPv6(**_OUTER6) / one),
        "6in6": (inner6, lambda one: IPv6(**_OUTER6) / one),
        "GRE": (inner, lambda one: IP(**_OUTER) / GRE() / one),
        "GRE of IPv6": (inner6, lambda one: IP(**_OUTER) / GRE() / one),
        "GRE over IPv6": (inner, lambda one: IPv6(**_OUTER6) / GRE() / one),
        "GRE with key, number and sum": (
            inner,
            lambda one: IP(**_OUTER) / GRE(key_present=1, key=9, seqnum_present=1, chksum_present=1) / one,
        ),
        "GRE of Ethernet": (inner, lambda one: IP(**_OUTER) / GRE(proto=0x6558) / Raw(ethernet(one))),
        "VXLAN": (
            inner,
            lambda one: IP(**_OUTER) / UDP(dport=4789, **udp) / VXLAN(vni=5, flags=8) / Raw(ethernet(one)),
        ),
        "VXLAN of VLANs": (
            inner,
            lambda one: IP(**_OUTER) / UDP(dport=4789, **udp) / VXLAN(vni=5, flags=8) / Raw(vlan(one)),
        ),
        "VXLAN over IPv6": (
            inner6,
            lambda one: IPv6(**_OUTER6) / UDP(dport=4789, **udp) / VXLAN(vni=5, flags=8) / Raw(ethernet(one)),
        ),
        "Geneve": (
            inner,
            lambda one: IP(**_OUTER) / UDP(dport=6081, **udp) / GENEVE(proto=0x6558, vni=1) / Raw(ethernet(one)),
        ),
        "GTP": (inner, lambda one: IP(**_OUTER) / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=9) / one),
        "GTP of IPv6": (inner6, lambda one: IP(**_OUTER) / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=9) / one),
        "GTP with a number": (
            inner,
            lambda one: IP(**_OUTER) / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=9, S=1, seq=4) / one,
        ),
        "Teredo": (inner6, lambda one: IP(**_OUTER) / UDP(dport=3544, **udp) / one),
        "Teredo with its origin": (
            inner6,
            lambda one: IP(**_OUTER) / UDP(dport=3544, **udp) / Raw(bytes((0, 0, 1, 2, 3, 4, 5, 6)) + bytes(one)),
        ),
        "GRE in GRE": (
            inner,
            lambda one: IP(**_OUTER) / GRE() / IP(src="198.51.100.1", dst="198.51.100.2") / GRE() / one,
        ),
        "4in6 in VXLAN": (
            inner,
            lambda one: IP(**_OUTER) / UDP(dport=4789, **udp) / VXLAN(flags=8) / Raw(ethernet(IPv6(**_OUTER6) / one)),
        ),
        "VXLAN in GRE": (
            inner,
            lambda one: (
                IP(**_OUTER)
                / GRE()
                / IP(src="198.51.100.1", dst="198.51.100.2")
                / UDP(dport=4789, **udp)
                / VXLAN(flags=8)
                / Raw(ethernet(one))
            ),
        ),
        "three tunnels deep": (
            inner,
            lambda one: (
                IP(**_OUTER)
                / IP(src="198.51.100.1", dst="198.51.100.2")
                / IP(src="203.0.113.1", dst="203.0.113.2")
                / one
            ),
        ),
    }
    made = {name: [(at, bytes(wrap(one))) for at, one in timed] for name, (timed, wrap) in wraps.items()}
    made["no VXLAN on its port"] = spaced([datagram("192.0.2.1", 50001, "192.0.2.2", 4789, 60)])
    made["no GTP on its port"] = spaced([datagram("192.0.2.1", 2152, "192.0.2.2", 2152, 60)])
    relayed = _script(f"{_TALK} cFA sFA cA", client="2001:0:4136:e378:8000:63bf:3fff:fdd2", server=S6)
    to_any = IP(**_OUTER) / UDP(sport=50001, dport=50002)
    origin, signed = bytes((0, 0)) + bytes(6), bytes((0, 1, 2, 3)) + bytes(5 + 9)
    ayiya = bytes((0x44, 0x52, 0x11, 41)) + bytes(4 + 16 + 20)
    by_content = {
        "Teredo on another port": (relayed, b""),
        "Teredo on another port, with its origin": (inner6, origin),
        "Teredo on another port, with authentication": (inner6, signed + origin),
        "Teredo on another port, with authentication alone": (relayed, signed),
        "IPv6 in UDP that is no Teredo": (inner6, b""),
        "AYIYA on another port": (inner6, ayiya),
        "AYIYA with another signature on another port": (inner6, b"\x44\x51" + ayiya[2:]),
    }
    made |= {
        name: [(at, bytes(to_any / Raw(before + bytes(one)))) for at, one in timed]
        for name, (timed, before) in by_content.items()
    }
    made["AYIYA"] = [(at, bytes(IP(**_OUTER) / UDP(dport=5072, **udp) / Raw(ayiya + bytes(one)))) for at, one in inner6]
    made["no AYIYA on its port"] = spaced([datagram("192.0.2.1", 50001, "192.0.2.2", 5072, 80)])
    made["Teredo that is longer than it says"] = spaced([to_any / Raw(bytes(relayed[0][1]) + b"x")])
    made["no Teredo on its port"] = spaced([datagram("192.0.2.1", 50001, "192.0.2.2", 3544, 60)])
    whole = bytes(
        IP(**_OUTER, id=3)
        / UDP(dport=4789, **udp)
        / VXLAN(flags=8)
        / Raw(ethernet(datagram("10.0.0.1", 5000, "10.0.0.2", 53, 900)))
    )
    made["a tunnel in fragments"] = spaced(fragment(IP(whole), 400))
    return made


def _late() -> dict[str, Timed]:
    """Packets whose time, or whose place, is behind the end of their flow."""
    other, asked = datagram("10.0.0.9", 5000, "10.0.0.2", 53), datagram("10.0.0.1", 5000, "10.0.0.2", 53)
    one, two = Talk(), Talk()
    return {
        "rejected, and an answer of before that comes late": [
            (0, one.say("c", "S")), (1, one.say("c", "R")), (400_000, other), (2, one.say("s", "RA")),
        ],
        "idle, and a packet of before that comes late": [(0, asked), (400_000, other), (50, asked)],
        "reset by one end, then closed by the other": [
            (0, two.say("c", "A")), (1, two.say("c", "PA", b"x")), (2, two.say("c", "R")), (4_000, two.say("s", "FA")),
            (8_000, two.say("c", "PA", b"y")), (20_000, two.say("c", "PA", b"z")),
        ],
    }  # fmt: skip


TCP_CASES, OTHER_CASES, TUNNEL_CASES = _tcp_others(), _others(), _tunnels()
CASES: dict[str, Timed] = {**TCP_CASES, **OTHER_CASES, **TUNNEL_CASES, **_late()}
