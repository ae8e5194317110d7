# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking segments in: each good one once, each bad one into quarantine, none silently dropped.

Long, because it makes whole segments and then every damage that one can have, each with what must become of it.
"""

import hashlib
import json
import os
import random
import zlib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fleet import BOOT, Host, at

from whoneeds.collector.ingest import IngestResult, ingest
from whoneeds.collector.reader import ReaderLimits
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import (
    Gap,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
)
from whoneeds.segment.layout import FIRST_LINE
from whoneeds.segment.write import write_segment
from whoneeds.store import Store, open_store

NOW_NS = at(3600)
TABLES = (SegmentHeader, ProcessRecord, SocketRecord, TranslationRecord, UnixConnectionRecord, Gap)


def deliver(incoming: Path, *hosts: Host, under: str | None = None) -> list[Path]:
    """Lay the hosts' segments down as the collector role does; the files."""
    files = []
    for host in hosts:
        folder = incoming / (under or host.name)
        folder.mkdir(parents=True, exist_ok=True)
        files += [Path(write_segment(str(folder), header, tables)) for header, tables in host.segments]
    return files


def small_host(name: str, segments: int = 1, **changes: Any) -> Host:
    """A host with one connection a segment."""
    host = Host(name, ("10.0.0.1",))
    for number in range(segments):
        host.segment(number * 60, number * 60 + 60, **changes)
        curl = host.process("curl", 7)
        span = (number * 60, number * 60 + 50)
        host.socket(("10.0.0.1", 40000 + number), ("10.0.0.9", 80), span, curl, cookie=number + 1)
    return host


def take(path: Path, folder: Path | None = None, **changes: Any) -> tuple[IngestResult, dict[type, list[Any]]]:
    """Ingest what lies in a folder into a store beside it; what became of it, and the store's evidence."""
    with open_store(path / "store", create=True, write=True) as store:
        result = ingest(store, [folder or path / "incoming"], now_ns=NOW_NS, **changes)
        return result, evidence(store)


def evidence(store: Store) -> dict[type, list[Any]]:
    """All evidence of a store in an order of its own."""
    return {record: sorted(map(repr, store.rows(record))) for record in TABLES}


def forge(path: Path, lines: list[Any]) -> None:
    """Write a file that has a segment's frame and right digest around any text."""
    text = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    body = FIRST_LINE + zlib.compress(text)
    path.write_bytes(body + hashlib.sha256(body).digest())


def test_the_same_segments_again_change_nothing(tmp_path: Path) -> None:
    """Segments that are given twice are counted once."""
    deliver(tmp_path / "incoming", small_host("web1", 3), small_host("web2"))
    first, held = take(tmp_path)
    again, still_held = take(tmp_path)
    assert (len(first.taken), len(first.known), first.complete) == (4, 0, True)
    assert (len(again.taken), len(again.known), again.complete) == (0, 4, True)
    assert still_held == held
    assert len(held[SegmentHeader]) == 4


@pytest.mark.parametrize("seed", range(5))
def test_what_is_held_does_not_depend_on_the_order_of_arrival(tmp_path: Path, seed: int) -> None:
    """Segments that come shuffled, in pieces and repeatedly make the same tables as all of them at once."""
    hosts = [small_host("web1", 4), small_host("web2", 3)]
    files = deliver(tmp_path / "all" / "incoming", *hosts)
    _, wanted = take(tmp_path / "all")
    rng = random.Random(seed)
    rng.shuffle(files)
    cut = rng.randrange(1, len(files))
    with open_store(tmp_path / "store", create=True, write=True) as store:
        for part in (files[:cut], files[cut:], files[:cut]):
            folder = tmp_path / f"part{rng.random()}"
            for file in part:
                place = folder / file.parent.name
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{rng.random()}.seg").write_bytes(file.read_bytes())
            ingest(store, [folder], now_ns=NOW_NS)
        assert evidence(store) == wanted


def test_the_host_is_who_the_controller_says_it_is(tmp_path: Path) -> None:
    """Whatever a segment calls its host, every identity and host column carries the inventory name."""
    deliver(tmp_path / "incoming", small_host("liar"), under="web1")
    result, held = take(tmp_path)
    assert result.complete
    assert all("liar" not in row for rows in held.values() for row in rows)
    assert f"'process_id': 'web1/{BOOT}/7/100'" in held[SocketRecord][0]
    assert f"'segment_id': 'web1/{BOOT}/1'" in held[SocketRecord][0]


def damaged(file: Path, how: str) -> None:
    """Spoil a good segment file."""
    content = file.read_bytes()
    spoilt = {
        "cut short": content[:-40],
        "bit flipped": bytes([*content[:60], content[60] ^ 4, *content[61:]]),
        "empty": b"",
        "of another schema": b"whoneeds-segment 99\n" + content[len(FIRST_LINE) :],
        "no segment": b"\x7fELF" + content,
    }
    file.write_bytes(spoilt[how])


@pytest.mark.parametrize(
    ("how", "reason"),
    [("cut short", "corrupt"), ("bit flipped", "corrupt"), ("empty", "corrupt"), ("of another schema", "schema"),
     ("no segment", "corrupt")],
)  # fmt: skip
def test_a_damaged_segment_is_kept_aside_with_its_reason_and_the_others_go_on(
    tmp_path: Path, how: str, reason: str
) -> None:
    """One damaged file costs nothing but itself, and says what was expected and found."""
    bad = deliver(tmp_path / "incoming", small_host("web1", 2), small_host("web2"))[0]
    damaged(bad, how)
    result, held = take(tmp_path)
    (put,) = result.quarantined
    assert (put.host, put.reason, put.kept, put.alarm) == ("web1", reason, True, False)
    assert put.message
    assert put.expected
    assert len(held[SegmentHeader]) == 2
    copy = tmp_path / "store" / "quarantine" / "web1" / f"{put.sha256}.seg"
    assert copy.read_bytes() == bad.read_bytes()
    assert json.loads(copy.with_suffix(".json").read_text())["reason"] == reason


def _header(**changes: Any) -> SegmentHeader:
    return replace(small_host("web1").segments[0][0], **changes)


def _socket(**changes: Any) -> SocketRecord:
    row: SocketRecord = small_host("web1").segments[0][1][SocketRecord][0]
    return replace(row, **changes)


def _process(**changes: Any) -> ProcessRecord:
    row: ProcessRecord = small_host("web1").segments[0][1][ProcessRecord][0]
    return replace(row, **changes)


def _translation(**changes: Any) -> TranslationRecord:
    row = TranslationRecord(
        "web1", "4026531840", "tcp", "10.0.0.1", 40000, "10.0.0.2", 8080, "10.0.0.1", 40000, "172.17.0.2", 80, at(1),
        at(2), "table",
    )  # fmt: skip
    return replace(row, **changes)


def _unix(**changes: Any) -> UnixConnectionRecord:
    client, server = (f"web1/{BOOT}/{pid}/100" for pid in (7, 8))
    row = UnixConnectionRecord("web1", "4026531840", "stream", "/run/x.sock", client, server, at(1), at(2), 1)
    return replace(row, **changes)


IMPOSSIBLE: dict[str, tuple[SegmentHeader, dict[type[Any], list[Any]]]] = {
    "opened in 1970": (_header(opened_ns=1), {}),
    "closed in the future": (_header(closed_ns=NOW_NS + 86_401 * 10**9), {}),
    "closed before it was opened": (_header(closed_ns=at(-1)), {}),
    "a boot that is none": (_header(boot_id="x" * 36, segment_id=f"web1/{'x' * 36}/1"), {}),
    "another identity than its parts": (_header(segment_id=f"web1/{BOOT}/2"), {}),
    "a host that is a path": (_header(host="../etc", segment_id=f"../etc/{BOOT}/1"), {}),
    "a period of nothing": (_header(period_s=0.0), {}),
    "a socket of another host": (_header(), {SocketRecord: [_socket(socket_id=f"db1/{BOOT}/4026531840/1")]}),
    "an owner of another boot": (
        _header(), {SocketRecord: [_socket(process_id=f"web1/{BOOT.replace('0', '1')}/7/100")]}
    ),
    "a socket seen in the future": (_header(), {SocketRecord: [_socket(last_ns=2**62)]}),
    "a socket seen backwards": (_header(), {SocketRecord: [_socket(first_ns=at(51))]}),
    "a port that is none": (_header(), {SocketRecord: [_socket(local_port=65_536)]}),
    "an address that is none": (_header(), {SocketRecord: [_socket(local_addr="10.0.0.256")]}),
    "an address in another spelling": (_header(), {SocketRecord: [_socket(local_addr="fd00:0::1")]}),
    "a mapped address": (_header(), {SocketRecord: [_socket(remote_addr="::ffff:10.0.0.1")]}),
    "half a peer": (_header(), {SocketRecord: [_socket(remote_port=None)]}),
    "fewer than no bytes": (_header(), {SocketRecord: [_socket(sent_bytes=-1)]}),
    "a parent on another host": (_header(), {ProcessRecord: [_process(parent_id=f"db1/{BOOT}/1/1")]}),
    "a parent of another boot": (
        _header(), {ProcessRecord: [_process(parent_id=f"web1/{BOOT.replace('0', '1')}/1/1")]}
    ),
    "a translation to no address": (_header(), {TranslationRecord: [_translation(new_resp_addr="x")]}),
    "a translation to no port": (_header(), {TranslationRecord: [_translation(new_orig_port=-1)]}),
    "a daemon on another host": (_header(), {UnixConnectionRecord: [_unix(server_process_id=f"db1/{BOOT}/8/1")]}),
    "a client that is none": (_header(), {UnixConnectionRecord: [_unix(process_id="web1")]}),
    "fewer than no looks": (_header(), {UnixConnectionRecord: [_unix(samples=-1)]}),
    "fewer than no losses": (_header(), {Gap: [Gap("web1", "table", "failed", "", at(0), at(1), -1)]}),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(IMPOSSIBLE))
def test_a_segment_that_says_the_impossible_is_refused_whole(tmp_path: Path, what: str) -> None:
    """A whole and well-formed segment with one impossible value leaves no row behind."""
    folder = tmp_path / "incoming" / "web1"
    folder.mkdir(parents=True)
    header, tables = IMPOSSIBLE[what]
    write_segment(str(folder), header, tables)
    result, held = take(tmp_path)
    (put,) = result.quarantined
    assert (put.reason, put.kept) == ("invalid", True)
    assert put.expected
    assert put.found
    assert not any(held.values())


def test_every_identity_gets_the_name_that_the_controller_knows(tmp_path: Path) -> None:
    """Parents, clients and daemons are renamed with their host, like all that is said of it."""
    folder = tmp_path / "incoming" / "shop-web"
    folder.mkdir(parents=True)
    tables = {
        ProcessRecord: [_process(parent_id=f"web1/{BOOT}/1/1")],
        TranslationRecord: [_translation()],
        UnixConnectionRecord: [_unix()],
    }
    write_segment(str(folder), _header(), tables)
    with open_store(tmp_path / "store", create=True, write=True) as store:
        ingest(store, [tmp_path / "incoming"], now_ns=NOW_NS)
        ((process,), (translation,), (unix,)) = map(store.rows, tables)
    assert process["parent_id"] == f"shop-web/{BOOT}/1/1"
    assert (translation["host"], translation["new_resp_addr"]) == ("shop-web", "172.17.0.2")
    assert (unix["process_id"], unix["server_process_id"]) == (f"shop-web/{BOOT}/7/100", f"shop-web/{BOOT}/8/100")


def test_a_rival_of_a_known_segment_raises_the_alarm(tmp_path: Path) -> None:
    """Another segment under an identity that is in the store is set aside, and the first stays."""
    deliver(tmp_path / "incoming", small_host("web1"))
    _, held = take(tmp_path)
    deliver(tmp_path / "late", small_host("web1", samples=3))
    result, still_held = take(tmp_path, tmp_path / "late")
    (put,) = result.quarantined
    assert (put.reason, put.alarm) == ("conflict", True)
    assert still_held == held


def test_one_segment_from_two_hosts_raises_the_alarm(tmp_path: Path) -> None:
    """The very same segment under a second host's name is set aside."""
    deliver(tmp_path / "incoming", small_host("web1"))
    deliver(tmp_path / "incoming", small_host("web1"), under="web2")
    result, held = take(tmp_path)
    (put,) = result.quarantined
    assert (put.host, put.reason, put.alarm) == ("web2", "copied", True)
    assert len(held[SegmentHeader]) == 1


def test_folders_and_files_that_are_traps_are_not_walked_into(tmp_path: Path) -> None:
    """A folder that is no host name or a link, and files that are links or pipes, are reported and left alone."""
    deliver(tmp_path / "incoming", small_host("web1"), small_host("web2"))
    secret = deliver(tmp_path / "elsewhere", small_host("web3"))[0]
    (tmp_path / "incoming" / "-oProxyCommand=x").mkdir()
    (tmp_path / "incoming" / "linked").symlink_to(secret.parent)
    (tmp_path / "incoming" / "web1" / "link.seg").symlink_to(secret)
    os.mkfifo(tmp_path / "incoming" / "web2" / "pipe.seg")
    result, held = take(tmp_path)
    assert len(result.refused) == 2
    assert {(put.host, put.file, put.kept) for put in result.quarantined} == {
        ("web1", "link.seg", False), ("web2", "pipe.seg", False),
    }  # fmt: skip
    assert len(held[SegmentHeader]) == 2


def test_a_segment_that_eats_all_memory_kills_only_its_reader(tmp_path: Path) -> None:
    """A bomb ends in quarantine, whether the reader refuses it or dies of it, and the next segment is read."""
    deliver(tmp_path / "incoming", small_host("web2"))
    (tmp_path / "incoming" / "web1").mkdir()
    deep = b"[" * 900_000
    forge(tmp_path / "incoming" / "web1" / "deep.seg", [deep])
    forge(tmp_path / "incoming" / "web1" / "wide.seg", [b"0" * (200 << 20)])
    result, held = take(tmp_path, limits=ReaderLimits(memory_bytes=1 << 30))
    assert [put.reason in ("limit", "invalid", "crashed") for put in result.quarantined] == [True, True]
    assert len(held[SegmentHeader]) == 1


def test_a_reader_that_uses_up_its_time_is_replaced(tmp_path: Path) -> None:
    """A segment that takes longer than it may is set aside, and the others go on with another reader."""
    busy = Host("web1", ("10.0.0.1",)).segment()
    curl = busy.process("curl", 7)
    for number in range(180_000):
        busy.socket(("10.0.0.1", number % 60_000 + 1), ("10.0.0.9", 80 + number // 60_000), (0, 50), curl)
    deliver(tmp_path / "incoming", busy, small_host("web2"))
    # enough for a reader to start on a machine with much else to do, and not for the rows
    result, held = take(tmp_path, limits=ReaderLimits(wall_s=3.0))
    assert [(put.host, put.reason) for put in result.quarantined] == [("web1", "crashed")]
    assert len(held[SegmentHeader]) == 1


def test_a_folder_of_segments_belongs_to_the_host_that_is_named(tmp_path: Path) -> None:
    """Segments without a folder a host take the name that is given, or the one they agree on, or are refused."""
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, host in enumerate((small_host("web1"), small_host("web2"))):
        write_segment(str(tmp_path), *host.segments[0])
        (file,) = tmp_path.glob("*.seg")
        file.rename(plain / f"{number}.seg")
    with pytest.raises(SettingsError, match="web1, web2"):
        take(tmp_path, plain)
    (plain / "1.seg").unlink()
    _, held = take(tmp_path / "own", plain)
    assert "'host': 'web1'" in held[SegmentHeader][0]
    _, held = take(tmp_path / "named", plain, host="db1")
    assert "'host': 'db1'" in held[SegmentHeader][0]
    _, held = take(tmp_path / "tracer", plain.rename(tmp_path / "segments").parent / "segments" / "..", host="db1")
    assert held[SegmentHeader]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Asking for segments where there is no folder says which one."""
    with pytest.raises(SettingsError, match="incoming"):
        take(tmp_path)


def test_a_damaged_batch_is_made_anew_from_the_collected_segments(tmp_path: Path) -> None:
    """Evidence that rots in the store comes back at the next ingest, while its segments still lie there."""
    deliver(tmp_path / "incoming", small_host("web1", 2))
    _, held = take(tmp_path)
    (rotten,) = (tmp_path / "store" / "evidence" / "socket").rglob("*.parquet")
    content = bytearray(rotten.read_bytes())
    content[len(content) // 2] ^= 1
    rotten.write_bytes(content)
    with open_store(tmp_path / "store") as store:
        assert store.rows(SocketRecord) == []
        (problem,) = store.problems
        assert (problem.rows, problem.path.endswith(rotten.name)) == (2, True)
    result, again = take(tmp_path)
    assert len(result.restored) == 1
    assert again == held


def test_quarantine_has_a_bound(tmp_path: Path) -> None:
    """A host that makes bad segments without end fills neither the disk nor the report's truth."""
    folder = tmp_path / "incoming" / "web1"
    folder.mkdir(parents=True)
    for number in range(260):
        (folder / f"{number}.seg").write_bytes(b"bad %d" % number)
    result, _ = take(tmp_path)
    assert len(result.quarantined) == 260
    assert sum(put.kept for put in result.quarantined) == 256
    assert len(list((tmp_path / "store" / "quarantine" / "web1").glob("*.seg"))) == 256


def test_a_day_that_comes_in_many_pieces_is_joined(tmp_path: Path) -> None:
    """Above so many pieces ingest joins them, and segments that come again are known and change nothing."""
    host = small_host("web1", 5)
    for number, (header, tables) in enumerate(host.segments):
        (tmp_path / "incoming" / "web1").mkdir(parents=True, exist_ok=True)
        write_segment(str(tmp_path / "incoming" / "web1"), header, tables)
        result, held = take(tmp_path, compact_above=3)
        assert (result.compacted is not None) == (number == 3)
    with open_store(tmp_path / "store") as store:
        assert len(store.manifest.batches) == 2
        assert len(store.segments("web1")) == 5
    manifest = (tmp_path / "store" / "manifest.json").read_bytes()
    again, still_held = take(tmp_path, compact_above=3)
    assert (len(again.taken), len(again.known)) == (0, 5)
    assert still_held == held
    assert (tmp_path / "store" / "manifest.json").read_bytes() == manifest
    take(tmp_path / "never", tmp_path / "incoming", compact_above=0)
    with open_store(tmp_path / "never" / "store") as store:
        assert {record: evidence(store)[record] for record in TABLES} == held


def test_segments_of_pruned_days_are_not_taken_in_again(tmp_path: Path) -> None:
    """A good segment of before the horizon is counted and left out, which is no fault, and a new one is taken."""
    old, new = small_host("web1"), small_host("web2")
    day = 86_400
    deliver(tmp_path / "incoming", old)
    late = Host("web1", ("10.0.0.1",))
    late.segment(0, 1)
    late.segment(day, day + 60)
    del late.segments[0]
    first, _held = take(tmp_path)
    with open_store(tmp_path / "store", write=True) as store:
        (batch,) = store.manifest.batches.values()
        horizon = (date.fromisoformat(batch.date) + timedelta(days=1)).isoformat()
        store.prune(horizon)
    deliver(tmp_path / "incoming", new, late)
    with open_store(tmp_path / "store", write=True) as store:
        result = ingest(store, [tmp_path / "incoming"], now_ns=at(2 * day))
        assert result.quarantined == []
        assert [host for host, _file in result.before_horizon] == ["web1", "web2"]
        assert [taken.host for taken in result.taken] == ["web1"]
        assert result.complete
        assert {batch.date for batch in store.manifest.batches.values()} == {horizon}
    assert len(first.taken) == 1
