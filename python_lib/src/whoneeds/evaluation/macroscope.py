# SPDX-License-Identifier: GPL-3.0-or-later
"""Macroscope's evaluation (section 4) on populations whose truth is known: one seed at a time, as rows.

Truth are the static dependencies that were seen at all, as in the paper, where operators labelled what the traces held;
how many were not seen is a row of its own. A service on both TCP and UDP counts once (Table 2). Of laptops the twelve
applications of Table 1 are judged, and all; of servers all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from whoneeds.analysis.macroscope import Thresholds, extract_dependencies
from whoneeds.analysis.slices import cut, lay_slices
from whoneeds.evaluation.methods import METHODS, Key, Verdicts, count_samples, decide_by_macroscope
from whoneeds.evaluation.observation import Observation
from whoneeds.evaluation.rows import ALL, Row, ports_of, tell_calibration, tell_score
from whoneeds.evaluation.scores import Score, score_claims
from whoneeds.evaluation.seeded import judge_baselines
from whoneeds.model.conclusions import ApplicationInstance, ServiceUse
from whoneeds.scenario import TABLE_2, Population, PopulationSettings, make_population, observe

TWELVE = "the twelve"
_PERIODS_S = (5.0, 10.0, 20.0, 30.0)
_SHARES = (0.05, 0.10)
_TRACES = (10, 25, 50, 100, 250, 500, 1000, 2500)
_SWEEP = (0.01, 0.05, 0.1, 0.2, 0.4)
_STEP_1 = (0.5, 0.7, 0.85, 0.95)
_SLICE_NS = 2 * 86400 * 10**9


@dataclass(frozen=True)
class Question:
    """What is to be evaluated.

    Attributes
    ----------
    population : PopulationSettings
    period_s : float
        Time between samples.
    events : bool
        Whether kernels told of every connection.
    seen_at_least : int
        Samples from which a dependency counts as one that could have been found.
    parts : tuple of str
        Of `PARTS`.
    """

    population: PopulationSettings = field(default_factory=PopulationSettings)
    period_s: float = 5.0
    events: bool = False
    seen_at_least: int = 1
    parts: tuple[str, ...] = ("table2",)


@dataclass(frozen=True)
class _Sight:
    """One population as it was observed, and what is true of what was seen."""

    question: Question
    observation: Observation
    truth: frozenset[Key]
    seen: Mapping[Key, int]

    @property
    def possible(self) -> frozenset[Key]:
        """True dependencies that were seen often enough."""
        return frozenset(key for key in self.truth if self.seen.get(key, 0) >= self.question.seen_at_least)

    def scopes(self) -> dict[str, Callable[[str], bool]]:
        """Which applications are judged together."""
        if self.question.population.kind == "laptops" and self.question.population.variant == "default":
            return {TWELVE: lambda app: app in TABLE_2, ALL: lambda _app: True}
        return {ALL: lambda _app: True}


def evaluate(question: Question, seed: int) -> list[Row]:
    """Judge all methods on one population.

    Parameters
    ----------
    question : Question
    seed : int

    Returns
    -------
    list of dict
        Rows with ``part``, ``method``, ``scope``, counts and shares; what else a part needs stands beside them.
    """
    population = make_population(question.population, seed)
    rows = []
    sight = _look(question, population, question.period_s)
    with sight.observation:
        for part in question.parts:
            if part != "table3":
                rows += [{"part": part, **row} for row in PARTS[part](sight)]
    if "table3" in question.parts:
        for period_s in _PERIODS_S:
            sight = _look(question, population, period_s)
            with sight.observation:
                rows += [{"part": "table3", **row} for row in _judge_thresholds(sight, period_s)]
    return rows


def _look(question: Question, population: Population, period_s: float) -> _Sight:
    """Observe a population; the observation is to be closed."""
    seen = Observation(observe(population, period_s=period_s, events=question.events))
    return _Sight(replace(question, period_s=period_s), seen, population.truth, count_samples(seen))


def _score(sight: _Sight, verdicts: Verdicts, wanted: Callable[[str], bool]) -> Score:
    claimed = ports_of(key for key, verdict in verdicts.items() if verdict.static and wanted(key[0]))
    true = ports_of(key for key in sight.possible if wanted(key[0]))
    # what was seen too seldom to be asked for is no false alarm if it is found
    rest = ports_of(key for key in sight.truth if wanted(key[0])) - true
    seen = ports_of(key for key in verdicts if wanted(key[0])) | true
    return score_claims(claimed - rest, true, seen - rest)


def _judge_methods(sight: _Sight) -> Iterator[Row]:
    """Table 2: each method on each of the twelve, and on all."""
    for name, decide in METHODS.items():
        verdicts = decide(sight.observation)
        for scope, wanted in sight.scopes().items():
            yield tell_score(name, scope, _score(sight, verdicts, wanted))
        if TWELVE in sight.scopes():
            for app in TABLE_2:
                yield tell_score(name, app, _score(sight, verdicts, app.__eq__))
    for scope, wanted in sight.scopes().items():
        truth: dict[str, set[int]] = {}
        for app, port in sorted(ports_of(key for key in sight.possible if wanted(key[0]))):
            truth.setdefault(app, set()).add(port)
        judged = judge_baselines(sight.observation.observed, {app: frozenset(ports) for app, ports in truth.items()})
        for row in judged:
            if row.application == ALL:
                yield tell_score(row.method, scope, row.score)
            elif scope == TWELVE:
                yield tell_score(row.method, row.application, row.score)
        every = ports_of(key for key in sight.truth if wanted(key[0]))
        yield {"method": "(not seen)", "scope": scope, "missed": len(every) - len(ports_of(
            key for key in sight.possible if wanted(key[0]))), "true": len(every)}  # fmt: skip


def _judge_thresholds(sight: _Sight, period_s: float) -> Iterator[Row]:
    """Table 3: sampling periods, and the rule's thresholds of users and instances."""
    for share in _SHARES:
        verdicts = decide_by_macroscope(sight.observation, Thresholds(users_share=share, instances_share=share))
        for scope, wanted in sight.scopes().items():
            score = _score(sight, verdicts, wanted)
            yield tell_score(f"macroscope, {share:.0%}", scope, score, period_s=period_s)
    for name, decide in METHODS.items():
        if name != "macroscope":
            verdicts = decide(sight.observation)
            for scope, wanted in sight.scopes().items():
                yield tell_score(name, scope, _score(sight, verdicts, wanted), period_s=period_s)


def _converge(sight: _Sight) -> Iterator[Row]:
    """Fig. 4: what is found from so many traces of a host and a day, of what is true in all of them."""
    instances = sight.observation.table(ApplicationInstance)
    rows = sight.observation.read(instances.select("host", "address").distinct().order_by("host", "address"))
    places = [(row["host"], row["address"]) for row in rows]
    order = np.random.default_rng(len(places)).permutation(len(places))
    for number in [*(each for each in _TRACES if each < len(places)), len(places)]:
        tables = sight.observation.only([places[at] for at in order[:number]])
        verdicts = decide_by_macroscope(sight.observation, tables=tables)
        for scope, wanted in sight.scopes().items():
            yield tell_score("macroscope", scope, _score(sight, verdicts, wanted), traces=number)


def _sweep(sight: _Sight) -> Iterator[Row]:
    """Fig. 5: how many are called static as U and I change, and how well T tells who makes transient connections."""
    app = "communicator.exe" if TWELVE in sight.scopes() else min((key[0] for key in sight.possible), default="")
    uses, instances = sight.observation.table(ServiceUse), sight.observation.table(ApplicationInstance)
    # the rule looks at each application by itself
    own = sight.observation.keep(uses.filter(uses.app == app)), instances.filter(instances.app == app)
    usual = Thresholds()
    lines = {(share, share) for share in _SWEEP}
    lines |= {(usual.users_share, share) for share in _SWEEP} | {(share, usual.instances_share) for share in _SWEEP}
    for users_share, instances_share in sorted(lines):
        rule = Thresholds(users_share=users_share, instances_share=instances_share)
        score = _score(sight, decide_by_macroscope(sight.observation, rule, own), app.__eq__)
        yield tell_score("macroscope", app, score, users_share=users_share, instances_share=instances_share)
    seen = {key[0] for key in sight.seen}
    mixed = {key[0] for key in sight.seen if key not in sight.truth}
    for step_1 in _STEP_1:
        rule = Thresholds(transient_share=step_1)
        called = _called_mixed(sight, rule, (uses, instances))
        score = score_claims(frozenset(called), frozenset(mixed), frozenset(seen))
        yield tell_score("macroscope, step 1", "applications", score, transient_share=step_1)


def _called_mixed(sight: _Sight, thresholds: Thresholds, tables: tuple[Any, Any]) -> set[str]:
    """Applications that step 1 says make transient connections."""
    made = extract_dependencies(*tables, thresholds)
    made = made.filter(made.level == 1, made.reason != "all_static")
    return {row["app"] for row in sight.observation.read(made.select("app").distinct())}


def _spread(sight: _Sight) -> Iterator[Row]:
    """Fig. 6: static services of each application, and applications of each static service, the most first."""
    claims = {"truth": sight.possible}
    for name, decide in METHODS.items():
        claims[name] = frozenset(key for key, verdict in decide(sight.observation).items() if verdict.static)
    for name, keys in claims.items():
        for figure, of in (("services of an application", 0), ("applications of a service", 1)):
            pairs = {(key[0], key[1:]) for key in keys}
            names, counts = np.unique([str(pair[of]) for pair in pairs], return_counts=True)
            for rank, place in enumerate(np.argsort(-counts, kind="stable"), start=1):
                yield {
                    "method": name, "scope": ALL, "figure": figure, "rank": rank, "name": str(names[place]),
                    "count": int(counts[place]),
                }  # fmt: skip


def _follow(sight: _Sight) -> Iterator[Row]:
    """Fig. 9: the share of an application's instances that use each static service, in slices of two days."""
    app = "communicator.exe" if TWELVE in sight.scopes() else min((key[0] for key in sight.possible), default="")
    population = sight.question.population
    begin_ns = population.begin_s * 10**9
    slices = cut(begin_ns, begin_ns + population.days * 86400 * 10**9 - 1, _SLICE_NS)
    uses = sight.observation.table(ServiceUse)
    # an instance that lasts through several slices is part of each
    laid = sight.observation.keep(lay_slices(uses.filter(uses.app == app), slices))
    instance = ("slice", "host", "pid", "address")
    each = laid.select(*instance).distinct()
    whole = {row["slice"]: row["n"] for row in sight.observation.read(each.group_by("slice").agg(n=each.count()))}
    used = laid.select(*instance, "protocol", "port").distinct()
    counts = used.group_by("slice", "protocol", "port").agg(n=used.count())
    for row in sorted(sight.observation.read(counts), key=lambda row: (row["protocol"], row["port"], row["slice"])):
        if (app, row["protocol"], row["port"]) in sight.possible:
            yield {
                "method": "observed", "scope": app, "service": f"{row['protocol']}/{row['port']}",
                "slice": row["slice"], "used": row["n"], "instances": whole[row["slice"]],
                "usage_share": row["n"] / whole[row["slice"]],
            }  # fmt: skip


def _calibrate(sight: _Sight) -> Iterator[Row]:
    """Probabilities and what came true."""
    for name, decide in METHODS.items():
        yield from tell_calibration(name, decide(sight.observation), sight.truth)


#: What can be asked for, by name. Table 3 looks at each population anew, and is made in `evaluate`.
PARTS: dict[str, Callable[[_Sight], Iterator[Row]]] = {
    "table2": _judge_methods,
    "table3": lambda sight: _judge_thresholds(sight, sight.question.period_s),
    "fig4": _converge,
    "fig5": _sweep,
    "fig6": _spread,
    "fig9": _follow,
    "calibration": _calibrate,
}
