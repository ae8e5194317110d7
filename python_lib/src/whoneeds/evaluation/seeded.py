# SPDX-License-Identifier: GPL-3.0-or-later
"""The baselines brought to applications: somebody names one service of an application, and what is related is claimed.

As Macroscope's authors did with Orion (section 4.2), each application is given the seed that serves it best, once for
the fewest misses and once for the fewest false alarms. That is kinder to the baselines than any real operator, who does
not know which seed is the best. Each is also run at the threshold that serves it best on the data at hand.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whoneeds.analysis.nsdminer import find_nested
from whoneeds.analysis.orion import OrionSettings, find_spikes
from whoneeds.analysis.published import related_to
from whoneeds.analysis.sherlock import SherlockSettings, find_preceding
from whoneeds.analysis.trace import FlowTrace
from whoneeds.evaluation.scores import Score, score_claims
from whoneeds.scenario import Observed

#: A service under which both protocols count once, as in Table 2.
Service = int
Truth = Mapping[str, frozenset[Service]]
#: The application behind each service instance, (number of the address, service).
Offered = Mapping[tuple[int, tuple[str, int]], str]
#: What a baseline relates to a service above a threshold.
Relate = Callable[[int, float], frozenset[int]]

#: Beside the published one.
_ORION_THRESHOLDS = (2.0, 2.5, 3.0, 3.5, 4.0, 4.25, 4.5, 4.75, 5.0, 6.0, 8.0)
_SHERLOCK_RATIOS = (2.0, 10.0, 50.0, 250.0, 1250.0, 6250.0)
_NSDMINER_SCORES = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0)


@dataclass(frozen=True)
class Row:
    """How a baseline did on one application or on all.

    Attributes
    ----------
    method : str
    application : str
        'all' for their sum.
    score : Score
    """

    method: str
    application: str
    score: Score


def judge_baselines(observed: Observed, truth: Truth) -> list[Row]:
    """Judge Orion, Sherlock and NSDMiner on the packets of what was observed.

    Parameters
    ----------
    observed : Observed
    truth : mapping of str to frozenset of int
        Ports of the static dependencies of each application that is judged. Those with one alone are left out of
        Orion and Sherlock: a seed is all of them.
    """
    return judge_packets(observed.trace(), _find_offered(observed), truth)


def judge_packets(trace: FlowTrace, offered: Offered, truth: Truth) -> list[Row]:
    """The same on any trace.

    Parameters
    ----------
    trace : FlowTrace
    offered : mapping
        The application behind each service instance, (number of the address, (protocol, port)).
    truth : mapping of str to frozenset of int
    """
    several = {app: ports for app, ports in truth.items() if len(ports) > 1}
    spikes, before = find_spikes(trace), find_preceding(trace)
    made = []
    for name, relate, published, others in (
        ("orion", _related(trace, lambda seed, k: related_to(spikes, seed, k)),
         OrionSettings().threshold, _ORION_THRESHOLDS),
        ("sherlock", _related(trace, lambda seed, k: related_to(before, seed, k)),
         SherlockSettings().chance_ratio, _SHERLOCK_RATIOS),
    ):  # fmt: skip
        made += _judge_seeded(name, relate, published, others, several)
    return made + _judge_nested(trace, offered, truth)


def _related(trace: FlowTrace, relate: Relate) -> Relate:
    """Related ports of a port: the services on both protocols are one."""
    of_port: dict[int, list[int]] = {}
    for number, (_protocol, port) in enumerate(trace.services):
        of_port.setdefault(port, []).append(number)

    def ports(seed: int, above: float) -> frozenset[int]:
        found = frozenset[int]().union(*(relate(number, above) for number in of_port.get(seed, ())))
        return frozenset(trace.services[number][1] for number in found) | {seed}

    return ports


def _judge_seeded(name: str, relate: Relate, published: float, others: Sequence[float], truth: Truth) -> list[Row]:
    """The best seed of each application for misses and for false alarms, at the published and the best threshold."""
    at: dict[tuple[str, float], dict[str, Score]] = {}
    for above in others:
        for aim, order in (
            ("fewest misses", lambda score: (score.missed, score.false)),
            ("fewest false alarms", lambda score: (score.false, score.missed)),
        ):
            at[aim, above] = {
                app: min((score_claims(relate(seed, above), ports, ports) for seed in sorted(ports)), key=order)
                for app, ports in truth.items()
            }
    made = []
    for aim in ("fewest misses", "fewest false alarms"):
        chosen = {"": published, ", best threshold": max(others, key=lambda above: _f1(at[aim, above].values()))}
        for words, above in chosen.items():
            scores = at[aim, above]
            method = f"{name} ({aim}{words})"
            made += [Row(method, app, score) for app, score in scores.items()]
            made.append(Row(method, "all", sum(scores.values(), Score(0, 0, 0, 0))))
    return made


def _f1(scores: Iterable[Score]) -> float:
    return sum(scores, Score(0, 0, 0, 0)).shares()["f1"] or 0.0


def _judge_nested(trace: FlowTrace, offered: Offered, truth: Truth) -> list[Row]:
    """NSDMiner finds what services need: an application is where the operator says that its services are."""
    pairs = find_nested(trace)
    needs: dict[float, dict[str, frozenset[int]]] = {}
    places = list(zip(pairs.dependent_addr.tolist(), pairs.dependent.tolist(), strict=True))
    ports = np.array([port for _protocol, port in trace.services], dtype=np.int64)[pairs.depends_on]
    for above in _NSDMINER_SCORES:
        found: dict[str, set[int]] = {app: set() for app in truth}
        for place, port, score in zip(places, ports.tolist(), pairs.score.tolist(), strict=True):
            app = offered.get((place[0], trace.services[place[1]]))
            if app in found and score > above:
                found[app].add(port)
        needs[above] = {app: frozenset(each) for app, each in found.items()}
    scores = {
        above: {app: score_claims(claimed[app], truth[app], truth[app]) for app in truth}
        for above, claimed in needs.items()
    }
    made = []
    best = max(scores, key=lambda above: _f1(scores[above].values()))
    for method, above in (("nsdminer", 0.0), ("nsdminer (best threshold)", best)):
        made += [Row(method, app, score) for app, score in scores[above].items()]
        made.append(Row(method, "all", sum(scores[above].values(), Score(0, 0, 0, 0))))
    return made


def _find_offered(observed: Observed) -> dict[tuple[int, tuple[str, int]], str]:
    """The application behind each service instance, (address, service), where it is on a traced host."""
    population = observed.population
    made = population.made
    known = np.flatnonzero(made["resp_process"] >= 0)
    columns = (made["resp_addr"], made["protocol"], made["port"], made["resp_process"])
    offered: dict[tuple[int, tuple[str, int]], str] = {}
    rows = np.unique(np.stack([column[known].astype(np.int64) for column in columns]), axis=1)
    for address, protocol, port, process in rows.T.tolist():
        app = population.applications[int(population.process["app"][process])].name
        offered[address, (("tcp", "udp")[protocol], port)] = app
    return offered
