# SPDX-License-Identifier: GPL-3.0-or-later
"""How rows of many seeds become one."""

import pytest

from whoneeds.evaluation.repetition import sum_up


def test_means_are_over_seeds() -> None:
    """Rows of one method and part become one with mean and interval, and another period's stay apart."""
    rows = [
        {"seed": seed, "part": "table3", "method": "m", "scope": "all", "period_s": period, "found_share": share}
        for seed, period, share in ((0, 5.0, 0.8), (1, 5.0, 1.0), (0, 10.0, 0.5), (1, 10.0, 0.5))
    ]
    five, ten = sum_up(rows)
    assert (five["found_share"], five["seeds"], five["period_s"]) == (0.9, 2, 5.0)
    # Student's t of one degree of freedom is 12.7062
    assert five["found_share_high"] == pytest.approx(0.9 + 12.7062 * 0.1, rel=1e-5)
    assert (ten["found_share"], ten["found_share_low"], ten["found_share_high"]) == (0.5, 0.5, 0.5)


def test_bins_are_added_up_before_they_are_judged() -> None:
    """Two seeds whose bins err in opposite ways are right together, as calibration is one of many cases."""
    rows = [
        {
            "seed": seed, "part": "calibration", "method": "m", "scope": "all", "low": 0.5, "high": 0.55, "count": 10,
            "stated_sum": 5.0, "true": true,
        }
        for seed, true in ((0, 3), (1, 7))
    ]  # fmt: skip
    bin_row, error = sum_up(rows)
    assert (bin_row["count"], bin_row["stated"], bin_row["true_share"]) == (20, 0.5, 0.5)
    assert (error["error"], error["count"], error["seeds"]) == (0.0, 20, 2)
