# SPDX-License-Identifier: GPL-3.0-or-later
"""The scorer: every verdict it can give, on rows made for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .fleet import FLEET
from .score import KEYS, lives_long_enough, main, perfect, read_rows, score, score_table
from .truth import truth_document

TRUTH = truth_document(FLEET)


def row_of(edge: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The row that reports a declared dependency rightly."""
    keys = ("dependent_host", "dependent_app", "resp_host", "resp_app", "protocol", "port")
    return {**dict(zip(KEYS, (edge[key] for key in keys), strict=True)), "kind": edge["kind"], **changes}


STATIC = [row_of(edge) for edge in TRUTH["dependencies"] if edge["kind"] == "static"]
COUNTED = [row_of(edge) for edge in TRUTH["dependencies"] if edge["kind"] == "static" and lives_long_enough(edge, 300)]
DB = next(row for row in COUNTED if row["orig_app"] == "appserver" and row["resp_port"] == 5432)


def test_the_whole_truth_scores_one():
    """All static dependencies, short ones too, and nothing else: precision, recall and F1 are 1."""
    result = score(TRUTH, STATIC)
    assert (result["precision"], result["recall"], result["f1"]) == (1.0, 1.0, 1.0)
    assert perfect(result)
    assert len(result["found"]) == len(STATIC)
    assert result["counted"] == len(COUNTED) < len(STATIC)


def test_short_dependencies_may_be_missed():
    """Leaving out what too few samples are expected to see costs nothing."""
    assert perfect(score(TRUTH, COUNTED))


def test_nothing_found_misses_all_and_claims_no_precision():
    """No rows: recall 0, F1 0, and precision is not known rather than 1 or 0."""
    result = score(TRUTH, [])
    assert result["precision"] is None
    assert (result["recall"], result["f1"]) == (0.0, 0.0)
    assert len(result["missed"]) == result["counted"]


def test_a_longer_period_counts_fewer_dependencies():
    """With one sample in 100 s only lasting connections are still to be found in 500 s."""
    slow = score(TRUTH, [], load_s=500, period_s=100)
    names = {row["orig_app"] for row in slow["missed"]}
    assert "appserver" in names
    assert "psql" not in names
    assert "psql" in {row["orig_app"] for row in score(TRUTH, [])["missed"]}


def test_a_missing_row_is_missed_and_lowers_recall_only():
    """One counted dependency left out is named under missed."""
    result = score(TRUTH, [row for row in STATIC if row != DB])
    assert [row["resp_port"] for row in result["missed"]] == [5432]
    assert result["precision"] == 1.0
    assert result["recall"] == pytest.approx(1 - 1 / len(COUNTED))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"resp_port": 5433}, "not declared"),
        ({"resp_host": "cache1"}, "not declared"),
        ({"protocol": "udp"}, "not declared"),
        ({"resp_host": None}, "its responder is no host of the lab"),
        ({"resp_host": "example"}, "its responder is no host of the lab"),
    ],
)
def test_what_nobody_declared_is_false(changes: dict[str, Any], why: str):
    """A claim that no declaration explains is false, with the reason."""
    result = score(TRUTH, [*STATIC, {**DB, **changes}])
    assert [row["why"] for row in result["false"]] == [why]
    assert result["precision"] == pytest.approx(len(STATIC) / (len(STATIC) + 1))
    assert not perfect(result)


@pytest.mark.parametrize("changes", [{"orig_app": "python3.11"}, {"resp_app": "redis-check-rdb"}])
def test_the_right_service_with_another_name_is_a_wrong_name(changes: dict[str, Any]):
    """Right hosts and port but another application on either side is a wrong name, and the dependency is missed."""
    result = score(TRUTH, [*(row for row in STATIC if row != DB), {**DB, **changes}])
    assert len(result["wrong_names"]) == len(result["missed"]) == 1
    assert not result["false"]


@pytest.mark.parametrize("side", ["orig_app", "resp_app"])
def test_an_open_name_is_neither_found_nor_wrong(side: str):
    """An application left open is told apart from a wrong one, unless the other side is wrong."""
    result = score(TRUTH, [{**DB, side: None}])
    assert len(result["unnamed"]) == 1
    assert not result["wrong_names"]
    assert not result["found"]
    other = "resp_app" if side == "orig_app" else "orig_app"
    assert len(score(TRUTH, [{**DB, side: None, other: "x"}])["wrong_names"]) == 1


def test_a_static_dependency_called_transient_is_missed():
    """The kind counts: a declared static dependency reported as transient is not found."""
    result = score(TRUTH, [{**row, "kind": "transient"} if row == DB else row for row in STATIC])
    assert len(result["missed"]) == 1


def test_ports_chosen_at_random_are_counted_and_must_not_be_called_static():
    """Peers' rows are welcome as transient or without kind, and false as static."""
    edge = next(edge for edge in TRUTH["dependencies"] if edge["port"] is None)
    seen = row_of(edge, resp_port=40000, orig_pid=7)
    welcome = score(TRUTH, [*STATIC, seen, {**seen, "kind": None, "resp_port": 40001, "orig_pid": 8}])
    assert perfect(welcome)
    assert welcome["transient"]["peerd"] == {"ports": 2, "called_static": 0, "instances": 2}
    blamed = score(TRUTH, [*STATIC, {**seen, "kind": "static"}])
    assert blamed["transient"]["peerd"]["called_static"] == len(blamed["false"]) == 1
    misnamed = score(TRUTH, [*STATIC, {**seen, "kind": None, "orig_app": "python3"}])
    assert len(misnamed["wrong_names"]) == 1
    low = score(TRUTH, [*STATIC, {**seen, "resp_port": 9999}, {**seen, "kind": "static", "resp_port": 9999}])
    assert len(low["false"]) == 1


def test_rows_that_begin_outside_the_lab_are_counted_apart():
    """The controller's ssh is nobody's dependency."""
    result = score(TRUTH, [*STATIC, {**DB, "orig_host": None}, {**DB, "orig_host": "ctl"}])
    assert result["outside"] == 2
    assert perfect(result)


def test_repeated_rows_count_once():
    """Many connections of one dependency are one finding."""
    wrong = {**DB, "resp_port": 1}
    result = score(TRUTH, [*STATIC, *STATIC, wrong, dict(wrong)])
    assert len(result["found"]) == len(STATIC)
    assert len(result["false"]) == 1


def test_two_applications_on_one_service_are_told_apart():
    """The dump and the query of the same job need the same database, each under its own name."""
    rows = [row for row in STATIC if row["orig_host"] == "batch1" and row["resp_port"] == 5432]
    assert {row["orig_app"] for row in rows} == {"psql", "pg_dump"}
    assert len(score(TRUTH, rows)["found"]) == 2


def test_another_schema_is_refused():
    """A truth file of another schema is not guessed at."""
    with pytest.raises(ValueError, match="schema 1"):
        score({**TRUTH, "schema": 2}, [])


VALUES = (
    st.none()
    | st.text("ab1{\n", max_size=8)
    | st.sampled_from([*FLEET.application("peerd").hosts, "db1", "tcp", "peerd"])
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.fixed_dictionaries(
            {key: VALUES for key in KEYS if key != "resp_port"},
            optional={
                "resp_port": st.none() | st.integers(0, 65535),
                "kind": VALUES,
                "orig_pid": st.none() | st.just(1),
            },
        ),
        max_size=20,
    )
)
def test_any_rows_give_shares_between_0_and_1(rows: list[dict[str, Any]]):
    """Whatever the rows say, shares stay within 0 and 1 and the table can be written."""
    result = score(TRUTH, rows)
    assert result["precision"] is None or 0 <= result["precision"] <= 1
    assert 0 <= result["recall"] <= 1
    assert 0 <= result["f1"] <= 1
    assert score_table(result).endswith("\n")


def test_the_command_line_tells_right_from_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """With --strict the exit code is 0 for the truth, 1 for a false row; unreadable rows give 2 and a message."""
    truth, rows = tmp_path / "truth.json", tmp_path / "rows.json"
    truth.write_text(json.dumps(TRUTH))
    rows.write_text(json.dumps({"rows": STATIC}))
    assert main([str(truth), str(rows), "--strict", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["f1"] == 1.0
    rows.write_text(json.dumps([{**DB, "resp_port": 1}]))
    assert main([str(truth), str(rows), "--strict"]) == 1
    assert "not declared" in capsys.readouterr().out
    assert main([str(truth), str(rows)]) == 0
    rows.write_text("{")
    assert main([str(truth), str(rows)]) == 2
    assert "score:" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1", "{}", '["x"]', '{"rows": {}}'])
def test_rows_of_another_shape_are_refused(text: str):
    """What is no list of objects is refused with what was expected."""
    with pytest.raises(ValueError, match="expected a JSON list of objects"):
        read_rows(text)
