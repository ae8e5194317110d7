# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs that look after the store: what they say, what they change, and how they end."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from shop import build_shop, collect

OLDER = Path(__file__).parents[1] / "store" / "fixtures" / "schema-1" / "none" / "store"


def copy(shop: Path, to: Path) -> Path:
    """A store of one's own."""
    shutil.copytree(shop / "store", to / "store")
    return to / "store"


def last_day(whoneeds, store):
    """The last day with evidence, as status says it."""
    return json.loads(whoneeds("store", "status", "--store", store, "--format", "json").out)["last_date"]


def test_status_tells_what_is_held(whoneeds, shop):
    """Hosts, segments, rows and room of each table stand there, for people and for programs alike."""
    done = whoneeds("store", "status", "--store", shop / "store")
    told = json.loads(whoneeds("store", "status", "--store", shop / "store", "--format", "json").out)
    assert done.code == 0
    assert done.err.startswith("schema 2\n")
    assert f"{told['segments']} segments" in done.err
    socket = told["tables"]["socket"]
    assert f"{socket['rows']} rows" in done.err
    files = list((shop / "store" / "evidence" / "socket").rglob("*.parquet"))
    assert (socket["files"], socket["bytes"]) == (len(files), sum(file.stat().st_size for file in files))


def test_verify_names_what_is_damaged(whoneeds, shop, tmp_path):
    """A damaged file is named with table, host, day and what to do, and the command ends with 4."""
    store = copy(shop, tmp_path)
    assert whoneeds("store", "verify", "--store", store).code == 0
    bad = sorted((store / "evidence" / "socket").rglob("*.parquet"))[0]
    bad.write_bytes(bytes(bad.stat().st_size))
    done = whoneeds("store", "verify", "--store", store, "--format", "json")
    (problem,) = json.loads(done.out)["problems"]
    assert done.code == 4
    assert (problem["table"], f"host={problem['host']}") == ("socket", bad.parent.name)
    assert f"left out: socket of {problem['host']}, {problem['date']}: " in done.err
    assert "ingest the collected segments again" in done.err
    assert whoneeds("store", "compact", "--store", store).code in (0, 4)
    assert whoneeds("deps", "--store", store).code in (0, 4)


def test_prune_tells_what_goes_and_what_rests_on_it(whoneeds, shop, tmp_path):
    """Check mode tells the same and changes nothing; afterwards answers say what they rest on until made again."""
    store = copy(shop, tmp_path)
    day = last_day(whoneeds, store)
    later = datetime.now(UTC).date().isoformat()
    manifest = (store / "manifest.json").read_bytes()
    dry = whoneeds("store", "prune", "--store", store, "--before", day, "--check", "--format", "json")
    assert json.loads(dry.out)["files"] == 0
    dry = whoneeds("store", "prune", "--store", store, "--before", later, "--check")
    assert "would go" in dry.err
    assert (store / "manifest.json").read_bytes() == manifest
    done = whoneeds("store", "prune", "--store", store, "--before", later, "--format", "json")
    told = json.loads(done.out)
    assert (done.code, told["changed"]) == (0, True)
    assert told["bytes"] > 0
    same = whoneeds("store", "prune", "--store", shop / "store", "--before", later, "--check", "--format", "json")
    assert told == json.loads(same.out)
    assert "until made again: " in done.err
    held = json.loads(whoneeds("store", "status", "--store", store, "--format", "json").out)
    assert (held["segments"], held["horizon"]) == (0, later)
    assert "dependency" in held["stale"]
    again = whoneeds("ingest", shop / "incoming", "--store", store, "--format", "json")
    assert json.loads(again.out)["before_horizon"] > 0
    assert json.loads(again.out)["taken"] == 0
    assert "of days that were pruned" in again.err


def test_answers_say_that_evidence_went(whoneeds, shop, tmp_path):
    """Under a table stands that it rests on what is gone, until the line is walked again."""
    store = copy(shop, tmp_path)
    manifest = store / "manifest.json"
    held = json.loads(manifest.read_text())
    from whoneeds.store.manifest import read_manifest, write_manifest

    known = read_manifest(store)
    known.stale, known.horizon = set(held["derived"]), "2020-01-01"
    write_manifest(store, known)
    assert "of before 2020-01-01, which was pruned" in whoneeds("deps", "--store", store).err
    assert "until made again" in whoneeds("facts", "--store", store, "--out", tmp_path / "facts.json").err
    assert whoneeds("attribute", "--store", store).code == 0
    assert "which was pruned" in whoneeds("deps", "--store", store).err
    assert whoneeds("analyze", "--store", store).code == 0
    assert "which was pruned" not in whoneeds("deps", "--store", store).err


def test_prune_needs_one_limit(whoneeds, shop):
    """Without a limit, with two, or with one that is none, the command is wrongly used."""
    for words in ([], ["--keep-days", "3", "--before", "2026-01-01"], ["--before", "soon"], ["--keep-days", "0"]):
        assert whoneeds("store", "prune", "--store", shop / "store", *words).code == 2


def test_compact_joins_what_came_in_pieces(whoneeds, tmp_path):
    """Pieces of a day become one file a table, as check mode said, and answers stay what they were."""
    collect(build_shop(), tmp_path / "incoming")
    store = tmp_path / "store"
    for folder in sorted((tmp_path / "incoming").iterdir()):
        for number, segment in enumerate(sorted(folder.glob("*.seg"))):
            place = tmp_path / f"piece-{number}" / folder.name
            place.mkdir(parents=True)
            segment.rename(place / segment.name)
    for piece in sorted(tmp_path.glob("piece-*")):
        assert whoneeds("ingest", piece, "--store", store).code == 0
    for verb in ("attribute", "analyze"):
        assert whoneeds(verb, "--store", store).code == 0
    before = whoneeds("deps", "--store", store).out
    dry = json.loads(whoneeds("store", "compact", "--store", store, "--check", "--format", "json").out)
    done = json.loads(whoneeds("store", "compact", "--store", store, "--format", "json").out)
    assert done == dry
    assert done["changed"] == (len(list(tmp_path.glob("piece-*"))) > 1)
    assert json.loads(whoneeds("store", "compact", "--store", store, "--format", "json").out)["changed"] is False
    assert whoneeds("deps", "--store", store).out == before


def test_an_older_store_is_migrated_by_who_writes(whoneeds, shop, tmp_path):
    """A query refuses it with the command to use, check mode works on a copy, and an ingest migrates and says so."""
    store = shutil.copytree(OLDER, tmp_path / "store")
    refused = whoneeds("deps", "--store", store)
    assert refused.code == 1
    assert f"whoneeds store migrate --store {store}" in refused.err
    assert "schema 1: run whoneeds store migrate" in whoneeds("store", "status", "--store", store).err
    dry = whoneeds("ingest", shop / "incoming", "--store", store, "--check")
    assert "was brought from schema 1 to 2" in dry.err
    assert json.loads((store / "manifest.json").read_text())["schema"] == 1
    done = whoneeds("ingest", shop / "incoming", "--store", store)
    assert done.code == 0
    assert "was brought from schema 1 to 2" in done.err
    assert json.loads((store / "manifest.json").read_text())["schema"] == 2
    assert whoneeds("store", "verify", "--store", store).code == 0
