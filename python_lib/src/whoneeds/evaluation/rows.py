# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of an evaluation, the same of populations and of a user's own store."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from whoneeds.evaluation.methods import Key, Verdicts
from whoneeds.evaluation.scores import Score, hold_against_truth

Row = dict[str, Any]

ALL = "all"
#: Sure probabilities are many, and could hide that those in the middle are wrong.
_WITHIN = {ALL: (0.0, 1.0), "0.05 to 0.95": (0.05, 0.95)}


def ports_of(keys: Iterable[Key]) -> frozenset[tuple[str, int]]:
    """(application, port): both protocols count once (Macroscope, Table 2)."""
    return frozenset((app, port) for app, _protocol, port in keys)


def tell_score(method: str, scope: str, score: Score, **beside: Any) -> Row:
    """A row of counts and shares; what else tells it apart stands beside them."""
    counts = {"found": score.found, "false": score.false, "missed": score.missed, "refused": score.refused}
    return {"method": method, "scope": scope, **beside, **counts, **score.shares()}


def tell_calibration(method: str, verdicts: Verdicts, truth: frozenset[Key]) -> Iterator[Row]:
    """Probabilities and what is true of them, as sums by bin, so that seeds can be added up; none if none are given."""
    told = [(key, verdict.probability) for key, verdict in verdicts.items() if verdict.probability is not None]
    if not told:
        return
    probability = np.array([each for _key, each in told], dtype=np.float64)
    true = np.array([key in truth for key, _each in told])
    for words, within in _WITHIN.items():
        made = hold_against_truth(probability, true, within=within)
        columns = (made.low, made.high, made.count, made.stated, made.true_share)
        for low, high, count, stated, share in zip(*columns, strict=True):
            if count:
                yield {
                    "method": method, "scope": words, "low": float(low), "high": float(high), "count": int(count),
                    "stated_sum": float(stated * count), "true": round(float(share * count)),
                }  # fmt: skip
