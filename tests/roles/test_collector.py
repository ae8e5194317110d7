# SPDX-License-Identifier: GPL-3.0-or-later
"""Collecting from hosts that are busy, broken or hostile: what arrives, under which names, and what never does."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .played import BIN, ZIPAPP, Played, Player

SECRET = b"not a segment, and nobody's business\n"


def make_segment(folder: Path, order: int, size_bytes: int = 2000) -> str:
    """Write a file that is whole by its digest; return the name under which it must arrive."""
    body = b"whoneeds-segment 1\n" + os.urandom(size_bytes)
    trailer = hashlib.sha256(body).digest()
    (folder / f"{order:020d}-abc.seg").write_bytes(body + trailer)
    return f"{trailer.hex()}.seg"


def local(source: Path, **variables: Any) -> dict[str, Any]:
    """A host that is a folder of this machine, reached over Ansible's local connection."""
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "collector_source_dir": str(source),
        **variables,
    }


def arrived(folder: Path) -> dict[str, str]:
    """Everything in a folder of the controller and what kind of thing it is."""
    return {
        str(path.relative_to(folder)): "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        for path in sorted(folder.rglob("*"))
    }


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that stand for hosts' tracer directories."""
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="module")
def hostile(sources: Path) -> Iterator[dict[str, str]]:
    """A tracer's directory of which its host's root made the worst; names that must arrive, by what they are."""
    segments = sources / "hostile" / "segments"
    segments.mkdir(parents=True)
    secret = sources / "secret"
    secret.write_bytes(SECRET)
    expected = {"good": make_segment(segments, 1)}
    (segments / f"{1:020d}-abc.pcap").symlink_to(secret)
    (segments / "link.seg").symlink_to(secret)
    (segments / "folder.seg").mkdir()
    os.mkfifo(segments / "fifo.seg")
    for name in (
        "{{ 7*7 }}.seg",
        "a b.seg",
        "new\nline.seg",
        "-rf.seg",
        ".hidden.seg",
        "$(id).seg",
        "x.seg.tmp",
        "\u202egpj.seg",
    ):
        (segments / name).write_bytes((segments / f"{1:020d}-abc.seg").read_bytes())
    with (segments / "huge.seg").open("wb") as huge:
        huge.truncate((64 << 20) + 1)
    (segments / "empty.seg").write_bytes(b"")
    (segments / "short.seg").write_bytes(b"whoneeds-segment 1\n")
    cut = (segments / f"{1:020d}-abc.seg").read_bytes()[:-1]
    (segments / "cut.seg").write_bytes(cut)
    expected["cut"] = f"damaged-{hashlib.sha256(cut).hexdigest()}.seg"
    ended = threading.Event()

    def grow() -> None:
        with (segments / "growing.seg").open("wb", buffering=0) as growing:
            growing.write(b"whoneeds-segment 1\n")
            while not ended.wait(0.001):
                growing.write(os.urandom(512))

    writer = threading.Thread(target=grow)
    writer.start()
    yield expected
    ended.set()
    writer.join()


@pytest.fixture(scope="module")
def collected(player: Player, sources: Path, hostile: dict[str, str]) -> tuple[Path, dict[str, Played]]:
    """Two collections from good, hostile, broken and wrongly named hosts at once."""
    (sources / "good" / "segments").mkdir(parents=True)
    for order in range(3):
        make_segment(sources / "good" / "segments", order)
    (sources / "good" / "segments" / f"{1:020d}-abc.pcap").write_bytes(b"packets")
    (sources / "linked").mkdir()
    (sources / "linked" / "segments").symlink_to(sources / "good" / "segments")
    (sources / "bare").mkdir()
    incoming = player.folder / "deep" / "found" / "incoming"
    hosts = {name: local(sources / name) for name in ("good", "hostile", "linked", "bare")}
    for name in ("../../escaped", "a/b", "..", "{{ 7*7 }}", "-i", "x" * 300):
        hosts[name] = local(sources / "good")
    inventory = player.inventory(hosts, collector_incoming=str(incoming), collector_keep_free_bytes=0)
    runs = {name: player.role("collector", inventory) for name in ("first", "second")}
    return incoming, runs


def test_names_are_made_here_and_only_files_arrive(
    collected: tuple[Path, dict[str, Played]], sources: Path, hostile: dict[str, str]
) -> None:
    """From a hostile directory come the good segment and damaged ones, under names of the controller, only."""
    incoming, _runs = collected
    found = arrived(incoming / "hostile")
    assert set(found.values()) == {"file"}
    assert {hostile["good"], hostile["cut"]} <= set(found)
    others = set(found) - {hostile["good"], hostile["cut"]}
    assert all(name.startswith("damaged-") and len(name) == len("damaged-.seg") + 64 for name in others)
    # The growing file is a new one each time it is looked at; once for each of the two runs at most.
    assert len(others) <= 2
    assert all((incoming / "hostile" / name).stat().st_size < 64 << 20 for name in found)
    assert all(SECRET not in (incoming / "hostile" / name).read_bytes() for name in found)


def test_what_is_refused_is_said(collected: tuple[Path, dict[str, Played]]) -> None:
    """Warnings name the oversized and the short file, and quote nothing of a host's that is not printable ASCII."""
    said = " ".join(collected[1]["first"].result("Fetch segments", "hostile")["warnings"])
    assert "huge.seg was refused: 67108865 bytes are more than max_segment_bytes=67108864" in said
    assert "empty.seg was refused: too short" in said
    assert said.isascii()
    assert said.isprintable()


def test_a_linked_folder_is_not_followed(collected: tuple[Path, dict[str, Played]]) -> None:
    """A host whose folder of segments is a link is lost with a reason, and nothing comes from where the link leads."""
    incoming, runs = collected
    assert "Cannot read the segments" in runs["first"].failures()["linked"]
    assert not (incoming / "linked").exists()


def test_names_of_hosts_cannot_lead_elsewhere(collected: tuple[Path, dict[str, Played]], player: Player) -> None:
    """Inventory names that are paths, options, templates or too long are refused, and nothing is written for them."""
    incoming, runs = collected
    for name in ("../../escaped", "a/b", "..", "-i", "x" * 300):
        assert "cannot be used: expected letters" in runs["first"].failures()[name]
    assert set(arrived(incoming.parent)) == {"incoming"} | {f"incoming/{name}" for name in ("good", "hostile")} | {
        f"incoming/{host}/{name}" for host in ("good", "hostile") for name in arrived(incoming / host)
    }
    assert [path.name for path in (player.folder / "deep").iterdir()] == ["found"]


def test_others_go_on(collected: tuple[Path, dict[str, Played]], sources: Path) -> None:
    """Whatever happens with bad hosts, all segments of the good one arrive byte for byte."""
    incoming, _runs = collected
    sent = sorted(path.read_bytes() for path in (sources / "good" / "segments").iterdir())
    assert sorted(path.read_bytes() for path in (incoming / "good").iterdir()) == sent


def test_a_capture_file_comes_under_its_segments_name(collected: tuple[Path, dict[str, Played]], sources: Path) -> None:
    """A capture file arrives beside its segment, once, and a link in its place does not."""
    incoming, runs = collected
    (name,) = [path.name for path in (incoming / "good").iterdir() if path.suffix == ".pcap"]
    sent = (sources / "good" / "segments" / f"{1:020d}-abc.seg").read_bytes()
    assert name == f"{sent[-32:].hex()}.pcap"
    assert runs["first"].result("Fetch segments", "good")["captures"] == [name]
    assert runs["second"].result("Fetch segments", "good")["captures"] == []
    assert not list((incoming / "hostile").glob("*.pcap"))


def test_a_second_collection_changes_nothing(collected: tuple[Path, dict[str, Played]]) -> None:
    """What lies here whole is not fetched again."""
    result = collected[1]["second"].result("Fetch segments", "good")
    assert (result["changed"], result["fetched"], result["fetched_bytes"], result["present"]) == (False, [], 0, 3)


def test_a_host_without_tracer_says_so(collected: tuple[Path, dict[str, Played]]) -> None:
    """Where no tracer ran there is a warning, no change and no folder."""
    incoming, runs = collected
    result = runs["first"].result("Fetch segments", "bare")
    assert not result["changed"]
    assert "is a tracer installed there" in " ".join(result["warnings"])
    assert not (incoming / "bare").exists()


def test_an_interrupted_transfer_continues(player: Player, sources: Path) -> None:
    """A collection that was killed in a segment is continued where it was, and check mode foresees the rest."""
    segments = sources / "long" / "segments"
    segments.mkdir(parents=True)
    size_bytes = 8 << 20
    name = make_segment(segments, 1, size_bytes)
    incoming = player.folder / "resumed"
    settings = {"collector_incoming": str(incoming), "collector_keep_free_bytes": 0, "collector_piece_bytes": 1 << 17}
    inventory = player.inventory({"long": local(sources / "long")}, name="long")
    command = player.command(player.write_role_play("collector"), inventory, **settings)
    killed = subprocess.Popen(
        command, env=player.environment(player.folder / "killed.jsonl"), cwd=player.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    part = incoming / "long" / f".{name.removesuffix('.seg')}.part"
    until_s = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size >= 3 << 17) and time.monotonic() < until_s:
        time.sleep(0.02)
    workers = descendants(killed.pid)
    killed.kill()
    killed.wait()
    # Ansible's worker has outlived it and still fetches: whoever comes now must not write into its part.
    assert "another collection at work" in player.role("collector", inventory, **settings).failures()["long"]
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    had_bytes = part.stat().st_size
    assert 3 << 17 <= had_bytes < size_bytes
    settings["collector_piece_bytes"] = 4 << 20
    foreseen = player.role("collector", inventory, "--check", "--diff", **settings).require()
    assert foreseen.result("Fetch segments")["fetched"] == [name]
    assert arrived(incoming) == {"long": "folder", f"long/{part.name}": "file"}
    assert part.stat().st_size == had_bytes
    result = player.role("collector", inventory, **settings).require().result("Fetch segments")
    assert result["fetched"] == [name]
    assert result["fetched_bytes"] == (segments / f"{1:020d}-abc.seg").stat().st_size - had_bytes
    assert (incoming / "long" / name).read_bytes() == (segments / f"{1:020d}-abc.seg").read_bytes()
    assert arrived(incoming) == {"long": "folder", f"long/{name}": "file"}


def test_caps_postpone_and_refuse(player: Player, sources: Path) -> None:
    """The cap for a host leaves the rest for the next run, and a full controller fetches nothing."""
    segments = sources / "many" / "segments"
    segments.mkdir(parents=True)
    names = [make_segment(segments, order, 10_000) for order in range(4)]
    incoming = player.folder / "capped"
    settings = {"collector_incoming": str(incoming), "collector_keep_free_bytes": 0}
    inventory = player.inventory({"many": local(sources / "many")}, name="many")
    full = player.role("collector", inventory, **settings | {"collector_keep_free_bytes": 1 << 60})
    assert "too little room" in full.failures()["many"]
    first = player.role("collector", inventory, **settings, collector_max_host_bytes=25_000).require()
    result = first.result("Fetch segments")
    assert (result["fetched"], result["postponed"]) == (names[:2], 2)
    assert "2 segments wait for the next run" in " ".join(result["warnings"])
    second = player.role("collector", inventory, **settings, collector_max_host_bytes=25_000).require()
    assert second.result("Fetch segments")["fetched"] == names[2:]


def test_the_same_segments_twice_count_once(player: Player, sources: Path) -> None:
    """Real segments that were collected, analyzed, and collected and analyzed again, change nothing the second time."""
    source = sources / "real"
    trace = [sys.executable, "-I", str(ZIPAPP), "trace", "run", "--for", "2", "--period", "0.2", "--dir", str(source)]
    subprocess.run(trace, check=True, capture_output=True)
    settings = {"whoneeds_dir": str(player.folder / "real"), "whoneeds_become": False, "collector_keep_free_bytes": 0}
    inventory = player.inventory({"real": local(source, tracer_dir=str(source))}, name="real")
    runs = [
        player.play(f"whoneeds.discovery.{verb}", inventory, **settings).require()
        for verb in ("collect", "analyze", "collect", "analyze")
    ]
    assert runs[0].changed("real") == ["Fetch segments"]
    assert runs[1].changed("real") == ["Turn segments into dependencies"]
    assert runs[2].changed("real") == runs[3].changed("real") == []
    count = [str(BIN / "whoneeds"), "connections", "--store", str(player.folder / "real" / "store"), "--format", "json"]
    once = subprocess.run(count, check=True, capture_output=True).stdout
    # The same files under another name are still the same segments.
    for path in (source / "segments").iterdir():
        path.rename(path.with_name("9" + path.name[1:]))
    again = player.play("whoneeds.discovery.collect", inventory, **settings).require()
    assert again.changed("real") == []
    assert subprocess.run(count, check=True, capture_output=True).stdout == once
