# SPDX-License-Identifier: GPL-3.0-or-later
"""What connections and deps answer, on a shop whose dependencies are written down."""

import csv
import io
import json

import ibis
import pytest
from shop import TRUTH, Host, collect, edges

from whoneeds.model.conclusions import Connection, Dependency
from whoneeds.model.schema import columns
from whoneeds.store.duckdb_engine import DuckDBEngine


def test_deps_by_host_are_the_declared_ones(whoneeds, shop):
    """By default deps lists each declared dependency once, application on host by application on host."""
    done = whoneeds("deps", "--store", shop / "store", "--format", "json")
    rows = json.loads(done.out)
    assert done.code == 0
    assert edges(rows) == TRUTH
    assert len(rows) == len(TRUTH)
    assert {row["level"] for row in rows} == {None}
    words = {(row["dependent"], row["depends_on"]) for row in rows}
    assert {("api@app1", "postgres@db1 tcp/5432"), ("api@app1", "203.0.113.9 tcp/443")} <= words


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_levels_have_the_columns_of_the_record(whoneeds, shop, level):
    """At each level rows have all columns of the record, and those of other levels are empty."""
    rows = json.loads(whoneeds("deps", "--store", shop / "store", "--level", level, "--format", "json").out)
    assert len(rows) == len(TRUTH)
    for row in rows:
        assert set(row) == {
            "dependent",
            "depends_on",
            *(column.name for column in columns(Dependency)),
            "name",
            "any_of",
        }
        assert (row["pid"] is None) == (level in (1, 2))
        assert (row["resp_addr"] is None) == (level in (1, 3))
        assert row["level"] == level


def test_level_2_tells_hosts(whoneeds, shop):
    """At level 2 the host that owns the service's address is named."""
    done = whoneeds("deps", "--store", shop / "store", "--level", 2)
    line = next(line for line in done.out.splitlines() if "tcp/5432" in line)
    assert "postgres@db1" in line
    assert "10.0.0.3" in line


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--app", "nginx"], {8080}),
        (["--app", "nobody"], set()),
        (["--service", "tcp/5432"], {5432}),
        (["--service", "udp/5432"], set()),
        (["--kind", "transient"], set()),
        (["--kind", "static", "--app", "api", "--service", "tcp/443"], {443}),
        (["--location", "vpn"], set()),
        (["--location", "all", "--service", "udp/123"], {123}),
        (["--method", "macroscope", "--app", "chrony"], {123}),
    ],
)
def test_filters(whoneeds, shop, options, found):
    """Each filter keeps what it names and nothing else."""
    done = whoneeds("deps", "--store", shop / "store", "--format", "json", *options)
    assert {row["port"] for row in json.loads(done.out)} == found
    assert done.code == 0


def test_another_method_decides_anew(whoneeds, shop):
    """Asked for evidence, deps gives each need a probability and its grounds, and the stored rule stays as it was."""
    rows = json.loads(
        whoneeds("deps", "--store", shop / "store", "--level", 1, "--method", "evidence", "--format", "json").out
    )
    assert len(rows) == len(TRUTH)
    for row in rows:
        assert (row["method"], row["reason"]) in {("evidence", "weighed"), ("evidence", "too_little")}
        assert 0 < row["probability"] < 1
        assert row["grounds"]
        if row["reason"] == "weighed":
            assert (row["kind"] == "static") == (row["probability"] >= 0.5)
    stored = json.loads(whoneeds("deps", "--store", shop / "store", "--level", 1, "--format", "json").out)
    assert {(row["method"], row["probability"], row["grounds"]) for row in stored} == {("macroscope", None, None)}


def test_connections(whoneeds, shop):
    """Connections name both ends, and have exactly the columns of the record."""
    done = whoneeds("connections", "--store", shop / "store", "--format", "json")
    rows = json.loads(done.out)
    assert [set(row) for row in rows] == [{column.name for column in columns(Connection)}] * len(rows)
    known = {(row["orig_app"], row["orig_pid"], row["resp_app"], row["resp_pid"], row["resp_port"]) for row in rows}
    assert known == {
        ("nginx", 10, "api", 20, 8080), ("api", 20, "postgres", 40, 5432), ("api", 20, "redis", 30, 6379),
        ("api", 20, None, None, 443), ("chrony", 50, None, None, 123),
    }  # fmt: skip


def test_table_says_what_was_not_seen(whoneeds, shop):
    """Under a table stands, on standard error, what was looked at and what could not be seen."""
    done = whoneeds("deps", "--store", shop / "store")
    assert "Seen: 3 hosts, 36 samples" in done.err
    assert "Not seen on db1: sockets of other users" in done.err
    assert "2 called addresses of no traced host" in done.err
    assert "Seen" not in done.out


def test_csv_has_names_and_rows(whoneeds, shop):
    """CSV has one line of names and one line a row."""
    done = whoneeds("deps", "--store", shop / "store", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out, newline="")))
    assert {(row["dependent"], row["port"]) for row in rows} >= {("nginx@web1", "8080"), ("chrony@db1", "123")}


def test_hostile_names_do_not_act(whoneeds, tmp_path):
    """A process that is called like a formula or a terminal code is shown, and neither calculated nor obeyed."""
    host = Host("web1", ("10.0.0.1",)).segment()
    for at, name in enumerate(("=cmd()", "a\x1b[2Jb", "x\u202etxt", "[bold]red", "{{ 7*7 }}")):
        by = host.process(name, 10 + at)
        host.socket(("10.0.0.1", 40000 + at), ("203.0.113.9", 443), by=by)
    incoming = collect([host], tmp_path / "incoming")
    assert whoneeds("run", "--from", incoming, "--store", tmp_path / "store").code == 0
    table = whoneeds("deps", "--store", tmp_path / "store").out
    assert "\x1b" not in table
    assert "\u202e" not in table
    for shown in ("=cmd()@web1", "a\\x1b[2Jb@web1", "x\\u202etxt@web1", "[bold]red@web1", "{{ 7*7 }}@web1"):
        assert shown in table
    text = whoneeds("deps", "--store", tmp_path / "store", "--format", "csv").out
    assert {row["app"] for row in csv.DictReader(io.StringIO(text, newline=""))} >= {"'=cmd()", "a\x1b[2Jb"}
    answer = whoneeds("deps", "--store", tmp_path / "store", "--format", "json").out
    assert answer.isascii()
    assert "a\x1b[2Jb" in {row["app"] for row in json.loads(answer)}


def test_limits_of_the_engine_are_taken_from_options_and_environment(whoneeds, shop, monkeypatch):
    """The engine has what was asked for, by an option before the environment, and what is no size is refused."""
    seen = []

    class Watched(DuckDBEngine):
        def __init__(self, root, scratch, settings):
            seen.append((settings.memory_bytes, settings.spill_bytes))
            super().__init__(root, scratch, settings)

    monkeypatch.setattr("whoneeds.store.duckdb_engine.DuckDBEngine", Watched)
    monkeypatch.setenv("WHONEEDS_MEMORY", "300MB")
    for verb in ("deps", "connections", "instances", "local"):
        assert whoneeds(verb, "--store", shop / "store", "--spill", "2.5GiB").code == 0
    assert seen == [(300_000_000, 5 << 29)] * 4
    assert whoneeds("deps", "--store", shop / "store", "--memory", "2GiB").code == 0
    assert seen[-1] == (2 << 30, 16 << 30)
    for words in (("--memory", "2"), ("--memory", "1MiB"), ("--spill", "-1GB"), ("--memory", "9999999PB")):
        refused = whoneeds("deps", "--store", shop / "store", *words)
        assert refused.code == 2
        assert words[0] in refused.err
        assert "4GiB" in refused.err


def test_an_engine_that_may_not_take_enough_says_so(whoneeds, shop, monkeypatch):
    """Work that needs more than memory and disk allow ends with the options that allow more, and no internal error."""

    def read_much(store):
        numbers = ibis.range(3_000_000).unnest().name("n").as_table()
        texts = numbers.mutate(text=numbers.n.cast("string").lpad(60, "x"))
        ordered = texts.order_by(texts.text.substr(50, 10)).mutate(at=ibis.row_number())
        return store.read(ordered.filter(ibis._["at"] == 2_999_999)).to_pylist()

    monkeypatch.setattr("whoneeds.cli.evidence.require_segments", read_much)
    done = whoneeds("deps", "--store", shop / "store", "--memory", "100MiB", "--spill", "1MiB")
    assert done.code == 1
    assert "more memory or disk than it may take" in done.err
    assert "--memory and --spill" in done.err


def ports(done):
    """The ports in an answer, and that it ended well."""
    assert done.code == 0, done.err
    return {row.get("port", row.get("resp_port")) for row in json.loads(done.out)}


NOON = "2024-01-01T00:00"
DECIDED_ANEW = [
    (["--host", "db1"], {123}),
    (["--host", "db1", "--host", "web1"], {123, 8080}),
    (["--user", "7"], set()),
    (["--user", "0"], {8080, 5432, 6379, 443, 123}),
    (["--user", "app1/0"], {5432, 6379, 443}),
    (["--since", f"{NOON}:30Z"], {8080, 5432, 6379, 443, 123}),
    (["--since", "2024-01-01T00:01:01Z"], set()),
    (["--until", "2023-12-31"], set()),
    (["--until", "2024-01-01T01:30", "--timezone", "Europe/Berlin"], {8080, 5432, 6379, 443, 123}),
    (["--until", "2024-01-01T00:30", "--timezone", "Europe/Berlin"], set()),
    (["--hours", "00:00-00:30"], {8080, 5432, 6379, 443, 123}),
    (["--hours", "22:00-00:01"], {8080, 5432, 6379, 443, 123}),
    (["--hours", "08:00-18:00"], set()),
    (["--hours", "08:30-09:30", "--timezone", "Asia/Tokyo"], {8080, 5432, 6379, 443, 123}),
    (["--place", "outside"], {443, 123}),
    (["--place", "inside"], {8080, 5432, 6379}),
    (["--place", "inside", "--inside-range", "203.0.113.0/24"], {8080, 5432, 443}),
    (["--place", "outside", "--host", "app1"], {443}),
]


# each decides the whole anew, which takes longest of all: one of a kind here, all of them where connections are listed
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--user", "app1/0", "--hours", "00:00-00:30"], {5432, 6379, 443}),
        (["--place", "outside", "--host", "app1", "--until", f"{NOON}:30Z"], {443}),
    ],
)
def test_what_makes_another_population(whoneeds, shop, options, found):
    """Hosts, users, times, hours and places leave exactly the needs whose connections they leave."""
    assert ports(whoneeds("deps", "--store", shop / "store", "--format", "json", *options)) == found


@pytest.mark.parametrize(
    ("options", "found"),
    [
        *[pair for pair in DECIDED_ANEW if "--host" not in pair[0]],
        (["--host", "db1"], {5432, 123}),
        (["--app", "postgres", "--app", "nginx"], {5432, 8080}),
        (["--service", "tcp/443", "--service", "udp/123"], {443, 123}),
        (["--location", "vpn"], set()),
    ],
)
def test_connections_are_narrowed_alike(whoneeds, shop, options, found):
    """The same options leave the same connections; a host or an application is meant at either end."""
    assert ports(whoneeds("connections", "--store", shop / "store", "--format", "json", *options)) == found


def test_several_applications_and_services(whoneeds, shop):
    """Several applications or services are shown together, and the shares of each are what they were."""
    asked = ("--app", "nginx", "--app", "chrony", "--service", "tcp/8080", "--service", "udp/123", "--service", "tcp/1")
    done = whoneeds("deps", "--store", shop / "store", "--format", "json", *asked)
    whole = json.loads(whoneeds("deps", "--store", shop / "store", "--format", "json").out)
    assert ports(done) == {8080, 123}
    assert json.loads(done.out) == [row for row in whole if row["port"] in (8080, 123)]


def test_a_part_is_said_to_be_one(whoneeds, shop):
    """Under the table stands what counted and how much of the observation that is."""
    asked = ("--host", "db1", "--until", f"{NOON}:30Z", "--app", "chrony")
    said = whoneeds("connections", "--store", shop / "store", *asked).err
    assert "Counted is only what ran on db1; what went on before 2024-01-01 00:00:30Z" in said
    assert "Left of 3.0 minutes of observation on 3 hosts: 30 s on 1 host." in said
    assert "Shown are only applications chrony" in said
    assert "Counted" not in whoneeds("connections", "--store", shop / "store").err


def test_an_empty_window_says_that_nobody_looked(whoneeds, shop):
    """A window without observation is answered by saying so and what there is, and not by an empty table alone."""
    done = whoneeds("deps", "--store", shop / "store", "--since", "2024-01-02")
    assert (done.code, done.out) == (0, "")
    assert "Nothing was observed there" in done.err
    assert "2024-01-01 00:00:00Z to 2024-01-01 00:01:00Z" in done.err
    assert "does not say that there is none" in done.err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--since", "yesterday"], "--since"), (["--since", "2024-13-01"], "--since"),
        (["--since", "9999-01-01"], "--since"), (["--timezone", "../etc"], "--timezone"),
        (["--until", "99999999w"], "--until"), (["--hours", "8-18"], "--hours"), (["--hours", "08:00-08:00"], "hours"),
        (["--hours", "24:00-08:00"], "--hours"), (["--hours", "08:00-24:30"], "--hours"),
        (["--timezone", "Mars/Base"], "--timezone"), (["--since", "2024-01-02", "--until", "2024-01-01"], "window"),
        (["--place", "inside", "--inside-range", "10.0.0.1/8"], "range"), (["--service", "tcp/0"], "--service"),
        (["--app", "x" * 4096], "--app"), (["--app", ""], "--app"), (["--host", ""], "hosts"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(whoneeds, shop, options, word):
    """Times, zones, ranges and names that make no sense are wrong use, and the message names the option."""
    done = whoneeds("deps", "--store", shop / "store", *options)
    assert (done.code, done.out) == (2, "")
    assert word in done.err
