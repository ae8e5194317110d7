# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs that go along dependencies, on three tiers whose needs are written down, through the whole line."""

import json

import pytest
from shop import Host, collect

LB, WEB, OTHER, APP, DB, AWAY = (
    "10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "203.0.113.9",
)  # fmt: skip


def call(caller, by, server, listener, port, local):
    """One connection that both ends saw."""
    here, there = (caller.addresses[0], local), (server.addresses[0], port)
    caller.socket(here, there, by=by)
    server.socket(there, here, by=listener)


@pytest.fixture(scope="module")
def tiers(tmp_path_factory):
    """Segments of a balancer, two web servers, two scripts of one interpreter, and a database that calls back."""
    lb, web, other, app, db = (
        Host(name, (address,)).segment()
        for name, address in (("lb1", LB), ("web1", WEB), ("web2", OTHER), ("app1", APP), ("db1", DB))
    )
    haproxy = lb.process("haproxy", 10)
    lb.socket((LB, 80), by=haproxy)
    nginx = [(host, host.process("nginx", 20)) for host in (web, other)]
    # two scripts of one name: only the first one is called by web servers, and only the second one needs what is away
    orders, billing = app.process("python3", 30), app.process("python3", 31, ticks=200)
    postgres, watcher = db.process("postgres", 40), db.process("watcher", 41)
    for host, by in nginx:
        host.socket((host.addresses[0], 80), by=by)
    app.socket((APP, 8080), by=orders)
    app.socket((APP, 9090), by=billing)
    db.socket((DB, 5432), by=postgres)
    local = 40000
    for at, (host, by) in enumerate(nginx):
        call(lb, haproxy, host, by, 80, local + at)
        call(host, by, app, orders, 8080, local + 10 + at)
    call(app, orders, db, postgres, 5432, local + 20)
    app.socket((APP, 40030), (AWAY, 443), by=billing)
    call(db, watcher, lb, haproxy, 80, local + 40)
    call(db, postgres, app, orders, 8080, local + 41)
    folder = tmp_path_factory.mktemp("tiers")
    return collect([lb, web, other, app, db], folder / "incoming"), folder / "store"


@pytest.fixture(scope="module")
def store(tiers):
    """That store, walked."""
    from whoneeds.cli.main import main

    assert main(["run", "--from", str(tiers[0]), "--store", str(tiers[1])]) == 0
    return tiers[1]


FROM_WEB = "python3@app1 tcp/8080 -> postgres@db1 tcp/5432 -> python3@app1 tcp/8080"


def test_paths_go_through_all_tiers(whoneeds, store):
    """Paths go over each web server and the script that really answered to the database, and end at the circle."""
    done = whoneeds("paths", "haproxy@lb1", "--store", store, "--format", "json")
    rows = json.loads(done.out)
    assert [row["path"] for row in rows] == [f"haproxy@lb1 -> nginx@web{at} tcp/80 -> {FROM_WEB}" for at in (1, 2)]
    assert {(row["end"], row["steps"], row["share"]) for row in rows} == {("cycle", 4, 1.0)}
    assert [hop["share"] for hop in rows[0]["hops"]] == [1.0] * 4


def test_the_other_script_is_on_no_path(whoneeds, store):
    """What only the other script of the same name needs is on no path through the first."""
    rows = json.loads(whoneeds("paths", "--store", store, "--format", "json").out)
    to_away = [row["path"] for row in rows if AWAY in row["path"]]
    assert to_away == [f"python3@app1 -> {AWAY} tcp/443"]


def test_depth_and_number_are_bounded_and_said(whoneeds, store):
    """Steps and paths beyond what was asked for are left out, and the table says so."""
    done = whoneeds("paths", "watcher", "--store", store, "--hops", 2, "--limit", 1)
    assert "watcher@db1 -> haproxy@lb1 tcp/80 -> nginx@web1 tcp/80" in done.out
    assert len(done.out.splitlines()) == 2
    assert "--hops shows more" in done.err
    assert "more than 1 paths" in done.err


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("nobody", "nothing of that name"), ("tcp/5432", "where a path begins"), ("10.0.1.1", "where a path begins"),
        ("app:db1", "nothing of that name"), ("\x1b[2J", "nothing of that name"),
        ("python3@nowhere", "nothing of that name"),
    ],
)  # fmt: skip
def test_a_node_that_is_none_is_refused(whoneeds, store, node, words):
    """What nothing is called, or where no path can begin, is refused as wrong use."""
    done = whoneeds("paths", node, "--store", store)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "\x1b" not in done.err
