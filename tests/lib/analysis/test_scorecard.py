# SPDX-License-Identifier: GPL-3.0-or-later
"""The scorecard: what is one, how it is applied, and what the one that is shipped says."""

import copy
import json
from functools import cache
from importlib.resources import files

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.analysis.evidence import TOLD, measure_features, name_value, weigh
from whoneeds.analysis.features import FEATURES, TOPICS
from whoneeds.analysis.scorecard import read_scorecard
from whoneeds.model.conclusions import ServiceTrait
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import columns

NAMES = [feature.name for feature in FEATURES]
SHIPPED = json.loads(files("whoneeds.analysis").joinpath("scorecard.json").read_text())
BY_HAND = {
    "schema": 1, "kind": "whoneeds-scorecard", "made": {}, "base": -1.0,
    "features": [
        {"name": "usage_share", "edges": [0.1, 0.5], "weights": [-2.0, 0.5, 2.0], "unknown": 0.0},
        {"name": "near_services", "edges": [1.0], "weights": [1.0, -1.5], "unknown": 0.0},
        {"name": "named_share", "edges": [0.5], "weights": [-0.5, 0.25], "unknown": 0.125},
    ],
    "calibration": {"scores": [-3.0, 0.0, 1.0], "probabilities": [0.01, 0.3, 0.6, 0.99]},
    "static_from": 0.5, "undecided": [0.2, 0.8],
}  # fmt: skip
TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def trait(**chosen):
    """A row of traits with unremarkable values where none are given."""
    row = {
        column.name: {"string": "tcp", "int64": 1, "float64": 5.0, "bool": False}[column.type]
        for column in columns(ServiceTrait)
    }
    return {**row, "app": "web", "port": 5432, "flows": 5, **chosen}


def apply(rows, document):
    """Rows weighed by a document."""
    schema = pa.schema([(column.name, TYPES[column.type]) for column in columns(ServiceTrait)])
    engine = duckdb.connect(config={"threads": 1})
    engine.register("traits", pa.table({name: [row[name] for row in rows] for name in schema.names}, schema))
    found = engine.sql(as_sql(json.dumps(document))).to_arrow_table().to_pylist()
    # weights are exact decimals to the engine
    return [{**row, **{name: float(row[name]) for name in ("score", "probability")}} for row in found]


@cache
def as_sql(document):
    """The weighing in the engine's language; translating takes longer than running on a few rows."""
    schema = {column.name: column.type.replace("bool", "boolean") for column in columns(ServiceTrait)}
    made = weigh(ibis.table(schema, name="traits"), read_scorecard(json.loads(document), NAMES))
    return str(ibis.to_sql(made, dialect="duckdb"))


def test_weights_are_added_up_by_hand():
    """Sum, probability, kind, reason and grounds of three rows are those that a person works out."""
    static, transient, once = apply(
        [
            trait(support=9, population=10, near_services=0, named_destinations=None),
            trait(support=1, population=20, near_services=7, named_destinations=0),
            trait(support=2, population=10, near_services=0, named_destinations=1, flows=1),
        ],
        BY_HAND,
    )
    assert [row["score"] for row in (static, transient, once)] == [2.125, -5.0, 0.75]
    assert [row["probability"] for row in (static, transient, once)] == [0.99, 0.01, 0.6]
    assert [row["kind"] for row in (static, transient, once)] == ["static", "transient", "unclassified"]
    assert [row["reason"] for row in (static, transient, once)] == ["weighed", "weighed", "too_little"]
    assert static["grounds"] == "used by 9 of 10 instances; 0 other ports near it; no names are known"
    assert transient["grounds"] == "used by 1 of 20 instances; 7 other ports near it; 0 of 1 places have names"


def test_kinds_change_where_the_scorecard_says():
    """A need is static from the very probability that is named, and one seen once is undecided below the upper one."""
    row = trait(support=2, population=10, near_services=0, named_destinations=1)
    for static_from, kind in ((0.6, "static"), (0.61, "transient")):
        (found,) = apply([row], {**BY_HAND, "static_from": static_from})
        assert (found["probability"], found["kind"]) == (0.6, kind)
    for undecided, kind in (([0.6, 0.8], "unclassified"), ([0.2, 0.6], "static")):
        (found,) = apply([{**row, "flows": 1}], {**BY_HAND, "undecided": undecided})
        assert found["kind"] == kind


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=12))
def test_every_row_is_what_a_loop_makes_of_its_values(drawn):
    """With the shipped scorecard, score, probability and number of grounds are those of a loop over the features."""
    rows = [
        trait(
            app=str(at), support=support, population=support + more, near_services=near, support_in_all=support + near,
            near_support=near, place_support=support, named_destinations=None if near % 3 else min(near, 1),
        )
        for at, (support, more, near) in enumerate(drawn)
    ]  # fmt: skip
    for row in apply(rows, SHIPPED):
        score = SHIPPED["base"]
        for feature in SHIPPED["features"]:
            value = row[name_value(feature["name"])]
            place = np.searchsorted(feature["edges"], value, side="right") if value is not None else None
            score += feature["unknown"] if place is None else feature["weights"][place]
        assert row["score"] == pytest.approx(score, abs=1e-5)
        table = SHIPPED["calibration"]
        step = np.searchsorted(table["scores"], row["score"], side="right")
        assert row["probability"] == table["probabilities"][step]
        assert 1 <= len(row["grounds"].split("; ")) <= TOLD


def test_more_weight_never_makes_it_less_probable():
    """The shipped table never falls, and is certain of nothing."""
    probabilities = SHIPPED["calibration"]["probabilities"]
    assert probabilities == sorted(probabilities)
    assert 0 < probabilities[0] < 0.05
    assert 0.95 < probabilities[-1] < 1


def test_every_feature_is_measured_and_told_of():
    """The shipped scorecard weighs each feature once, and every feature's topic has words."""
    assert [feature["name"] for feature in SHIPPED["features"]] == NAMES
    assert {feature.topic for feature in FEATURES} == set(TOPICS)
    table = ibis.table({column.name: column.type.replace("bool", "boolean") for column in columns(ServiceTrait)})
    assert {name_value(name) for name in NAMES} <= set(measure_features(table).columns)


def broken(*path, value):
    """The document by hand with another value at a place; None takes the key away."""
    document = copy.deepcopy(BY_HAND)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {**BY_HAND, "more": 1}, broken("schema", value=2), broken("schema", value=True),
        broken("kind", value="card"), broken("made", value=[]), broken("base", value=float("nan")),
        broken("base", value="1"), broken("features", value=[]), broken("features", 0, "name", value="no feature"),
        broken("features", 1, "name", value="usage_share"), broken("features", 0, "edges", value=[0.5, 0.1]),
        broken("features", 0, "weights", value=[1.0]), broken("features", 0, "unknown", value=None),
        broken("features", 0, "weights", value=[1.0, float("inf"), 1.0]),
        broken("calibration", "scores", value=[0.0, 0.0, 1.0]),
        broken("calibration", "probabilities", value=[0.1, 0.3, 0.2, 0.9]),
        broken("calibration", "probabilities", value=[0.1, 0.3, 0.9]),
        broken("calibration", "probabilities", value=[0.1, 0.3, 0.9, 1.1]),
        broken("undecided", value=[0.8, 0.2]), broken("static_from", value=0),
        broken("features", 0, "edges", value=list(range(600))),
    ],
)  # fmt: skip
def test_what_is_no_scorecard_is_refused(document):
    """A document with a key, number, order or name that does not fit is refused, with what to do."""
    with pytest.raises(SettingsError, match=r"python -m whoneeds\.evaluation\.train"):
        read_scorecard(document, NAMES)
