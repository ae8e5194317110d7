# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections are put together from events with the right owners, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.tracer.lives import CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, SYN_RECV, SYN_SENT, Lives
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.tracepoints import SocketDestroyed, StateChange

HERE, THERE = bytes(10) + b"\xff\xff\x0a\x00\x00\x01", bytes(10) + b"\xff\xff\x0a\x00\x00\x02"
CURL, NGINX, WORKER = Holder(100, 5), Holder(200, 1), Holder(201, 2)


def change(at_ns, old, new, *, socket=1, interrupt=False, ports=(40000, 80)):
    """A socket's change of state."""
    return StateChange(at_ns, 0, interrupt, socket, old, new, *ports, HERE, THERE)


def destroyed(at_ns, *, socket=1, cookie=7, ports=(40000, 80)):
    """A socket's destruction."""
    return SocketDestroyed(at_ns, socket, cookie, *ports, HERE, THERE)


def live(*events):
    """The talks of the socket with cookie 7 after these changes with their processes, and its destruction."""
    lives = Lives()
    for event, holder in events:
        lives.take_change(event, holder)
    lives.take_destroyed(destroyed(events[-1][0].at_ns))
    return lives.collect(7)


def test_the_caller_is_who_connects():
    """The process at syn_sent owns a connection that it began, although the local port was not known then."""
    (talk,) = live((change(5, CLOSE, SYN_SENT, ports=(0, 80)), CURL), (change(9, ESTABLISHED, FIN_WAIT1), CURL))
    assert (talk.local_port, talk.remote_port) == (40000, 80)
    ended = talk.ended
    assert (ended.begun_ns, ended.ended_ns, ended.initiated, ended.holders, ended.end) == (5, 9, True, (CURL,), "fin")


def test_the_process_at_a_passive_established_is_never_taken():
    """What runs while the kernel takes a connection in has nothing to do with it; who closes it does."""
    (talk,) = live(
        (change(5, SYN_RECV, ESTABLISHED, interrupt=True, ports=(80, 40000)), CURL),
        (change(9, CLOSE_WAIT, LAST_ACK, ports=(80, 40000)), NGINX),
    )
    assert (talk.ended.holders, talk.ended.initiated, talk.ended.after_peer) == ((NGINX,), False, True)


def test_a_reset_from_outside_names_nobody_new():
    """A connection that the peer resets keeps its owner, and the process that was interrupted is not one."""
    (talk,) = live(
        (change(5, CLOSE, SYN_SENT), CURL), (change(9, ESTABLISHED, CLOSE, interrupt=True), NGINX)
    )  # fmt: skip
    assert (talk.ended.holders, talk.ended.end) == ((CURL,), "rst")


def test_all_who_acted_are_told():
    """A socket that one process opened and another closed was held by both."""
    (talk,) = live((change(5, CLOSE, SYN_SENT), NGINX), (change(9, ESTABLISHED, FIN_WAIT1), WORKER))
    assert talk.ended.holders == (NGINX, WORKER)


def test_an_owner_that_cannot_be_told_is_counted():
    """An action by a process that nobody can name any more is counted, not laid to somebody."""
    (talk,) = live((change(5, CLOSE, SYN_SENT), None), (change(9, ESTABLISHED, FIN_WAIT1), CURL))
    assert (talk.ended.holders, talk.ended.unknown_holders) == ((CURL,), 1)


@pytest.mark.parametrize(("after_ns", "word"), [(10**6, "rejected"), (3 * 10**9, "unanswered")])
def test_what_did_not_come_about_is_told_apart(after_ns, word):
    """A connection that failed before the kernel asked again was refused, a later one was not answered."""
    (talk,) = live((change(0, CLOSE, SYN_SENT), CURL), (change(after_ns, SYN_SENT, CLOSE), CURL))
    assert (talk.ended.end, talk.ended.holders) == (word, (CURL,))


def test_one_socket_may_try_again():
    """A socket whose first connection failed has two: the failed one and the other."""
    first, second = live(
        (change(0, CLOSE, SYN_SENT), CURL), (change(1, SYN_SENT, CLOSE, ports=(40000, 81)), CURL),
        (change(2, CLOSE, SYN_SENT), CURL), (change(9, ESTABLISHED, FIN_WAIT1, ports=(40001, 82)), CURL),
    )  # fmt: skip
    assert [(talk.remote_port, talk.ended.begun_ns, talk.ended.end) for talk in (first, second)] == [
        (81, 0, "rejected"), (82, 2, "fin"),
    ]  # fmt: skip


def test_a_connection_that_began_before_has_no_begin():
    """Of a connection that was open before the events began, only its end and who closed it are known."""
    (talk,) = live((change(9, ESTABLISHED, FIN_WAIT1), CURL))
    assert (talk.ended.begun_ns, talk.ended.initiated, talk.ended.holders) == (None, None, (CURL,))


def test_a_connection_that_nobody_acted_on_has_no_end():
    """A connection that was never accepted is told without an end and without an owner."""
    lives = Lives()
    lives.take_change(change(5, SYN_RECV, ESTABLISHED, interrupt=True), CURL)
    lives.take_destroyed(destroyed(9))
    (talk,) = lives.collect(7)
    assert (talk.ended.end, talk.ended.holders, talk.ended.ended_ns) == (None, (), 9)


def test_a_place_that_is_used_again_does_not_mix_lives():
    """The kernel puts a new socket where an old one was: what was left of the old one is not the new one's."""
    lives = Lives()
    lives.take_change(change(1, ESTABLISHED, FIN_WAIT1), CURL)
    lives.take_change(change(5, SYN_RECV, ESTABLISHED, interrupt=True), CURL)
    lives.take_change(change(9, CLOSE_WAIT, LAST_ACK), NGINX)
    lives.take_destroyed(destroyed(10))
    (talk,) = lives.collect(7)
    assert talk.ended.holders == (NGINX,)
    assert lives.forgotten == 1


def test_destroyed_sockets_are_asked_for_once_and_not_for_ever():
    """A connection is given once; one that nobody asks for is counted and forgotten."""
    lives = Lives()
    for socket, at_ns in ((1, 10), (2, 20)):
        lives.take_change(change(at_ns, ESTABLISHED, FIN_WAIT1, socket=socket), CURL)
        lives.take_destroyed(destroyed(at_ns, socket=socket, cookie=socket))
    assert lives.collect_older(15) == 1
    assert lives.collect(1) == []
    assert len(lives.collect(2)) == 1
    assert lives.collect(2) == []


def test_a_passive_established_names_nobody_even_outside_an_interrupt():
    """A packet that a process hands to the kernel is worked on in that process, which is not the connection's."""
    (talk,) = live(
        (change(5, SYN_RECV, ESTABLISHED), CURL), (change(9, ESTABLISHED, CLOSE, interrupt=True), CURL)
    )  # fmt: skip
    assert talk.ended.holders == ()


def test_what_is_said_twice_counts_once():
    """A change to the state that the socket is in already changes nothing."""
    (talk,) = live(
        (change(5, CLOSE, SYN_SENT), CURL), (change(9, ESTABLISHED, FIN_WAIT1), CURL),
        (change(9, FIN_WAIT1, FIN_WAIT1), NGINX),
    )  # fmt: skip
    assert (talk.ended.begun_ns, talk.ended.holders) == (5, (CURL,))


def test_a_connection_that_is_shut_at_one_end_goes_on():
    """A connection is over when its socket is gone, not when one side has said all it had to say."""
    lives = Lives()
    lives.take_change(change(5, ESTABLISHED, FIN_WAIT1), CURL)
    lives.take_destroyed(destroyed(500))
    assert lives.collect(7)[0].ended.ended_ns == 500


def test_the_rest_is_counted_at_the_end():
    """What nobody asked for when a run ends is counted and forgotten."""
    lives = Lives()
    for socket in (1, 2, 3):
        lives.take_change(change(socket, ESTABLISHED, FIN_WAIT1, socket=socket), CURL)
    lives.take_destroyed(destroyed(9, socket=1, cookie=1))
    assert (lives.forget_rest(), lives.forget_rest()) == (3, 0)


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from((SYN_SENT, ESTABLISHED, FIN_WAIT1, CLOSE))), max_size=60))
def test_memory_is_bounded(events):
    """However many sockets are never destroyed, or never asked for, no stage remembers more than it may."""
    lives = Lives(most=5)
    for at_ns, (socket, state) in enumerate(events):
        lives.take_change(change(at_ns, SYN_SENT, state, socket=socket), CURL)
        if at_ns % 3 == 0:
            lives.take_destroyed(destroyed(at_ns, socket=socket, cookie=socket))
        assert max(len(lives._open), len(lives._ended), len(lives._destroyed)) <= 5
