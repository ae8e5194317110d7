# SPDX-License-Identifier: GPL-3.0-or-later
"""How rows look: nothing a host chose acts on a terminal or a spreadsheet, and tables fit."""

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from whoneeds.render.csv_rows import format_csv
from whoneeds.render.json_rows import format_json
from whoneeds.render.quantity import tell_bytes, tell_instant, tell_share
from whoneeds.render.statement import state_blind_spots, state_observation
from whoneeds.render.table import Shown, format_table
from whoneeds.render.views import dependency_columns, name_ends, sort_dependencies
from whoneeds.render.visible import make_visible

ANY_TEXT = st.text(alphabet=st.characters(), max_size=40)
BAD = ("Cc", "Cf", "Cs", "Zl", "Zp")


def dependency(**chosen):
    """A row of the view by host with unremarkable values where none are given."""
    row = {
        "level": None, "app": "api", "host": "app1", "pid": None, "address": "10.0.0.2", "protocol": "tcp",
        "port": 5432, "resp_addr": "10.0.0.3", "resp_host": "db1", "resp_app": "postgres", "kind": "static",
        "method": "macroscope", "reason": "all_static", "support": 2, "population": 4, "users": 1,
        "usage_share": 0.5, "adjusted_share": 0.5, "flows": 9, "orig_bytes": 700, "resp_bytes": None,
        "first_ns": 1_704_067_200_000_000_000, "last_ns": 1_704_067_260_000_000_000,
    }  # fmt: skip
    return {**row, **chosen}


@given(ANY_TEXT)
def test_visible_text_holds_nothing_hidden(text):
    """Whatever the text, no control, direction or format character and no surrogate is left in it."""
    shown = make_visible(text)
    assert not [letter for letter in shown if unicodedata.category(letter) in BAD]
    shown.encode("utf-8")


def test_formula_cells_are_disarmed():
    """A cell that a spreadsheet would calculate begins with an apostrophe, and numbers stay numbers."""
    names = ["=1+1", "+1", "-1", "@a", "\tx", "\rx", "\nx", "plain", "'=1"]
    text = format_csv([{"app": name, "bytes": -5, "none": None} for name in names], ["app", "bytes", "none"])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["app", "bytes", "none"]
    assert [row[0] for row in rows[1:]] == [f"'{name}" for name in names[:7]] + ["plain", "'=1"]
    assert {tuple(row[1:]) for row in rows[1:]} == {("-5", "")}


@given(st.lists(st.fixed_dictionaries({"a": ANY_TEXT, "b": st.one_of(st.none(), st.integers())}), max_size=5))
def test_csv_reads_back(rows):
    """Whatever names are in it, a CSV reader gets as many rows and cells as went in."""
    read = list(csv.reader(io.StringIO(format_csv(rows, ["a", "b"]), newline="")))
    assert len(read) == len(rows) + 1
    assert all(len(line) == 2 for line in read)
    assert [line[0].removeprefix("'") for line in read[1:]] == [row["a"].removeprefix("'") for row in rows]


@given(
    st.lists(st.fixed_dictionaries({"a": ANY_TEXT, "b": st.floats(allow_nan=False, allow_infinity=False)}), max_size=5)
)
def test_json_reads_back(rows):
    """JSON is ASCII without control characters but line ends, one row a line, and reads back as the same rows."""
    text = format_json(rows)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == rows
    assert len(text.splitlines()) == (len(rows) + 2 if rows else 1)


def test_json_refuses_what_it_cannot_hold():
    """A number that is none is refused instead of being written as something that is not JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json([{"share": float("nan")}])


NAMES = st.text(alphabet=st.sampled_from("ab日本🙂\x1b\u202e-."), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=6), st.integers(60, 220), st.sampled_from(["host", "1", "4"])
)
def test_tables_fit(names, width, level):
    """Every row of a table is one line that is no wider than the terminal, whatever the names."""
    rows = [dependency(app=app, resp_app=provider, pid=7) for app, provider in names]
    lines = format_table(rows, dependency_columns(level), width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    body = [line for line in lines[1:] if not line.startswith("(")]
    assert len([line for line in body if "tcp/5432" in line]) == len(rows)


def test_wide_table_has_every_column():
    """Without a terminal nothing is left out or cut, however long it is."""
    columns = dependency_columns("host")
    text = format_table([dependency(app="a" * 300)], columns)
    head, line = text.splitlines()
    assert all(column.title in head for column in columns)
    assert "a" * 300 in line
    assert "…" not in text


def test_narrow_table_says_what_is_missing():
    """At 80 columns the essential columns stay, and the line below names those that went."""
    lines = format_table([dependency()], dependency_columns("host"), width=80).splitlines()
    assert lines[0].split()[:4] == ["DEPENDENT", "DEPENDS", "ON", "SERVICE"]
    assert "api@app1" in lines[1]
    assert "postgres@db1" in lines[1]
    said = " ".join(lines[2:])
    assert "left out to fit 80 columns" in said
    assert "last seen" in said


def test_cut_text_is_marked():
    """A name too long for the terminal ends in an ellipsis, and that is said."""
    text = format_table([dependency(app="a" * 300)], dependency_columns("host"), width=80)
    assert "a…" in text
    assert "is cut" in text


def test_wide_letters_keep_columns_straight():
    """Letters that take two cells do not push the columns after them out of line."""
    columns = [Shown("NAME", lambda row: row["name"]), Shown("N", lambda row: "7")]
    lines = format_table([{"name": "日本"}, {"name": "abcd"}], columns).splitlines()
    assert [cell_len(line.split("7")[0]) for line in lines[1:]] == [6, 6]


def test_titles_are_set_off_only_where_welcome():
    """Terminal codes are written only if asked for."""
    assert "\x1b" not in format_table([dependency()], dependency_columns("1"))
    assert format_table([dependency()], dependency_columns("1"), styled=True).startswith("\x1b[1m")


@pytest.mark.parametrize(
    ("row", "dependent", "depends_on"),
    [
        (dependency(), "api@app1", "postgres@db1 tcp/5432"),
        (dependency(resp_app=None), "api@app1", "db1 tcp/5432"),
        (dependency(resp_app=None, resp_host=None), "api@app1", "10.0.0.3 tcp/5432"),
        (dependency(host=None, resp_app=None, resp_host=None, resp_addr=None), "api", "tcp/5432"),
        (dependency(host=None, resp_host=None, resp_addr=None), "api", "postgres tcp/5432"),
        (dependency(pid=812), "api[812]@app1/10.0.0.2", "postgres@db1 tcp/5432"),
    ],
)
def test_ends_in_words(row, dependent, depends_on):
    """Both ends are named by what is known of them, and by nothing else."""
    assert name_ends(row) == {"dependent": dependent, "depends_on": depends_on}


def test_static_needs_stand_first():
    """Static needs come before transient ones, then names decide."""
    rows = [dependency(kind="transient", app="a"), dependency(app="c"), dependency(app="b")]
    assert [row["app"] for row in sort_dependencies(rows)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (10**18, "1.0 EB"),
    ],
)
def test_bytes(amount, told):
    """Bytes are told with one digit after the point, zero apart from not known."""
    assert tell_bytes(amount) == told


@given(st.floats(0, 1))
def test_shares_are_not_rounded_to_all_or_nothing(share):
    """Only all is told as 100 %, and only nothing as 0 %."""
    assert (tell_share(share) == "100%") == (share == 1)
    assert (tell_share(share) == "0%") == (share == 0)


def test_instants():
    """Instants are told in UTC."""
    assert tell_instant(1_704_067_200_999_999_999) == "2024-01-01 00:00:00Z"


HOST = {
    "host": "web1", "segments": 1, "samples": 12, "period_s": 5.0, "unprivileged": 0, "dropped_segments": 0,
    "first_ns": 1_704_067_200_000_000_000, "last_ns": 1_704_067_260_000_000_000,
}  # fmt: skip
ALL_KNOWN = {
    "flows": 9,
    "unnamed_here": 0,
    "ended_before": 0,
    "undirected": 0,
    "unpaired": 0,
    "astray": 0,
    "untraced_addresses": 0,
}


def test_statement_of_a_whole_observation():
    """Where nothing is known to be missing, only what was seen is stated."""
    assert state_blind_spots([HOST], [], ALL_KNOWN) == []
    assert state_observation([HOST]) == "Seen: 1 host, 12 samples, 2024-01-01 00:00:00Z to 2024-01-01 00:01:00Z."


def test_statement_of_blind_spots():
    """Missing rights, lost segments, gaps, unknown programs and silent hosts are each stated with their hosts."""
    hosts = [{**HOST, "unprivileged": 1}, {**HOST, "host": "db1", "dropped_segments": 3}]
    gaps = [
        {"host": host, "source": "owners", "reason": "permission", "detail": "a\x1bb", "times": 2, "lost": lost}
        for host, lost in (("web1", 4), ("db1", None))
    ]
    ends = {
        "flows": 9,
        "unnamed_here": 2,
        "ended_before": 4,
        "undirected": 1,
        "unpaired": 3,
        "astray": 6,
        "untraced_addresses": 5,
    }
    said = state_blind_spots(hosts, gaps, ends, ["ghost1"])
    text = "\n".join(said)
    assert len(said) == 10
    parts = (
        "ghost1", "Without root on web1", "3 segments on db1", "on db1, web1: a\\x1bb", "4 lost", "4 times",
        "2 of 9 connections", "1 connection it", "3 connections is one of several", "5 called addresses",
        "6 connections went on",
        "4 connections had ended when tracing began",
    )  # fmt: skip
    for part in parts:
        assert part in text


def test_statement_names_a_few_hosts_only():
    """Of many hosts five are named and the others counted."""
    hosts = [{**HOST, "host": f"h{at:02}", "unprivileged": 1} for at in range(12)]
    assert "h00, h01, h02, h03, h04 and 7 more" in state_blind_spots(hosts, [], ALL_KNOWN)[0]


def test_where_processes_cannot_be_told_apart_is_said():
    """Hosts with ends of which several processes may be the one are named, those with most of them first."""
    row = {"host": "web1", "ends": 10, "ambiguous": 2}
    rows = [row, {**row, "host": "db\x1b1", "ambiguous": 7}, {**row, "host": "app1", "ambiguous": 0}]
    (said,) = state_blind_spots([HOST], [], ALL_KNOWN, ends_of=rows)
    assert said.endswith("at these ends: 7 of 10 on db\\x1b1, 2 of 10 on web1.")
    many = [{**row, "host": f"h{number}"} for number in range(7)]
    assert state_blind_spots([HOST], [], ALL_KNOWN, ends_of=many)[0].endswith("on h4, and on 2 more hosts.")
