# SPDX-License-Identifier: GPL-3.0-or-later
"""UDP packets become conversations, however many interfaces show them, and nobody is said to have begun by guess."""

import socket

from hypothesis import given
from hypothesis import strategies as st

from whoneeds.tracer.exchanges import QUIET_NS, Exchanges, split_ends, swap_ends

SECOND = 10**9
BEGIN = 1_790_000_000 * SECOND


def ends(sender, sender_port, receiver, receiver_port):
    """Two ends as they stand on the wire."""
    return (
        socket.inet_aton(sender) + socket.inet_aton(receiver)
        + sender_port.to_bytes(2, "big") + receiver_port.to_bytes(2, "big")
    )  # fmt: skip


ASK = ends("10.0.0.1", 40000, "10.0.0.2", 53)
OWN = {"10.0.0.1"}


def test_both_ways_of_a_conversation_are_one_row():
    """Packets there and back are summed up at the local end, with data and times, and who sent first is known."""
    exchanges = Exchanges(BEGIN)
    exchanges.add(ASK, 2, BEGIN + 5 * SECOND, 30)
    exchanges.add(swap_ends(ASK), 2, BEGIN + 6 * SECOND, 100)
    (row,) = exchanges.take(OWN)
    assert row[:8] == ("10.0.0.1", 40000, "10.0.0.2", 53, 1, 1, 30, 100)
    assert (row.first_ns, row.last_ns, row.initiated) == (BEGIN + 5 * SECOND, BEGIN + 6 * SECOND, True)


def test_a_packet_that_passes_several_interfaces_counts_once():
    """What a veth, a bridge and a card each show counts as often as the one that saw most of it."""
    exchanges = Exchanges(BEGIN)
    for interface, times in ((2, 3), (3, 3), (4, 2)):
        for _time in range(times):
            exchanges.add(ASK, interface, BEGIN, 10)
    (row,) = exchanges.take(OWN)
    assert (row.sent_packets, row.sent_bytes) == (3, 30)


def test_what_only_passes_through_is_nobodys():
    """A conversation of two foreign addresses has no local end."""
    exchanges = Exchanges(BEGIN)
    exchanges.add(ASK, 2, BEGIN, 10)
    assert exchanges.take({"10.0.0.9"}) == []


def test_loopback_has_two_local_ends():
    """Over loopback both ends are local, and each counts what the other sent as received."""
    exchanges = Exchanges(BEGIN)
    exchanges.add(ends("127.0.0.1", 40000, "127.0.0.1", 53), 1, BEGIN + QUIET_NS, 7)
    first, second = exchanges.take(None)
    assert first[:8] == ("127.0.0.1", 40000, "127.0.0.1", 53, 1, 0, 7, 0)
    assert second[:8] == ("127.0.0.1", 53, "127.0.0.1", 40000, 0, 1, 0, 7)
    assert (first.initiated, second.initiated) == (True, False)


def test_a_conversation_that_may_be_older_has_no_first_packet():
    """Right after the begin, after a loss, and after it was seen before, nobody is said to have sent first."""
    early = Exchanges(BEGIN)
    early.add(ASK, 2, BEGIN + QUIET_NS - 1, 1)
    assert early.take(OWN)[0].initiated is None
    early.add(ASK, 2, BEGIN + 60 * SECOND, 1)
    assert early.take(OWN)[0].initiated is None
    lossy = Exchanges(BEGIN)
    lossy.note_loss(BEGIN + 50 * SECOND)
    lossy.add(ASK, 2, BEGIN + 51 * SECOND, 1)
    assert lossy.take(OWN)[0].initiated is None


def test_silence_parts_conversations():
    """After more than ten seconds of silence another process may have the port, so that it is another row."""
    exchanges = Exchanges(BEGIN)
    for second in (5, 14, 26, 27):
        exchanges.add(ASK, 2, BEGIN + second * SECOND, 1)
    exchanges.add(swap_ends(ASK), 2, BEGIN + 15 * SECOND, 1)
    rows = exchanges.take(OWN)
    assert [(row.sent_packets, row.received_packets, row.initiated) for row in rows] == [(2, 1, True), (2, 0, None)]


def test_more_than_can_be_held_is_counted():
    """Conversations beyond the bound are left out and counted, and those that are known go on."""
    exchanges = Exchanges(BEGIN, most=2)
    for port in (1, 2, 3, 1):
        exchanges.add(ends("10.0.0.1", port, "10.0.0.2", 53), 2, BEGIN, 1)
    assert exchanges.left_out == 1
    assert sorted(row.sent_packets for row in exchanges.take(OWN)) == [1, 2]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 40), st.integers(0, 99)), max_size=30))
def test_no_packet_is_lost_or_counted_twice(packets):
    """Whatever order and pauses packets come in, the rows of one interface add up to all of them."""
    exchanges = Exchanges(BEGIN)
    at_ns = BEGIN
    for back, port, pause, size in packets:
        at_ns += pause * SECOND // 2
        there = ends("10.0.0.1", 40000 + port, "10.0.0.2", 53)
        exchanges.add(swap_ends(there) if back else there, 2, at_ns, size)
    rows = exchanges.take(OWN)
    assert sum(row.sent_packets for row in rows) == sum(not packet[0] for packet in packets)
    assert sum(row.received_bytes for row in rows) == sum(packet[3] for packet in packets if packet[0])
    assert all(row.first_ns <= row.last_ns for row in rows)


@given(st.binary(min_size=12, max_size=12) | st.binary(min_size=36, max_size=36))
def test_ends_swapped_twice_are_the_same(raw):
    """Sender and receiver exchanged twice are where they were, and once are each other."""
    assert swap_ends(swap_ends(raw)) == raw
    assert split_ends(swap_ends(raw)) == split_ends(raw)[::-1]
