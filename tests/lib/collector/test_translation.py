# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations that are translated on the way are led to their real ends, or to none."""

from typing import Any

import pytest
from fleet import ANY, Host
from line import run_line

CALLER, PUBLIC, POD = ("10.0.0.1", 40000), ("10.0.0.9", 8080), ("172.17.0.2", 80)
GATEWAY = ("172.17.0.1", 40000)
INSIDE = "4026532500"


def caller(**changes: Any) -> Host:
    """A host whose program calls a published port."""
    host = Host("web1", ("10.0.0.1",)).segment()
    host.socket(CALLER, PUBLIC, (5, 50), host.process("curl", 10), sent=100, received=200, **changes)
    return host


def publisher(name: str = "docker1", address: str = "10.0.0.9", seen_from: tuple[str, int] = CALLER) -> Host:
    """A host with a server in a namespace of its own, and a proxy that waits on the published port and gets nothing."""
    host = Host(name, (address,)).segment()
    host.socket((ANY, 8080), by=host.process("docker-proxy", 30))
    nginx = host.process("nginx", 20)
    host.socket((ANY, 80), by=nginx, netns=INSIDE)
    host.socket(POD, seen_from, (6, 51), nginx, netns=INSIDE, sent=210, received=90)
    return host


def only(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The one row with these values."""
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_a_published_port_leads_to_the_server_behind_it() -> None:
    """Both ends of a call to a published port are one flow, named by the real server, not by who waits on the port."""
    made = run_line([caller(), publisher().translation((CALLER, PUBLIC), (CALLER, POD))])
    (flow,) = made["flow"]
    assert (flow["resp_addr"], flow["resp_port"], flow["called_addr"], flow["called_port"]) == (*POD, *PUBLIC)
    assert (flow["translated"], flow["caller_addr"], flow["orig_addr"]) == ("resolved", None, "10.0.0.1")
    (row,) = made["connection"]
    assert (row["orig_app"], row["resp_host"], row["resp_app"], row["rule"]) == (
        "curl", "docker1", "nginx", "socket/socket",
    )  # fmt: skip
    use = only(made["service_use"], app="curl")
    assert (use["port"], use["resp_addr"], use["resp_host"], use["resp_app"]) == (80, POD[0], "docker1", "nginx")


def test_a_masked_caller_is_known_at_the_server() -> None:
    """A server that sees the translator as its caller gets the real one, over two translators in a row."""
    edge = Host("edge", ("10.0.0.254", "10.9.0.254")).segment()
    edge.translation((CALLER, PUBLIC), (("10.9.0.254", 61000), PUBLIC))
    docker = publisher(seen_from=GATEWAY)
    docker.translation((("10.9.0.254", 61000), PUBLIC), (GATEWAY, POD))
    (row,) = run_line([caller(), edge, docker])["connection"]
    assert (row["orig_addr"], row["orig_app"], row["resp_app"]) == ("10.0.0.1", "curl", "nginx")
    assert (row["called_addr"], row["caller_addr"], row["translated"]) == (PUBLIC[0], GATEWAY[0], "resolved")


def test_an_untraced_caller_is_named_by_its_real_address() -> None:
    """Seen from the server alone, the conversation's other end is the one before translation."""
    docker = publisher(seen_from=GATEWAY).translation((CALLER, PUBLIC), (GATEWAY, POD))
    (flow,) = run_line([docker])["flow"]
    assert (flow["orig_addr"], flow["orig_port"], flow["orig_host"]) == (*CALLER, None)
    assert (flow["caller_addr"], flow["caller_port"], flow["translated"]) == (*GATEWAY, "resolved")


def test_loopback_is_translated_in_its_own_namespace_only() -> None:
    """A port published on loopback leads to its server; the same tuple in another namespace does not."""
    host = Host("docker1", ("10.0.0.9",)).segment()
    curl, other, nginx = host.process("curl", 10), host.process("other", 11), host.process("nginx", 20)
    here, there = ("127.0.0.1", 40000), ("127.0.0.1", 8080)
    host.socket(here, there, (5, 50), curl)
    host.socket(here, there, (5, 50), other, netns="4026532700")
    host.socket(POD, GATEWAY, (5, 50), nginx, netns=INSIDE)
    host.translation((here, there), (GATEWAY, POD))
    rows = run_line([host])["connection"]
    assert {(row["orig_app"], row["resp_app"], row["resp_addr"]) for row in rows} == {
        ("curl", "nginx", POD[0]), ("other", None, "127.0.0.1"),
    }  # fmt: skip


def test_a_private_tuple_is_not_translated_by_another_host() -> None:
    """Two container hosts use the same private addresses: each one's translation is its own."""
    inner = ("172.17.0.5", 40000)
    hosts = []
    for number in (1, 2):
        host = Host(f"docker{number}", (f"10.0.0.{number}",)).segment()
        host.socket(inner, ("10.0.9.9", 443), (5, 50), host.process(f"app{number}", 10), netns=INSIDE)
        host.translation((inner, ("10.0.9.9", 443)), ((f"10.0.0.{number}", 61000), ("10.0.9.9", 443)))
        hosts.append(host)
    server = Host("far", ("10.0.9.9",)).segment()
    for number in (1, 2):
        server.socket(
            ("10.0.9.9", 443), (f"10.0.0.{number}", 61000), (5, 50), server.process(f"worker{number}", number)
        )
    rows = run_line([*hosts, server])["connection"]
    assert sorted((row["orig_host"], row["orig_app"], row["resp_app"]) for row in rows) == [
        ("docker1", "app1", "worker1"), ("docker2", "app2", "worker2"),
    ]  # fmt: skip


def test_translations_that_disagree_lead_nowhere() -> None:
    """Where one tuple is said to go to two places at once, the conversation stays one-sided and is marked."""
    docker = Host("docker1", ("10.0.0.9",)).segment()
    docker.socket((ANY, 8080), by=docker.process("docker-proxy", 30))
    docker.translation((CALLER, PUBLIC), (CALLER, POD))
    docker.translation((CALLER, PUBLIC), (CALLER, ("172.17.0.3", 80)))
    (row,) = run_line([caller(), docker])["connection"]
    assert (row["translated"], row["resp_app"], row["resp_host"]) == ("unresolved", None, None)


def test_a_reused_port_is_led_by_the_translation_of_its_time() -> None:
    """Of two translations of one tuple, one after the other, each conversation follows its own."""
    web = Host("web1", ("10.0.0.1",)).segment()
    curl = web.process("curl", 10)
    web.socket(CALLER, PUBLIC, (5, 10), curl)
    web.socket(CALLER, PUBLIC, (30, 40), curl)
    docker = Host("docker1", ("10.0.0.9",)).segment()
    docker.translation((CALLER, PUBLIC), (CALLER, POD), (5, 12))
    docker.translation((CALLER, PUBLIC), (CALLER, ("172.17.0.3", 80)), (29, 41))
    rows = run_line([web, docker])["connection"]
    assert [row["resp_addr"] for row in sorted(rows, key=lambda row: row["first_ns"])] == [POD[0], "172.17.0.3"]


@pytest.mark.parametrize(
    ("span", "state", "unresolved"),
    [((5, 50), "established", True), ((5, 10), "established", False), ((5, 50), "close_wait", False)],
)
def test_without_a_translation_an_end_that_is_not_there_is_nobody_s(
    span: tuple[float, float], state: str, *, unresolved: bool
) -> None:
    """A call that was open while its host was sampled, and was not there, names neither host nor who waits there."""
    web = Host("web1", ("10.0.0.1",)).segment()
    web.socket(CALLER, PUBLIC, span, web.process("curl", 10), state=state)
    docker = Host("docker1", ("10.0.0.9",)).segment()
    docker.socket((ANY, 8080), by=docker.process("docker-proxy", 30))
    (row,) = run_line([web, docker])["connection"]
    assert (row["translated"], row["resp_host"], row["resp_app"]) == (
        ("unresolved", None, None) if unresolved else (None, "docker1", "docker-proxy")
    )


def test_a_masked_caller_without_a_translation_is_not_the_translator() -> None:
    """A server's call from a gateway that has no such socket is not laid to the gateway."""
    gateway = Host("edge", ("10.9.0.254",)).segment()
    server = Host("db1", ("10.9.0.2",)).segment()
    postgres = server.process("postgres", 5)
    server.socket((ANY, 5432), by=postgres)
    server.socket(("10.9.0.2", 5432), ("10.9.0.254", 61000), (5, 50), postgres)
    (row,) = run_line([gateway, server])["connection"]
    assert (row["orig_host"], row["translated"], row["resp_app"]) == (None, "unresolved", "postgres")
