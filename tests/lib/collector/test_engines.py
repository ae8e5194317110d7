# SPDX-License-Identifier: GPL-3.0-or-later
"""The line stays within what engines mean alike; whether answers are equal, ``make test-spark`` finds out."""

import ibis
import ibis.expr.operations as ops
import pytest
from ibis.backends.sql.compilers.duckdb import DuckDBCompiler
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.config import Config
from line import expressions
from sqlglot import exp

from whoneeds.analysis.attempts import name_services
from whoneeds.analysis.causal import CausalSettings, count_orders, count_timed, select_timed
from whoneeds.analysis.changes import compare_amounts, compare_usage, count_margins, keep_changed
from whoneeds.analysis.coverage import count_ends, count_unknown_ends, summarize_gaps, summarize_hosts
from whoneeds.analysis.evidence import weigh_dependencies
from whoneeds.analysis.failures import measure_failures_of
from whoneeds.analysis.filters import Filters, Hours, measure_observation, select_flows
from whoneeds.analysis.macroscope import extract_dependencies
from whoneeds.analysis.missed import summarize_missed
from whoneeds.analysis.paths import (
    count_members,
    find_answerers,
    find_continuations,
    find_links,
    group_instances,
)
from whoneeds.analysis.population import place_applications, spread_services
from whoneeds.analysis.ranges import list_own_addresses
from whoneeds.analysis.scans import count_failing, find_bursts
from whoneeds.analysis.slices import Slices, measure_slices
from whoneeds.analysis.traffic import measure_traffic
from whoneeds.analysis.usage import measure_usage
from whoneeds.collector.applications import find_applications, mark_parts
from whoneeds.collector.clocks import compare_clocks, find_shifts, find_steps
from whoneeds.collector.destinations import find_destinations
from whoneeds.collector.flows import FlowSettings
from whoneeds.collector.instances import find_uses
from whoneeds.collector.local_uses import find_local_uses
from whoneeds.collector.replicas import find_replicas
from whoneeds.collector.traits import find_traits
from whoneeds.collector.watched import join_watched
from whoneeds.model.conclusions import ApplicationInstance, Attribution, Dependency, ServiceTrait, ServiceUse
from whoneeds.model.evidence import (
    FlowRecord,
    Gap,
    NameRecord,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
    WireFlow,
)
from whoneeds.model.schema import table_name
from whoneeds.sources import read_shipped_scorecard
from whoneeds.store.columns import ibis_schema


def table(record):
    """The table of a record, as a name with columns."""
    return ibis.table(ibis_schema(record), name=table_name(record))


def rest_of_the_line():
    """Expressions that are not made of flows."""
    uses, instances, processes = table(ServiceUse), table(ApplicationInstance), table(ProcessRecord)
    steps = find_steps(table(SegmentHeader))
    held = {}

    def keep(expression, _number=None, /):
        held[f"held_{len(held)}"] = expression
        return ibis.table(expression.schema(), name=f"held_{len(held)}")

    def read(expression):
        held[f"read_{len(held)}"] = expression
        return []

    chosen = Filters(hosts=("a",), since_ns=1, hours=Hours(480, 1080), place="inside")
    used = keep(find_uses(table(FlowRecord), table(Attribution), table(SocketRecord), processes, None, keep))
    called = keep(find_destinations(used, table(NameRecord), keep=keep))
    grouped = group_instances(instances)
    answerers = keep(find_answerers(table(FlowRecord), table(Attribution), find_applications(processes, keep)))
    seen = table(FlowRecord), table(SocketRecord), processes, table(NameRecord)
    watched = table(WireFlow), table(TranslationRecord), table(SegmentHeader)
    made = {
        "watched": join_watched(table(FlowRecord), *watched, keep, read)[0],
        "dependency": extract_dependencies(uses, instances),
        "service_trait": find_traits(uses, *seen),
        "dependency by evidence": weigh_dependencies(uses, table(ServiceTrait), read_shipped_scorecard()),
        "application_coverage": summarize_missed(processes, table(SegmentHeader), table(Gap)),
        "filtered": select_flows(table(FlowRecord), chosen, table(SegmentHeader)),
        "observed": measure_observation(table(SegmentHeader), chosen),
        "replica_set": find_replicas(used, called, keep),
        "links": find_links(uses, grouped, table(Dependency)),
        "continuations": find_continuations(uses, grouped, answerers),
        "members": count_members(grouped),
        "local_use": find_local_uses(uses, table(UnixConnectionRecord), processes),
        "parts": mark_parts(instances, find_applications(processes, keep)),
        "clocks": compare_clocks(table(SocketRecord), steps),
        "shifts": find_shifts(steps, {}),
        "hosts": summarize_hosts(table(SegmentHeader)),
        "gaps": summarize_gaps(table(Gap)),
        "ends": count_ends(table(FlowRecord), table(Attribution)),
        "unknown ends": count_unknown_ends(
            table(FlowRecord), table(Attribution), table(SocketRecord), table(SegmentHeader)
        ),
    }
    return made | held | profiles(keep)


def profiles(keep):
    """Expressions that `whoneeds profile` asks."""
    attempts = table(FlowRecord).mutate(
        app=ibis.literal("a"), host=ibis.literal("h"), pid=ibis.literal(1, "int64"), address=ibis.literal("10.0.0.1"),
        user=ibis.null("string"), failed=ibis._["end"] == "rejected",
    )  # fmt: skip
    attempts = keep(name_services(keep(attempts), table(Dependency)))
    days, settings = Slices(0, 10**9, 4), CausalSettings()
    usage, amounts = compare_usage(attempts, days, 2), compare_amounts(attempts, days, 2)
    return {
        "usage": measure_usage(attempts, by_user=True),
        "traffic": measure_traffic(attempts, table(FlowRecord), by_user=True),
        "failures": measure_failures_of(attempts, by_user=True),
        "slices": measure_slices(attempts, table(SegmentHeader), days),
        "orders": count_orders(select_timed(attempts, settings), settings),
        "timed": count_timed(attempts, settings),
        "bursts": find_bursts(attempts, 60, 0, 10**9),
        "failing": count_failing(attempts, 0, 10**9),
        "changed usage": keep_changed(usage),
        "changed amounts": keep_changed(amounts),
        "margins of usage": count_margins(usage),
        "margins of amounts": count_margins(amounts),
        "places": place_applications(attempts, own=list_own_addresses(table(SegmentHeader))),
        "spread": spread_services(table(Dependency)),
    }


@pytest.fixture(scope="module")
def line():
    """Every expression of the line by name."""
    return dict(expressions(FlowSettings(), None)) | rest_of_the_line()


class SparkOptions(Config):
    """What Ibis's engine for Spark, which is not installed here, sets of itself."""

    treat_nan_as_null: bool = False


@pytest.mark.parametrize("compiler", [DuckDBCompiler(), PySparkCompiler()], ids=["duckdb", "spark"])
def test_every_expression_translates(line, compiler, monkeypatch):
    """Every expression of the line becomes SQL of DuckDB and of Spark, by what the engines themselves use for it."""
    monkeypatch.setattr(ibis.options, "pyspark", SparkOptions())
    for name, expression in line.items():
        assert compiler.to_sqlglot(expression.unbind()).find(exp.Select), name


def test_nothing_is_asked_that_engines_answer_differently(line):
    """No expression takes Ibis's argmax or argmin, joins as of a time, or casts a broken number to a whole one."""
    found = []
    for name, expression in line.items():
        node = expression.op()
        found += [(name, type(one).__name__) for one in node.find((ops.ArgMax, ops.ArgMin))]
        found += [(name, "cast") for one in node.find(ops.Cast) if one.arg.dtype.is_floating() and one.to.is_integer()]
        found += [(name, "asof") for one in node.find(ops.JoinLink) if one.how == "asof"]
    assert found == []
