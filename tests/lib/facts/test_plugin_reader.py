# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin's own reader, which knows the document without the library, agrees with the library."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from facts_rows import USES, build, busy_document, use
from hypothesis import given

from whoneeds.facts import document as library
from whoneeds.facts import groups, store
from whoneeds.facts.shortening import SECTION_LIMIT
from whoneeds.model.conclusions import Dependent, HostCoverage, Need, Provision
from whoneeds.model.schema import columns

PLUGIN = Path(__file__).parents[3] / "plugins" / "plugin_utils" / "_facts_document.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plugin_facts_document", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reader = _load()


def test_the_reader_knows_the_same_records() -> None:
    """Fields, types, group names, schema and limits of the reader are those of the library."""
    types = {"string": "text", "int64": "int", "float64": "float", "bool": "bool", "string[]": "texts"}
    known_fields = (reader.NEED, reader.DEPENDENT, reader.PROVISION, reader.COVERAGE)
    for record, known in zip((Need, Dependent, Provision, HostCoverage), known_fields, strict=True):
        assert known == {
            column.name: types[column.type] + ("?" if column.nullable else "") for column in columns(record)
        }
    assert set(reader.RECORDS) == set(store.RECORD_SECTIONS)
    assert set(reader.TEXTS) == set(store.TEXT_SECTIONS)
    assert groups.GROUP_NAME.pattern == reader.GROUP_NAME.pattern
    assert (reader.SCHEMA, reader.KIND) == (library.FACTS_SCHEMA, library.FACTS_KIND)
    assert reader.SIZE_LIMIT_BYTES == store.STORE_LIMIT_BYTES
    assert reader.LIST_LIMIT > SECTION_LIMIT


@given(USES)
def test_the_reader_reads_what_the_library_writes(uses: Any) -> None:
    """Both read the same facts of each host."""
    text = store.render(build(service_uses=uses))
    taken = {host: reader._check_facts(facts, host) for host, facts in json.loads(text)["hosts"].items()}
    assert taken == json.loads(text)["hosts"]


def test_where_there_is_no_document_there_is_none(tmp_path: Path) -> None:
    """A document that is not there yet is no error of the reader."""
    assert reader.read_document(str(tmp_path / "facts.json")) is None


def test_a_host_in_very_many_groups_is_read(tmp_path: Path) -> None:
    """A host that needs more others than a list may hold is in the group of each."""
    uses = [use(resp_host=f"node{number}") for number in range(reader.LIST_LIMIT + 10)]
    path = tmp_path / "facts.json"
    path.write_text(store.render(build(service_uses=uses)))
    assert len(reader.read_document(str(path))["web1"]["groups"]) == reader.LIST_LIMIT + 10


def damaged(**changes: Any) -> Any:
    """The busy document with other facts of web1."""
    document = json.loads(store.render(busy_document()))
    document["hosts"]["web1"].update(changes)
    return document


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "expected a JSON object"),
        ({}, "kind: expected whoneeds-facts, found None"),
        ({**damaged(), "schema": 2}, "schema: expected 1, found 2"),
        ({**damaged(), "schema": True}, "schema: expected 1, found True"),
        ({**damaged(), "hosts": []}, "hosts: expected a JSON object"),
        ({**damaged(), "hosts": {"x\n": 1}}, r"'x\\n': expected a JSON object, found 1"),
        (damaged(runs=["x" * 5000]), "runs: expected texts"),
        (damaged(runs=["x"] * 5000), "runs: expected texts"),
        (damaged(groups=["whoneeds_runs_x\n"]), "groups: expected names that begin with whoneeds_"),
        (damaged(groups=["all"]), "groups: expected names that begin with whoneeds_, found 'all'"),
        (damaged(needs=[{}]), "needs: app: expected text, found None"),
        (damaged(needs=None), "needs: expected a list of objects, found None"),
        (damaged(coverage=[]), r"coverage: expected a JSON object, found \[\]"),
        (damaged(coverage={"segments": True}), "segments: expected int, found True"),
    ],
)
def test_the_reader_refuses_damage(tmp_path: Path, document: Any, told: str) -> None:
    """Each damage is refused with its place, what was expected, what was found and what to do."""
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(document))
    with pytest.raises(reader.DamagedDocument, match=f"{told}.*; publish"):
        reader.read_document(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b'"\xff"', b'{"a": Infinity}', b"[" * 100_000])
def test_the_reader_refuses_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no JSON are refused as such."""
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(reader.DamagedDocument, match="expected JSON, found"):
        reader.read_document(str(path))


def test_the_reader_refuses_what_is_no_plain_file(tmp_path: Path) -> None:
    """A folder is refused, and a file beyond the limit is refused before it is read."""
    with pytest.raises(reader.DamagedDocument, match="expected a plain file, found a folder; check the option store"):
        reader.read_document(str(tmp_path))
    path = tmp_path / "facts.json"
    with path.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(reader.DamagedDocument, match=f"expected at most {reader.SIZE_LIMIT_BYTES} bytes"):
        reader.read_document(str(path))


def test_unknown_fields_are_not_taken_over(tmp_path: Path) -> None:
    """Only known fields reach Ansible, and half characters become visible ones."""
    document = damaged(ansible_host="evil", runs=["caf\udce9"])
    document["hosts"]["web1"]["needs"][0]["ansible_user"] = "root"
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(document))
    facts = reader.read_document(str(path))["web1"]
    assert "ansible_" not in json.dumps(facts)
    assert facts["runs"] == ["caf\\udce9"]
