# SPDX-License-Identifier: GPL-3.0-or-later
"""The connect probe, with real sockets on loopback, and its bounds."""

import socket
import threading
import time
from typing import Any

import pytest

from whoneeds.evaluation.probe import ProbeSettings, plan_probe, probe
from whoneeds.model.errors import SettingsError


def closed_port() -> int:
    """A port at which nobody waits."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_who_listens_is_found_and_is_told_nothing() -> None:
    """A real listener is found, a closed port is not, and the listener gets a connection without a byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = ("tcp", "127.0.0.1", server.getsockname()[1])
        got: list[bytes] = []

        def wait() -> None:
            connection, _address = server.accept()
            with connection:
                connection.settimeout(10)
                got.append(connection.recv(16))

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert probe([("tcp", "127.0.0.1", closed_port()), here]) == {here}
        waiting.join(10)
    assert got == [b""]


def test_who_never_answers_is_given_up() -> None:
    """Where the queue of a listener is full and nobody takes from it, the bound on time ends the attempt."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        place = ("tcp", "127.0.0.1", server.getsockname()[1])
        held = [socket.socket() for _each in range(8)]
        try:
            for each in held:
                each.setblocking(False)
                each.connect_ex(place[1:])
            time.sleep(0.2)
            assert probe([place], ProbeSettings(timeout_s=0.2)) == frozenset()
        finally:
            for each in held:
                each.close()


def test_only_what_means_the_same_here_is_asked() -> None:
    """Loopback and link-local addresses, groups, names and UDP are left out, and each is counted."""
    places = [
        ("tcp", "127.0.0.1", 80), ("tcp", "::1", 80), ("tcp", "169.254.1.1", 80), ("tcp", "fe80::1", 80),
        ("tcp", "224.0.0.1", 80), ("tcp", "0.0.0.0", 80), ("tcp", "db1.example", 80), ("udp", "192.0.2.1", 53),
        ("tcp", "192.0.2.1", 443), ("tcp", "192.0.2.1", 443), ("tcp", "2001:db8::1", 443),
    ]  # fmt: skip
    plan = plan_probe(places)
    assert plan.places == (("tcp", "192.0.2.1", 443), ("tcp", "2001:db8::1", 443))
    assert (plan.elsewhere, plan.datagrams, plan.beyond) == (7, 1, 0)


def test_the_bounds_hold_in_all_and_for_each_machine() -> None:
    """The first ones are asked, no more than allowed of one machine and in all, and the plan says what is left out."""
    settings = ProbeSettings(most=5, most_each=3, timeout_s=1.5, at_once=2)
    ports = [("tcp", "192.0.2.1", port) for port in range(1, 11)] + [
        ("tcp", "192.0.2.2", port) for port in range(1, 11)
    ]
    plan = plan_probe(ports, settings)
    assert [(address[-1], port) for _protocol, address, port in plan.places] == [
        ("1", 1), ("1", 2), ("1", 3), ("2", 1), ("2", 2),
    ]  # fmt: skip
    assert plan.beyond == 15
    assert plan.describe(settings) == (
        "the probe opens 5 TCP connections to 2 machines and closes each at once, 2 at a time, and takes 4 s at most; "
        "not asked: 15 beyond its bounds"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"most": 0}, {"most": 1.5}, {"most_each": True}, {"timeout_s": float("nan")}, {"timeout_s": 0.0}, {"at_once": 65}],
)
def test_wrong_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """A bound outside its range is named, and never repaired."""
    with pytest.raises(SettingsError):
        ProbeSettings(**wrong)
