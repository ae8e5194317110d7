# SPDX-License-Identifier: GPL-3.0-or-later
"""Scores, intervals and reliability diagrams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.evaluation.scores import Score, hold_against_truth, mean_interval, score_claims


def test_shares_of_table_2() -> None:
    """Orion's published counts give the shares that the paper's text speaks of."""
    shares = Score(found=54, false=186, missed=5, refused=0).shares()
    assert shares["found_share"] == pytest.approx(0.915, abs=0.001)
    assert shares["false_share"] == pytest.approx(3.15, abs=0.01)
    assert shares["precision"] == pytest.approx(0.225)


def test_nothing_to_divide_by_is_unknown() -> None:
    """Where nothing is true and nothing was claimed, no share is made up."""
    assert set(Score(0, 0, 0, 0).shares().values()) == {None}


def test_claiming_nothing_has_the_trivial_accuracy() -> None:
    """Whoever claims nothing reaches exactly what is called the trivial accuracy."""
    shares = score_claims(frozenset(), frozenset("ab"), frozenset("abcdefgh")).shares()
    assert shares["accuracy"] == shares["trivial_accuracy"] == 0.75


@given(st.frozensets(st.integers(0, 9)), st.frozensets(st.integers(0, 9)), st.frozensets(st.integers(0, 9)))
def test_every_candidate_is_counted_once(claimed: frozenset[int], true: frozenset[int], others: frozenset[int]) -> None:
    """Found, false, missed and refused together are everything of which anything could be claimed."""
    seen = true | others | claimed
    score = score_claims(claimed, true, seen)
    assert score.found + score.false + score.missed + score.refused == len(seen)
    assert score.found + score.missed == len(true)


def test_interval_holds_the_mean_as_often_as_it_says() -> None:
    """Of five thousand intervals from six values each, 95 in a hundred hold the true mean."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(5000):
        _mean, low, high = mean_interval(rng.normal(3.0, 2.0, 6).tolist())
        assert low is not None
        assert high is not None
        held += low <= 3.0 <= high
    assert 0.94 < held / 5000 < 0.96


def test_one_value_has_no_interval() -> None:
    """Of a single seed nobody can say how far it is from the mean."""
    assert mean_interval([0.5]) == (0.5, None, None)


def test_honest_probabilities_have_no_error() -> None:
    """What comes true as often as was said has a calibration error near zero, and what boasts has not."""
    rng = np.random.default_rng(5)
    stated = rng.random(200_000)
    true = rng.random(200_000) < stated
    honest = hold_against_truth(stated, true).error
    boast = hold_against_truth(np.sqrt(stated), true).error
    assert honest is not None
    assert boast is not None
    assert honest < 0.01
    assert boast > 0.1


def test_full_bins_count_for_more() -> None:
    """The calibration error of three right and one wrong by 0.4 is 0.1, whichever bins they are in."""
    error = hold_against_truth(np.array([1.0, 1.0, 1.0, 0.4]), np.array([True, True, True, False])).error
    assert error == pytest.approx(0.1)


def test_no_probabilities_have_no_error() -> None:
    """An empty diagram has no calibration error, not one of zero."""
    assert hold_against_truth(np.zeros(3), np.zeros(3, dtype=bool), within=(0.05, 0.95)).error is None
