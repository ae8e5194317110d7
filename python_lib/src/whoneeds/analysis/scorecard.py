# SPDX-License-Identifier: GPL-3.0-or-later
"""A scorecard: for each feature bins and their weights, whose sum a monotone table turns into a probability.

It is data, made by training, and believed only after it was looked through: every feature is one that there is, edges
rise, numbers are numbers, probabilities never fall.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number

SCORECARD_SCHEMA = 1
SCORECARD_KIND = "whoneeds-scorecard"
#: So many bins no feature needs, nor the table so many steps: a document with more is none.
_MOST = 512


@dataclass(frozen=True)
class Weights:
    """The bins of one feature.

    Attributes
    ----------
    name : str
    edges : tuple of float
        Where a bin ends and the next begins, in order; a value at an edge is in the upper one.
    weights : tuple of float
        Of each bin, one more than edges.
    unknown : float
        Of a value that is not known.
    """

    name: str
    edges: tuple[float, ...]
    weights: tuple[float, ...]
    unknown: float


@dataclass(frozen=True)
class Scorecard:
    """What `evidence` decides by.

    Attributes
    ----------
    features : tuple of Weights
    base : float
        Weight that every row has.
    scores : tuple of float
        Sums from which on the next probability holds, in order.
    probabilities : tuple of float
        One more than scores, none below the one before.
    static_from : float
        Least probability of a static dependency.
    undecided : tuple of float
        Between these, a service that was seen once only is called neither.
    made : mapping of str to any
        How it was made, as the document says.
    """

    features: tuple[Weights, ...]
    base: float
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    static_from: float
    undecided: tuple[float, float]
    made: Mapping[str, Any]


def read_scorecard(document: Any, known: Sequence[str]) -> Scorecard:
    """Look a document through and make a scorecard of it.

    Parameters
    ----------
    document : any
        What JSON gave.
    known : sequence of str
        Names of the features that there are.

    Returns
    -------
    Scorecard

    Raises
    ------
    SettingsError
        Naming what is wrong.
    """
    wanted = {"schema", "kind", "made", "base", "features", "calibration", "static_from", "undecided"}
    _require(isinstance(document, dict) and set(document) == wanted, "keys", f"exactly {sorted(wanted)}", document)
    _require(document["kind"] == SCORECARD_KIND, "kind", SCORECARD_KIND, document["kind"])
    schema = document["schema"]
    _require(is_whole_number(schema) and schema == SCORECARD_SCHEMA, "schema", str(SCORECARD_SCHEMA), schema)
    _require(isinstance(document["made"], dict), "made", "how it was made", document["made"])
    features = document["features"]
    _require(isinstance(features, list) and 0 < len(features) <= _MOST, "features", "a list of features", features)
    read = tuple(_read_feature(feature, known) for feature in features)
    names = [feature.name for feature in read]
    _require(len(set(names)) == len(names), "features", "each of them once", names)
    calibration = document["calibration"]
    legal = isinstance(calibration, dict) and set(calibration) == {"scores", "probabilities"}
    _require(legal, "calibration", "scores and probabilities", calibration)
    scores = _read_numbers(calibration["scores"], "scores", rising=True)
    probabilities = _read_numbers(calibration["probabilities"], "probabilities")
    _require(len(probabilities) == len(scores) + 1, "probabilities", f"{len(scores) + 1} of them", len(probabilities))
    falls = any(later < sooner for sooner, later in pairwise(probabilities))
    _require(not falls, "probabilities", "none below the one before", probabilities)
    _require(probabilities[0] >= 0 and probabilities[-1] <= 1, "probabilities", "numbers from 0 to 1", probabilities)
    undecided = _read_numbers(document["undecided"], "undecided")
    _require(
        len(undecided) == 2 and 0 <= undecided[0] <= undecided[1] <= 1,
        "undecided", "two probabilities, the lower one first", undecided,
    )  # fmt: skip
    (static_from, base) = _read_numbers([document["static_from"], document["base"]], "static_from and base")
    _require(0 < static_from <= 1, "static_from", "a probability above 0", static_from)
    return Scorecard(read, base, scores, probabilities, static_from, (undecided[0], undecided[1]), document["made"])


def _read_feature(feature: Any, known: Sequence[str]) -> Weights:
    legal = isinstance(feature, dict) and set(feature) == {"name", "edges", "weights", "unknown"}
    _require(legal, "feature", "name, edges, weights and unknown", feature)
    name = feature["name"]
    _require(isinstance(name, str) and name in known, "feature", "one of " + ", ".join(known), name)
    edges = _read_numbers(feature["edges"], f"edges of {name}", rising=True)
    weights = _read_numbers(feature["weights"], f"weights of {name}")
    _require(len(weights) == len(edges) + 1, f"weights of {name}", f"{len(edges) + 1} of them", len(weights))
    (unknown,) = _read_numbers([feature["unknown"]], f"unknown of {name}")
    return Weights(name, edges, weights, unknown)


def _read_numbers(values: Any, what: str, *, rising: bool = False) -> tuple[float, ...]:
    legal = isinstance(values, list) and len(values) <= _MOST and all(_is_number(value) for value in values)
    _require(legal, what, f"a list of at most {_MOST} finite numbers", values)
    falls = rising and any(later <= sooner for sooner, later in pairwise(values))
    _require(not falls, what, "each above the one before", values)
    return tuple(float(value) for value in values)


def _is_number(value: Any) -> bool:
    return (isinstance(value, float) or is_whole_number(value)) and math.isfinite(value) and abs(value) < 1e9


def _require(legal: bool, what: str, expected: str, found: Any) -> None:
    if not legal:
        raise SettingsError(
            f"scorecard: {what}", expected=expected[:200], found=ascii(found)[:80],
            remedy="make it anew: python -m whoneeds.evaluation.train",
        )  # fmt: skip
