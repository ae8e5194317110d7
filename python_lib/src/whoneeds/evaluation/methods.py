# SPDX-License-Identifier: GPL-3.0-or-later
"""What each method says of each application and service that was observed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ibis

from whoneeds.analysis.evidence import weigh
from whoneeds.analysis.macroscope import Thresholds, extract_dependencies
from whoneeds.collector.traits import find_traits
from whoneeds.model.conclusions import ApplicationInstance, ServiceUse
from whoneeds.model.evidence import FlowRecord, NameRecord, ProcessRecord, SocketRecord
from whoneeds.sources import read_shipped_scorecard

#: (application, protocol, port).
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Verdict:
    """What a method says of one application and service.

    Attributes
    ----------
    static : bool
        Whether it claims a static dependency.
    probability : float or None
        How sure it is; None of methods that do not say.
    """

    static: bool
    probability: float | None = None


class Tables(Protocol):
    """What was observed, of a population or in a user's store."""

    def table(self, record: type[Any], /) -> Any:
        """The table of a record."""

    def keep(self, expression: Any, number: str | None = None, /) -> Any:
        """Work an expression out once."""

    def read(self, expression: Any, /) -> list[dict[str, Any]]:
        """Rows of an expression."""


Verdicts = Mapping[Key, Verdict]
Decide = Callable[[Tables], Verdicts]


def decide_by_macroscope(
    observation: Tables,
    thresholds: Thresholds = Thresholds(),
    tables: tuple[Any, Any] | None = None,
) -> Verdicts:
    """The published rule.

    Parameters
    ----------
    observation : Tables
    thresholds : Thresholds, optional
    tables : (ibis.Table, ibis.Table), optional
        Uses and instances, instead of all that was observed.
    """
    uses, instances = tables or (observation.table(ServiceUse), observation.table(ApplicationInstance))
    made = extract_dependencies(uses, instances, thresholds)
    rows = observation.read(made.filter(made.level == 1).select("app", "protocol", "port", "kind"))
    return {(row["app"], row["protocol"], row["port"]): Verdict(row["kind"] == "static") for row in rows}


def decide_by_evidence(observation: Tables) -> Verdicts:
    """The weight of all that is known of each service, by the scorecard that is shipped.

    Parameters
    ----------
    observation : Tables
    """
    uses, flows, sockets, processes, names = (
        observation.table(record) for record in (ServiceUse, FlowRecord, SocketRecord, ProcessRecord, NameRecord)
    )
    traits = observation.keep(find_traits(uses, flows, sockets, processes, names, observation.keep))
    made = weigh(traits, read_shipped_scorecard())
    rows = observation.read(made.select("app", "protocol", "port", "kind", "probability"))
    return {
        (row["app"], row["protocol"], row["port"]): Verdict(row["kind"] == "static", row["probability"]) for row in rows
    }


def count_samples(observation: Tables) -> dict[Key, int]:
    """How often each application was seen to use each service: samples, or connections where events told."""
    uses = observation.table(ServiceUse)
    seen = ibis.greatest(uses.samples, uses.flows)
    rows = observation.read(uses.group_by("app", "protocol", "port").agg(seen=seen.sum().cast("int64")))
    return {(row["app"], row["protocol"], row["port"]): row["seen"] for row in rows}


#: Methods that look at programs, by name; those that look at packets need a human's seed and are in `seeded`.
METHODS: dict[str, Decide] = {"macroscope": decide_by_macroscope, "evidence": decide_by_evidence}
