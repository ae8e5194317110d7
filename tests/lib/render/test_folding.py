# SPDX-License-Identifier: GPL-3.0-or-later
"""Folding transient needs keeps every sum and touches nothing else."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from whoneeds.render.folding import fold_local_daemons, fold_transient
from whoneeds.render.views import dependency_columns, sort_dependencies, view_unix_uses

ROWS = st.fixed_dictionaries({
    "kind": st.sampled_from(("static", "transient")), "app": st.sampled_from(("peerd", "nginx")),
    "host": st.sampled_from(("web1", "web2")), "protocol": st.sampled_from(("tcp", "udp")),
    "port": st.integers(1, 65535), "resp_app": st.sampled_from((None, "peerd")),
    "resp_host": st.sampled_from((None, "web1")), "resp_addr": st.sampled_from((None, "10.0.0.1", "10.0.0.2")),
    "pid": st.none(), "address": st.none(), "flows": st.integers(1, 9), "support": st.integers(1, 9),
    "orig_bytes": st.none() | st.integers(0, 9), "resp_bytes": st.none() | st.integers(0, 9),
    "usage_share": st.floats(0, 1), "users": st.one_of(st.none(), st.integers(1, 3)), "first_ns": st.integers(0, 99),
    "last_ns": st.integers(100, 199), "reason": st.just("not_shared"),
})  # fmt: skip


@given(st.lists(ROWS, max_size=12))
def test_folding_loses_nothing(rows: list[dict[str, Any]]) -> None:
    """Flows, known bytes, ports and the time that was seen are the same before and after, and static rows stay."""
    before = sort_dependencies(rows)
    after, hidden = fold_transient(before)
    assert len(after) + hidden == len(before)
    assert [row for row in after if row["kind"] == "static"] == [row for row in before if row["kind"] == "static"]
    assert sum(row.get("ports", 1) for row in after) == len(before)
    for name in ("flows", "orig_bytes", "resp_bytes"):
        assert sum(row[name] or 0 for row in after) == sum(row[name] or 0 for row in before)
    for best, name in ((min, "first_ns"), (max, "last_ns"), (max, "usage_share")):
        assert best((row[name] for row in after), default=0) == best((row[name] for row in before), default=0)
    seen = [
        (row["app"], row["host"], row["protocol"], row["resp_host"], row["resp_app"] if row["resp_host"] else None)
        for row in after
        if row["kind"] == "transient" and row["resp_host"]
    ]
    assert len(seen) == len(set(seen))


def test_a_folded_row_says_for_how_many_it_stands() -> None:
    """Two ports of one peer are told as two ports at several addresses."""
    row = {
        "kind": "transient", "app": "peerd", "host": "web1", "protocol": "tcp", "port": 40000, "resp_app": "peerd",
        "resp_host": "web2", "resp_addr": "10.0.0.1", "flows": 1, "orig_bytes": None, "resp_bytes": 5, "support": 1,
        "pid": None, "address": None, "usage_share": 0.1, "users": 1, "first_ns": 5, "last_ns": 9,
    }  # fmt: skip
    (folded,), hidden = fold_transient([row, {**row, "port": 40001, "resp_addr": "10.0.0.2", "first_ns": 3}])
    told = {column.title: column.tell(folded) for column in dependency_columns("host") if column.title != "BECAUSE"}
    assert (told["SERVICE"], told["ADDRESS"], told["FLOWS"], hidden) == ("tcp, 2 ports", "several", "2", 1)
    assert (told["SENT"], told["RECEIVED"]) == ("-", "10 B")


def test_a_daemon_that_each_host_has_is_one_line() -> None:
    """What one application asks of one daemon on several hosts is one row; other daemons and single hosts stay."""
    uses = [
        {"app": app, "host": host, "daemon": "dbus-daemon", "service": "unix:/run/bus", "processes": 1,
         "connections": 2, "first_ns": number, "last_ns": 10 + number}
        for number, (app, host) in enumerate([("systemd", "web1"), ("systemd", "web2"), ("cron", "web1")])
    ]  # fmt: skip
    (alone, all_hosts), hidden = fold_local_daemons(view_unix_uses(uses))
    told = [
        {column.title: column.tell(row) for column in dependency_columns("host")} for row in (alone, all_hosts)
    ]  # fmt: skip
    assert [(row["DEPENDENT"], row["DEPENDS ON"], row["FLOWS"]) for row in told] == [
        ("cron@web1", "dbus-daemon@web1", "2"),
        ("systemd on 2 hosts", "dbus-daemon of the same host", "4"),
    ]
    assert (all_hosts["first_ns"], all_hosts["last_ns"], hidden) == (0, 11, 1)
