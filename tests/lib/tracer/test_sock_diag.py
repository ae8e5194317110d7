# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's list of sockets is read right, and no bytes in its place do harm."""

import contextlib
import os
import socket
import struct
import time
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from whoneeds.model.errors import HostError
from whoneeds.tracer import addresses, netlink, sock_diag
from whoneeds.tracer.sock_diag import (
    TCP,
    UDP,
    address_text,
    decode_ends,
    list_sockets,
    open_channel,
    parse_rows,
    read_row,
)


@pytest.fixture
def channel():
    """A channel to the kernel."""
    made = open_channel()
    yield made
    made.close()


def list_rows(channel, protocol):
    """The rows of a listing."""
    return [read_row(raw) for raw in list_sockets(channel, protocol)[0]]


def find(channel, protocol, sock):
    """The row of a socket of ours, by its inode."""
    rows = list_rows(channel, protocol)
    inode = os.fstat(sock.fileno()).st_ino
    (row,) = [row for row in rows if row[2] == inode]
    return row, decode_ends(row[6], row[0])


@pytest.mark.parametrize(
    ("family", "bind", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_listeners_and_bound_sockets_have_no_peer(channel, family, bind, shown):
    """A listener and a bound UDP socket show their address, IPv4-mapped ones as IPv4, and no peer."""
    for kind, protocol in ((socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)):
        with socket.socket(family, kind) as sock:
            if bind.startswith("::ffff"):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((bind, 0))
            if protocol == TCP:
                sock.listen()
            row, ends = find(channel, protocol, sock)
            assert (ends.local_addr, ends.local_port) == (shown, sock.getsockname()[1])
            assert (ends.remote_addr, ends.remote_port) == (None, None)
            assert row[4:6] == (None, None)
            assert ends.cookie == struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, 57, 8))[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_connections_show_both_ends(channel, address):
    """Both ends of a TCP connection and of a connected UDP socket are shown from their own side."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    shown = "127.0.0.1" if address.startswith("::ffff") else address
    for kind, protocol in ((socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)):
        with socket.socket(family, kind) as server, socket.socket(family, kind) as client:
            server.bind((address, 0))
            if protocol == TCP:
                server.listen()
            client.connect(server.getsockname())
            _, ends = find(channel, protocol, client)
            assert ends[:4] == (shown, client.getsockname()[1], shown, server.getsockname()[1])
            if protocol == TCP:
                accepted, _ = server.accept()
                with accepted:
                    _, far = find(channel, protocol, accepted)
                    assert far[:4] == (*ends[2:4], *ends[:2])


@pytest.mark.parametrize(("there", "back"), [(0, 0), (1, 0), (12345, 678), (300_000, 5)])
@pytest.mark.parametrize("ending", ["open", "client closes", "server closes"])
def test_bytes_are_those_that_were_sent(channel, there, back, ending):
    """Byte counts equal what the programs sent, whichever end connected, and whichever closed its side."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            for sender, receiver, amount in ((client, accepted, there), (accepted, client, back)):
                sender.sendall(b"x" * amount)
                while amount:
                    amount -= len(receiver.recv(1 << 16))
            if ending != "open":
                (client if ending == "client closes" else accepted).shutdown(socket.SHUT_WR)
            for _ in range(100):
                near, far = find(channel, TCP, client)[0], find(channel, TCP, accepted)[0]
                if (near[4:6], far[4:6]) == ((there, back), (back, there)):
                    break
                time.sleep(0.02)
            assert near[4:6] == (there, back)
            assert far[4:6] == (back, there)


def test_a_closed_connection_keeps_its_identity(channel):
    """In TIME_WAIT a connection has no owner any more, but the very identity it had when it was open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        row, ends = find(channel, TCP, client)
        client.close()
        accepted.close()
        time.sleep(0.1)
        (closed,) = [found for found in list_rows(channel, TCP) if found[0] == row[0]]
        assert (closed[1], closed[2]) == (6, 0)
        assert decode_ends(closed[6], closed[0]) == ends


def test_both_forms_of_the_request_list_the_same(channel, monkeypatch):
    """The older request, both families in one pass, lists what two newer ones list."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::1", 0), family=socket.AF_INET6) as two:
        inodes = {find(channel, TCP, sock)[0][2] for sock in (one, two)}
        monkeypatch.setattr(sock_diag, "_TCPDIAG_GETSOCK", 23)  # no such request
        rows = list_rows(channel, TCP)
        assert inodes <= {row[2] for row in rows}


def test_a_refused_request_is_an_error_of_the_host(channel):
    """What the kernel refuses is an error that says what was asked and what to do."""
    with pytest.raises(HostError, match="nonsense"):
        netlink.dump(channel, 23, bytes(64), "nonsense", parse_rows)


def capture(channel):
    """Real buffers of the kernel's answer."""
    request = sock_diag._OLD_REQUEST.pack(sock_diag._WANT_INFO, sock_diag._TCP_STATES, 0)
    what = (sock_diag._TCPDIAG_GETSOCK, request, "sockets")
    return netlink.dump(channel, *what, lambda buffer, runs: [(buffer, runs)])[0]


def slow_rows(buffer):
    """The obvious decoder: every attribute of every message is looked at, nothing is remembered."""
    rows = []
    for kind, begin, end in netlink.each_message(netlink.split_messages(buffer).runs):
        if kind not in (18, 20):
            continue
        family, state, _, _ = struct.unpack_from("=BBBB", buffer, begin)
        uid, inode = struct.unpack_from("=II", buffer, begin + 64)
        sent = received = None
        for name, value, stop in netlink.attributes(buffer, begin + 72, end):
            if name == 2 and state != 10 and stop - value >= 136:
                acked, received, *_ = struct.unpack_from("=QQ", buffer, value + 120)
                sent = acked
                if stop - value >= 216:
                    data, again = struct.unpack_from("=QQ", buffer, value + 200)
                    sent = min(acked, max(0, data - again))
                received -= bool(received) and state in (8, 9, 11)
                break
        rows.append((buffer[begin + 4 : begin + 52], state, inode, uid, sent, received, family))
    return rows


def quick_rows(buffer, runs):
    """What the decoder in use gives."""
    return [read_row(raw) for raw in parse_rows(buffer, runs)]


def test_the_quick_decoder_equals_the_obvious_one(channel):
    """On real answers of the kernel the decoder that remembers layouts gives what the obvious one gives."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        pairs = [(socket.create_connection(server.getsockname()), server.accept()[0]) for _ in range(50)]
        for client, accepted in pairs[::2]:
            client.send(b"abc")
            accepted.shutdown(socket.SHUT_WR)
        buffers = capture(channel)
        assert sum(run[4] for _, runs in buffers for run in runs) >= 101
        for buffer, runs in buffers:
            assert quick_rows(buffer, runs) == slow_rows(buffer)
        for pair in pairs:
            for sock in pair:
                sock.close()


def entry(attributes: bytes, state: int = 1) -> bytes:
    """A message of the kernel with these attributes."""
    body = struct.pack("=BB2x48s12xII", 2, state, bytes(48), 1000, 77) + attributes
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body + b"\0" * (-len(body) % 4)


ATTRIBUTES = st.lists(
    st.tuples(st.integers(0, 30), st.binary(max_size=260)).map(
        lambda pair: struct.pack("=HH", 4 + len(pair[1]), pair[0]) + pair[1] + b"\0" * (-len(pair[1]) % 4)
    ),
    max_size=5,
).map(b"".join)


@settings(deadline=None)
@given(st.lists(st.tuples(ATTRIBUTES, st.sampled_from([1, 8, 10]), st.integers(1, 4)), max_size=6), st.data())
def test_remembered_layouts_never_mislead(groups, data):
    """Messages with all kinds of attributes, alike or not, are decoded as if each were alone."""
    entries = [(attributes, state) for attributes, state, count in groups for _ in range(count)]
    if entries and data.draw(st.booleans()):  # one that only nearly is like its neighbours
        at = data.draw(st.integers(0, len(entries) - 1))
        damaged = bytearray(entries[at][0])
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        entries[at] = (bytes(damaged), entries[at][1])
    buffer = b"".join(entry(attributes, state) for attributes, state in entries)
    assert quick_rows(buffer, netlink.split_messages(buffer).runs) == slow_rows(buffer)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=400))
@example(b"")
@example(struct.pack("=IHHII", 0, 20, 0, 0, 0))
@example(struct.pack("=IHHII", 2**32 - 1, 20, 0, 0, 0))
@example(struct.pack("=IHHII", 17, 20, 0, 0, 0) + b"x" * 40)
@example(entry(struct.pack("=HH", 2, 2)))
@example(entry(struct.pack("=HH", 65535, 2)))
def test_no_bytes_do_harm(buffer):
    """Whatever stands in a buffer, it gives rows or an error of the host, and never reads beyond its end."""
    try:
        part = netlink.split_messages(buffer)
        assert all(0 <= begin <= end <= len(buffer) for _, begin, end in netlink.each_message(part.runs))
        for row in quick_rows(buffer, part.runs):
            decode_ends(row[6], row[0])
        addresses.parse_addresses(buffer, part.runs)
    except HostError:
        pass


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_to_a_real_answer_does_harm(data):
    """A real answer with any bytes changed gives rows or an error of the host."""
    buffer = bytearray(entry(struct.pack("=HH", 284, 2) + bytes(280)) * 3)
    for at in data.draw(st.lists(st.integers(0, len(buffer) - 1), max_size=8)):
        buffer[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(HostError):
        parse_rows(bytes(buffer), netlink.split_messages(bytes(buffer)).runs)


@given(st.binary(min_size=16, max_size=16))
@example(bytes(12) + b"\x01\x02\x03\x04")
@example(bytes(10) + b"\xff\xff\x0a\x00\x00\x01")
def test_addresses_are_canonical(raw):
    """An IPv6 address has the one canonical text; an IPv4-mapped one is shown as the IPv4 address it means."""
    meant = ip_address(raw)
    assert address_text(10, raw) == str(meant.ipv4_mapped or meant)


def test_an_interrupted_listing_is_noticed():
    """A listing that the kernel marks as interrupted is not taken for whole."""
    buffer = struct.pack("=IHHII", 20, 3, 0x10, 1, 0) + bytes(4)
    assert netlink.split_messages(buffer).interrupted


def test_own_addresses_leave_loopback_out():
    """The host's addresses are canonical and neither loopback nor link-local."""
    for text in addresses.list_addresses():
        address = ip_address(text)
        assert text == str(address)
        assert not address.is_loopback
        assert not address.is_link_local
