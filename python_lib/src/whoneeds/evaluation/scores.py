# SPDX-License-Identifier: GPL-3.0-or-later
"""What a set of claims is worth beside the truth, and what a probability is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Score:
    """Claims counted.

    Attributes
    ----------
    found : int
        True dependencies that were claimed.
    false : int
        Claims that are not true.
    missed : int
        True dependencies that were not claimed.
    refused : int
        What was seen, is not true, and was not claimed.
    """

    found: int
    false: int
    missed: int
    refused: int

    def __add__(self, other: "Score") -> "Score":
        """Both together."""
        return Score(
            self.found + other.found, self.false + other.false, self.missed + other.missed, self.refused + other.refused
        )

    def shares(self) -> dict[str, float | None]:
        """Shares of it; None where nothing is to be divided by.

        ``found_share`` and ``false_share`` are of the number of true dependencies, as in Macroscope's Table 2.
        ``trivial_accuracy`` is that of whoever claims nothing.
        """
        true, claimed = self.found + self.missed, self.found + self.false
        every = true + self.false + self.refused
        precision, recall = _share(self.found, claimed), _share(self.found, true)
        return {
            "found_share": recall,
            "false_share": _share(self.false, true),
            "precision": precision,
            "recall": recall,
            "f1": _share(2 * self.found, 2 * self.found + self.false + self.missed),
            "accuracy": _share(self.found + self.refused, every),
            "trivial_accuracy": _share(self.false + self.refused, every),
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def score_claims(claimed: frozenset[Any], true: frozenset[Any], seen: frozenset[Any]) -> Score:
    """Count claims.

    Parameters
    ----------
    claimed, true : frozenset
    seen : frozenset
        Everything of which anything could have been claimed, ``true`` included.
    """
    return Score(len(claimed & true), len(claimed - true), len(true - claimed), len(seen - true - claimed))


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean, and the interval that holds the true one with 95 %.

    Parameters
    ----------
    values : sequence of float
        One a seed, at least one. Of one alone there is no interval.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(student.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Reliability:
    """Probabilities held against what came true, in bins of equal width.

    Attributes
    ----------
    low, high : numpy.ndarray
        Edges of each bin; (bins,).
    count : numpy.ndarray
        Probabilities in it.
    stated, true_share : numpy.ndarray
        Mean probability, and the share that is true; NaN in an empty bin.
    """

    low: Any
    high: Any
    count: Any
    stated: Any
    true_share: Any

    @property
    def error(self) -> float | None:
        """Expected calibration error: how far the two are apart, on average; None of no probabilities."""
        held = self.count > 0
        if not held.any():
            return None
        apart = np.abs(self.stated[held] - self.true_share[held])
        return float(np.average(apart, weights=self.count[held]))


def hold_against_truth(
    probability: Any, true: Any, *, bins: int = 20, within: tuple[float, float] = (0, 1)
) -> Reliability:
    """Make the reliability diagram.

    Parameters
    ----------
    probability : numpy.ndarray
        (n,).
    true : numpy.ndarray
        Whether it came true; (n,), bool.
    bins : int
    within : tuple of float
        Probabilities outside are left out.

    Examples
    --------
    >>> import numpy as np
    >>> hold_against_truth(np.array([0.9, 0.9]), np.array([True, False])).error
    0.4
    """
    kept = (probability >= within[0]) & (probability <= within[1])
    probability, true = probability[kept], true[kept].astype(np.float64)
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        stated = np.bincount(place, weights=probability, minlength=bins) / count
        share = np.bincount(place, weights=true, minlength=bins) / count
    edges = np.arange(bins + 1) / bins
    return Reliability(edges[:-1], edges[1:], count, stated, share)
