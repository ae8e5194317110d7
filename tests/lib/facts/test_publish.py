# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing: twice changes nothing, check mode tells what a run does, and refusing comes before writing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from facts_rows import build, busy_document, segment, use

from whoneeds.facts import store
from whoneeds.facts.publish import publish
from whoneeds.model.errors import FactsError


def everything(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, mode and inode of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_ino)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def places(folder: Path) -> dict[str, Path]:
    """Where a run publishes in this folder."""
    return {"out": folder / "facts.json", "overlay": folder / "overlay", "local": folder / "local"}


def test_publishing_twice_changes_nothing(tmp_path: Path) -> None:
    """The second run reports no change and touches no file, not even to write the same again."""
    first = publish(busy_document(), **places(tmp_path))
    before = everything(tmp_path)
    second = publish(busy_document(), **places(tmp_path), diff=True)
    assert first["changed"]
    assert first["hosts"] == 2
    assert sorted(before) == [
        "facts.json", "local/db1.fact", "local/web1.fact",
        "overlay/host_vars/db1.yml", "overlay/host_vars/web1.yml", "overlay/hosts.yml",
    ]  # fmt: skip
    assert not second["changed"]
    assert not any(file["changed"] for file in second["files"])
    assert second["diff"] == []
    assert everything(tmp_path) == before


def other_document() -> Any:
    """The busy document after something changed, appeared and vanished."""
    return build(service_uses=[use(resp_host="db1", flows=2), use(host="web2")], segments=[segment()])


@pytest.mark.parametrize("prune", [False, True])
def test_check_mode_tells_what_a_run_does(tmp_path: Path, prune: bool) -> None:
    """Check mode writes nothing, not even a folder, and reports what the run then reports, diffs included."""
    foreseen = publish(busy_document(), **places(tmp_path), check=True, diff=True)
    assert list(tmp_path.iterdir()) == []
    assert publish(busy_document(), **places(tmp_path), diff=True) == foreseen

    before = everything(tmp_path)
    foreseen = publish(other_document(), **places(tmp_path), check=True, diff=True, prune=prune)
    assert everything(tmp_path) == before
    assert publish(other_document(), **places(tmp_path), diff=True, prune=prune) == foreseen
    assert not publish(other_document(), **places(tmp_path), check=True, prune=prune)["changed"]


def test_a_diff_holds_the_files_before_and_after(tmp_path: Path) -> None:
    """The reported contents are those on the disk, and the headers say whether a file is new, changed or removed."""
    publish(busy_document(), **places(tmp_path))
    before = everything(tmp_path)
    done = publish(other_document(), **places(tmp_path), diff=True, prune=True)
    after = everything(tmp_path)
    seen = set()
    for entry in done["diff"]:
        path, _, kind = entry["after_header"].rpartition(" (")
        name = str(Path(path).relative_to(tmp_path))
        assert entry["before"].encode() == before.get(name, (b"",))[0]
        assert entry["after"].encode() == after.get(name, (b"",))[0]
        assert (name in after) == (kind == "new)")
        assert (name in before) == entry["before_header"].endswith("(now)")
        seen.add(name)
    assert seen == {name for name in {*before, *after} if before.get(name) != after.get(name)}


def test_nothing_is_written_if_any_of_it_is_refused(tmp_path: Path) -> None:
    """A local fact that is not ours stops the document and the overlay as well."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "web1.fact").write_text("theirs")
    with pytest.raises(FactsError, match="not ours"):
        publish(busy_document(), **places(tmp_path))
    assert list(everything(tmp_path)) == ["local/web1.fact"]


def test_an_empty_document_can_be_published(tmp_path: Path) -> None:
    """Where nothing was found yet, every form says so."""
    assert publish(build(), **places(tmp_path))["hosts"] == 0
    assert store.read(tmp_path / "facts.json")["hosts"] == {}


def test_a_document_that_is_none_is_not_published(tmp_path: Path) -> None:
    """What readers would refuse is refused before it is written."""
    document = busy_document()
    document["hosts"]["web1"]["runs"].append("x" * 300)
    with pytest.raises(FactsError, match=r"the document to be written.*runs"):
        publish(document, out=tmp_path / "facts.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beside", ["host_vars/", "group_vars/", "whoneeds.dependencies.yml", "dependencies.yaml"])
@pytest.mark.parametrize("what", ["out", "overlay", "local"])
def test_an_inventory_folder_is_no_place_for_facts(tmp_path: Path, beside: str, what: str) -> None:
    """Beside an inventory's own files, facts would be read as a source of hosts, so another place is asked for."""
    if beside.endswith("/"):
        (tmp_path / "inventory" / beside).mkdir(parents=True)
    else:
        (tmp_path / "inventory").mkdir()
        (tmp_path / "inventory" / beside).write_text("")
    chosen = {**places(tmp_path), what: tmp_path / "inventory" / places(tmp_path)[what].name}
    with pytest.raises(FactsError, match=r"outside inventory folders.*beside it; put it elsewhere.*\.whoneeds"):
        publish(busy_document(), **chosen)
    hidden = {**places(tmp_path), what: tmp_path / "inventory" / ".whoneeds" / places(tmp_path)[what].name}
    assert publish(busy_document(), **hidden)["changed"]


@pytest.mark.parametrize("what", ["out", "local"])
def test_facts_do_not_lie_within_the_overlay(tmp_path: Path, what: str) -> None:
    """The overlay is an inventory folder itself, so neither document nor local facts go into it."""
    chosen = {**places(tmp_path), what: tmp_path / "overlay" / "deep" / "facts.json"}
    with pytest.raises(FactsError, match=r"outside the overlay.*put it beside the overlay"):
        publish(busy_document(), **chosen)
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_and_dots_are_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place within the overlay is refused however it is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FactsError, match="outside the overlay"):
        publish(busy_document(), out=Path("a/../overlay/facts.json"), overlay=Path("overlay"))
    (tmp_path / "link").symlink_to("overlay")
    with pytest.raises(FactsError, match="outside the overlay"):
        publish(busy_document(), out=Path("link/facts.json"), overlay=Path("overlay"))


def test_equal_facts_do_not_depend_on_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with another umask and locale writes the same bytes and modes."""
    publish(busy_document(), **places(tmp_path / "a"))
    monkeypatch.setenv("LC_ALL", "C")
    before = os.umask(0o077)
    try:
        publish(busy_document(), **places(tmp_path / "b"))
    finally:
        os.umask(before)
    first, second = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert {name: entry[:2] for name, entry in first.items()} == {name: entry[:2] for name, entry in second.items()}
    assert json.loads(first["facts.json"][0])["schema"] == 1
