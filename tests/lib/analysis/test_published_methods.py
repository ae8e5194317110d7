# SPDX-License-Identifier: GPL-3.0-or-later
"""Orion, Sherlock and NSDMiner against worked examples, and against slow readings of the same definitions."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings

from tests.lib.analysis.traces import MS, S, small_traces, trace_of
from whoneeds.analysis import cooccurrence
from whoneeds.analysis.nsdminer import NsdminerSettings, find_nested
from whoneeds.analysis.orion import OrionSettings, find_spikes, score_histogram
from whoneeds.analysis.published import related_to
from whoneeds.analysis.sherlock import SherlockSettings, find_preceding
from whoneeds.analysis.trace import FlowTrace
from whoneeds.model.errors import SettingsError

Row = tuple[int, int, int, int, int]


def rows_of(trace: FlowTrace) -> list[Row]:
    """The flows, one tuple each."""
    columns = (trace.first_ns, trace.last_ns, trace.orig, trace.resp, trace.service)
    return [tuple(int(column[at]) for column in columns) for at in range(len(trace.first_ns))]  # type: ignore[misc]


def slow_delays(trace: FlowTrace, settings: OrionSettings) -> Counter[tuple[str, int, int, int]]:
    """(kind, first, then, bin) of all pairs of flows, one by one."""
    flows = rows_of(trace)
    found: Counter[tuple[str, int, int, int]] = Counter()
    for at, (then_ns, _last, orig, _resp, service) in enumerate(flows):
        for before, (first_ns, _until, caller, called, earlier) in enumerate(flows):
            delay_bin = (then_ns - first_ns) // settings.bin_ns
            if then_ns < first_ns or delay_bin >= settings.bins or earlier == service:
                continue
            if caller == orig and before != at:
                found["remote_remote", earlier, service, delay_bin] += 1
            if called == orig:
                found["local_remote", earlier, service, delay_bin] += 1
    return found


@settings(max_examples=60, deadline=None)
@given(small_traces())
def test_orion_equals_its_definition(trace: FlowTrace) -> None:
    """Orion lays the same delays into the same bins as a walk over all pairs of flows, and scores them alike."""
    setting = OrionSettings(least_samples=2, bins=60, bin_s=0.02)
    delays = slow_delays(trace, setting)
    expected = {}
    for key in {key[:3] for key in delays}:
        histogram = np.array([delays[(*key, number)] for number in range(setting.bins)])
        if histogram.sum() >= 2:
            expected[key] = (int(histogram.sum()), float(score_histogram(histogram, setting)))
    made = find_spikes(trace, setting)
    found = {
        (str(kind), int(first), int(then)): (int(samples), float(score))
        for kind, first, then, samples, score in zip(
            made.kind, made.dependent, made.depends_on, made.samples, made.score, strict=True
        )
    }
    assert found.keys() == expected.keys()
    for key, (samples, score) in expected.items():
        assert found[key][0] == samples
        assert found[key][1] == pytest.approx(score)


def test_orion_sees_a_typical_delay() -> None:
    """A service that follows another one after 250 ms, at many hosts, stands out, and an unrelated one does not."""
    rng = np.random.default_rng(7)
    flows = []
    for host in range(20):
        for turn in range(100):
            at = turn * 30 * S + int(rng.integers(0, S))
            flows.append((at, at + MS, host, 100, 0))
            flows.append((at + 250 * MS + int(rng.integers(0, 4 * MS)), at + S, host, 101, 1))
            noise = at + int(rng.integers(0, 3 * S))
            flows.append((noise, noise + MS, host, 102, 2))
    pairs = find_spikes(trace_of(flows))
    assert related_to(pairs, 0, 5.0) == {0, 1}
    assert related_to(pairs, 2, 5.0) == {2}


def test_a_flat_histogram_has_no_spike() -> None:
    """Where every delay is equally frequent the score is zero, not what rounding leaves."""
    assert score_histogram(np.full(300, 7)) == 0.0


def test_a_wide_spike_cannot_reach_five() -> None:
    """A spike that is 20 bins wide scores below the bound of its width, whatever its height."""
    histogram = np.zeros(300)
    histogram[100:120] = 10_000
    assert 3.0 < score_histogram(histogram) <= math.sqrt(280 / 20) * 1.1


@settings(max_examples=80, deadline=None)
@given(small_traces())
def test_sherlock_equals_its_definition(trace: FlowTrace) -> None:
    """Sherlock gives each pair the share of calls with another one right before, over chance, as a slow walk does."""
    setting = SherlockSettings(window_s=0.05, least_uses=2)
    flows = rows_of(trace)
    met: Counter[tuple[int, int]] = Counter()
    uses: Counter[tuple[int, int]] = Counter()
    expected: Counter[tuple[int, int]] = Counter()
    for host in {flow[2] for flow in flows}:
        own = [(flow[0], flow[4]) for flow in flows if flow[2] == host]
        span = own[-1][0] - own[0][0]
        times = Counter(service for _at, service in own)
        here: Counter[tuple[int, int]] = Counter()
        for at, (then_ns, service) in enumerate(own):
            before = {
                other
                for number, (first_ns, other) in enumerate(own)
                if number != at and 0 <= then_ns - first_ns < 50 * MS and other != service
            }
            here.update((service, other) for other in before)
        for (service, other), count in here.items() if span else ():
            met[service, other] += count
            uses[service, other] += times[service]
            expected[service, other] += times[service] * min(50 * MS * times[other] / span, 1.0)  # type: ignore[assignment]
    wanted = {pair: met[pair] / expected[pair] for pair in met if uses[pair] >= 2}
    made = find_preceding(trace, setting)
    found = dict(zip(zip(made.dependent.tolist(), made.depends_on.tolist(), strict=True), made.score, strict=True))
    assert found == {pair: pytest.approx(score) for pair, score in wanted.items()}


def slow_parents(flows: list[Row], setting: NsdminerSettings) -> Iterator[tuple[Row, list[Row]]]:
    """Each short flow with those that enclose it."""
    short = [flow for flow in flows if flow[1] - flow[0] < setting.longest_s * S]
    for at, child in enumerate(short):
        yield (
            child,
            [
                parent
                for number, parent in enumerate(short)
                if number != at and parent[3] == child[2] and parent[0] <= child[0] and parent[1] >= child[1]
            ],
        )


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("score", ["logarithmic", "ratio"])
def test_nsdminer_equals_its_definition(exclusive: bool, score: str) -> None:
    """NSDMiner shares each flow among those that enclose it, as a slow walk does, in both modes and both scores."""

    @settings(max_examples=40, deadline=None)
    @given(small_traces())
    def holds(trace: FlowTrace) -> None:
        setting = NsdminerSettings(longest_s=0.9, least_accesses=2, exclusive=exclusive, score=score)
        flows = rows_of(trace)
        accesses: Counter[tuple[int, int]] = Counter()
        given_to: dict[tuple[int, int, int, int], float] = {}
        for child, parents in slow_parents(flows, setting):
            accesses[child[3], child[4]] += 1
            for parent in parents if not exclusive or len(parents) == 1 else ():
                key = (parent[3], parent[4], child[3], child[4])
                given_to[key] = given_to.get(key, 0.0) + 1 / len(parents)
        expected = {}
        for key, amount in given_to.items():
            times = accesses[key[:2]]
            if times >= 2:
                value = amount / times if score == "ratio" else math.log(max(amount, 1.0), times)
                expected[key] = pytest.approx(100 * value)
        made = find_nested(trace, setting)
        columns = (made.dependent_addr, made.dependent, made.depends_on_addr, made.depends_on)
        found = dict(zip(zip(*(column.tolist() for column in columns), strict=True), made.score, strict=True))
        assert found == expected

    holds()


def test_a_long_lived_parent_is_the_blind_spot() -> None:
    """A pool that is held open for more than 200 s is no parent, so what is done over it is not seen."""
    calls = [(at * S, at * S + MS, 2, 3, 1) for at in range(100)]
    asked = [(at * S - MS, at * S + 2 * MS, 9, 2, 0) for at in range(100)]
    pool = [(-S, 300 * S, 9, 2, 0)]
    assert find_nested(trace_of(calls + asked)).score.tolist() == [100.0]
    assert find_nested(trace_of(calls + pool)).score.tolist() == []


def test_pairs_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few pairs are held at a time, all of them come, each once."""
    instants = np.sort(np.random.default_rng(3).integers(0, 1000, 200))
    whole = np.concatenate([np.stack(piece) for piece in cooccurrence.near_pairs(instants, instants, 50)], axis=1)
    monkeypatch.setattr(cooccurrence, "_CHUNK", 7)
    parts = np.concatenate([np.stack(piece) for piece in cooccurrence.near_pairs(instants, instants, 50)], axis=1)
    assert whole.shape[1] > 1000
    assert whole.tolist() == parts.tolist()


@pytest.mark.parametrize("empty", [find_spikes, find_preceding, find_nested])
def test_an_empty_trace_has_no_pairs(empty: object) -> None:
    """Nothing was seen, so nothing is said."""
    assert callable(empty)
    assert empty(trace_of([])).score.tolist() == []


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (OrionSettings, {"bins": 0}),
        (OrionSettings, {"bins": 2.5}),
        (OrionSettings, {"threshold": math.nan}),
        (OrionSettings, {"filter_bins": 20}),
        (OrionSettings, {"filter_bins": 301}),
        (SherlockSettings, {"window_s": -1.0}),
        (SherlockSettings, {"chance_ratio": math.inf}),
        (NsdminerSettings, {"least_accesses": True}),
        (NsdminerSettings, {"score": "linear"}),
        (NsdminerSettings, {"exclusive": 1}),
    ],
)
def test_wrong_settings_are_refused(make: type, wrong: dict[str, object]) -> None:
    """A setting outside its range is named, and never repaired."""
    with pytest.raises(SettingsError):
        make(**wrong)
