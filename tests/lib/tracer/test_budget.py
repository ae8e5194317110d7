# SPDX-License-Identifier: GPL-3.0-or-later
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.tracer.budget import DOUBLINGS, WINDOW_S, WITHOUT_PACKETS, Budget, Judgement, period_at, words_of

MIB = 1 << 20


def windows(budget, shares, memory_bytes=MIB):
    """The judgements of windows with these shares of a core, one after the other."""
    made, now_s, cpu_s = [], 0.0, 0.0
    for share in shares:
        now_s, cpu_s = now_s + WINDOW_S, cpu_s + share * WINDOW_S
        made.append(budget.judge(now_s, cpu_s, memory_bytes))
    return made


def test_what_stays_within_the_bounds_changes_nothing():
    """As long as the cost is within what is allowed, nothing is to be done."""
    budget = Budget(0.05, 100 * MIB, 0.0, 0.0)
    assert windows(budget, [0.04] * 20) == [None] * 20
    assert budget.step == 0


def test_more_than_allowed_goes_up_step_by_step_and_no_further_than_the_last():
    """Each window beyond the bound is one step, with the reason, up to the one that leaves packets out."""
    budget = Budget(0.05, 100 * MIB, 0.0, 0.0)
    made = windows(budget, [0.2] * (WITHOUT_PACKETS + 2))
    assert [judgement and judgement.step for judgement in made] == [*range(1, WITHOUT_PACKETS + 1), None, None]
    assert made[0] == Judgement(1, "20.0 % of a core over 30 s, 5 % allowed")


def test_a_step_is_taken_back_only_after_several_cheap_windows_in_a_row():
    """One cheap window proves nothing: a step is taken back after four of them, and a dear one begins anew."""
    budget = Budget(0.05, 100 * MIB, 0.0, 0.0)
    made = windows(budget, [0.2, 0.01, 0.01, 0.01, 0.04, 0.01, 0.01, 0.01, 0.01])
    assert [judgement and judgement.step for judgement in made] == [1, None, None, None, None, None, None, None, 0]


def test_too_much_memory_closes_the_segment_at_once_and_is_a_step_if_that_did_not_help():
    """Memory is given back by closing the segment; where it stays too much, less is done."""
    budget = Budget(0.05, 100 * MIB, 0.0, 0.0)
    assert budget.judge(1.0, 0.0, 101 * MIB) == Judgement(0, None)
    assert budget.judge(2.0, 0.0, 101 * MIB) is None
    assert budget.judge(WINDOW_S, 0.0, 101 * MIB) == Judgement(1, "101 MiB of memory, 100 MiB allowed")


def test_the_period_doubles_and_the_last_step_says_that_packets_are_out():
    """Steps are said in words that name what is still done."""
    assert [period_at(5.0, step) for step in range(WITHOUT_PACKETS + 1)] == [5.0, 10.0, 20.0, 40.0, 40.0]
    assert words_of(0, 5.0) == "all as set"
    assert words_of(DOUBLINGS, 5.0) == "a sample every 40 s"
    assert words_of(WITHOUT_PACKETS, 5.0) == "a sample every 40 s and no packets"


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200 * MIB)), max_size=60))
def test_no_cost_leads_beyond_the_steps_that_there_are(costs):
    """Whatever is measured, the step moves by one at most and stays among those that exist."""
    budget, now_s, cpu_s, before = Budget(0.05, 100 * MIB, 0.0, 0.0), 0.0, 0.0, 0
    for share, memory_bytes in costs:
        now_s, cpu_s = now_s + WINDOW_S, cpu_s + share * WINDOW_S
        budget.judge(now_s, cpu_s, memory_bytes)
        assert 0 <= budget.step <= WITHOUT_PACKETS
        assert abs(budget.step - before) <= 1
        before = budget.step
