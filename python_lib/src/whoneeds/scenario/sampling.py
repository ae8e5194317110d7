# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody sees who looks at a host's sockets every so often, or is told by its kernel of each connection.

Each host's samples have a phase of their own. A connection shorter than the period is seen with the probability of its
length over the period; of a longer one the samples tell its begin and its end within a period each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whoneeds.scenario.connections import REJECTED
from whoneeds.scenario.population import Population
from whoneeds.scenario.uptime import US


@dataclass(frozen=True)
class Looks:
    """How hosts are looked at.

    Attributes
    ----------
    period : int
        Microseconds between two samples.
    events : bool
        Whether the kernels tell of every connection as well.
    phase : numpy.ndarray
        Of each host: microseconds from the population's begin to its first sample.
    """

    period: int
    events: bool
    phase: Any

    def first_at(self, host: Any, at: Any) -> Any:
        """The first sample of a host that is not before an instant, and by its number."""
        return -(-(at - self.phase[host]) // self.period)

    def last_at(self, host: Any, at: Any) -> Any:
        """The number of the last sample of a host that is not after an instant."""
        return (at - self.phase[host]) // self.period

    def time_of(self, host: Any, number: Any) -> Any:
        """When a host takes a sample."""
        return self.phase[host] + number * self.period


@dataclass(frozen=True)
class Ends:
    """What one end of connections saw of them.

    Attributes
    ----------
    seen : numpy.ndarray
        Whether it has a row at all.
    first, last, samples : numpy.ndarray
        When it was first and last seen, and in how many samples; not to be read where it was not seen.
    sent, got : numpy.ndarray
        Bytes from the originator, and to it, that were counted by then.
    """

    seen: Any
    first: Any
    last: Any
    samples: Any
    sent: Any
    got: Any


def take_looks(population: Population, period_s: float, events: bool, phase_seed: int) -> Looks:
    """Draw when each host takes its samples.

    Parameters
    ----------
    population : Population
    period_s : float
    events : bool
    phase_seed : int
    """
    rng = np.random.default_rng((population.seed, 6, phase_seed))
    period = int(period_s * US)
    return Looks(period, events, rng.integers(0, period, len(population.uptime.hosts)))


def look_at(population: Population, looks: Looks, *, called: bool) -> Ends:
    """What the called or the calling ends of all connections saw of them.

    Parameters
    ----------
    population : Population
    looks : Looks
    called : bool
        Whose side it is. A called end has a socket of its own only where it is traced, speaks TCP and answered: of UDP
        one socket serves all who come.
    """
    made = population.made
    first, last = made["first"], made["last"]
    host = made["resp_host"] if called else population.uptime.stretch_host[made["stretch"]]
    there = np.maximum(host, 0)
    low, high = looks.first_at(there, first), looks.last_at(there, last)
    samples = np.maximum(high - low + 1, 0)
    exists = np.ones(len(first), dtype=bool)
    if called:
        exists = (made["resp_process"] >= 0) & (made["protocol"] == 0) & (made["ended"] < REJECTED)
    if looks.events:
        return Ends(exists, first, last, samples, made["sent"], made["got"])
    seen_last = looks.time_of(there, high)
    spoken = (seen_last - first) / np.maximum(last - first, 1)
    counted = [np.floor(made[name] * np.clip(spoken, 0.0, 1.0)).astype(np.int64) for name in ("sent", "got")]
    return Ends(exists & (samples > 0), looks.time_of(there, low), seen_last, samples, counted[0], counted[1])
