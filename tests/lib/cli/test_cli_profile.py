# SPDX-License-Identifier: GPL-3.0-or-later
"""What profile answers: on the shop that was sampled, and on a host whose kernel told of every connection."""

import csv
import io
import json

import pytest
from fleet import Host
from shop import collect

from whoneeds.render.profiles import profile_columns
from whoneeds.render.table import format_table

HERE, DNS, DB = "10.0.0.1", "10.0.0.53", "10.0.0.3"
#: Connections of the application that asks a name server first, and when each pair of them begins.
TIMES = [1.0, 5.5, 8.1, 13.7, 18.2, 21.9, 27.3, 33.6, 38.8, 41.4, 47.5, 55.2]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """One host whose events tell of everything: an ordered application, a scan, and a server that is down."""
    folder = tmp_path_factory.mktemp("told")
    host = Host("web1", (HERE,)).segment(sources=("event", "table"))
    api, scanner, client = (
        host.process(name, pid, uid=pid) for name, pid in (("api", 20), ("nmap", 30), ("retry", 40))
    )
    ports = iter(range(40000, 50000))

    def call(by, remote, begin, lasts, end, **more):
        host.socket(
            (HERE, next(ports)), remote, (begin, begin + lasts), by=by, samples=0, source="event", initiated=True,
            end=end, state="close" if end == "rejected" else "established", sent=100, received=1000, **more,
        )  # fmt: skip

    for second in TIMES:
        call(api, (DNS, 53), second, 0.02, "fin")
        call(api, (DB, 5432), second + 0.03, 0.5, "fin")
        call(client, (DB, 9999), second, 0.001, "rejected")
    for at in range(40):
        call(scanner, (DB, 1000 + at), 40 + at / 10, 0.001, "rejected")
    incoming = collect([host], folder / "incoming")
    return incoming, folder / "store"


@pytest.fixture
def store(whoneeds, told):
    """The store, made once."""
    incoming, path = told
    if not path.exists():
        assert whoneeds("run", "--from", incoming, "--store", path).code == 0
    return path


def ask(whoneeds, store, *words):
    """Rows of a view, which its table can show as well."""
    done = whoneeds("profile", "--store", store, "--format", "json", *words)
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    view = words[words.index("--view") + 1] if "--view" in words else "usage"
    lines = format_table(rows, profile_columns(view, by_user="--per-user" in words)).splitlines()
    assert len(lines) == len(rows) + 1
    return rows


def test_csv_has_the_columns_of_json(whoneeds, shop):
    """CSV has one line of names, those of the JSON rows, and a line for each row."""
    text = whoneeds("profile", "--store", shop / "store", "--view", "traffic", "--format", "csv").out
    rows = ask(whoneeds, shop / "store", "--view", "traffic")
    lines = list(csv.reader(io.StringIO(text, newline="")))
    assert [list(row) for row in rows] == [lines[0]] * 3
    assert len(lines) == 4
    assert "Seen: 3 hosts, 36 samples" in whoneeds("profile", "--store", shop / "store", "--view", "traffic").err


def test_usage_has_shares_of_traffic(whoneeds, shop):
    """Usage tells how many instances use a service, and what of the application's counted bytes went there."""
    rows = {row["port"]: row for row in ask(whoneeds, shop / "store", "--app", "api")}
    assert set(rows) == {443, 5432, 6379}
    assert (rows[5432]["usage_share"], rows[5432]["orig_share"], rows[5432]["resp_bytes"]) == (1.0, 1.0, 90000)
    assert (rows[443]["orig_bytes"], rows[443]["orig_share"]) == (None, None)


def test_failures_that_samples_cannot_show_are_not_known(whoneeds, shop, store):
    """Of what was sampled only, failures are not known and that is said; events tell them with places."""
    sampled = ask(whoneeds, shop / "store", "--view", "failures")
    assert {(row["rejected"], row["unanswered"], row["failed_share"]) for row in sampled} == {(None, None, None)}
    assert "sampled only" in whoneeds("profile", "--store", shop / "store", "--view", "failures").err
    rows = {row["app"]: row for row in ask(whoneeds, store, "--view", "failures")}
    assert set(rows) == {"nmap", "retry"}
    figures = ("attempts", "rejected", "unanswered", "failed_share", "services", "addresses", "targets")
    assert [rows["nmap"][name] for name in figures] == [40, 40, 0, 1.0, 40, 1, 40]
    assert [rows["retry"][name] for name in figures] == [12, 12, 0, 1.0, 1, 1, 1]
    assert {row["user"] for row in ask(whoneeds, store, "--view", "failures", "--per-user")} == {"web1/30", "web1/40"}


def test_shares_of_all_traffic(whoneeds, store):
    """Traffic tells each application's part of everything; shares add up to one."""
    rows = ask(whoneeds, store, "--view", "traffic")
    assert {row["app"]: row["connections"] for row in rows} == {"api": 24, "nmap": 40, "retry": 12}
    assert sum(row["orig_share"] for row in rows) == pytest.approx(1)
    (users,) = ask(whoneeds, store, "--view", "users", "--app", "api")
    assert (users["user"], users["connections_share"]) == ("web1/20", 24 / 76)


def test_order_of_services(whoneeds, store):
    """The application that resolves a name before each call has that order and no other, in a window long enough."""
    (row,) = ask(whoneeds, store, "--view", "causal")
    assert (row["app"], row["before_port"], row["port"]) == ("api", 53, 5432)
    assert (row["preceded"], row["begins"], row["instances"], row["window_s"]) == (12, 12, 1, 1.0)
    assert row["q_value"] < 1e-3
    both = ask(whoneeds, store, "--view", "causal", "--every-pair")
    assert [(row["before_port"], row["ordered"]) for row in both] == [(53, True), (5432, False)]
    assert ask(whoneeds, store, "--view", "causal", "--window", "5ms") == []
    said = whoneeds("profile", "--store", store, "--view", "causal", "--app", "retry").err
    assert "Too little data for any causal order" in said


def test_a_scan_is_a_finding(whoneeds, store):
    """The scan is found with its words, and the server that is down is not; what was held against what is said."""
    (row,) = ask(whoneeds, store, "--view", "findings")
    assert (row["what"], row["app"], row["host"], row["pid"], row["targets"]) == ("port_scan", "nmap", "web1", 30, 40)
    assert (row["against"], row["usual_most"]) == ("no_history", None)
    done = whoneeds("profile", "--store", store, "--view", "findings")
    assert "40 targets without an answer in 60 s, in all 40 services on 1 address" in done.out
    assert "Judged: 2024-01-01 00:00:30Z to 2024-01-01 00:01:00Z" in done.err


def test_slices_of_a_length(whoneeds, store):
    """Slices have the length that was asked for, and unlike periods tell a zero from nothing."""
    rows = [row for row in ask(whoneeds, store, "--view", "slices", "--slice", "30s") if row["port"] == 53]
    assert [(row["slice"], row["connections"], row["usage_share"]) for row in rows] == [(0, 7, 1.0), (1, 5, 1.0)]
    since = ask(whoneeds, store, "--view", "slices", "--slice", "30s", "--since", "2024-01-01T00:00:50Z")
    assert {(row["slice"], row["begin_ns"] % 60_000_000_000) for row in since} == {(0, 50_000_000_000)}


def test_population_counts(whoneeds, shop):
    """Inside and outside are told by private addresses, those of traced hosts, and ranges that are given."""
    asked = ("--view", "population")
    values = {row["figure"]: row["value"] for row in ask(whoneeds, shop / "store", *asked)}
    assert (values["applications"], values["applications that talk inside and outside"]) == (3, 1)
    wide = ask(whoneeds, shop / "store", *asked, "--inside-range", "203.0.113.0/24", "--inside-range", "127.0.0.0/8")
    assert {row["figure"]: row["value"] for row in wide}["applications that talk inside and outside"] == 0


def test_an_empty_window_has_an_answer(whoneeds, store):
    """Where nobody looked, a view says so; findings say that there is nothing to judge, or nothing to judge it by."""
    done = whoneeds("profile", "--store", store, "--view", "slices", "--since", "2024-02-01")
    assert (done.code, done.out) == (0, "")
    assert "Nothing was observed there" in done.err
    for since, said in (("2024-02-01", "the period is empty"), ("2023-01-01", "begin the period later (--since)")):
        refused = whoneeds("profile", "--store", store, "--view", "findings", "--since", since)
        assert refused.code == 1
        assert said in refused.err


def test_hostile_names_are_shown_and_not_obeyed(whoneeds, tmp_path):
    """Names of 4 096 bytes, with terminal codes or formulas, pass through as text."""
    host = Host("web1", (HERE,)).segment()
    names = ("x" * 4096, "a\x1b[2Jb", "=cmd()", "a'; DROP TABLE flow; --", "%s{}", "☃" * 21)
    for at, name in enumerate(names):
        by = host.process(name[:64], 10 + at)
        host.socket((HERE, 40000 + at), ("203.0.113.9", 50000), by=by)
    incoming = collect([host], tmp_path / "incoming")
    assert whoneeds("run", "--from", incoming, "--store", tmp_path / "store").code == 0
    done = whoneeds("profile", "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err
    rows = ask(whoneeds, tmp_path / "store")
    assert {row["app"] for row in rows} == {name[:64] for name in names}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--slice", "2"], "--slice"), (["--slice", "0.5s"], "--slice"), (["--slice", "99999999w"], "--slice"),
        (["--window", "-1s"], "--window"), (["--window", "2d", "--view", "causal"], "window"),
        (["--view", "x"], "view"),
        (["--per-user", "--view", "causal"], "--per-user"), (["--app", "x" * 4096], "--app"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(whoneeds, store, options, word):
    """Lengths, views and combinations that make no sense are wrong use, and the message names the option."""
    done = whoneeds("profile", "--store", store, *options)
    assert done.code == 2
    assert word in done.err
