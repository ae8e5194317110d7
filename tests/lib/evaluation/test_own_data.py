# SPDX-License-Identifier: GPL-3.0-or-later
"""A store's flows as packets would have told of them, against what a population's packets do tell."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from whoneeds.analysis.trace import FlowTrace
from whoneeds.evaluation.own_data import collect_packets, find_called
from whoneeds.model.conclusions import Attribution, ServiceUse
from whoneeds.scenario import Observed, make_population, observe, preset


@pytest.fixture(scope="module")
def seen() -> Iterator[tuple[Observed, Callable[[type[Any]], Any], Callable[[Any], Any]]]:
    """A few servers for a day, told of by events, as tables and as an engine that reads them."""
    observed = observe(make_population(preset("few-servers", applications=20, activity=0.3), 3), events=True)
    engine = ibis.duckdb.connect(threads=1)
    yield observed, lambda record: ibis.memtable(observed.tables[record]), engine.to_pyarrow
    engine.disconnect()


def named_flows(trace: FlowTrace) -> Counter[tuple[int, int, tuple[str, int]]]:
    """Each flow without its addresses, whose numbers mean nothing."""
    rows = zip(*(column.tolist() for column in (trace.first_ns, trace.last_ns, trace.service)), strict=True)
    return Counter((first, last, trace.services[service]) for first, last, service in rows)


def test_packets_are_those_that_the_network_showed(seen: Any) -> None:
    """Where events told of every connection, the store's flows are the packets: those that left their host."""
    observed, table_of, read = seen
    made = collect_packets(table_of, read)
    told = observed.trace()
    assert len(told.first_ns) > 1000
    assert named_flows(made.trace) == named_flows(told)
    # numbers of addresses are others, but equal for equal ones
    for name in ("orig", "resp"):
        ours, theirs = (sorted(Counter(getattr(trace, name).tolist()).values()) for trace in (made.trace, told))
        assert ours == theirs


def test_who_offers_what_is_who_really_waits_there(seen: Any) -> None:
    """An application named behind a service instance is one that answered there, by the population's own truth."""
    observed, table_of, read = seen
    made = collect_packets(table_of, read)
    population = observed.population
    answered = {
        (("tcp", "udp")[protocol], port, population.applications[population.process["app"][process]].name)
        for protocol, port, process in zip(
            *(population.made[name].tolist() for name in ("protocol", "port", "resp_process")), strict=True
        )
        if process >= 0
    }
    assert made.offered
    assert {(*service, app) for (_address, service), app in made.offered.items()} <= answered


def test_who_offers_is_not_known_where_two_are_named(seen: Any) -> None:
    """Where two applications were seen to answer at one place, neither is taken for the one that does."""
    observed, table_of, read = seen
    ends = observed.tables[Attribution]
    answering = ends.filter((pc.field("side") == "resp") & pc.field("app").is_valid())
    other = answering.set_column(
        answering.schema.get_field_index("app"), "app", pa.array(["another"] * len(answering), type=pa.string())
    )
    both = ibis.memtable(pa.concat_tables([ends, other]))
    made = collect_packets(lambda record: both if record is Attribution else table_of(record), read)
    assert not made.offered


def test_the_most_used_place_comes_first(seen: Any) -> None:
    """Every service that was used has the places that were called, in order of use, each once."""
    observed, table_of, read = seen
    flows: Counter[tuple[tuple[str, str, int], tuple[str, str, int]]] = Counter()
    for row in observed.tables[ServiceUse].to_pylist():
        key = (row["app"], row["protocol"], row["port"])
        flows[key, (row["protocol"], row["resp_addr"], row["port"])] += row["flows"]
    called = find_called(table_of, read)
    assert {(key, place) for key, places in called.items() for place in places} == set(flows)
    for key, places in called.items():
        used = [flows[key, place] for place in places]
        assert used == sorted(used, reverse=True)
