# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlay and the local facts: the same content as the document, in a folder of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from facts_rows import USES, build, busy_document, segment, use
from hypothesis import given

from whoneeds.facts import local, overlay
from whoneeds.facts.files import apply_change
from whoneeds.facts.publish import publish
from whoneeds.model.errors import FactsError


def write(document: Any, folder: Path, **options: Any) -> None:
    """Write the overlay."""
    for change in overlay.plan(document, folder, **options):
        apply_change(change)


@given(USES)
def test_the_overlay_says_what_the_document_says(uses: Any) -> None:
    """Each host's file reads back as its facts, and the hosts file gives each host exactly its groups."""
    document = build(service_uses=uses, segments=[segment()])
    for facts in document["hosts"].values():
        expected = {name: value for name, value in facts.items() if name != "groups"}
        assert overlay.load_tagged(overlay.render_host(facts)) == {"whoneeds": json.loads(json.dumps(expected))}
    loaded = yaml.safe_load(overlay.render_hosts(document))["all"]
    assert sorted(loaded["hosts"]) == sorted(document["hosts"])
    members = {(group, host) for group, there in (loaded["children"] or {}).items() for host in there["hosts"]}
    assert members == {(group, host) for host, facts in document["hosts"].items() for group in facts["groups"]}


@pytest.mark.parametrize("host", ["1e3", "no", "0x1f", "2001-01-01", "null", "1", "1.5", "12:30".replace(":", "-")])
def test_a_host_called_like_a_number_or_a_word_stays_a_host(tmp_path: Path, host: str) -> None:
    """Names that YAML would take for something else are hosts in the overlay."""
    document = build(segments=[segment(host=host)], service_uses=[use(host=host, resp_host="db1")])
    write(document, tmp_path / "overlay")
    loaded = yaml.safe_load((tmp_path / "overlay" / "hosts.yml").read_text())["all"]
    assert list(loaded["hosts"]) == [host]
    assert list(loaded["children"]["whoneeds_needs_db1"]["hosts"]) == [host]
    assert (tmp_path / "overlay" / "host_vars" / f"{host}.yml").is_file()


def test_no_name_is_one_that_ansible_heeds() -> None:
    """The one variable of a host is ours, and no key within it is one by which Ansible connects."""
    text = overlay.render_host(busy_document()["hosts"]["web1"])
    assert list(overlay.load_tagged(text)) == ["whoneeds"]
    assert "ansible_" not in text


def test_a_group_called_like_a_host_is_refused() -> None:
    """Patterns would be ambiguous where a group has a host's name, so the overlay is refused with what to do."""
    document = build(service_uses=[use(resp_host="db1")], segments=[segment(host="whoneeds_needs_db1")])
    with pytest.raises(FactsError, match="a name that no host has; found whoneeds_needs_db1; rename the host"):
        overlay.render_hosts(document)


@pytest.mark.parametrize(
    "theirs",
    [
        "hosts", "hosts.ini", "group_vars/all.yml", "host_vars/web1.yaml", "host_vars/web1.json", "host_vars/web1",
        "host_vars/web1/main.yml", "host_vars/web1.yml", "hosts.yml", "README.md",
    ],
)  # fmt: skip
def test_a_folder_with_other_files_is_not_taken_over(tmp_path: Path, theirs: str) -> None:
    """Where the folder holds anything that is not ours nothing is written, since a file of ours could hide theirs."""
    path = tmp_path / "overlay" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("colour: blue\n")
    with pytest.raises(FactsError, match=r"is not ours to change.*choose another folder"):
        publish(busy_document(), out=tmp_path / "facts.json", overlay=tmp_path / "overlay")
    assert [there for there in tmp_path.rglob("*") if there.is_file()] == [path]
    assert path.read_text() == "colour: blue\n"


def test_dot_files_in_the_overlay_are_left_alone(tmp_path: Path) -> None:
    """An overlay that is kept under version control may have its hidden files."""
    (tmp_path / "overlay" / ".git").mkdir(parents=True)
    (tmp_path / "overlay" / ".gitignore").write_text("")
    write(busy_document(), tmp_path / "overlay")
    assert (tmp_path / "overlay" / ".git").is_dir()


def test_an_overlay_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """A file in the place of the overlay is refused with what to do."""
    (tmp_path / "overlay").write_text("")
    with pytest.raises(FactsError, match="expected a folder; found Not a directory; choose another folder"):
        overlay.plan(busy_document(), tmp_path / "overlay")


def test_hosts_that_vanished_are_removed_only_when_asked(tmp_path: Path) -> None:
    """A host that is no longer in the document keeps its file until pruning is asked for."""
    write(busy_document(), tmp_path)
    smaller = build(segments=[segment()])
    write(smaller, tmp_path)
    assert sorted(path.name for path in (tmp_path / "host_vars").iterdir()) == ["db1.yml", "web1.yml"]
    assert "db1" not in (tmp_path / "hosts.yml").read_text()
    write(smaller, tmp_path, prune=True)
    assert sorted(path.name for path in (tmp_path / "host_vars").iterdir()) == ["web1.yml"]


def test_a_file_that_reads_back_otherwise_is_refused(tmp_path: Path) -> None:
    """What a reader would read as something else does not take its place."""
    facts = busy_document()["hosts"]["web1"]
    path = tmp_path / "web1.yml"
    path.write_text(overlay.render_host(facts))
    overlay.verify_host(path, facts)
    path.write_text(overlay.render_host(facts).replace('"nginx"', '"nginx2"'))
    with pytest.raises(FactsError, match="expected the facts that were written; found others when read back"):
        overlay.verify_host(path, facts)
    with pytest.raises(FactsError, match="expected the bytes that were written"):
        overlay.verify(path, overlay.render_host(facts))


def test_the_local_fact_is_one_hosts_share(tmp_path: Path) -> None:
    """Each host's file holds its own facts and no other host's, with schema and kind."""
    document = busy_document()
    for change in local.plan(document, tmp_path):
        apply_change(change)
    content = json.loads((tmp_path / "web1.fact").read_text())
    assert content == {**document["hosts"]["web1"], "schema": 1, "kind": "whoneeds-local-fact"}
    with pytest.raises(FactsError, match="expected a host of the facts document; found 'other'"):
        local.render(document, "other")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b'{"a": 1}', b"\xff\xfe", b'# "kind": "whoneeds-local-fact"'])
def test_a_local_fact_that_is_not_ours_stays(tmp_path: Path, content: bytes) -> None:
    """Another program's fact, or bytes that are no text, are not overwritten."""
    (tmp_path / "web1.fact").write_bytes(content)
    with pytest.raises(FactsError, match="is not ours to change"):
        local.plan(busy_document(), tmp_path)
    assert (tmp_path / "web1.fact").read_bytes() == content
