# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the scorecard that `evidence` decides by: ``python -m whoneeds.evaluation.train``.

Populations with truth are drawn and observed, sizes from one host and one day up to the paper's own, sampled every 5 or
30 seconds or told of by events, one in four without any names known. Each (application, protocol, port) that was seen
is one row: its features by the very expressions that a user's store goes through, and whether it is static. A logistic
regression on the bins of the features gives the weights. Other populations, which it did not see, give the table from
sums to probabilities (isotonic regression), so that these are frequencies and not boasts.

Seeds 1000 to 1999 train and 2000 to 2999 calibrate; what reports on the method uses others, and the variant "held_out"
of the generator is used for neither.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import whoneeds
from whoneeds.analysis.evidence import measure_features, name_value
from whoneeds.analysis.features import FEATURES
from whoneeds.analysis.scorecard import SCORECARD_KIND, SCORECARD_SCHEMA, read_scorecard
from whoneeds.collector.traits import find_traits
from whoneeds.evaluation.observation import Observation
from whoneeds.model.conclusions import ServiceUse
from whoneeds.model.evidence import FlowRecord, NameRecord, ProcessRecord, SocketRecord
from whoneeds.scenario import Observed, make_population, observe, preset

TRAINING_SEEDS, CALIBRATION_SEEDS = 1000, 2000
STATIC_FROM = 0.5
#: What was seen once is called neither static nor transient between these.
UNDECIDED = (0.2, 0.8)
#: Inverse strength of the regression's penalty, by which weights of bins that hold few rows stay small.
_PENALTY = 0.3
#: A probability says no more than the rows that it rests on can: certain is nothing.
_SUREST = 0.0005
#: Rows that a step of the table rests on at least.
_STEP_ROWS = 40

#: Where the bins of each feature end; those of crossed features are their classes.
EDGES: dict[str, tuple[float, ...]] = {
    "usage_share": (0.003, 0.01, 0.03, 0.07, 0.1, 0.2, 0.4, 0.7, 0.99),
    "support": (2, 3, 4, 6, 10, 20, 50, 200),
    "population": (2, 3, 6, 12, 50, 300),
    "services_each": (1.01, 1.2, 1.5, 2, 3, 6, 12),
    "usage_in_turn": (0.05, 0.2, 0.5, 1, 2, 5, 20),
    "hosts_share": (0.05, 0.12, 0.25, 0.5, 0.9),
    "users_share": (0.05, 0.12, 0.25, 0.5, 0.9),
    "days_share": (0.03, 0.1, 0.25, 0.5, 0.9),
    "port_class": (0.5, 1.5),
    "near_services": (1, 2, 4, 10, 30, 100),
    "near_excess": (0.3, 0.7, 1.5, 3, 8, 30),
    "other_services": (1, 2, 4, 8, 16, 64, 300),
    "other_single_services": (1, 2, 4, 10, 40, 300),
    "places_share": (0.02, 0.1, 0.25, 0.5, 0.8, 1.01),
    "repeated_share": (0.01, 0.05, 0.15, 0.34, 0.5),
    "concentration": (0.1, 0.25, 0.5, 0.9),
    "single_ports_there": (0.01, 0.1, 0.5, 1, 3, 10),
    "lasting_ports_there": (0.01, 0.5, 1, 2, 4),
    "named_share": (0.01, 0.5, 0.99),
    "service_apps": (1, 2, 4, 8, 20),
    "shared_share": (0.01, 0.5, 0.99),
    "listener": (0.5, 1.5, 2.5),
    "early_share": (0.02, 0.2, 0.5, 0.9),
    "flows_each": (1.01, 1.3, 2, 5, 20),
    "seen_share": (0.01, 0.1, 0.3, 0.99),
}
_CLASSES = 48


@dataclass(frozen=True)
class Sight:
    """A population and how it is looked at.

    Attributes
    ----------
    kind : str
    hosts, days : int
    period_s : float
    events : bool
    names : bool
        Whether names are known.
    settings : dict
        Further settings of the population.
    """

    kind: str
    hosts: int
    days: int
    period_s: float
    events: bool
    names: bool
    settings: dict[str, Any]


#: Hosts, days and how many populations of that size.
SIZES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "laptops": ((52, 77, 1), (52, 14, 4), (20, 28, 4), (10, 7, 4), (3, 5, 4), (1, 1, 40)),
    "servers": ((60, 14, 1), (60, 5, 3), (30, 14, 3), (12, 4, 6), (12, 1, 12)),
}


def draw_sights(seed: int) -> Iterator[tuple[int, Sight]]:
    """What is looked at, and the seed of each population.

    Parameters
    ----------
    seed : int
        Of the first one.
    """
    rng = np.random.default_rng(seed)
    for kind, sizes in SIZES.items():
        for hosts, days, times in sizes:
            for number in range(times):
                period_s, events = ((5.0, False), (30.0, False), (5.0, True), (5.0, False))[number % 4]
                # half are as they are by default, the others vary what a fleet can be
                settings: dict[str, Any] = {}
                if rng.random() < 0.5:
                    settings = {
                        "recurring_share": float(rng.uniform(0.2, 0.8)),
                        "transient_share": float(rng.uniform(0.05, 0.3)),
                        "rare_factor": float(rng.uniform(0.5, 1.5)),
                        "activity": float(rng.lognormal(0.0, 0.3)),
                        "peers": int(rng.choice((300, 1500, 5000))),
                    }
                if days == 1 and kind == "laptops":
                    settings["present_share"] = 1.0
                yield seed, Sight(kind, hosts, days, period_s, events, bool(rng.random() < 0.75), settings)
                seed += 1


def read_features(observed: Observed, *, names: bool = True) -> dict[str, Any]:
    """Features of every service that was seen, and the truth.

    Parameters
    ----------
    observed : Observed
    names : bool, default True
        Whether what hosts told of names is used.

    Returns
    -------
    dict of str to numpy.ndarray
        By feature, nan where it is not known; and ``static``.
    """
    with Observation(observed) as seen:
        uses, flows, sockets, processes, known = (
            seen.table(record) for record in (ServiceUse, FlowRecord, SocketRecord, ProcessRecord, NameRecord)
        )
        known = known if names else known.limit(0)
        traits = seen.keep(find_traits(uses, flows, sockets, processes, known, seen.keep))
        wanted = ["app", "protocol", "port", *(name_value(feature.name) for feature in FEATURES)]
        rows = seen.read(measure_features(traits).select(*wanted))
    made: dict[str, Any] = {
        feature.name: np.array([row[name_value(feature.name)] for row in rows], dtype=np.float64)
        for feature in FEATURES
    }
    truth = observed.population.truth
    made["static"] = np.array([(row["app"], row["protocol"], row["port"]) in truth for row in rows], dtype=bool)
    return made


def gather(seed: int) -> dict[str, Any]:
    """Features and truth of all populations from a seed on, one after the other."""
    parts = []
    for number, sight in draw_sights(seed):
        settings = preset(sight.kind, hosts=sight.hosts, days=sight.days, **sight.settings)
        seen = observe(make_population(settings, number), period_s=sight.period_s, events=sight.events)
        parts.append(read_features(seen, names=sight.names))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def list_edges(name: str) -> tuple[float, ...]:
    """Where the bins of a feature end."""
    return EDGES[name] if name in EDGES else tuple(number + 0.5 for number in range(_CLASSES))


def put_in_bins(rows: dict[str, Any]) -> Any:
    """Number of each row's bin by feature; 0 is not known."""
    made = []
    for feature in FEATURES:
        value = rows[feature.name]
        bins = np.searchsorted(np.array(list_edges(feature.name)), value, side="right") + 1
        made.append(np.where(np.isnan(value), 0, bins))
    return np.stack(made, axis=1)


def _one_hot(bins: Any) -> Any:
    from scipy import sparse

    begins = np.cumsum([0] + [len(list_edges(feature.name)) + 2 for feature in FEATURES])
    rows, width = bins.shape
    places = (bins + begins[:-1]).ravel()
    return sparse.csr_matrix(
        (np.ones(rows * width), (np.repeat(np.arange(rows), width), places)), shape=(rows, begins[-1])
    )


def fit_weights(rows: dict[str, Any]) -> tuple[list[Any], float]:
    """Weights of every feature's bins, the unknown first, and the base."""
    from sklearn.linear_model import LogisticRegression

    # rows that agree in all bins are one row that weighs more: nine in ten are
    keyed = np.c_[put_in_bins(rows), rows["static"]]
    unique, times = np.unique(keyed, axis=0, return_counts=True)
    model = LogisticRegression(C=_PENALTY, max_iter=2000)
    model.fit(_one_hot(unique[:, :-1]), unique[:, -1], sample_weight=times)
    weights, base, at = [], float(model.intercept_[0]), 0
    for feature in FEATURES:
        many = len(list_edges(feature.name)) + 2
        weights.append(np.round(model.coef_[0][at : at + many], 4))
        at += many
    return weights, base


def center_weights(rows: dict[str, Any], weights: list[Any], base: float) -> tuple[list[Any], float]:
    """Make each feature's weights say how far they pull from where a static and a transient service would meet.

    Sums stay what they are; what is told as a reason depends on it.
    """
    bins, static = put_in_bins(rows), rows["static"]
    centered = []
    for number, of_feature in enumerate(weights):
        drawn = of_feature[bins[:, number]]
        middle = round(float((drawn[static].mean() + drawn[~static].mean()) / 2), 4)
        centered.append(np.round(of_feature - middle, 4))
        base += middle
    return centered, round(base, 4)


def add_up(rows: dict[str, Any], weights: list[Any], base: float) -> Any:
    """The score of every row."""
    bins = put_in_bins(rows)
    score = np.full(len(bins), base)
    for number, of_feature in enumerate(weights):
        score += of_feature[bins[:, number]]
    return np.round(score, 6)


def fit_calibration(score: Any, static: Any) -> tuple[list[float], list[float]]:
    """Steps from scores to probabilities that never fall, each resting on enough rows."""
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(score, kind="stable")
    score, static = score[order], static[order]
    fitted = IsotonicRegression().fit_transform(score, static)
    begins = np.flatnonzero(np.diff(fitted, prepend=-1.0))
    scores: list[float] = []
    probabilities: list[float] = []
    taken = 0
    for number in range(len(begins)):
        end = begins[number + 1] if number + 1 < len(begins) else len(score)
        if end - taken < _STEP_ROWS and end < len(score):
            continue
        share = float(static[taken:end].sum() + 0.5) / float(end - taken + 1)
        probabilities.append(round(min(max(share, _SUREST), 1 - _SUREST), 4))
        if taken:
            scores.append(round(float(score[taken] + score[taken - 1]) / 2, 4))
        taken = end
    return scores, [float(each) for each in np.maximum.accumulate(probabilities)]


def make_document(training: dict[str, Any], calibration: dict[str, Any]) -> dict[str, Any]:
    """The scorecard as a document.

    Parameters
    ----------
    training, calibration : dict of str to numpy.ndarray
        From `gather`.
    """
    weights, base = center_weights(training, *fit_weights(training))
    scores, probabilities = fit_calibration(add_up(calibration, weights, base), calibration["static"])
    return {
        "schema": SCORECARD_SCHEMA,
        "kind": SCORECARD_KIND,
        "made": {
            "by": "python -m whoneeds.evaluation.train",
            "version": whoneeds.__version__,
            "training_rows": len(training["static"]),
            "training_static": int(training["static"].sum()),
            "training_seeds_from": TRAINING_SEEDS,
            "calibration_rows": len(calibration["static"]),
            "calibration_static": int(calibration["static"].sum()),
            "calibration_seeds_from": CALIBRATION_SEEDS,
        },
        "base": base,
        "features": [
            {
                "name": feature.name,
                "edges": list(_used_edges(feature.name, of_feature)),
                "weights": [float(weight) for weight in of_feature[1 : len(_used_edges(feature.name, of_feature)) + 2]],
                "unknown": float(of_feature[0]),
            }
            for feature, of_feature in zip(FEATURES, weights, strict=True)
        ],
        "calibration": {"scores": scores, "probabilities": probabilities},
        "static_from": STATIC_FROM,
        "undecided": list(UNDECIDED),
    }


def _used_edges(name: str, weights: Any) -> tuple[float, ...]:
    """The edges up to the last that parts two weights: of crossed classes most never come."""
    edges = list_edges(name)
    parts = np.flatnonzero(np.diff(weights[1:]))
    return edges[: int(parts[-1]) + 1] if len(parts) else ()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the document."""
    parser = argparse.ArgumentParser(
        prog="python -m whoneeds.evaluation.train", description=__doc__.split("\n", maxsplit=1)[0]
    )
    shipped = Path(whoneeds.__file__).parent / "analysis" / "scorecard.json"
    parser.add_argument("--out", type=Path, default=shipped, help="where the scorecard is written (%(default)s)")
    chosen = parser.parse_args(arguments)
    document = make_document(gather(TRAINING_SEEDS), gather(CALIBRATION_SEEDS))
    read_scorecard(document, [feature.name for feature in FEATURES])
    chosen.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    made = document["made"]
    print(f"{chosen.out}: of {made['training_rows']} rows, calibrated on {made['calibration_rows']}")


if __name__ == "__main__":
    main()
