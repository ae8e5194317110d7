# SPDX-License-Identifier: GPL-3.0-or-later
"""Truth labels on a user's own data: who is asked in which order, and which lists are refused."""

import pytest

from whoneeds.evaluation.known_services import Label, label, read_answers, read_known_services
from whoneeds.model.errors import SettingsError

LIST = """\
# looked after by the operators
udp/53
tcp/5432  10.0.0.0/24   # databases
tcp/8443  2001:db8::7
"""


@pytest.mark.parametrize(
    ("place", "known"),
    [
        (("udp", "192.0.2.1", 53), True),
        (("tcp", "192.0.2.1", 53), False),
        (("tcp", "10.0.0.255", 5432), True),
        (("tcp", "10.0.1.0", 5432), False),
        (("tcp", "2001:db8::7", 8443), True),
        (("tcp", "10.0.0.1", 8443), False),
        (("tcp", "no address", 5432), False),
        (("udp", "no address", 53), True),
    ],
)
def test_a_known_service_holds_where_it_is_said_to_be(place: tuple[str, str, int], known: bool) -> None:
    """A service is known anywhere, at an address or in a network, as its line says, for its own protocol alone."""
    services = read_known_services(LIST)
    assert len(services) == 3
    assert services.holds(place) is known


def test_whoever_knows_more_is_asked_first() -> None:
    """An answer goes before the list, the list before the probe, and what nobody speaks of is assumed transient."""
    called = {
        ("backup", "tcp", 5432): [("tcp", "10.0.0.5", 5432)],
        ("mail", "tcp", 5432): [("tcp", "192.0.2.9", 5432), ("tcp", "10.0.0.5", 5432)],
        ("chat", "tcp", 7000): [("tcp", "192.0.2.9", 7000), ("tcp", "192.0.2.8", 7000)],
        ("chat", "tcp", 7001): [("tcp", "192.0.2.8", 7001)],
        ("chat", "udp", 7002): [("udp", "192.0.2.8", 7002)],
    }
    made = label(
        called,
        read_known_services(LIST),
        frozenset({("tcp", "192.0.2.8", 7000)}),
        read_answers("application,service,answer\nbackup,tcp/5432,transient\nchat,udp/7002,static\nchat,tcp/7001,\n"),
    )
    assert made == {
        ("backup", "tcp", 5432): Label(False, "answer"),
        ("mail", "tcp", 5432): Label(True, "known"),
        ("chat", "tcp", 7000): Label(True, "probe"),
        ("chat", "tcp", 7001): Label(False, "assumed"),
        ("chat", "udp", 7002): Label(True, "answer"),
    }


def test_an_application_may_have_a_comma_in_its_name() -> None:
    """Names come from hosts, and an answer about any of them can be written."""
    assert read_answers('"a, ""b"".exe",udp/53,transient\n') == {('a, "b".exe', "udp", 53): False}


@pytest.mark.parametrize(
    "text",
    [
        "tcp/0", "tcp/65536", "sctp/80", "tcp", "tcp/80 10.0.0.0/33", "tcp/80 10.0.0.1/24", "tcp/80 here",
        "tcp/80 10.0.0.1 more", "tcp/\u0663", "\n" * 100_001,
    ],
)  # fmt: skip
def test_a_wrong_list_is_refused(text: str) -> None:
    """A line that is no service and no place is named, and never skipped."""
    with pytest.raises(SettingsError):
        read_known_services(text)


@pytest.mark.parametrize(
    "text",
    ["a,tcp/80", "a,tcp/80,maybe", ",tcp/80,static", "a,80,static", "a,tcp/80,static\na,tcp/80,transient\n"],
)
def test_wrong_answers_are_refused(text: str) -> None:
    """An answer that is none, or that contradicts another one, is named, and never repaired."""
    with pytest.raises(SettingsError):
        read_answers(text)
