# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that walk the line: what they change, what they say, and how they end."""

import json
import shutil

import pytest
from shop import TRUTH, build_shop, collect, edges


def contents(folder):
    """Every file below a folder with its bytes, the lock left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture
def incoming(tmp_path):
    """The shop's segments, to be damaged."""
    return collect(build_shop(), tmp_path / "incoming")


def damage(incoming):
    """Flip one bit of one segment of web1; its path."""
    path = next((incoming / "web1").glob("*.seg"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_verbs_one_by_one_make_what_run_makes(whoneeds, shop, tmp_path):
    """Ingest, attribute and analyze one after the other make the very store that run makes."""
    store = tmp_path / "store"
    for words in (("ingest", shop / "incoming"), ("attribute",), ("analyze",)):
        done = whoneeds(*words, "--store", store)
        assert (done.code, done.out) == (0, "")
    assert contents(store) == contents(shop / "store")


def test_run_summarizes(whoneeds, shop, tmp_path):
    """The summary of run says in JSON what changed, what was taken in, and what each step wrote."""
    first = whoneeds("run", "--from", shop / "incoming", "--store", tmp_path / "store", "--format", "json")
    summary = json.loads(first.out)
    assert (first.code, summary["changed"], summary["complete"], summary["taken"]) == (0, True, True, 3)
    assert [step["step"] for step in summary["steps"]] == ["ingest", "flows", "attribute", "instances", "dependencies"]
    assert "Seen: 3 hosts" in summary["statement"][0]
    second = whoneeds("run", "--from", shop / "incoming", "--store", tmp_path / "store", "--format", "json")
    again = json.loads(second.out)
    assert (second.code, again["changed"], again["taken"], again["known"]) == (0, False, 0, 3)


def test_check_foresees_and_changes_nothing(whoneeds, shop, tmp_path):
    """With --check, run says what it would change, leaves everything as it is, and foresees rightly."""
    store, document = tmp_path / "store", tmp_path / "facts.json"
    words = ("run", "--from", shop / "incoming", "--store", store, "--facts", document, "--format", "json")
    foreseen = whoneeds(*words, "--check")
    assert (foreseen.code, json.loads(foreseen.out)["changed"]) == (0, True)
    assert list(tmp_path.iterdir()) == []
    assert json.loads(whoneeds(*words).out)["changed"] is True
    before = contents(tmp_path)
    assert json.loads(whoneeds(*words, "--check").out)["changed"] is False
    stricter = whoneeds(*words, "--check", "--location", "vpn")
    assert json.loads(stricter.out)["changed"] is True
    assert contents(tmp_path) == before


def test_damaged_segment_is_put_away_and_the_others_go_on(whoneeds, incoming, tmp_path):
    """A segment with one flipped bit is named and quarantined, the other hosts are analysed, and the end is code 4."""
    damage(incoming)
    done = whoneeds("run", "--from", incoming, "--store", tmp_path / "store", "--format", "json")
    summary = json.loads(done.out)
    assert (done.code, summary["complete"], summary["taken"]) == (4, False, 2)
    assert [(entry["host"], entry["reason"]) for entry in summary["quarantined"]] == [("web1", "corrupt")]
    assert "quarantined: web1/" in done.err
    rows = json.loads(whoneeds("deps", "--store", tmp_path / "store", "--format", "json").out)
    assert edges(rows) == {edge for edge in TRUTH if edge[1] != "web1"}
    assert "Nothing usable came from web1." in whoneeds("deps", "--store", tmp_path / "store").err
    foreseen = json.loads(
        whoneeds("run", "--from", incoming, "--store", tmp_path / "store", "--format", "json", "--check").out
    )
    assert (foreseen["changed"], len(foreseen["quarantined"])) == (False, 1)


def test_damaged_store_file_is_named_and_the_answer_partial(whoneeds, shop, tmp_path):
    """A conclusion whose file was changed is left out and named, and the end is code 4."""
    store = tmp_path / "store"
    shutil.copytree(shop / "store", store)
    path = store / "conclusions" / "dependency.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = whoneeds("deps", "--store", store, "--format", "json")
    assert (done.code, json.loads(done.out)) == (4, [])
    assert "left out: conclusions/dependency.parquet: damaged" in done.err
    assert "run the analysis again" in done.err


def test_store_without_connections_is_an_answer(whoneeds, incoming, tmp_path):
    """Hosts on which nothing was connected are a success that says in how many samples nothing was seen."""
    shop = build_shop()
    for host in shop:
        host.segments[0] = (host.segments[0][0], {})
    shutil.rmtree(incoming)
    collect(shop, incoming)
    done = whoneeds("run", "--from", incoming, "--store", tmp_path / "store")
    assert done.code == 0
    assert "No connection was seen in 36 samples: look longer" in done.err
    assert json.loads(whoneeds("deps", "--store", tmp_path / "store", "--format", "json").out) == []
    told = whoneeds("connections", "--store", tmp_path / "store")
    assert (told.code, told.out) == (0, "")
    assert "nothing to show" in told.err


def test_folder_of_one_host(whoneeds, shop, tmp_path):
    """Segments of one host are taken under the name that is given for it."""
    folder = shop / "incoming" / "web1"
    done = whoneeds("ingest", folder, "--host", "shop-front", "--store", tmp_path / "store", "--format", "json")
    assert json.loads(done.out)["taken"] == 1
    assert whoneeds("attribute", "--store", tmp_path / "store").code == 0
    rows = json.loads(whoneeds("connections", "--store", tmp_path / "store", "--format", "json").out)
    assert {row["orig_host"] for row in rows} == {"shop-front"}


def test_facts_twice_change_once(whoneeds, shop, tmp_path):
    """Publishing the same store twice changes files once, and --check and --diff tell without writing."""
    document, overlay = tmp_path / "facts.json", tmp_path / "overlay"
    words = ("facts", "--store", shop / "store", "--out", document, "--overlay", overlay, "--format", "json")
    foreseen = json.loads(whoneeds(*words, "--check", "--diff").out)
    assert (foreseen["changed"], foreseen["hosts"], document.exists()) == (True, 3, False)
    assert any("postgres" in entry["after"] for entry in foreseen["diff"])
    assert json.loads(whoneeds(*words).out)["changed"] is True
    assert sorted(json.loads(document.read_text())["hosts"]) == ["app1", "db1", "web1"]
    assert json.loads(whoneeds(*words).out)["changed"] is False
    shown = whoneeds(*words[:-2], "--diff", "--check")
    assert (shown.code, shown.out) == (0, "")
    assert "3 hosts; 0 of 5 files would change" in shown.err


def test_diff_is_shown_to_people(whoneeds, shop, tmp_path):
    """Without --format json, --diff prints a unified diff of each file that changes."""
    done = whoneeds("facts", "--store", shop / "store", "--out", tmp_path / "facts.json", "--diff")
    assert "--- " in done.out
    assert '+ "kind": "whoneeds-facts",' in done.out
    assert str(tmp_path / "facts.json") in done.err
