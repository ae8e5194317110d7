# SPDX-License-Identifier: GPL-3.0-or-later
r"""NSDMiner: a service needs another if its host calls that one while it is being called itself.

A. Natarajan, P. Ning, Y. Liu, S. Jajodia, S. E. Hutchinson: "NSDMiner: Automated Discovery of Network Service
Dependencies", INFOCOM 2012. A baseline: it sees packets only, and finds what services need, never what clients need.

A flow *f* that host *h* begins has as parents all flows *p* that *h* is called by and that enclose it:
:math:`p_{first} \le f_{first}` and :math:`p_{last} \ge f_{last}`. In exclusive mode *f* counts only if it has one
parent; in shared mode (the default) each of *n* parents is given :math:`1/n`. With :math:`A` accesses of a service and
:math:`B` the sum of what it was given for another, the ratio score is :math:`100 B / A`, the logarithmic score (the
default) :math:`100 \log_A B`, 0 where :math:`B < 1`.

Connections that live long (pools) are its blind spot: flows of 200 s and more are left out, as published.
Services are service instances here: (address, protocol, port); services with fewer than 50 accesses are left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whoneeds.analysis.cooccurrence import by_host, spread
from whoneeds.analysis.published import require_positive
from whoneeds.analysis.trace import FlowTrace
from whoneeds.model.errors import SettingsError

_SCORES = ("logarithmic", "ratio")


@dataclass(frozen=True)
class NsdminerSettings:
    """The method's parameters.

    Attributes
    ----------
    longest_s : float
        Flows of this length and more are left out.
    least_accesses : int
        Accesses below which nothing is said of a service.
    exclusive : bool
        Whether only flows with a single parent count.
    score : {"logarithmic", "ratio"}

    Raises
    ------
    SettingsError
        If one is none of these.
    """

    longest_s: float = 200.0
    least_accesses: int = 50
    exclusive: bool = False
    score: str = "logarithmic"

    def __post_init__(self) -> None:
        require_positive(self, "NSDMiner")
        if self.score not in _SCORES or not isinstance(self.exclusive, bool):
            raise SettingsError(
                "NSDMiner setting score or exclusive",
                expected=f"one of {_SCORES}; True or False",
                found=ascii((self.score, self.exclusive))[:80],
                remedy="leave them out for 'logarithmic' and False",
            )


@dataclass(frozen=True)
class InstancePairs:
    """Scored pairs of service instances, as columns.

    Attributes
    ----------
    dependent_addr, depends_on_addr : numpy.ndarray
        Numbers of addresses, as in the trace.
    dependent, depends_on : numpy.ndarray
        Index into the services of the trace.
    accesses : numpy.ndarray
        A, of the dependent.
    given : numpy.ndarray
        B.
    score : numpy.ndarray
        0 to 100.
    """

    dependent_addr: Any
    dependent: Any
    depends_on_addr: Any
    depends_on: Any
    accesses: Any
    given: Any
    score: Any


def find_nested(trace: FlowTrace, settings: NsdminerSettings = NsdminerSettings()) -> InstancePairs:
    """Score all pairs of service instances of which one was called within a call of the other.

    Parameters
    ----------
    trace : FlowTrace
        Of answered flows, as the method asks for; what nobody answered shows no service.
    settings : NsdminerSettings, optional

    Returns
    -------
    InstancePairs
    """
    short = (trace.last_ns - trace.first_ns) < round(settings.longest_s * 1e9)
    rows = np.flatnonzero(short)
    orig, resp = trace.orig[rows], trace.resp[rows]
    first, last = trace.first_ns[rows], trace.last_ns[rows]
    instance, number = np.unique(np.stack([resp, trace.service[rows]]), axis=1, return_inverse=True)
    accesses = np.bincount(number, minlength=instance.shape[1])
    called = dict(by_host(resp))
    keys: list[Any] = [np.zeros(0, dtype=np.int64)]
    weights: list[Any] = [np.zeros(0)]
    for host, out in by_host(orig):
        incoming = called.get(host)
        if incoming is None:
            continue
        child, parent = _enclosing(first[out], last[out], first[incoming], last[incoming])
        # a host that calls itself: no flow is its own parent
        kept = out[child] != incoming[parent]
        child, parent = child[kept], parent[kept]
        parents = np.bincount(child, minlength=len(out))[child]
        share = (parents == 1).astype(np.float64) if settings.exclusive else 1.0 / parents
        key, place = np.unique(number[incoming[parent]] * instance.shape[1] + number[out[child]], return_inverse=True)
        keys.append(key)
        weights.append(np.bincount(place, weights=share, minlength=len(key)))
    key, place = np.unique(np.concatenate(keys), return_inverse=True)
    given: Any = np.bincount(place, weights=np.concatenate(weights), minlength=len(key))
    dependent, provider = key // max(instance.shape[1], 1), key % max(instance.shape[1], 1)
    kept = (accesses[dependent] >= settings.least_accesses) & (given > 0)
    dependent, provider, given = dependent[kept], provider[kept], given[kept]
    times = accesses[dependent]
    score: Any = 100.0 * given / times
    if settings.score == "logarithmic":
        score = 100.0 * np.log(np.maximum(given, 1.0)) / np.log(np.maximum(times, 2))
    return InstancePairs(
        instance[0][dependent],
        instance[1][dependent],
        instance[0][provider],
        instance[1][provider],
        times,
        given,
        score,
    )


def _enclosing(first: Any, last: Any, from_ns: Any, until_ns: Any) -> tuple[Any, Any]:
    """Indices of flows and of those that enclose them, both in order of their begin.

    Parents are taken by length, octave by octave: looked for are only those that began as long before as they last.
    """
    octave = np.frexp(np.maximum(until_ns - from_ns, 1).astype(np.float64))[1]
    children, parents = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for power in np.unique(octave):
        here = np.flatnonzero(octave == power)
        low = np.searchsorted(from_ns[here], first - int((until_ns - from_ns)[here].max()), side="left")
        high = np.searchsorted(from_ns[here], first, side="right")
        for child, place in spread(low, high):
            parent = here[place]
            encloses = until_ns[parent] >= last[child]
            children.append(child[encloses])
            parents.append(parent[encloses])
    return np.concatenate(children), np.concatenate(parents)
