# SPDX-License-Identifier: GPL-3.0-or-later
"""A population as tracers would have seen it: tables in the store's own schemas, and packets as a network shows them.

What is here simplified, beside what a real tracer does: a connection has one row in the segment in which it was first
seen, even if it outlasts that; segments are an hour long; what is left of closed connections (``time_wait``) is not
recorded; clocks are right; and with events, the kernel tells of UDP conversations as it does of connections.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from whoneeds.analysis.trace import FlowTrace
from whoneeds.model.conclusions import ApplicationInstance, Attribution, ServiceUse
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import FlowRecord, NameRecord, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import is_whole_number
from whoneeds.scenario.evidence import Evidence
from whoneeds.scenario.population import Population
from whoneeds.scenario.sampling import look_at, take_looks
from whoneeds.scenario.uses import Conclusions


class Tables(Mapping[type[Any], pa.Table]):
    """Tables by record, each made when it is first asked for.

    Parameters
    ----------
    makers : mapping of type to callable
    """

    def __init__(self, makers: Mapping[type[Any], Callable[[], pa.Table]]) -> None:
        self._makers = makers
        self._made: dict[type[Any], pa.Table] = {}

    def __getitem__(self, record: type[Any]) -> pa.Table:
        """The table of a record, in the store's schema."""
        if record not in self._made:
            self._made[record] = self._makers[record]()
        return self._made[record]

    def __iter__(self) -> Iterator[type[Any]]:
        """All records that there are tables of."""
        return iter(self._makers)

    def __len__(self) -> int:
        """How many."""
        return len(self._makers)


class Observed:
    """What was seen of a population; made by `observe`.

    Attributes
    ----------
    population : Population
    period_s : float
    events : bool
    tables : mapping of type to pyarrow.Table
        SegmentHeader, ProcessRecord, SocketRecord and NameRecord as hosts would have recorded them, and FlowRecord,
        Attribution, ApplicationInstance and ServiceUse as the line makes them of these.
    """

    def __init__(self, population: Population, period_s: float, events: bool, phase_seed: int) -> None:
        self.population, self.period_s, self.events = population, period_s, events
        looks = take_looks(population, period_s, events, phase_seed)
        orig, resp = look_at(population, looks, called=False), look_at(population, looks, called=True)
        evidence = Evidence(population, looks, period_s, orig, resp)
        conclusions = Conclusions(population, looks, period_s, orig, resp, evidence)
        self.tables: Mapping[type[Any], pa.Table] = Tables({
            SegmentHeader: evidence.headers, ProcessRecord: evidence.processes, SocketRecord: evidence.sockets,
            NameRecord: evidence.names, FlowRecord: conclusions.flows, Attribution: conclusions.attributions,
            ApplicationInstance: conclusions.instances, ServiceUse: conclusions.uses,
        })  # fmt: skip

    @cached_property
    def _packets(self) -> FlowTrace:
        made = self.population.made
        wire = self.population.uptime.stretch_host[made["stretch"]] != made["resp_host"]
        base = self.population.settings.begin_s * 10**9
        keys, service = np.unique(made["protocol"][wire] * 65536 + made["port"][wire], return_inverse=True)
        return FlowTrace(
            first_ns=base + made["first"][wire] * 1000,
            last_ns=base + made["last"][wire] * 1000,
            orig=made["orig_addr"][wire],
            resp=made["resp_addr"][wire],
            service=service.astype(np.int64),
            services=tuple((("tcp", "udp")[int(key) // 65536], int(key) % 65536) for key in keys),
        )

    def trace(self) -> FlowTrace:
        """What packets alone tell: every connection that left its host, whether any sample saw it or not.

        Numbers of addresses are those of `Population.addresses`.
        """
        return self._packets


def observe(population: Population, *, period_s: float = 5.0, events: bool = False, phase_seed: int = 0) -> Observed:
    """Look at a population.

    Parameters
    ----------
    population : Population
    period_s : float, default 5.0
        Time between two samples of a host's sockets.
    events : bool, default False
        Whether the kernels tell of every connection as well, so that nothing is too short to be seen.
    phase_seed : int, default 0
        Draws at which instants the hosts take their samples.

    Returns
    -------
    Observed

    Raises
    ------
    SettingsError
        If the period or the seed is none.
    """
    given: Any = period_s
    number = isinstance(given, float) or is_whole_number(given)
    if not number or not math.isfinite(period_s) or not 0.01 <= period_s <= 3600:
        raise SettingsError(
            "sampling period", expected="seconds between 0.01 and 3600", found=ascii(period_s)[:80],
            remedy="the paper's is 5",
        )  # fmt: skip
    if not is_whole_number(phase_seed) or phase_seed < 0:
        raise SettingsError("seed of phases", expected="a whole number from 0 on", found=ascii(phase_seed)[:80])
    return Observed(population, float(period_s), bool(events), phase_seed)
