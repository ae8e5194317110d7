# SPDX-License-Identifier: GPL-3.0-or-later
"""What arrows and questions work on: tables of a store brought together, as expressions.

The line (`whoneeds.pipeline`) and whatever is asked of a store (`whoneeds.questions`) read through these, so that both
mean the same by a socket, a use, or a dependency.
"""

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from whoneeds.analysis.evidence import weigh_dependencies
from whoneeds.analysis.features import FEATURES
from whoneeds.analysis.filters import Filters, find_users, select_flows
from whoneeds.analysis.macroscope import Thresholds, extract_dependencies
from whoneeds.analysis.scorecard import Scorecard, read_scorecard
from whoneeds.collector.clocks import (
    Boot,
    ClockOffset,
    compare_clocks,
    find_shifts,
    find_steps,
    settle_clocks,
    shift_times,
)
from whoneeds.collector.exchanges import join_exchanges
from whoneeds.collector.instances import SUMMED, find_instances, find_uses, sum_service_use
from whoneeds.collector.traits import find_traits
from whoneeds.collector.watched import of_hosts
from whoneeds.model.conclusions import ApplicationInstance, Attribution, ServiceTrait, ServiceUse
from whoneeds.model.errors import StoreError
from whoneeds.model.evidence import (
    CaptureRecord,
    ExchangeRecord,
    FlowRecord,
    NameRecord,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
)
from whoneeds.model.schema import table_name
from whoneeds.store.manifest import read_manifest
from whoneeds.store.session import Store

#: How kinds are decided where nothing else is asked for.
DEFAULT_METHOD = "macroscope"


def find_clocks(store: Store) -> tuple[Any, dict[Boot, ClockOffset]]:
    """Steps of clocks during runs, as an expression, and clocks that are wrong all the time."""

    def find() -> tuple[Any, dict[Boot, ClockOffset]]:
        steps = store.keep(find_steps(store.table(SegmentHeader)))
        return steps, settle_clocks(read_rows(store, compare_clocks(store.table(SocketRecord), steps, store.keep)))

    return store.once("clocks", find)


def find_evidence(store: Store) -> tuple[Any, Any, Any]:
    """Sockets and whom those of UDP spoke to, segments, and translations: all on one clock, as expressions."""
    shifts = store.once("shifts", lambda: store.keep(find_shifts(*find_clocks(store))))
    made = find_sockets(store), of_hosts(store.table(SegmentHeader)), store.table(TranslationRecord)
    if not read_rows(store, shifts.limit(1)):
        return made
    times = ("first_ns", "last_ns"), ("opened_ns", "closed_ns"), ("first_ns", "last_ns")
    sockets, segments, translations = (
        shift_times(rows, shifts, *names) for rows, names in zip(made, times, strict=True)
    )
    return sockets, segments, translations


def find_sockets(store: Store) -> Any:
    """Sockets, and whom those of UDP spoke to, as an expression."""

    def join() -> Any:
        return join_exchanges(
            store.table(SocketRecord),
            store.table(ExchangeRecord),
            store.table(CaptureRecord),
            store.table(SegmentHeader),
            store.keep,
        )

    return store.once("sockets", join)


def find_sightings(store: Store) -> Any:
    """Names that hosts saw, on the common clock, as an expression."""
    shifts = store.once("shifts", lambda: store.keep(find_shifts(*find_clocks(store))))
    names = store.table(NameRecord)
    return shift_times(names, shifts, "first_ns", "last_ns") if read_rows(store, shifts.limit(1)) else names


def find_filtered_uses(
    store: Store, filters: Filters, *, failed: bool = False, wanted: Iterable[str] | None = None
) -> Any:
    """Flows that filters leave and whose application is known, each with its instance, as an expression."""
    require(store, Attribution, "whoneeds attribute")
    processes = store.table(ProcessRecord)
    uses = find_uses(
        select_flows(store.table(FlowRecord), filters, store.table(SegmentHeader)),
        store.table(Attribution),
        find_sockets(store),
        processes,
        filters.location,
        store.keep,
        failed=failed,
        wanted=wanted,
    )
    return uses.semi_join(find_users(processes, filters.users), "user") if filters.users else uses


def find_population(store: Store, filters: Filters) -> tuple[Any, Any]:
    """Instances and what they used, of the flows that filters leave, as expressions.

    Returns
    -------
    application_instance, service_use : ibis.Table
    """
    uses = find_filtered_uses(store, filters, wanted=SUMMED)
    population = store.keep(find_instances(uses))
    return population, sum_service_use(uses, population)


def find_dependencies(
    store: Store, filters: Filters, thresholds: Thresholds = Thresholds(), method: str = DEFAULT_METHOD
) -> Any:
    """Dependencies of the flows that filters leave, decided anew and without writing them, as an expression."""
    if filters.changes_population:
        population, used = find_population(store, filters)
    else:
        require(store, ServiceUse, "whoneeds analyze")
        population, used = store.table(ApplicationInstance), store.table(ServiceUse)
    if method == "macroscope":
        return extract_dependencies(used, population, thresholds)
    if filters.changes_population:
        used = store.keep(used)
        traits = store.keep(find_service_traits(store, used))
    else:
        require(store, ServiceTrait, "whoneeds analyze")
        traits = store.table(ServiceTrait)
    return weigh_dependencies(used, traits, read_shipped_scorecard())


def find_service_traits(store: Store, used: Any) -> Any:
    """Traits of the services that were used, as an expression."""
    return find_traits(
        used,
        store.table(FlowRecord),
        store.table(SocketRecord),
        store.table(ProcessRecord),
        store.table(NameRecord),
        store.keep,
    )


@cache
def read_shipped_scorecard() -> Scorecard:
    """The scorecard that this version decides by.

    Raises
    ------
    SettingsError
        If it was tampered with so that it is none.
    """
    text = files("whoneeds.analysis").joinpath("scorecard.json").read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    return read_scorecard(document, [feature.name for feature in FEATURES])


def require(store: Store, record: type[Any], command: str) -> None:
    """Refuse to go on from a table that was never made: it would look like an empty one.

    Raises
    ------
    StoreError
    """
    name = table_name(record)
    if name not in read_manifest(store.path).derived:
        raise StoreError(
            "the analysis has not come this far", expected=f"the table {name} in {store.path}", found="none",
            remedy=f"run {command} --store {store.path}",
        )  # fmt: skip


def read_rows(store: Store, expression: Any) -> list[dict[str, Any]]:
    """Rows of an expression over the store."""
    rows: list[dict[str, Any]] = store.read(expression).to_pylist()
    return rows
