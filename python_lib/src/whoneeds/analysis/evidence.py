# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence: how probable it is that a need is built in, and what that rests on.

Macroscope's rule looks at how many instances and users share a service. This method weighs all that is known of the
service (`whoneeds.collector.traits`): a scorecard gives each feature's bin a weight, the weights are added up, and a
monotone table turns the sum into a probability, which is calibrated: of the needs with probability 0.9, nine in ten are
built in, in populations that training never saw. Weights and table are data (`whoneeds.analysis.scorecard`); this
module only applies them, as one expression, so that any engine can.

A need is *static* from the scorecard's probability on (one half), else *transient*. It is *unclassified*, with the
probability beside it, where all that was seen is one connection and the weights decide nothing.

An instance is (application, pid, address) on a host **and** the process's begin: a number that is given out again makes
another instance. Without known processes it is what it is for Macroscope.
"""

from typing import Any

import ibis

from whoneeds.analysis.features import FEATURES, TOPICS
from whoneeds.analysis.levels import RUN, Counting, count_population, spread_verdicts
from whoneeds.analysis.scorecard import Scorecard, Weights

#: How many topics are told of each verdict.
TOLD = 3
_COUNTING = Counting(instance=RUN)


def weigh_dependencies(service_use: ibis.Table, service_trait: ibis.Table, scorecard: Scorecard) -> ibis.Table:
    """Decide for every use how probable it is that the need is built in, at all four levels.

    Parameters
    ----------
    service_use : ibis.Table
        Rows of `ServiceUse`.
    service_trait : ibis.Table
        Rows of `ServiceTrait`, made of the same uses.
    scorecard : Scorecard

    Returns
    -------
    ibis.Table
        Rows of `Dependency`, in no particular order.
    """
    verdicts = weigh(service_trait, scorecard)
    verdicts = verdicts.select("app", "protocol", "port", "kind", "reason", "probability", "grounds")
    return spread_verdicts(service_use, count_population(service_use, _COUNTING), verdicts, "evidence", _COUNTING)


def weigh(service_trait: ibis.Table, scorecard: Scorecard) -> ibis.Table:
    """Weigh the traits of each application and service.

    Parameters
    ----------
    service_trait : ibis.Table
        Rows of `ServiceTrait`.
    scorecard : Scorecard

    Returns
    -------
    ibis.Table
        The traits, and score, probability, kind, reason, grounds.
    """
    values = measure_features(service_trait)
    by_topic: dict[str, Any] = {}
    topic_of = {feature.name: feature.topic for feature in FEATURES}
    for weights in scorecard.features:
        added = _weight(values[name_value(weights.name)], weights)
        topic = topic_of[weights.name]
        by_topic[topic] = by_topic[topic] + added if topic in by_topic else added
    rows = values.mutate(**{f"of_{topic}": weight for topic, weight in by_topic.items()})
    score = ibis.literal(scorecard.base)
    for topic in by_topic:
        score = score + rows[f"of_{topic}"]
    # a sum of broken numbers is not the same on all engines in its last digits, and the table has steps
    rows = rows.mutate(score=score.round(6))
    rows = rows.mutate(probability=_look_up(rows.score, scorecard))
    low, high = scorecard.undecided
    once = (rows.flows == 1) & (rows.probability >= low) & (rows.probability < high)
    is_static = rows.probability >= scorecard.static_from
    rows = rows.mutate(
        kind=ibis.cases((once, "unclassified"), (is_static, "static"), else_="transient"),
        reason=ibis.ifelse(once, "too_little", "weighed"),
    )
    return _tell(rows, tuple(by_topic), is_static=rows.probability >= scorecard.static_from)


def measure_features(service_trait: ibis.Table) -> ibis.Table:
    """The traits, and of every feature a column with its value, called as `name_value` says."""
    return service_trait.mutate(**{name_value(feature.name): feature.value(service_trait) for feature in FEATURES})


def name_value(feature: str) -> str:
    """What the column of a feature's values is called: some features are traits as they are."""
    return f"value of {feature}"


def _weight(value: Any, weights: Weights) -> Any:
    steps = [(value < edge, ibis.literal(weight)) for edge, weight in zip(weights.edges, weights.weights, strict=False)]
    return ibis.cases((value.isnull(), ibis.literal(weights.unknown)), *steps, else_=ibis.literal(weights.weights[-1]))


def _look_up(score: Any, scorecard: Scorecard) -> Any:
    steps = [
        (score < edge, ibis.literal(probability))
        for edge, probability in zip(scorecard.scores, scorecard.probabilities, strict=False)
    ]
    last = ibis.literal(scorecard.probabilities[-1])
    return ibis.cases(*steps, else_=last) if steps else last


def _tell(rows: ibis.Table, topics: tuple[str, ...], *, is_static: Any) -> ibis.Table:
    """Put into words which topics weighed most for what was decided, the heaviest first."""
    favour = {topic: ibis.ifelse(is_static, 1.0, -1.0) * rows[f"of_{topic}"].round(6) for topic in topics}
    rows = rows.mutate(**{f"for_{topic}": value for topic, value in favour.items()})
    most: list[Any] = []
    told: Any = ibis.literal("")
    for place in range(min(TOLD, len(topics))):
        left = [
            ibis.ifelse(rows[f"for_{topic}"] < rows[f"bound_{place}"], rows[f"for_{topic}"], None) if place else
            rows[f"for_{topic}"]
            for topic in topics
        ]  # fmt: skip
        heaviest = ibis.greatest(*(value.fill_null(-1e9) for value in left))
        rows = rows.mutate(**{f"bound_{place + 1}": heaviest})
        most.append(f"bound_{place + 1}")
    for place, bound in enumerate(most):
        words = ibis.cases(
            *((rows[f"for_{topic}"] == rows[bound], TOPICS[topic](rows)) for topic in topics), else_=ibis.literal("")
        )
        weighs = rows[bound] > 0.0
        told = told + ibis.ifelse(weighs, (ibis.literal("; ") if place else ibis.literal("")) + words, "")
    rows = rows.mutate(grounds=told.substr(0, 255).nullif(""))
    return rows.drop(*(name for name in rows.columns if name.startswith(("for_", "bound_"))))
