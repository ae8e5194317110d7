# SPDX-License-Identifier: GPL-3.0-or-later
"""Real packets in a real namespace: what is taken in, how much of each, what it gives, and what is lost is counted.

Long, because the network that all of it needs is made once for the module.
"""

import contextlib
import ctypes
import io
import os
import socket
import ssl
import subprocess
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Network
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Raw
from scapy.utils import rdpcap

from whoneeds.model.errors import Denied, SettingsError, Unsupported
from whoneeds.model.evidence import CaptureRecord, ExchangeRecord, Gap, NameRecord
from whoneeds.tracer import clocks, filter_expression
from whoneeds.tracer.network_header import find_transport
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.packet_ring import open_capture
from whoneeds.tracer.packets import PacketLimits, PacketSource, open_captures
from whoneeds.tracer.settings import make_settings

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def network():
    """A namespace of one's own."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("needs root and the right to make network namespaces")
    made = Network(f"whoneeds-packets-{os.getpid()}")
    yield made
    made.close()


class Capture:
    """A packet source on one namespace, and the observation that it tells of gaps."""

    def __init__(self, network, wanted="headers", limits=PacketLimits()):
        self.at = clocks.now()
        self.observation = Observation("h", clocks.read_boot_id(), self.at)
        channels, refused = open_captures(wanted, None, network.doors)
        assert not refused
        self.source = PacketSource(channels, 0, wanted, limits, self.at)

    def take(self):
        """Everything that came, as tables and a list of packets read by scapy."""
        time.sleep(self.source.finish())
        self.source.read(self.observation, clocks.now())
        tables, content = self.source.take(self.observation, clocks.now())
        self.source.close()
        self.gaps = {row.detail: row.lost for row in self.observation.records(clocks.now())[Gap]}
        self.content = content
        return tables, list(rdpcap(io.BytesIO(content))) if content else []


@pytest.fixture
def capture(network):
    """A capture of headers."""
    made = Capture(network)
    yield made
    made.source.close()


def test_a_udp_conversation_over_loopback_is_counted_once_at_each_end(network, capture):
    """Both ends of a conversation have a row, and no packet counts twice although loopback shows each one twice."""
    server, client = network.udp(), network.udp("127.0.0.2")
    for _time in range(3):
        client.sendto(b"ask", server.getsockname())
        server.sendto(b"answer", server.recvfrom(100)[1])
    tables, packets = capture.take()
    rows = {row.local_addr: row for row in tables[ExchangeRecord]}
    asked, served = rows["127.0.0.2"], rows["127.0.0.1"]
    assert (asked.sent_packets, asked.received_packets, asked.sent_bytes, asked.received_bytes) == (3, 3, 9, 18)
    assert (served.sent_packets, served.received_packets, served.remote_port) == (3, 3, client.getsockname()[1])
    assert {row.netns for row in tables[ExchangeRecord]} == {str(network.inode)}
    assert len(packets) == 6
    (record,) = tables[CaptureRecord]
    assert (record.packets, record.stored_packets, record.lost_packets, record.filter) == (6, 6, 0, "headers")
    assert record.first_ns <= asked.first_ns <= asked.last_ns <= record.last_ns


def test_of_tcp_only_begin_and_end_are_taken(network, capture):
    """By default the packets of a TCP connection that carry SYN, FIN or RST are taken, and its data is not."""
    client, server = network.tcp_pair()
    client.sendall(b"secret" * 10)
    server.recv(100)
    client.close()
    server.close()
    tables, packets = capture.take()
    assert [str(packet[TCP].flags) for packet in packets] == ["S", "SA", "FA", "FA"]
    assert tables[ExchangeRecord] == []
    assert b"secret" not in capture.content


def test_the_file_is_a_standard_capture_cut_to_headers(network):
    """With 'all' every packet is in a file that scapy reads, with nanoseconds, real lengths and at most 128 bytes."""
    capture = Capture(network, "all")
    client, server = network.tcp_pair()
    client.sendall(b"x" * 5000)
    server.recv(5000)
    before = time.time()
    _tables, packets = capture.take()
    longest = max(packets, key=lambda packet: packet.wirelen)
    assert capture.content[:4] == bytes.fromhex("a1b23c4d")
    assert longest.wirelen == 20 + 52 + 5000
    assert max(len(bytes(packet)) for packet in packets) <= 128
    assert all(abs(float(packet.time) - before) < 5 for packet in packets)
    assert {packet.ifindex & 0xFFFFF for packet in packets} == {1}


def answer_queries(server, count):
    """Be a small name server: the name asked for is an alias, and its address is 192.0.2.7."""
    for _query in range(count):
        data, peer = server.recvfrom(512)
        query = DNS(data)
        asked = query.qd[0].qname
        records = [
            DNSRR(rrname=asked, type="CNAME", rdata="real.example.test"),
            DNSRR(rrname="real.example.test", type="A", rdata="192.0.2.7"),
            *(DNSRR(rrname="real.example.test", type="AAAA", rdata=f"2001:db8::{last:x}") for last in range(1, 9)),
        ]
        server.sendto(bytes(DNS(id=query.id, qr=1, qd=query.qd, an=records)), peer)


def test_answers_of_a_name_server_give_names(network, capture):
    """What a resolver is told by a real name server on port 53 is kept, longer than other packets are."""
    server, client = network.udp("127.0.0.53", 53), network.udp()
    thread = threading.Thread(target=answer_queries, args=(server, 1))
    thread.start()
    client.sendto(bytes(DNS(rd=1, qd=DNSQR(qname="DB.Example.test"))), server.getsockname())
    assert len(client.recv(1500)) > 250
    thread.join()
    server.close()
    tables, packets = capture.take()
    found = {(row.name, row.address, row.source, row.netns) for row in tables[NameRecord]}
    assert ("db.example.test", "192.0.2.7", "dns", str(network.inode)) in found
    assert ("db.example.test", "2001:db8::8", "dns", str(network.inode)) in found
    assert len(found) == 9
    assert max(len(bytes(packet)) for packet in packets) <= 128


def test_an_answer_that_nobody_asked_for_is_not_believed(network, capture):
    """A packet from port 53 that answers no packet of the host gives no name."""
    server, client = network.udp("127.0.0.53", 53), network.udp()
    records = DNSRR(rrname="bank.test", type="A", rdata="192.0.2.66")
    server.sendto(bytes(DNS(qr=1, qd=DNSQR(qname="bank.test"), an=records)), client.getsockname())
    client.recv(1500)
    server.close()
    tables, packets = capture.take()
    assert (len(packets), tables[NameRecord]) == (1, [])


def test_a_real_tls_handshake_tells_the_servers_name(network, capture):
    """The name that a TLS client asks for is kept with the address that it asked."""
    client, server = network.tcp_pair()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    closer = threading.Thread(target=lambda: (server.recv(4096), server.close()))
    closer.start()
    with contextlib.suppress(OSError):
        context.wrap_socket(client, server_hostname="shop.example.test")
    closer.join()
    tables, packets = capture.take()
    assert [(row.name, row.address, row.source) for row in tables[NameRecord]] == [
        ("shop.example.test", "127.0.0.1", "sni")
    ]
    assert max(len(bytes(packet)) for packet in packets) <= 128


def test_more_packets_than_are_taken_in_are_counted(network):
    """Beyond packets_per_s packets are dropped unread, each one counted in a gap and in the capture's row."""
    capture = Capture(network, limits=PacketLimits(per_s=50))
    server, client = network.udp(), network.udp()
    for _time in range(3000):
        client.sendto(b"x", server.getsockname())
    tables, packets = capture.take()
    (record,) = tables[CaptureRecord]
    assert record.packets == 3000
    assert record.lost_packets == sum(capture.gaps.values())
    assert 0 < len(packets) == 3000 - record.lost_packets
    assert "packets beyond the 50 a second that are taken in" in capture.gaps
    assert tables[ExchangeRecord][0].initiated is None


def test_after_a_loss_nobody_is_said_to_have_begun(network):
    """A conversation that begins right after packets were lost may have begun with one of those."""
    begun = {}
    for per_s in (50, 1_000_000):
        capture = Capture(network, limits=PacketLimits(per_s=per_s))
        time.sleep(2.2)
        server, client, late = network.udp(), network.udp(), network.udp()
        for _time in range(800):
            client.sendto(b"x", server.getsockname())
        time.sleep(capture.source.finish())
        capture.source.read(capture.observation, clocks.now())
        time.sleep(1.2)
        capture.source.read(capture.observation, clocks.now())
        late.sendto(b"x", server.getsockname())
        tables, _packets = capture.take()
        port = late.getsockname()[1]
        begun[per_s] = [row.initiated for row in tables[ExchangeRecord] if row.local_port == port]
    assert begun == {50: [None], 1_000_000: [True]}


def test_what_the_ring_has_no_room_for_is_counted(network):
    """Packets that come while nobody reads, more than the ring holds, are counted as lost by the kernel."""
    capture = Capture(network, limits=PacketLimits(per_s=1_000_000))
    server, client = network.udp(), network.udp()
    for _time in range(5000):
        client.sendto(b"x", server.getsockname())
    tables, packets = capture.take()
    lost = capture.gaps["packets that the kernel had no room for"]
    assert lost > 0
    assert (tables[CaptureRecord][0].lost_packets, tables[CaptureRecord][0].packets) == (lost, 5000)
    assert len(packets) == 5000 - lost


def test_a_full_file_takes_no_more_and_conversations_are_counted_on(network):
    """The capture file never exceeds its bytes; what it has no room for is a gap, and still counts in conversations."""
    capture = Capture(network, limits=PacketLimits(file_bytes=2000))
    server, client = network.udp(), network.udp()
    for _time in range(100):
        client.sendto(b"x" * 50, server.getsockname())
    tables, packets = capture.take()
    assert len(capture.content) <= 2000
    assert capture.gaps == {"packets that the capture file has no room for; all else counts them": 100 - len(packets)}
    assert tables[ExchangeRecord][0].sent_packets == 100
    assert tables[CaptureRecord][0].lost_packets == 0


@pytest.fixture(scope="module")
def wire(network):
    """A wire into the namespace."""
    if not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("no /dev/net/tun here")
    descriptor = network.wire()
    yield descriptor
    os.close(descriptor)


FORGED = [
    IP(src="10.99.0.2", dst="10.99.0.1") / UDP(sport=53, dport=5),
    IP(src="10.99.0.2", dst="10.99.0.1") / UDP(sport=53, dport=5, len=3) / Raw(b"\0" * 40),
    IP(src="10.99.0.2", dst="10.99.0.1") / UDP(sport=5353, dport=5) / DNS(qr=1, ancount=65535),
    IP(src="10.99.0.2", dst="10.99.0.1") / TCP(flags="A", dataofs=15) / Raw(b"\x16\3\1\0\1\1"),
    IP(src="10.99.0.2", dst="10.99.0.1") / TCP(flags="A", dataofs=0) / Raw(b"\x16\3\1\xff\xff\1" + b"\xff" * 600),
    IP(src="10.99.0.2", dst="10.99.0.1") / TCP(flags="A") / Raw(b"\x16\3\1\xff\xff\1" + b"\xff" * 600),
    IP(src="10.99.0.2", dst="10.99.0.1", ihl=15) / UDP() / Raw(b"x" * 60),
    IP(src="10.99.0.2", dst="10.99.0.1", proto=17),
    IPv6(src="fe80::2", dst="fe80::1") / IPv6ExtHdrHopByHop() / UDP(sport=53) / Raw(b"x"),
    IPv6(src="fe80::2", dst="fe80::1") / IPv6ExtHdrFragment(offset=7) / Raw(b"x" * 20),
    IPv6(src="fe80::2", dst="fe80::1", nh=0) / Raw(b"\0\xff" * 4),
    *fragment(IP(src="10.99.0.2", dst="10.99.0.1") / UDP(sport=53) / Raw(b"x" * 2000), 800),
]


def test_only_the_first_fragment_names_its_ends():
    """What stands where a header would be in a later fragment, or behind a header of another protocol, is no port."""
    first, *rest = fragment(IP(src="10.99.0.2", dst="10.99.0.1") / UDP(sport=53, dport=7) / Raw(b"x" * 2000), 800)
    assert find_transport(b"\x08\0", bytes(first)) == (
        17, 20, bytes([10, 99, 0, 2, 10, 99, 0, 1, 0, 53, 0, 7]),
    )  # fmt: skip
    assert [find_transport(b"\x08\0", bytes(packet)) for packet in rest] == [None] * len(rest)
    six = IPv6(src="fe80::2", dst="fe80::1")
    begin = bytes(six / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(m=1) / UDP(sport=53, dport=7) / Raw(b"x"))
    assert find_transport(b"\x86\xdd", begin)[1:] == (56, begin[8:40] + b"\0\x35\0\7")
    later = bytes(six / IPv6ExtHdrFragment(offset=7, nh=17) / Raw(b"x" * 20))
    assert find_transport(b"\x86\xdd", later) is None
    assert find_transport(b"\x08\6", bytes(first)) is None


def test_forged_packets_do_no_harm(network, wire, capture):
    """Wrong lengths, fragments, extension headers and stumps are taken in without a failure and without a name."""
    for packet in FORGED:
        with contextlib.suppress(OSError):  # the kernel itself refuses some
            os.write(wire, bytes(packet))
    tables, packets = capture.take()
    assert len(packets) >= 8
    assert tables[NameRecord] == []
    assert all(row.local_addr == "10.99.0.1" for row in tables[ExchangeRecord])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            lambda lead, rest: lead + rest,
            st.sampled_from([b"", *(bytes(packet)[:cut] for packet in FORGED for cut in (20, 28, 40, 60))]),
            st.binary(max_size=200),
        ),
        max_size=40,
    )
)
def test_any_packets_are_survived(network, wire, packets):
    """Packets of any bytes end in rows that fit their columns, or in none."""
    source = Capture(network)
    for packet in packets:
        with contextlib.suppress(OSError):
            os.write(wire, packet)
    tables, _content = source.take()
    assert tables[CaptureRecord][0].lost_packets == 0
    assert all(row.sent_packets + row.received_packets > 0 for row in tables[ExchangeRecord])


def test_a_capture_can_be_handed_to_who_has_no_privilege(network):
    """Descriptors that a privileged process opened are read by one without any capability."""
    channels, _refused = open_captures("headers", None, network.doors)
    server, client = network.udp(), network.udp()
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            libc.prctl(38, 1, 0, 0, 0)
            with contextlib.suppress(Denied):
                open_capture(b"\x06\0\0\0\1\0\0\0", block_bytes=4096, blocks=1)
                os._exit(3)
            at = clocks.now()
            source = PacketSource(channels, 0, "headers", PacketLimits(), at)
            client.sendto(b"x", server.getsockname())
            time.sleep(source.finish())
            observation = Observation("h", "b", at)
            source.read(observation, clocks.now())
            os.write(told, b"%d" % len(source.take(observation, clocks.now())[0][ExchangeRecord]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(told)
    assert os.read(answer, 10) == b"2"
    os.close(answer)
    for channel in channels.values():
        channel.close()


def test_without_the_right_to_it_packets_are_denied():
    """Who may not open a packet socket is told which capability is missing."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        try:
            open_captures("headers", 1, {})
        except Denied as error:
            os._exit(0 if "CAP_NET_RAW" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_namespace_that_is_left_is_not_kept_alive(network):
    """Once no way into a namespace is found, its ring goes, and what it held until then is told."""
    capture = Capture(network)
    server, client = network.udp(), network.udp()
    client.sendto(b"x", server.getsockname())
    time.sleep(capture.source.finish())
    capture.source.watch(capture.observation, clocks.now(), {})
    tables, _packets = capture.take()
    assert len(tables[ExchangeRecord]) == 2
    assert capture.source.rows == 0


def test_new_namespaces_are_followed(network):
    """A namespace that comes up while tracing is captured from then on."""
    at = clocks.now()
    observation = Observation("h", clocks.read_boot_id(), at)
    source = PacketSource({}, 0, "headers", PacketLimits(), at)
    source.watch(observation, at, network.doors)
    server, client = network.udp(), network.udp()
    client.sendto(b"x", server.getsockname())
    time.sleep(0.5)
    source.read(observation, clocks.now())
    tables, _content = source.take(observation, clocks.now())
    source.close()
    assert [row.netns for row in tables[CaptureRecord]] == [str(network.inode)]
    assert len(tables[ExchangeRecord]) == 2


def has_libpcap():
    """Whether this machine can compile expressions."""
    try:
        filter_expression.compile_expression("udp")
    except Unsupported:
        return False
    return True


def test_an_expression_selects_and_nothing_else(network):
    """Of two conversations only the one that the expression names is taken, and names are read of it as of any."""
    if not has_libpcap():
        pytest.skip("no libpcap here")
    server, client = network.udp("127.0.0.53", 53), network.udp()
    capture = Capture(network, "udp port 53 and host 127.0.0.53")
    thread = threading.Thread(target=answer_queries, args=(server, 1))
    thread.start()
    client.sendto(bytes(DNS(rd=1, qd=DNSQR(qname="db.test"))), server.getsockname())
    client.recv(1500)
    client.sendto(b"x", network.udp("127.0.0.1").getsockname())
    thread.join()
    server.close()
    tables, packets = capture.take()
    assert len(packets) == 2
    assert {row.name for row in tables[NameRecord]} == {"db.test"}
    assert len(tables[ExchangeRecord]) == 2


def test_a_wrong_expression_is_refused_before_anything_begins():
    """Words that are no expression are refused with what libpcap says about them."""
    if not has_libpcap():
        pytest.skip("no libpcap here")
    with pytest.raises(SettingsError, match="expression"):
        make_settings({}, {"packets": "port and and"})


def test_without_libpcap_an_expression_is_not_offered(network, monkeypatch):
    """Where the host has no libpcap, an expression captures nothing and says what is missing."""
    monkeypatch.setattr(filter_expression, "_NAMES", ("libpcap-that-is-not-there.so",))
    assert make_settings({}, {"packets": "udp port 53"}).packets == "udp port 53"
    with pytest.raises(Unsupported, match="libpcap"):
        open_captures("udp port 53", None, network.doors)


def test_sockets_of_other_hosts_packets_are_left_alone(network, wire, capture):
    """A packet that only passes by, between two foreign addresses, is nobody's conversation here."""
    os.write(wire, bytes(IP(src="10.99.0.7", dst="10.99.0.8") / UDP(sport=4000, dport=4001) / Raw(b"x")))
    tables, packets = capture.take()
    assert [packet[UDP].dport for packet in packets] == [4001]
    assert tables[ExchangeRecord] == []


def test_ipv6_is_taken_as_ipv4_is(network, capture):
    """A conversation over IPv6 is counted with its addresses."""
    server, client = network.udp("::1"), network.udp("::1")
    client.sendto(b"four", server.getsockname()[:2])
    tables, _packets = capture.take()
    first = next(row for row in tables[ExchangeRecord] if row.sent_packets)
    assert (first.local_addr, first.remote_addr, first.sent_bytes) == ("::1", "::1", 4)
    assert first.remote_port == server.getsockname()[1]
    assert socket.has_ipv6


def test_a_namespace_that_lost_its_addresses_is_left(network):
    """Where nothing tells that a namespace is empty, the loss of its addresses does, so that none is kept for long."""
    other = Network(f"whoneeds-emptied-{os.getpid()}")
    try:
        words = ["ip", "-n", other.name, "addr"]
        subprocess.run([*words, "add", "10.97.0.1/32", "dev", "lo"], check=True)
        capture = Capture(other)
        capture.source.take(capture.observation, clocks.now())
        assert capture.source.namespaces == {str(other.inode)}
        subprocess.run([*words, "del", "10.97.0.1/32", "dev", "lo"], check=True)
        capture.source.take(capture.observation, clocks.now())
        assert capture.source.namespaces == set()
    finally:
        other.close()
