# SPDX-License-Identifier: GPL-3.0-or-later
"""The baselines on populations: seeds are chosen as the paper does, and nothing is claimed that no pair carries."""

from itertools import product

import pytest

from whoneeds.analysis.orion import OrionSettings, find_spikes
from whoneeds.evaluation.seeded import judge_baselines
from whoneeds.scenario import Observed, make_population, observe, preset


@pytest.fixture(scope="module")
def observed() -> Observed:
    """Some laptops for some days."""
    return observe(make_population(preset("laptops", hosts=6, days=6, applications=40), 5))


@pytest.fixture(scope="module")
def truth(observed: Observed) -> dict[str, frozenset[int]]:
    """Ports of the static dependencies of each application."""
    made: dict[str, set[int]] = {}
    for app, _protocol, port in observed.population.truth:
        made.setdefault(app, set()).add(port)
    return {app: frozenset(ports) for app, ports in made.items()}


def slow_orion(observed: Observed, seed: int) -> set[int]:
    """Ports that any spike above k = 5 pairs with a port, from the list of pairs."""
    trace = observed.trace()
    pairs = find_spikes(trace)
    found = {seed}
    for first, then, score in zip(pairs.dependent, pairs.depends_on, pairs.score, strict=True):
        ports = (trace.services[first][1], trace.services[then][1])
        if score > OrionSettings().threshold and seed in ports:
            found.update(ports)
    return found


def test_the_best_seed_is_the_best_of_all(observed: Observed, truth: dict[str, frozenset[int]]) -> None:
    """For each application no other seed misses fewer, or claims fewer falsely, than the one that was chosen."""
    rows = {(row.method, row.application): row.score for row in judge_baselines(observed, truth)}
    judged = [app for app, ports in truth.items() if len(ports) > 1]
    assert len(judged) > 10
    for app in judged:
        ports = truth[app]
        outcomes = [
            (len(ports - found), len(found - ports)) for found in (slow_orion(observed, seed) for seed in ports)
        ]
        misses = rows["orion (fewest misses)", app]
        false = rows["orion (fewest false alarms)", app]
        assert (misses.missed, misses.false) == min(outcomes)
        assert (false.false, false.missed) == min((false, missed) for missed, false in outcomes)


def test_one_dependency_alone_is_left_out(observed: Observed, truth: dict[str, frozenset[int]]) -> None:
    """An application with one dependency has nothing that a seed could find, and counts neither way (Table 2)."""
    alone = {app for app, ports in truth.items() if len(ports) == 1}
    assert alone
    rows = judge_baselines(observed, truth)
    for name, app in product(("orion", "sherlock"), alone):
        assert not [row for row in rows if row.method.startswith(name) and row.application == app]


def test_sums_are_those_of_the_applications(observed: Observed, truth: dict[str, frozenset[int]]) -> None:
    """The row of all is the sum of the rows of each, for every method."""
    rows = judge_baselines(observed, truth)
    for method in {row.method for row in rows}:
        own = [row.score for row in rows if row.method == method and row.application != "all"]
        (whole,) = [row.score for row in rows if row.method == method and row.application == "all"]
        assert whole.found == sum(score.found for score in own)
        assert whole.false == sum(score.false for score in own)
        assert whole.missed == sum(score.missed for score in own)
