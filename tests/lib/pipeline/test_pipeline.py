# SPDX-License-Identifier: GPL-3.0-or-later
"""The line as a whole, on a shop whose dependencies are written down."""

import inspect
import re
import shutil
from pathlib import Path

import pytest
from shop import TRUTH, build_shop, collect, edges

from whoneeds import pipeline, sources
from whoneeds.analysis.filters import Filters
from whoneeds.model.conclusions import ApplicationInstance, Attribution, Dependency, LocalUse, ServiceTrait, ServiceUse
from whoneeds.model.destinations import Destination, ReplicaSet
from whoneeds.model.errors import StoreError
from whoneeds.model.evidence import FlowRecord
from whoneeds.model.schema import table_name
from whoneeds.store.session import open_store

ARROWS = ("ingest", "flows", "attribute", "instances", "dependencies", "facts")
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A store that holds the shop's whole line, and the steps that were told."""
    folder = tmp_path_factory.mktemp("shop")
    incoming = collect(build_shop(), folder / "incoming")
    told = []
    with open_store(folder / "store", create=True, write=True) as store:
        pipeline.run_line(store, [incoming], tell=told.append)
    return folder, told


def test_dependencies_are_the_declared_ones(walked):
    """Exactly the declared dependencies come out, each with both programs, and all static."""
    with open_store(walked[0] / "store") as store:
        rows = [row for row in store.rows(Dependency) if row["level"] == 4]
    assert edges(rows) == TRUTH
    assert {row["kind"] for row in rows} == {"static"}
    database = next(row for row in rows if row["port"] == 5432)
    assert (database["orig_bytes"], database["resp_bytes"], database["flows"]) == (700, 90_000, 1)


def test_one_process_is_one_instance(walked):
    """A process with connections over loopback and over the network is one instance."""
    with open_store(walked[0] / "store") as store:
        rows = [row for row in store.rows(Dependency) if row["app"] == "api" and row["level"] == 1]
    assert {(row["support"], row["population"]) for row in rows} == {(1, 1)}
    assert len(rows) == 3


def test_steps_are_told_in_order(walked):
    """Each step is told once, in order, with the tables that it wrote."""
    assert [step.name for step in walked[1]] == ["ingest", "flows", "attribute", "instances", "dependencies"]
    tables = [table for step in walked[1] for table in step.rows]
    named = (Destination, ReplicaSet)
    derived = (FlowRecord, Attribution, ApplicationInstance, ServiceUse, *named, ServiceTrait, LocalUse, Dependency)
    assert tables == ["segment", *(table_name(record) for record in derived)]
    empty = {table for step in walked[1] for table in step.rows if not step.rows[table]}
    assert empty == {table_name(ReplicaSet)}


def test_evidence_goes_to_the_facts(walked, tmp_path):
    """Analysed by evidence, the facts say how probable each need is and on what grounds; by the rule they do not."""
    shutil.copytree(walked[0] / "store", tmp_path / "store")
    with open_store(tmp_path / "store", write=True) as store:
        by_rule = pipeline.facts(store)
        pipeline.dependencies(store, method="evidence")
        weighed = pipeline.facts(store)
    assert (by_rule["method"], weighed["method"]) == ("macroscope", "evidence")
    before, after = (
        [need for host in document["hosts"].values() for need in host["needs"]] for document in (by_rule, weighed)
    )
    assert len(before) == len(after) > 3
    assert {(need["probability"], need["grounds"]) for need in before} == {(None, None)}
    assert all(0 < need["probability"] < 1 and need["grounds"] for need in after)


def test_walking_again_changes_nothing(walked):
    """The same segments a second time leave every file of the store as it was."""
    folder, _ = walked
    before = {path: path.read_bytes() for path in sorted((folder / "store").rglob("*")) if path.is_file()}
    with open_store(folder / "store", write=True) as store:
        walk = pipeline.run_line(store, [folder / "incoming"])
    after = {path: path.read_bytes() for path in sorted((folder / "store").rglob("*")) if path.is_file()}
    assert (len(walk.taken_in.taken), len(walk.taken_in.known)) == (0, 3)
    assert before == after


def test_facts_speak_of_every_host(walked):
    """The facts document names each host, what it needs, and who needs it."""
    with open_store(walked[0] / "store") as store:
        document = pipeline.facts(store)
    hosts = document["hosts"]
    assert sorted(hosts) == ["app1", "db1", "web1"]
    assert [need["host"] for need in hosts["web1"]["needs"]] == ["app1"]
    assert [(entry["host"], entry["app"]) for entry in hosts["db1"]["needed_by"]] == [("app1", "api")]
    assert {(entry["app"], entry["port"]) for entry in hosts["app1"]["provides"]} >= {("api", 8080), ("redis", 6379)}
    assert any("sockets of other users" in gap for gap in hosts["db1"]["coverage"]["gaps"])


def test_location(tmp_path):
    """What a host saw elsewhere than inside counts only when it is asked for."""
    shop = build_shop()
    header, tables = shop[0].segments[0]
    shop[0].segments[0] = (type(header)(**{**vars(header), "location": "vpn"}), tables)
    incoming = collect(shop, tmp_path / "incoming")
    abroad, found = ("nginx", "web1", "api", "app1", "tcp", 8080), {}
    with open_store(tmp_path / "store", create=True, write=True) as store:
        pipeline.run_line(store, [incoming])
        found[None] = abroad in edges([row for row in store.rows(Dependency) if row["level"] == 4])
        for location in ("inside", "vpn", "all"):
            made = sources.find_dependencies(store, Filters(location))
            found[location] = abroad in edges(store.read(made.filter(made.level == 4)).to_pylist())
    assert found == {None: False, "inside": False, "vpn": True, "all": True}


@pytest.mark.parametrize("arrow", ["attribute", "instances", "dependencies", "facts"])
def test_arrows_refuse_what_was_not_made(tmp_path, arrow):
    """An arrow whose tables were never made says which verb makes them, instead of finding nothing."""
    with (
        open_store(tmp_path / "store", create=True, write=True) as store,
        pytest.raises(StoreError, match=r"run whoneeds (attribute|analyze) --store"),
    ):
        getattr(pipeline, arrow)(store)


def test_observation_without_connections(tmp_path):
    """Hosts on which nothing was connected give empty tables and facts that still name them."""
    shop = build_shop()
    for host in shop:
        host.segments[0] = (host.segments[0][0], {})
    incoming = collect(shop, tmp_path / "incoming")
    with open_store(tmp_path / "store", create=True, write=True) as store:
        walk = pipeline.run_line(store, [incoming])
        document = pipeline.facts(store)
    assert [sum(step.rows.values()) for step in walk.steps] == [3, 0, 0, 0, 0]
    assert {host: facts["needs"] for host, facts in document["hosts"].items()} == {"app1": [], "db1": [], "web1": []}


def test_page_tells_the_arrows():
    """The page about the line has one section for each arrow, in the order of the module's functions."""
    told = re.findall(r"^## .*`(\w+)`", (DOCS / "pipeline.md").read_text(), re.MULTILINE)
    lines = {name: inspect.getsourcelines(getattr(pipeline, name))[1] for name in ARROWS}
    assert tuple(sorted(lines, key=lines.__getitem__)) == ARROWS
    assert tuple(told) == ARROWS
