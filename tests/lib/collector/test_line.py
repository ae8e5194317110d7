# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line of the collector on two hosts."""

from fleet import ANY, Host
from line import run_line


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
