# SPDX-License-Identifier: GPL-3.0-or-later
r"""Sherlock: services that a host calls right before another one, more often than chance.

P. Bahl, R. Chandra, A. Greenberg, S. Kandula, D. A. Maltz, M. Zhang: "Towards Highly Reliable Enterprise Network
Services via Inference of Multi-level Dependencies", SIGCOMM 2007. A baseline: it sees packets only.

Calling A depends on B with the probability :math:`P(B \mid A)` that B was called within 10 ms before A. By chance that
happens with the probability 10 ms / (mean gap between two calls of B), per host; what is not well above is dropped.

Our reading, since Macroscope's account does not give it: "well above" is ten times what chance gives, and a pair
needs ten calls of A. The mean gap of B at a host is the time that was observed over its calls there.
"""

from dataclasses import dataclass

import numpy as np

from whoneeds.analysis.cooccurrence import by_host, near_pairs
from whoneeds.analysis.published import ServicePairs, require_positive
from whoneeds.analysis.trace import FlowTrace


@dataclass(frozen=True)
class SherlockSettings:
    """The method's parameters.

    Attributes
    ----------
    window_s : float
        How long before a call another one counts.
    least_uses : int
        Calls of the dependent service below which nothing is said.
    chance_ratio : float
        How many times what chance gives a pair must reach.

    Raises
    ------
    SettingsError
        If one is not above 0.
    """

    window_s: float = 0.010
    least_uses: int = 10
    chance_ratio: float = 10.0

    def __post_init__(self) -> None:
        require_positive(self, "Sherlock")


def find_preceding(trace: FlowTrace, settings: SherlockSettings = SherlockSettings()) -> ServicePairs:
    r"""Score all pairs of services of which one was ever called right before the other.

    Parameters
    ----------
    trace : FlowTrace
    settings : SherlockSettings, optional

    Returns
    -------
    ServicePairs
        ``dependent`` is A, ``depends_on`` is B, the score :math:`P(B \mid A)` over what chance gives, at hosts that
        call both; ``samples`` are the calls of A there. Pairs with too few are left out.
    """
    window_ns = round(settings.window_s * 1e9)
    services = max(len(trace.services), 1)
    pairs, seen, uses, expected = [], [], [], []
    for _host, rows in by_host(trace.orig):
        first_ns, service = trace.first_ns[rows], trace.service[rows]
        span_ns = int(first_ns[-1] - first_ns[0])
        used, place, count = np.unique(service, return_inverse=True, return_counts=True)
        # within ten milliseconds before a call there may be several of B: each call of A counts once
        found = []
        for before, after in near_pairs(first_ns, first_ns, window_ns):
            apart = service[before] != service[after]
            found.append(np.unique(after[apart] * len(used) + place[before[apart]]))
        met = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
        pair, times = np.unique(place[met // len(used)] * len(used) + met % len(used), return_counts=True)
        dependent, provider = pair // len(used), pair % len(used)
        if span_ns <= 0:
            continue
        chance = np.minimum(window_ns * count[provider] / span_ns, 1.0)
        pairs.append(used[dependent] * services + used[provider])
        seen.append(times)
        uses.append(count[dependent])
        expected.append(chance * count[dependent])
    if not pairs:
        none = np.zeros(0, dtype=np.int64)
        return ServicePairs(none, none, np.zeros(0, dtype=np.str_), none, np.zeros(0))
    key, place = np.unique(np.concatenate(pairs), return_inverse=True)
    sums = [np.bincount(place, weights=np.concatenate(column), minlength=len(key)) for column in (seen, uses, expected)]
    enough = sums[1] >= settings.least_uses
    key, (seen_in_all, uses_in_all, expected_in_all) = key[enough], (column[enough] for column in sums)
    return ServicePairs(
        dependent=key // services,
        depends_on=key % services,
        kind=np.full(len(key), "remote_remote"),
        samples=uses_in_all.astype(np.int64),
        score=seen_in_all / expected_in_all,
    )
