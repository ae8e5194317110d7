# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of populations: chances, schemas, and that the whole line comes to the same."""

import numpy as np
import pytest

from whoneeds import pipeline
from whoneeds.analysis.trace import FlowTrace
from whoneeds.model.conclusions import ApplicationInstance, Attribution, ServiceUse
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import FlowRecord, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import check_value
from whoneeds.scenario import make_population, observe, preset
from whoneeds.scenario.storing import write_evidence
from whoneeds.store import open_store
from whoneeds.store.columns import arrow_schema, stored_columns

#: Where a program was begun anew at the time, the line finds two that may have answered.
UNSURE = ("process_id", "candidates")


@pytest.mark.parametrize("events", [False, True])
def test_schemas(population, events):
    """Every table has the store's schema, and every value is one that its column can hold."""
    seen = observe(population, events=events)
    for record in seen.tables:
        table = seen.tables[record]
        table.validate(full=True)
        assert table.schema == arrow_schema(record)
        assert table.num_rows > 0
        for column in stored_columns(record):
            for value in set(map(_hashable, table[column.name].unique().to_pylist() if column.type != "string[]"
                                 else table[column.name].to_pylist())):  # fmt: skip
                check_value(column, value)


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def test_chance_of_being_seen():
    """A connection of length d is sampled with probability d / W, and always if it is longer than W."""
    population = make_population(preset("laptops", hosts=10, days=10), 1)
    length = (population.made["last"] - population.made["first"]) / 1e6
    for period_s in (5.0, 20.0):
        flows = observe(population, period_s=period_s).tables[FlowRecord]
        # a local port and an instant are enough to tell connections apart here
        assert flows.num_rows == len(set(flows["flow_id"].to_pylist()))
        chance = np.minimum(length / period_s, 1.0)
        expected, spread = chance.sum(), np.sqrt((chance * (1 - chance)).sum())
        assert abs(flows.num_rows - expected) < 5 * spread
        samples = flows["samples"].to_numpy()
        assert abs(samples.sum() - (length / period_s).sum()) < 5 * np.sqrt(0.25 * len(length))
        assert samples.min() == 1


def test_events_see_everything(population):
    """With events every connection has a flow, whole, and nothing was too short."""
    flows = observe(population, events=True).tables[FlowRecord]
    made = population.made
    assert flows.num_rows == len(made["first"])
    assert set(flows["period_s"].to_pylist()) == {0.0}
    assert np.array_equal(np.sort(flows["duration_s"].to_numpy()), np.sort((made["last"] - made["first"]) / 1e6))


def test_whole_way(populations, tmp_path):
    """Sockets taken through the store and the line come to the very flows and uses that are worked out at once."""
    seen = [
        observe(populations["laptops"], period_s=5.0),
        observe(populations["servers, held out"], period_s=20.0),
        observe(populations["servers"], period_s=30.0, events=True),
    ]
    with open_store(tmp_path / "store", create=True, write=True) as store:
        # three fleets without a host or an address in common
        assert [write_evidence(store, each) for each in seen] == [each.tables[SegmentHeader].num_rows for each in seen]
        pipeline.flows(store)
        pipeline.attribute(store)
        pipeline.instances(store)
        for record, without in ((FlowRecord, ()), (ApplicationInstance, ()), (ServiceUse, ()), (Attribution, UNSURE)):
            rows = [row for each in seen for row in each.tables[record].drop_columns(list(without)).to_pylist()]
            whole = [{name: row[name] for name in rows[0]} for row in store.rows(record)]
            assert len(whole) == len(rows) > 500
            assert sorted(map(repr, whole)) == sorted(map(repr, rows))


def test_listeners_are_told(populations):
    """Who answers on a traced host waits there in a socket of its own, on chosen ports as well."""
    population = populations["servers"]
    sockets = observe(population).tables[SocketRecord].to_pylist()
    waiting = {
        (row["process_id"], row["protocol"], row["local_port"])
        for row in sockets
        if row["state"] in ("listen", "bound")
    }
    accepted = [
        row for row in sockets
        if row["state"] == "established" and (row["process_id"], row["protocol"], row["local_port"]) in waiting
    ]  # fmt: skip
    assert len(accepted) > 100
    chosen = {row["local_port"] for row in accepted} - {
        port for application in population.applications for _protocol, port in application.listens
    }
    assert len(chosen) > 3
    programs = {row["process_id"] for row in observe(population).tables[ProcessRecord].to_pylist()}
    assert {row["process_id"] for row in sockets} <= programs


def test_trace(population):
    """The trace has every connection that left its host, seen or not, and keeps its own rules."""
    seen = observe(population, period_s=60.0)
    trace = seen.trace()
    assert isinstance(trace, FlowTrace)
    made = population.made
    leaves = int((population.uptime.stretch_host[made["stretch"]] != made["resp_host"]).sum())
    assert len(trace.first_ns) == leaves > seen.tables[FlowRecord].num_rows
    assert {protocol for protocol, _port in trace.services} == {"tcp", "udp"}


@pytest.mark.parametrize("period_s", [0.0, -5.0, float("nan"), float("inf"), "5", True, 1e9])
def test_bad_periods(populations, period_s):
    """A period that is none is refused."""
    with pytest.raises(SettingsError, match="sampling period"):
        observe(populations["laptops"], period_s=period_s)


@pytest.mark.parametrize("phase_seed", [-1, 1.5, None])
def test_bad_phases(populations, phase_seed):
    """A seed that is none is refused."""
    with pytest.raises(SettingsError, match="seed of phases"):
        observe(populations["laptops"], phase_seed=phase_seed)
