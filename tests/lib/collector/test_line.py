# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line of the collector on two hosts."""

from dataclasses import replace

from fleet import ANY, DAY_NS, Host
from line import run_line

from whoneeds.model.evidence import ProcessRecord


def test_a_connection_seen_at_both_ends_is_one_flow_with_both_programs() -> None:
    """A connection that two traced hosts saw is one row, from client process to server process."""
    web = Host("web1", ("10.0.0.1",)).segment()
    nginx = web.process("nginx", 10, uid=33)
    db = Host("db1", ("10.0.0.2",)).segment()
    postgres = db.process("postgres", 20)
    db.socket((ANY, 5432), by=postgres)
    web.socket(("10.0.0.1", 40000), ("10.0.0.2", 5432), (5, 50), nginx, sent=100, received=200)
    db.socket(("10.0.0.2", 5432), ("10.0.0.1", 40000), (6, 51), postgres, sent=210, received=90)

    made = run_line([web, db])

    (flow,) = made["flow"]
    assert (flow["direction"], flow["orig_host"], flow["resp_host"]) == ("listener", "web1", "db1")
    (connection,) = made["connection"]
    assert (connection["orig_app"], connection["orig_pid"], connection["resp_app"], connection["resp_pid"]) == (
        "nginx", 10, "postgres", 20,
    )  # fmt: skip
    assert connection["rule"] == "socket/socket"
    assert (connection["orig_bytes"], connection["resp_bytes"]) == (100, 210)
    (use,) = made["service_use"]
    assert (use["app"], use["user"], use["address"], use["port"]) == ("nginx", "web1/33", "10.0.0.1", 5432)
    assert (use["resp_host"], use["resp_app"], use["flows"]) == ("db1", "postgres", 1)
    (instance,) = made["application_instance"]
    assert instance["process_id"] == nginx


def test_a_process_without_a_known_user_has_none() -> None:
    """A process that was gone before it could be asked leaves its instance without a user."""
    host = Host("web1", ("10.0.0.1",)).segment()
    gone, known = host.process("loop", 10, uid=None), host.process("loop", 11, uid=0)
    host.socket(("10.0.0.1", 40000), ("10.0.0.9", 6379), (5, 6), gone)
    host.socket(("10.0.0.1", 40001), ("10.0.0.9", 6379), (5, 6), known)
    made = run_line([host])
    assert {row["pid"]: row["user"] for row in made["application_instance"]} == {10: None, 11: "web1/0"}
    assert {row["pid"]: row["user"] for row in made["service_use"]} == {10: None, 11: "web1/0"}


def test_containers_stand_at_both_ends() -> None:
    """A connection names the containers of its processes, by identity where the name is not known."""
    host = Host("web1", ("10.0.0.1",)).segment()
    curl, nginx = host.process("curl", 10), host.process("nginx", 11)
    rows = host.segments[-1][1][ProcessRecord]
    rows[0] = replace(rows[0], container="docker:x", container_name="shop")
    rows[1] = replace(rows[1], container="docker:y")
    host.socket(("10.0.0.1", 40000), ("10.0.0.1", 80), (5, 50), curl)
    host.socket(("10.0.0.1", 80), ("10.0.0.1", 40000), (5, 50), nginx)
    (row,) = run_line([host])["connection"]
    assert (row["orig_container"], row["resp_container"], row["rule"]) == ("shop", "docker:y", "socket/socket")
    assert (row["orig_pid"], row["resp_pid"]) == (10, 11)


def test_a_refused_connection_is_nobody_s_at_the_called_end() -> None:
    """A program that begins to wait only after a connection was refused is not named as its other end."""
    host = Host("web1", ("10.0.0.1",)).segment()
    curl = host.process("curl", 10)
    later = host.process("later", 20)
    host.socket(("127.0.0.1", 18080), span=(12, 60), by=later)
    host.socket(
        ("127.0.0.1", 40000), ("127.0.0.1", 18080), (10, 10), curl, state="close", source="event", initiated=True,
        end="rejected", samples=0,
    )  # fmt: skip
    (row,) = run_line([host])["connection"]
    assert (row["orig_app"], row["resp_app"], row["end"], row["direction"]) == ("curl", None, "rejected", "event")


def test_what_is_left_of_an_older_connection_is_not_the_other_end_of_a_new_one() -> None:
    """A tuple in time_wait that was there before a connection with the same ports began stays by itself."""
    host = Host("web1", ("10.0.0.1",)).segment()
    curl = host.process("curl", 10)
    host.socket(("127.0.0.1", 18080), ("127.0.0.1", 40000), (0, 11), state="time_wait", source="tuple_only")
    host.socket(
        ("127.0.0.1", 40000), ("127.0.0.1", 18080), (12, 13), curl, state="close", source="event", initiated=True,
        end="fin", samples=0,
    )  # fmt: skip
    rows = run_line([host])["connection"]
    assert sorted((row["first_ns"] - DAY_NS) // 10**9 for row in rows) == [0, 12]
