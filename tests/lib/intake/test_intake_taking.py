# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of others in the store: once, whole lines only, and down the same line as evidence of tracers."""

import gzip
import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from whoneeds import pipeline
from whoneeds.cli.main import main
from whoneeds.intake import parts as intake_parts
from whoneeds.intake.take import import_files
from whoneeds.model.conclusions import Dependency
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import FlowRecord, Gap, NameRecord, ProcessRecord, SegmentHeader, SocketRecord, WireFlow
from whoneeds.store.session import open_store

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def store(tmp_path):
    """An empty store, open for writing."""
    with open_store(tmp_path / "store", create=True, write=True) as opened:
        yield opened


def take(store, kind, *paths, **settings):
    """Import files, and what became of each."""
    return import_files(store, kind, [Path(path) for path in paths], **settings)


def contents(folder):
    """Every file of a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_file_counts_once(tmp_path, store):
    """A second import of the same bytes, under whatever name, changes no file and says so."""
    assert [one.state for one in take(store, "zeek", FIXTURES / "conn.log", FIXTURES / "dns.log", host="mon1")] == [
        "taken", "taken"
    ]  # fmt: skip
    before = contents(store.path)
    copy = shutil.copy(FIXTURES / "conn.log", tmp_path / "other.log")
    assert [one.state for one in take(store, "zeek", copy, host="mon1")] == ["known"]
    assert contents(store.path) == before
    assert len(store.rows(WireFlow)) == 6
    assert [(row["name"], row["address"]) for row in store.rows(NameRecord)] == [("app1.example.org", "10.0.0.2")]


def test_packed_files(tmp_path, store):
    """A packed log gives what the log gives; what lies behind damage of its packing is said to be lost."""
    whole, cut = tmp_path / "conn.log.gz", tmp_path / "cut.gz"
    packed = gzip.compress((FIXTURES / "conn.log").read_bytes())
    whole.write_bytes(packed)
    cut.write_bytes(
        gzip.compress((FIXTURES / "conn.json").read_bytes() + b"\n" + os.urandom(5000).hex().encode())[:2000]
    )
    made = take(store, "zeek", whole, cut, host="mon1")
    assert made[0].complete
    assert made[0].rows["wire_flow"] == 6
    assert made[1].rows["wire_flow"] == 2
    assert not made[1].complete
    assert "its packing is damaged" in made[1].problems[-1]


def test_bad_lines_are_named(tmp_path, store):
    """Bad lines are counted, the first few named with file and line, and the rest of the file is used."""
    lines = (FIXTURES / "conn.json").read_bytes().splitlines()
    log = tmp_path / "conn.json"
    log.write_bytes(b"\n".join([lines[0], b"{\x00\x1b[2J", b"x" * (3 << 20), *[b"{}"] * 5, lines[1]]))
    (made,) = take(store, "zeek", log, host="mon1")
    assert (made.rows["wire_flow"], made.bad_lines, len(made.problems)) == (2, 7, 5)
    assert [problem.split(": ")[0] for problem in made.problems[:2]] == [f"{log}:2", f"{log}:3"]
    assert "at most 1048576 bytes" in made.problems[1]
    assert all(problem.isprintable() for problem in made.problems)


@pytest.mark.parametrize(
    ("kind", "content", "found"),
    [
        ("zeek", b"", "an empty file"),
        ("suricata", b"\xff\xfe{\x00}\x00", "found \\xff\\xfe"),
        ("netflow-csv", b"a,b\n1,2\n", "line of names"),
        ("sysmon", b"[1]\n" * 1000, "Windows events"),
    ],
)
def test_other_files_are_refused(tmp_path, store, kind, content, found):
    """A file in which nothing is of the format is refused whole, with what was expected, and stores nothing."""
    path = tmp_path / "strange"
    path.write_bytes(content)
    (made,) = take(store, kind, path, host="mon1")
    assert (made.state, made.rows, len(made.problems)) == ("refused", {}, 1)
    assert found in made.problems[0]
    assert store.rows(SegmentHeader) == []


def test_what_is_no_file_is_refused(tmp_path, store):
    """A pipe, a folder and a path to nothing are refused at once, and the other files are taken all the same."""
    os.mkfifo(tmp_path / "pipe")
    made = take(store, "zeek", tmp_path / "pipe", tmp_path, tmp_path / "none", FIXTURES / "dns.log", host="mon1")
    assert [one.state for one in made] == ["refused", "refused", "refused", "taken"]
    assert "a regular file" in made[0].problems[0]
    assert "No such file" in made[2].problems[0]


def test_who_watched_is_asked(store):
    """Flows without a name for who watched are refused before anything is read, and so is a name that is none."""
    with pytest.raises(SettingsError, match="--host NAME"):
        take(store, "zeek", FIXTURES / "conn.log")
    with pytest.raises(SettingsError, match="--host"):
        take(store, "zeek", FIXTURES / "conn.log", host="../x")


def test_times_to_come_are_refused(store):
    """A flow that ends more than a day from now is a bad line."""
    (made,) = take(store, "zeek", FIXTURES / "conn.log", host="mon1", now_ns=1_703_900_000 * 10**9)
    assert (made.bad_lines, made.rows) == (6, {})


def test_long_files_come_in_parts(tmp_path, store, monkeypatch):
    """A file of more rows than are held at once is stored in parts, and is known as a whole afterwards."""
    monkeypatch.setattr(intake_parts, "_MOST_ROWS", 2)
    (made,) = take(store, "zeek", FIXTURES / "conn.log", host="mon1")
    assert (made.rows["wire_flow"], len(store.segments("mon1"))) == (6, 3)
    assert len({row["flow_id"] for row in store.rows(WireFlow)}) == 6
    assert [one.state for one in take(store, "zeek", FIXTURES / "conn.log", host="mon1")] == ["known"]


def test_damage_is_made_good(store):
    """Where a file of the store is damaged, importing the log again makes it anew."""
    take(store, "zeek", FIXTURES / "conn.log", host="mon1")
    path = next((store.path / "evidence" / "wire_flow").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    with open_store(store.path.parent / "copy", create=True):
        pass
    shutil.rmtree(store.path.parent / "copy")
    shutil.copytree(store.path, store.path.parent / "copy")
    with open_store(store.path.parent / "copy", write=True) as opened:
        (made,) = take(opened, "zeek", FIXTURES / "conn.log", host="mon1")
        assert (made.state, made.restored, made.rows["wire_flow"]) == ("taken", True, 6)
        assert len(opened.rows(WireFlow)) == 6


def test_pruned_days_do_not_come_back(store):
    """What the store has pruned is not taken in again out of a log."""
    store.prune("2024-02-01")
    (made,) = take(store, "zeek", FIXTURES / "conn.log", host="mon1")
    assert (made.rows, made.before_horizon) == ({}, 6)
    assert store.rows(WireFlow) == []


def test_hosts_without_a_tracer_get_dependencies(store):
    """Logs of security agents alone give who needs whom, both programs named, by the same line as tracers' evidence."""
    (made,) = take(store, "sysmon", FIXTURES / "sysmon.json")
    assert (made.hosts, made.complete) == (["desk1", "desk2", "desk3"], True)
    pipeline.flows(store)
    pipeline.attribute(store)
    pipeline.instances(store)
    pipeline.dependencies(store)
    rows = [row for row in store.rows(Dependency) if row["level"] == 4]
    found = {(row["app"], row["host"], row["resp_app"], row["resp_host"], row["port"], row["kind"]) for row in rows}
    assert found == {
        ("till.exe", "desk1", "stock.exe", "desk2", 8080, "static"),
        ("stock.exe", "desk2", "server.exe", "desk3", 1433, "static"),
    }
    assert {row["direction"] for row in store.rows(FlowRecord)} == {"event"}
    assert {row["start_ticks"] for row in store.rows(ProcessRecord)} == {None}


def test_hostile_names_stay_text(tmp_path, store):
    """Whatever a program is called is kept as text within its column, and a host name that is none is a bad line."""
    event = json.loads((FIXTURES / "sysmon.json").read_text().splitlines()[0])
    event["winlog"]["event_data"]["Image"] = "C:\\{{ x }}\ud800\x1b[2J\x00" + "y" * 5000
    other = json.loads(json.dumps(event))
    other["winlog"]["computer_name"] = "../etc"
    log = tmp_path / "events"
    log.write_text(f"{json.dumps(event)}\n{json.dumps(other)}\n")
    (made,) = take(store, "sysmon", log)
    assert (made.hosts, made.bad_lines) == (["desk1"], 1)
    (process,) = store.rows(ProcessRecord)
    assert (process["name"][:9], len(process["name"]), len(process["exe"])) == ("{{ x }}\\u", 64, 4096)
    assert len(store.rows(SocketRecord)) == 1
    assert [(row["host"], row["reason"], row["lost"]) for row in store.rows(Gap)] == [("desk1", "failed", 1)]


def test_command(tmp_path, capsys):
    """The verb tells what became of each file, changes nothing twice, and ends with 4 where a part is lost."""
    words = ["import", "zeek", str(FIXTURES / "conn.log"), "--host", "mon1", "--store", str(tmp_path / "store")]
    assert main(words) == 0
    assert "6 wire_flow, of mon1" in capsys.readouterr().err
    assert main([*words, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["changed"], told["complete"], told["files"][0]["state"]) == (False, True, "known")
    words[2] = str(FIXTURES / "eve.json")
    assert main(words) == 4
    assert "not a file of this kind" in capsys.readouterr().err
    assert main([*words[:3], "--store", str(tmp_path / "store")]) == 2
    assert "give --host NAME" in capsys.readouterr().err


def capture(*times_ns):
    """A capture of UDP packets from 10.0.0.1:5000 to 10.0.0.2:53, raw IP, one at each time."""
    packet = bytes.fromhex("45000020000100004011 0000 0a000001 0a000002 13880035000c0000 61736b21".replace(" ", ""))
    made = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101)
    for at_ns in times_ns:
        made += struct.pack("<IIII", *divmod(at_ns, 10**9), len(packet), len(packet)) + packet
    return made


def test_captures_go_through_the_meter(tmp_path, store):
    """A capture gives the meter's flows; what is cut, what cannot be a time, and what is no capture is said."""
    day_ns = 1_704_067_200 * 10**9
    whole, cut, old = (tmp_path / name for name in ("whole", "cut", "old"))
    whole.write_bytes(capture(day_ns, day_ns + 5))
    cut.write_bytes(capture(day_ns, day_ns + 7)[:-3])
    old.write_bytes(capture(5, 6))
    made = take(store, "pcap", whole, cut, old, FIXTURES / "conn.log", host="mon1")
    assert [one.state for one in made] == ["taken", "taken", "taken", "refused"]
    assert [one.rows.get("wire_flow") for one in made] == [1, 1, None, None]
    assert [one.complete for one in made] == [True, False, False, False]
    assert "1 left out" in made[2].problems[0]
    assert "expected a capture" in made[3].problems[0]
    flow = min(store.rows(WireFlow), key=lambda row: -row["orig_packets"])
    assert (flow["orig_addr"], flow["orig_port"], flow["resp_port"], flow["source"]) == ("10.0.0.1", 5000, 53, "pcap")
    assert (flow["orig_packets"], flow["orig_bytes"], flow["last_ns"]) == (2, 8, day_ns + 5)
    assert [one.state for one in take(store, "pcap", whole, host="mon1")] == ["known"]
