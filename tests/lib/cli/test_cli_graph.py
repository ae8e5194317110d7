# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs that go along dependencies, on three tiers whose needs are written down, through the whole line."""

import json

import pytest
from fleet import at as moment
from shop import Host, collect

from whoneeds.model.evidence import NameRecord

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
    for host, name, address in (
        (lb, "web.internal", WEB), (lb, "web.internal", OTHER), (app, "api.vendor.co.uk", AWAY),
        (web, "orders.internal", APP), (web, "billing.internal", APP),
    ):  # fmt: skip
        seen = NameRecord(host.name, host.netns, name, address, "dns", moment(0), moment(0))
        host.segments[-1][1].setdefault(NameRecord, []).append(seen)
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


def rows_of(done):
    """The rows of an answer."""
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_services_tell_who_uses_them(whoneeds, store):
    """Turned round, each service has the number of applications, hosts and users that use it."""
    by_place = rows_of(whoneeds("who-needs", "--store", store, "--format", "json"))
    told = {
        (row["place"], row["port"]): (row["resp_app"], row["applications"], row["hosts"], row["users"])
        for row in by_place
    }
    assert told == {
        ("web1", 80): ("nginx", 1, 1, 1), ("web2", 80): ("nginx", 1, 1, 1), ("lb1", 80): ("haproxy", 1, 1, 1),
        ("app1", 8080): ("python3", 2, 3, 3), ("db1", 5432): ("postgres", 1, 1, 1), (AWAY, 443): (None, 1, 1, 1),
    }  # fmt: skip
    altogether = rows_of(whoneeds("who-needs", "--store", store, "--by", "service", "--format", "json"))
    assert {row["port"]: (row["applications"], row["hosts"]) for row in altogether} == {
        80: (2, 2), 8080: (2, 3), 5432: (1, 1), 443: (1, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("node", "dependents"),
    [
        ("app1", {"nginx@web1", "nginx@web2", "postgres@db1"}), ("postgres", {"python3@app1"}),
        ("nginx@web2", {"haproxy@lb1"}), ("tcp/443", {"python3@app1"}), (AWAY, {"python3@app1"}),
        (DB, {"python3@app1"}),
        ("app:python3", {"nginx@web1", "nginx@web2", "postgres@db1"}), ("watcher@db1", None),
    ],
)  # fmt: skip
def test_who_needs_one_thing(whoneeds, store, node, dependents):
    """A host, an application, both, a service or an address is needed by exactly those who were seen to use it."""
    done = whoneeds("who-needs", node, "--store", store, "--format", "json")
    if dependents is None:
        assert done.code == 2
        return
    assert {row["dependent"] for row in rows_of(done)} == dependents


def test_who_needs_counts_and_narrows(whoneeds, store):
    """Below the table stands how many need it, and options narrow who counts."""
    done = whoneeds("who-needs", "app1", "--store", store, "--host", "web1", "--host", "web2")
    assert "app1 is used by 1 application, run by 2 known users, on 2 hosts; 1 of the applications need it" in done.err
    assert "Counted is only what ran on web1, web2" in done.err
    assert "postgres" not in done.out


def test_names_and_sets_are_told(whoneeds, store):
    """Two addresses of one name are one line of the table, and each row of the others has the name and the set."""
    rows = rows_of(whoneeds("deps", "--app", "haproxy", "--store", store, "--format", "json"))
    assert {(row["resp_host"], row["name"], row["any_of"]) for row in rows} == {
        ("web1", "web.internal", "tcp/80 web.internal"), ("web2", "web.internal", "tcp/80 web.internal"),
    }  # fmt: skip
    table = whoneeds("deps", "--app", "haproxy", "--store", store)
    assert [line for line in table.out.splitlines() if "any of 2: nginx" in line and "web.internal" in line]
    assert "stand for each other are one line" in table.err


def test_destinations_have_owners(whoneeds, store):
    """An untraced host belongs to the registered domain of its name, and an address with two names has none."""
    rows = rows_of(whoneeds("destinations", "--store", store, "--format", "json"))
    told = {(row["app"], row["host"], row["port"], row["name"], row["told_by"], row["organisation"]) for row in rows}
    assert ("python3", "app1", 443, "api.vendor.co.uk", "dns", "vendor.co.uk") in told
    assert ("nginx", "web1", 8080, None, "ambiguous", None) in told
    assert ("nginx", "web2", 8080, None, "none", None) in told
    outside = rows_of(whoneeds("destinations", "--outside", "--store", store, "--format", "json"))
    assert {row["name"] for row in outside} == {"api.vendor.co.uk"}


@pytest.mark.parametrize(("form", "begin"), [("dot", "digraph"), ("graphml", "<?xml"), ("mermaid", "flowchart")])
def test_graphs_are_printed(whoneeds, store, form, begin):
    """The rows of deps come as a graph in each format."""
    done = whoneeds("deps", "--store", store, "--format", form)
    assert done.code == 0
    assert done.out.startswith(begin)
    assert "postgres@db1" in done.out


def test_facts_carry_names_and_sets(whoneeds, store, tmp_path):
    """In the facts each need has its name and the set that it is of, and no word where nothing is known."""
    assert whoneeds("facts", "--store", store, "--out", tmp_path / "facts.json").code == 0
    hosts = json.loads((tmp_path / "facts.json").read_text())["hosts"]
    assert {(need["name"], need["any_of"]) for need in hosts["lb1"]["needs"]} == {
        ("web.internal", "tcp/80 web.internal")
    }
    assert {(need["name"], need["any_of"]) for need in hosts["web2"]["needs"]} == {(None, None)}
    assert "api.vendor.co.uk" in {need["name"] for need in hosts["app1"]["needs"]}
