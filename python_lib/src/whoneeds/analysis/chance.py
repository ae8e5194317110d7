# SPDX-License-Identifier: GPL-3.0-or-later
"""What chance alone would give: tails of distributions, and the correction for having asked often."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

#: Share of false findings among all findings that is accepted on average.
FALSE_DISCOVERIES = 0.05


def binomial_tail(hits: Sequence[float], trials: Sequence[float], chance: Sequence[float]) -> np.ndarray:
    """Chance of at least so many hits, if each trial hits with the same chance.

    Parameters
    ----------
    hits, trials, chance : sequence of float

    Examples
    --------
    >>> binomial_tail([3], [3], [0.5]).tolist()
    [0.125]
    """
    made: np.ndarray = stats.binom.sf(np.asarray(hits) - 1, np.asarray(trials), np.clip(np.asarray(chance), 0.0, 1.0))
    return made


def excess_tail(
    part: Sequence[int], whole: Sequence[int], part_before: Sequence[int], whole_before: Sequence[int]
) -> np.ndarray:
    """Chance that a share is so much larger than before, if nothing changed (Fisher's exact test, one side).

    Parameters
    ----------
    part, whole : sequence of int
        So many of so many, now.
    part_before, whole_before : sequence of int
        The same before.

    Examples
    --------
    >>> excess_tail([2], [2], [0], [2]).round(4).tolist()
    [0.1667]
    """
    now, all_now = np.asarray(part), np.asarray(whole)
    before, all_before = np.asarray(part_before), np.asarray(whole_before)
    made: np.ndarray = stats.hypergeom.sf(now - 1, all_now + all_before, now + before, all_now)
    return made


def burst_tail(
    most: Sequence[int], windows: Sequence[int], total: Sequence[float], squares: Sequence[float]
) -> np.ndarray:
    """Chance of at least so many in one more window, as earlier windows of uneven counts let expect.

    A negative binomial with the mean and variance of the earlier windows, to which one made-up window is added, with
    the moments of a geometric distribution of mean 1: so there is an answer without any, and it is a cautious one.

    Parameters
    ----------
    most : sequence of int
        The count that is judged.
    windows : sequence of int
        Earlier windows.
    total, squares : sequence of float
        Sum of their counts, and of the squares of these.

    Examples
    --------
    >>> burst_tail([3], [0], [0], [0]).tolist()
    [0.125]
    """
    number = np.asarray(windows, dtype=float) + 1
    mean = (np.asarray(total, dtype=float) + 1) / number
    variance = (np.asarray(squares, dtype=float) + 3) / number - mean**2
    # where counts vary no more than those of independent events, the negative binomial ends in Poisson's
    size = mean**2 / np.maximum(variance - mean, 1e-9)
    made: np.ndarray = stats.nbinom.sf(np.asarray(most) - 1, size, size / (size + mean))
    return made


def correct_for_many(p_values: Sequence[float], asked: int | None = None) -> np.ndarray:
    """Adjust for many questions by Benjamini and Hochberg: what is below q holds q false ones or fewer, on average.

    Parameters
    ----------
    p_values : sequence of float
    asked : int, optional
        How many questions were asked, if more than are given; those left out are taken for answered by chance.

    Examples
    --------
    >>> correct_for_many([0.01, 0.5]).tolist(), correct_for_many([0.01], 10).tolist()
    ([0.02, 0.5], [0.1])
    """
    given = np.asarray(p_values, dtype=float)
    if not len(given):
        return given
    # those left out have the largest values, so that they change nothing but the number
    order = np.argsort(given)
    scaled = given[order] * max(asked or 0, len(given)) / np.arange(1, len(given) + 1)
    made = np.empty_like(given)
    made[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return made


def choose_answerable(bounds: Sequence[float], times: Sequence[int]) -> tuple[float, int]:
    """Choose the questions that could be answered at all (Tarone 1990; for false discoveries Gilbert 2005).

    A test on counts cannot give less than a p-value that follows from its margins, and margins tell nothing of the
    answer. So questions whose smallest possible p-value is too large need not be counted among those that were asked:
    K is the least number for which no more than K questions can reach the accepted share divided by K.

    Parameters
    ----------
    bounds : sequence of float
        Smallest possible p-values.
    times : sequence of int
        How many questions have each.

    Returns
    -------
    limit : float
        Questions whose smallest possible p-value is at most this are asked.
    asked : int
        How many these are.

    Examples
    --------
    >>> choose_answerable([0.001, 0.2], [3, 1000])
    (0.016666666666666666, 3)
    """
    order = np.argsort(np.asarray(bounds, dtype=float))
    sorted_bounds = np.asarray(bounds, dtype=float)[order]
    reached = np.concatenate([[0], np.cumsum(np.asarray(times, dtype=np.int64)[order])])

    def count(number: int) -> int:
        return int(reached[np.searchsorted(sorted_bounds, FALSE_DISCOVERIES / number, side="right")])

    low, high = 1, max(int(reached[-1]), 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) <= middle else (middle + 1, high)
    return FALSE_DISCOVERIES / low, count(low)
