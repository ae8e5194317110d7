# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded discovery of a small fleet without any network, some of whose hosts cannot be used."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .conftest import variables_of
from .namespace_host import NamespaceHost
from .played import Played, Player

pytestmark = pytest.mark.root

SETTINGS: dict[str, Any] = {"whoneeds_trace_s": 5, "tracer_period_s": 0.2, "tracer_rotate_s": 1}
#: A client that keeps one connection to a service open and talks over it.
TALK = """
import socket, threading, time
waiting = socket.create_server(("127.0.0.1", {port}))
near = socket.create_connection(("127.0.0.1", {port}))
far, _address = waiting.accept()
while True:
    near.sendall(b"x" * 100)
    far.recv(100)
    time.sleep(0.05)
"""
GOOD = ("good1", "good2")


def old_python() -> Path | None:
    """An interpreter that modules run under and the tracer does not."""
    found = sorted(Path("~/.pyenv/versions").expanduser().glob("3.8.*/bin/python3.8"))
    return found[0] if found else None


@dataclass
class Story:
    """What was played, in order, and what the hosts held after it."""

    folder: Path
    hosts: dict[str, NamespaceHost]
    runs: dict[str, Played] = field(default_factory=dict)
    written: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    processes: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def note(self, name: str, run: Played) -> None:
        """Remember a run and the hosts as it left them."""
        self.runs[name] = run
        self.written[name] = {host: self.hosts[host].written() for host in GOOD}
        self.processes[name] = {
            host: [line for line in self.hosts[host].processes() if "whoneeds" in line] for host in GOOD
        }


@pytest.fixture(scope="module")
def story(player: Player, new_host: Callable[[str], NamespaceHost]) -> Iterator[Story]:
    """Discover twice, publish again, gather facts, remove."""
    hosts = {name: new_host(name) for name in (*GOOD, "gone1", "old1", "bare1")}
    # Nothing can be executed where the tracer goes; it is Python's to read, not the kernel's to run.
    hosts["good2"].run("mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev", "whoneeds", "/var/lib")
    hosts["good2"].run("mount", "-o", "remount,bind,noexec", "/tmp")
    variables = {name: variables_of(host) for name, host in hosts.items()}
    hosts["gone1"].stop()
    variables["bare1"]["ansible_python_interpreter"] = "/nowhere/python3"
    old = old_python()
    if old is None:
        del variables["old1"]
    else:
        variables["old1"]["ansible_python_interpreter"] = str(old)
    inventory = player.inventory(variables, whoneeds_dir=str(player.folder / "found"))
    # The controller has a network of its own, in which even the loopback link is down.
    player.prefix = ["unshare", "--net", "--"]
    # by the interpreter's own path: where the checkout lies below /tmp, hosts do not see it
    python = str(Path(sys.executable).resolve())
    talkers = [subprocess.Popen(hosts[name].command(python, "-c", TALK.format(port=6379))) for name in GOOD]
    told = Story(player.folder, hosts)
    told.note("before", Played(0, [], ""))
    told.note("foreseen", player.play("whoneeds.discovery.discover", inventory, "--check", "--diff", **SETTINGS))
    assert [talker.poll() for talker in talkers] == [None, None]
    told.note("discovered", player.play("whoneeds.discovery.discover", inventory, **SETTINGS))
    told.note("published", player.play("whoneeds.discovery.publish", inventory, "--diff"))
    told.note("gathered", player.play(write_gather(player.folder), inventory))
    told.note("removed", player.play("whoneeds.discovery.untrace", inventory))
    yield told
    for talker in talkers:
        talker.kill()
        talker.wait()


def write_gather(folder: Path) -> Path:
    """A playbook that gathers local facts."""
    path = folder / "gather.yml"
    path.write_text(
        json.dumps(
            [
                {
                    "name": "Gather", "hosts": ",".join(GOOD), "gather_facts": False,
                    "tasks": [
                        {"name": "Gather", "ansible.builtin.setup": {"gather_subset": ["!all", "!min", "local"]}}
                    ],
                }
            ]
        )
    )  # fmt: skip
    return path


def test_nothing_but_ansibles_own_connection_is_used(story: Story, player: Player) -> None:
    """Controller and hosts have no network at all, and the discovery still succeeds on every usable host."""
    assert set(GOOD) & set(story.runs["discovered"].failures()) == set()
    links = subprocess.run([*player.prefix, "ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in links.splitlines()] == ["lo:"]
    assert "state DOWN" in links
    assert [line.split()[1] for line in story.hosts["good1"].run("ip", "-o", "link").splitlines()] == ["lo:"]


def test_check_mode_writes_nothing_anywhere(story: Story) -> None:
    """A discovery in check mode leaves no file on hosts or controller."""
    assert story.written["foreseen"] == story.written["before"]
    assert story.processes["foreseen"] == story.processes["before"]
    assert set(GOOD) & set(story.runs["foreseen"].failures()) == set()


def test_a_campaign_leaves_only_the_local_fact(story: Story) -> None:
    """After a discovery nothing of the tracer is left on the hosts, and the one file left is the host's own share."""
    for host in GOOD:
        left = {name for name in story.written["discovered"][host] if name not in story.written["before"][host]}
        assert left - {"etc/ansible", "etc/ansible/facts.d"} == {"etc/ansible/facts.d/whoneeds.fact"}
        assert story.processes["discovered"][host] == []
    assert story.hosts["good2"].run("ls", "-A", "/var/lib") == ""


def test_the_discovery_found_what_talks(story: Story) -> None:
    """Both hosts' facts say that their program needs the service that it really talks to."""
    document = json.loads((story.folder / "found" / "facts.json").read_text())
    for host in GOOD:
        needs = document["hosts"][host]["needs"]
        assert [(need["protocol"], need["port"]) for need in needs] == [("tcp", 6379)]


def test_unusable_hosts_say_why_and_others_go_on(story: Story) -> None:
    """A host that is gone and one without Python are lost with a reason, and the exit code says that one is gone."""
    run = story.runs["discovered"]
    failures = run.failures()
    assert "has ended" in failures["gone1"]
    assert "/nowhere/python3" in failures["bare1"] or "interpreter" in failures["bare1"]
    assert run.code == 4
    said = " ".join(run.text.rpartition("hosts were left out")[2].split())
    lost = ["bare1", "gone1", *(["old1"] if old_python() else [])]
    assert f"(see above): {', '.join(lost)}. The others are complete." in said


def test_too_old_a_python_is_refused(story: Story) -> None:
    """A host with Python 3.8 only is told which version the tracer needs, which it has, and what to set."""
    if old_python() is None:
        pytest.skip("there is no Python 3.8 here")
    said = story.runs["discovered"].failures()["old1"]
    for words in ("Expected Python 3.9 or newer", "found 3.8.", "tracer_python"):
        assert words in said


def test_publishing_twice_changes_nothing(story: Story) -> None:
    """The same store published again changes no task, no file and shows no difference."""
    for host in GOOD:
        assert story.runs["published"].changed(host) == []
        assert story.runs["published"].diffs(host) == []
    assert story.written["published"] == story.written["discovered"]


def test_the_host_knows_its_own_share(story: Story) -> None:
    """Gathering facts gives ansible_local.whoneeds with the host's own needs."""
    for host in GOOD:
        local = story.runs["gathered"].result("Gather", host)["ansible_facts"]["ansible_local"]["whoneeds"]
        document = json.loads((story.folder / "found" / "facts.json").read_text())
        assert local["needs"] == document["hosts"][host]["needs"] != []


def test_removal_leaves_the_hosts_as_they_were(story: Story) -> None:
    """After untrace the hosts hold exactly what they held before the discovery."""
    assert story.written["removed"] == story.written["before"]
