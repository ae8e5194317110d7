# SPDX-License-Identifier: GPL-3.0-or-later
"""The Macroscope rule: by hand, against an oracle, and by its properties."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import ibis
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from macroscope_oracle import dependencies
from uses import USES, instances_of, use

from whoneeds.analysis.macroscope import Thresholds, extract_dependencies
from whoneeds.model.conclusions import ApplicationInstance, Dependency, ServiceUse
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import columns, from_mapping

FIXTURE = yaml.safe_load((Path(__file__).parent / "fixtures" / "hand_computed.yml").read_text())
# A run takes a quarter of a second, nearly all of it planning.
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(MANY, max_examples=10)


def by_hand() -> list[ServiceUse]:
    """The uses of the hand-computed example."""
    rows = []
    for entry in FIXTURE["uses"]:
        first, last = entry["pids"]
        plain = {key: value for key, value in entry.items() if key not in ("pids", "port_step")}
        for at, pid in enumerate(range(first, last + 1), start=1):
            user = next(name for name, until in FIXTURE["users"][entry["app"]].items() if pid <= until)
            port = entry["port"] + at * entry.get("port_step", 0)
            rows.append(use(**{**plain, "pid": pid, "user": user, "port": port}))
    return rows


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells two rows of a result apart, in a form that sorts."""
    names = ("level", "app", "host", "pid", "address", "protocol", "port", "resp_addr", "resp_host")
    return tuple((row[name] is not None, row[name] or 0) for name in names)


def test_hand_computed_example(extract):
    """The small population of the fixture comes out as computed by hand there."""
    uses = by_hand()
    found = {
        (row["app"], row["protocol"], row["port"]): row
        for row in extract(uses, instances_of(uses))
        if row["level"] == 1
    }
    wanted = [list(row) for row in FIXTURE["level_1"]]
    lone_port = next(row for row in wanted if row[2] == 9999)
    first, last = FIXTURE["transient_ports"]
    wanted += [[*lone_port[:2], port, *lone_port[3:]] for port in range(first, last + 1)]
    assert len(found) == len(wanted)
    for app, protocol, port, kind, reason, support, population, users, usage_share, adjusted_share in wanted:
        row = found[(app, protocol, port)]
        assert (row["kind"], row["reason"], row["support"], row["population"], row["users"]) == (
            kind, reason, support, population, users,
        )  # fmt: skip
        assert row["usage_share"] == pytest.approx(usage_share, abs=1e-6)
        assert row["adjusted_share"] == pytest.approx(adjusted_share, abs=1e-6)


def test_levels_of_the_example(extract):
    """Finer levels carry the kind of the service, the host of its instance and their own flows."""
    uses = by_hand()
    rows = [row for row in extract(uses, instances_of(uses)) if row["app"] == "web" and row["port"] == 5432]
    assert {level: sum(row["level"] == level for row in rows) for level in (1, 2, 3, 4)} == {1: 1, 2: 1, 3: 4, 4: 4}
    assert {(row["kind"], row["support"], row["population"], row["usage_share"]) for row in rows} == {
        ("static", 4, 4, 1.0)
    }
    by_level = {row["level"]: row for row in rows}
    assert (by_level[1]["flows"], by_level[4]["flows"]) == (8, 2)
    assert (by_level[1]["resp_host"], by_level[2]["resp_host"], by_level[4]["resp_host"]) == (None, "db1", "db1")
    assert (by_level[1]["pid"], by_level[3]["host"], by_level[3]["resp_addr"]) == (None, "h", None)
    assert {row["resp_app"] for row in rows} == {"postgres"}


def test_spread_equal_to_the_bound_is_not_below_it(extract):
    """An application whose M equals T (N - 1) exactly goes on to step 2."""
    uses = [use(pid=pid, port=40000 + pid) for pid in (1, 2, 3)]
    rows = extract(uses, instances_of(uses), Thresholds(transient_share=1.0))
    assert {row["reason"] for row in rows} == {"shared"}
    uses.append(use(pid=3, port=40001))
    rows = extract(uses, instances_of(uses), Thresholds(transient_share=1.0))
    assert {row["reason"] for row in rows} == {"all_static"}


def test_share_equal_to_the_threshold_is_enough(extract):
    """Ten per cent of users and instances is enough, and one instance more in the population is too much."""
    uses = [use(pid=pid, user=f"h/{pid}", port=40000 + pid) for pid in range(1, 11)]
    assert {row["reason"] for row in extract(uses, instances_of(uses))} == {"shared"}
    uses.append(use(pid=11, user="h/11", port=40011))
    assert {row["reason"] for row in extract(uses, instances_of(uses))} == {"not_shared"}


def test_one_busy_user_is_not_enough(extract):
    """Half of the instances do not make a service static if they all belong to one user of twenty."""
    uses = [use(pid=pid, user="h/1", port=50000) for pid in range(1, 21)]
    uses += [use(pid=100 + at, user=f"h/{at}", port=40000 + at) for at in range(2, 21)]
    row = next(row for row in extract(uses, instances_of(uses)) if row["level"] == 1 and row["port"] == 50000)
    assert (row["kind"], row["users"], row["usage_share"]) == ("transient", 1, pytest.approx(20 / 39))


def test_a_user_that_is_not_known_is_no_user(extract):
    """Instances of unknown users add nobody to the users, and where none is known the instances alone decide."""
    uses = [use(pid=pid, user="h/1" if pid == 1 else None, port=50000) for pid in (1, 2, 3)]
    (row,) = [row for row in extract(uses, instances_of(uses)) if row["level"] == 1]
    assert (row["users"], row["support"]) == (1, 3)
    uses = [use(pid=pid, user=None, port=50000 + pid % 2) for pid in range(1, 5)]
    rows = [row for row in extract(uses, instances_of(uses), Thresholds(transient_share=0)) if row["level"] == 1]
    assert {(row["users"], row["kind"], row["reason"]) for row in rows} == {(None, "static", "shared")}


def test_idle_instances_count_in_the_population(extract):
    """An instance without any use counts in the population."""
    uses = [use(pid=1), use(pid=2)]
    idle = replace(instances_of(uses)[0], pid=3)
    rows = extract(uses, [*instances_of(uses), idle])
    assert {(row["support"], row["population"]) for row in rows} == {(2, 3)}


def test_same_pid_on_the_same_address_of_two_hosts_is_two_instances(extract):
    """Loopback addresses and pids repeat from host to host without making one instance of two."""
    uses = [use(host=host, address="127.0.0.1", resp_addr="127.0.0.1", resp_host=host) for host in ("a", "b")]
    rows = extract(uses, instances_of(uses))
    assert {row["population"] for row in rows} == {2}
    assert sorted(row["resp_host"] for row in rows if row["level"] == 2) == ["a", "b"]


def test_providers_on_loopback_are_those_of_their_own_namespace(extract):
    """The same port on the loopback address of two namespaces of one host names each user's own provider."""
    same = {"resp_addr": "127.0.0.1", "resp_host": "h", "port": 7000}
    uses = [use(app=app, pid=pid, resp_app=app, **same) for pid, app in enumerate(("alpha", "beta"), 1)]
    uses.append(use(app="gamma", pid=3, resp_app=None, **same))
    rows = [row for row in extract(uses, instances_of(uses)) if row["level"] == 4]
    assert {(row["app"], row["resp_app"]) for row in rows} == {("alpha", "alpha"), ("beta", "beta"), ("gamma", None)}


def test_providers_that_disagree_are_not_named(extract):
    """A service instance that two observers name differently has no name, and a service has one only if all have it."""
    uses = [
        use(pid=1, resp_addr="10.0.0.5", resp_app="postgres"),
        use(pid=2, resp_addr="10.0.0.6", resp_app="postgres"),
        use(pid=3, resp_addr="10.0.0.6", resp_app="pgbouncer"),
        use(pid=4, resp_addr="10.0.0.5", resp_app=None),
    ]
    rows = extract(uses, instances_of(uses))
    names = {row["resp_addr"]: row["resp_app"] for row in rows if row["level"] in (1, 2)}
    assert names == {None: None, "10.0.0.5": "postgres", "10.0.0.6": None}


@pytest.mark.parametrize(
    ("flows", "samples", "duration_s", "adjusted"),
    [
        (4, 4, 5.0, 0.25 * 4),  # d = 1.25 s, p_d = 0.25
        (4, 4, 10.0, 0.25 * 2),  # d = 2.5 s, p_d = 0.5
        (1, 1, 1.25, 0.25),  # one sample
        (4, 4, 0.0, 0.25),  # seen once each, with no duration: not known
        (4, 4, 20.0, 0.25),  # d = W
        (4, 5, 0.0, 0.25 * math.log(5)),  # d = W / ln(1.25 / 0.25)
        (4, 8, 0.0, 0.25 * math.log(2)),  # d = W / ln 2 > W: not adjusted
        (4, 4, 1.0, 1.0),  # 0.25 x 20, at most 1
    ],
)
def test_adjustment_for_sampling(extract, flows, samples, duration_s, adjusted):
    """The share is raised by W / d where d is shorter than W, known, and seen in several samples."""
    uses = [use(pid=1, flows=flows, samples=samples, duration_s=duration_s)]
    everyone = [replace(instances_of(uses)[0], pid=pid) for pid in (1, 2, 3, 4)]
    row = extract(uses, everyone)[0]
    assert row["usage_share"] == 0.25
    assert row["adjusted_share"] == pytest.approx(max(adjusted, 0.25))


def test_estimate_of_mean_duration_on_simulated_sampling(extract):
    """From counts alone, memoryless connections of mean 2 s sampled every 5 s are boosted by about 5 / 2."""
    chance = random.Random(7)
    flows = samples = 0
    observed_s = 0.0
    for _ in range(40_000):
        begin, lasts = chance.uniform(0, 5), chance.expovariate(1 / 2.0)
        seen = math.floor((begin + lasts) / 5)
        flows, samples, observed_s = flows + (seen > 0), samples + seen, observed_s + 5.0 * max(0, seen - 1)
    uses = [use(pid=1, flows=flows, samples=samples, duration_s=observed_s)]
    row = extract(uses, [replace(instances_of(uses)[0], pid=pid) for pid in range(1, 101)])[0]
    assert row["adjusted_share"] == pytest.approx(0.01 * 5 / 2, rel=0.05)


def test_nothing_in_nothing_out(extract):
    """Empty tables give no dependencies."""
    assert extract([], []) == []


# Each is translated once, which takes longer than dozens of runs.
THRESHOLDS = st.sampled_from(
    [
        Thresholds(),
        Thresholds(transient_share=0.5, users_share=0.34, adjusted_from_samples=5),
        Thresholds(transient_share=0.0, instances_share=0.34, adjusted_from_samples=1, well_known_below=1),
        Thresholds(transient_share=1.0, users_share=1.0, instances_share=1.0),
    ]
)


@given(uses=USES, idle=st.integers(0, 3), thresholds=THRESHOLDS)
@MANY
def test_equals_the_oracle(extract, uses, idle, thresholds):
    """On any uses the set-wise method and the loops of the oracle agree in every column at every level."""
    everyone = instances_of(uses)
    everyone += [replace(everyone[0], pid=100 + at) for at in range(idle)]
    found = sorted(extract(uses, everyone, thresholds), key=key_of)
    wanted = sorted(dependencies(uses, everyone, thresholds), key=key_of)
    assert [key_of(row) for row in found] == [key_of(row) for row in wanted]
    for row, right in zip(found, wanted, strict=True):
        assert {**row, "adjusted_share": None} == {**right, "adjusted_share": None}
        assert row["adjusted_share"] == pytest.approx(right["adjusted_share"], rel=1e-12)


@given(uses=USES, seed=st.integers(0, 99))
@FEW
def test_order_of_rows_does_not_matter(extract, uses, seed):
    """Shuffled rows give the same dependencies."""
    shuffled = list(uses)
    random.Random(seed).shuffle(shuffled)
    everyone = instances_of(uses)
    assert sorted(extract(uses, everyone), key=key_of) == sorted(extract(shuffled, everyone[::-1]), key=key_of)


@given(uses=USES, other=USES)
@FEW
def test_other_applications_change_nothing(extract, uses, other):
    """What another application does on other services changes no row of the first."""
    others = [replace(row, app="other", resp_addr="10.9.9.9") for row in other]
    alone = extract(uses, instances_of(uses))
    beside = extract([*uses, *others], instances_of([*uses, *others]))
    assert sorted(alone, key=key_of) == sorted((row for row in beside if row["app"] != "other"), key=key_of)


@given(uses=USES)
@FEW
def test_rows_are_records(extract, uses):
    """Every row is a legal record whose shares lie in [0, 1] and whose adjustment never lowers a share."""
    for row in extract(uses, instances_of(uses)):
        record = from_mapping(Dependency, row)
        assert 0 < record.usage_share <= record.adjusted_share <= 1
        assert 0 < record.support <= record.population


@pytest.mark.parametrize(
    "wrong",
    [
        {"transient_share": 1.5}, {"users_share": -0.1}, {"instances_share": float("nan")}, {"users_share": "0.1"},
        {"instances_share": True}, {"well_known_below": 70000}, {"well_known_below": 1024.0},
        {"adjusted_from_samples": 0},
    ],
)  # fmt: skip
def test_wrong_thresholds_are_refused(wrong):
    """A threshold of the wrong type or range is refused with what was expected, what was found and what to do."""
    with pytest.raises(SettingsError, match="leave it out") as refused:
        Thresholds(**wrong)
    assert next(iter(wrong)) in refused.value.message
    assert refused.value.expected is not None
    assert refused.value.found is not None


@pytest.mark.parametrize("dialect", ["duckdb", "clickhouse", "trino", "bigquery", "databricks", "postgres"])
def test_other_engines_can_be_asked(dialect):
    """The method translates to the SQL of engines other than the default one."""
    tables = (
        ibis.table({column.name: column.type for column in columns(record)}, name=record.__name__)
        for record in (ServiceUse, ApplicationInstance)
    )
    assert "GROUP BY" in ibis.to_sql(extract_dependencies(*tables), dialect=dialect)
