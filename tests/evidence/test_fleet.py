# SPDX-License-Identifier: GPL-3.0-or-later
"""Cases on several hosts, each with a pid and network namespace, an address and a tracer of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.evidence.stage import Answer, walk

pytestmark = pytest.mark.root
_HUB, _MOVING = "10.78.0.1", "10.78.0.99"
_HOSTS = {f"web{number}": f"10.78.0.{10 + number}" for number in range(1, 6)}
_EXPORTER, _STORAGE = 9100, 8428
#: Clocks of hosts that are wrong: by how much, and by how much after the step.
_CLOCKS = {"web3": ("+3600", "+3600"), "web4": ("-3600", "-3600"), "web5": ("+1800", "+0")}


@dataclass(frozen=True)
class Played:
    """What really happened, by case, and what the line made of it."""

    truth: dict[str, Any]
    answer: Answer


def _faketime():
    """Path of the library that gives one program another wall clock, or None."""
    path = shutil.which("faketime")
    if path is None:
        return None
    done = subprocess.run([path, "-f", "+0", "env"], capture_output=True, text=True, check=True)
    return next(line.partition("=")[2] for line in done.stdout.splitlines() if line.startswith("LD_PRELOAD="))


@pytest.fixture(scope="module")
def played(stage, tmp_path_factory):
    """All cases on six hosts at once, traced for some ten seconds."""
    hub = stage.host("mon1")
    hub.become_hub(_HUB)
    hosts = {name: stage.host(name) for name in _HOSTS}
    for name, host in hosts.items():
        host.connect_to(hub, _HOSTS[name])
    hosts["web1"].take(_MOVING)
    clocks = {name: stage.folder / f"clock-{name}" for name in (_CLOCKS if _faketime() else ())}
    for name, path in clocks.items():
        path.write_text(_CLOCKS[name][0])
    tracers = [stage.trace(hub)]
    for name, host in hosts.items():
        environment = {}
        if name in clocks:
            environment = {
                "LD_PRELOAD": _faketime(), "FAKETIME_TIMESTAMP_FILE": str(clocks[name]), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }  # fmt: skip
        tracers.append(stage.trace(host, environment=environment, packets="off"))
    for tracer in tracers:
        tracer.await_first_sample()
    truth = {"clocks": bool(clocks), "services": start_services(stage, hub, hosts)}
    truth["before"] = call_services(stage, hub, hosts, truth["services"])
    truth["moved"] = move_address(stage, hub, hosts)
    truth["reborn"] = reuse_number(stage, hosts["web1"])
    for name, path in clocks.items():
        path.write_text(_CLOCKS[name][1])
    time.sleep(5.5)  # so that every tracer takes a sample after the step
    truth["after"] = call_services(stage, hub, hosts, truth["services"])
    for tracer in tracers:
        tracer.stop()
    return Played(truth, walk(tmp_path_factory.mktemp("line"), tracers))


def start_services(stage, hub, hosts):
    """An exporter on every host, and a backend on the hub; their numbers by host."""
    services = {}
    for name, host in hosts.items():
        server = stage.start("exporterd", host)
        server.tell("listen", "0.0.0.0", _EXPORTER)
        services[name] = server.pid
    storage = stage.start("storaged", hub)
    storage.tell("listen", "0.0.0.0", _STORAGE)
    services["mon1"] = storage.pid
    return services


def call_services(stage, hub, hosts, services):
    """One scraper that calls every host, and a program on every host that calls the hub; the connections."""
    made = []
    scraper = stage.start("scraper", hub)
    for name, address in _HOSTS.items():
        key, _, port = scraper.tell("connect", address, _EXPORTER)
        scraper.tell("say", key, 20)
        scraper.tell("close", key)
        made.append((port, "scraper", "mon1", scraper.pid, "exporterd", name, services[name]))
    for name, host in hosts.items():
        sender = stage.start("sender", host)
        key, _, port = sender.tell("connect", _HUB, _STORAGE)
        sender.tell("say", key, 30)
        sender.tell("close", key)
        made.append((port, "sender", name, sender.pid, "storaged", "mon1", services["mon1"]))
    return made


def move_address(stage, hub, hosts):
    """Two connections to one address and port, with the address on another host by the second."""
    caller, made = stage.start("mover", hub), []
    for name in ("web1", "web2"):
        if made:
            hosts["web1"].leave(_MOVING)
            hosts["web2"].take(_MOVING)
            hub.run("ip", "neigh", "flush", "dev", "hub")
        server = stage.start(f"moving{name}", hosts[name])
        server.tell("listen", _MOVING, 7777)
        key, _, port = caller.tell("connect", _MOVING, 7777)
        caller.tell("say", key, 6)
        caller.tell("close", key)
        made.append((port, name, f"moving{name}", server.pid))
    return made


def reuse_number(stage, host):
    """Two programs, one after the other, that the kernel gives one number; the number and their ports."""
    server = stage.start("numberd", host)
    port = server.tell("listen", "127.0.0.1")
    first, ports = stage.start("firstborn", host), []
    for name in ("firstborn", "secondborn"):
        caller = first if name == "firstborn" else None
        while caller is None or caller.pid != first.pid:
            if caller is not None:
                caller.end()
            host.run("sh", "-c", f"echo {first.pid - 1} > /proc/sys/kernel/ns_last_pid")
            caller = stage.start(name, host)
        key, _, local_port = caller.tell("connect", "127.0.0.1", port)
        caller.tell("say", key, 8)
        caller.tell("close", key)
        caller.end()
        ports.append(local_port)
    return {"pid": first.pid, "port": port, "ports": ports}


def find(answer, made):
    """Both ends of the connections, as the line tells of them, in the same form as the truth."""
    names = ("orig_port", "orig_app", "orig_host", "orig_pid", "resp_app", "resp_host", "resp_pid")
    ports = {row[0] for row in made}
    rows = [row for port in (_EXPORTER, _STORAGE) for row in answer.calls(port)]
    return sorted(tuple(row[name] for name in names) for row in rows if row["orig_port"] in ports)


def test_an_address_that_moves(played):
    """Connections to an address that moves to another host belong to the host that had it at the time."""
    rows = played.answer.calls(7777)
    assert {row["resp_addr"] for row in rows} == {_MOVING}
    assert [
        (row["orig_port"], row["resp_host"], row["resp_app"], row["resp_pid"]) for row in rows
    ] == played.truth["moved"]  # fmt: skip
    assert {(row["orig_host"], row["orig_app"]) for row in rows} == {("mon1", "mover")}


def test_a_number_that_is_used_again(played):
    """Two processes that had one number are two, each with its own program and connection."""
    truth = played.truth["reborn"]
    rows = played.answer.calls(truth["port"])
    assert [(row["orig_port"], row["orig_pid"], row["orig_app"]) for row in rows] == [
        (truth["ports"][0], truth["pid"], "firstborn"), (truth["ports"][1], truth["pid"], "secondborn")
    ]  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
def test_hosts_with_wrong_clocks(played, when):
    """Hosts whose clocks are an hour wrong, or are set during the run, have both ends and directions as the others."""
    if not played.truth["clocks"]:
        pytest.skip("no faketime here: nothing gives one program another wall clock")
    made = played.truth[when]
    assert find(played.answer, made) == sorted(made)


def test_wrong_clocks_are_told(played):
    """The facts say of each host whose clock is wrong how far, and of the one that was set that it was set."""
    if not played.truth["clocks"]:
        pytest.skip("no faketime here: nothing gives one program another wall clock")
    told = {
        host: [words for words in facts["coverage"]["gaps"] if words.startswith("clock: ambiguous: ")]
        for host, facts in played.answer.hosts.items()
    }
    assert {host for host, words in told.items() if words} == set(_CLOCKS)
    for host, words in (("web3", "3600.0 s ahead of"), ("web4", "3600.0 s behind"), ("web5", "set by -1800.0 s")):
        assert len(told[host]) == 1
        assert words in told[host][0]
    begun = [row["first_ns"] for port in (_EXPORTER, _STORAGE) for row in played.answer.calls(port)]
    assert max(begun) - min(begun) < 60e9


def ask(answer, *words):
    """What the command says of the store: standard output, and what stands under it in one line."""
    command = [sys.executable, "-m", "whoneeds", "deps", "--store", str(answer.store), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    return done.stdout, " ".join(done.stderr.split())


def test_a_scraper(played):
    """A program that calls every host is recognised as such, and is one line for all of them."""
    table, said = ask(played.answer)
    assert [line.split()[1:5] for line in table.splitlines() if line.startswith("scraper@mon1")] == [
        ["exporterd", "on", "5", "hosts"]
    ]
    assert f"scraper@mon1 uses tcp/{_EXPORTER} on 5 of 5 other hosts" in said
    rows = json.loads(ask(played.answer, "--format", "json")[0])
    assert {row["app"] for row in rows if row["sweep"]} == {"scraper"}
    assert {row["resp_host"] for row in rows if row["app"] == "scraper"} == set(_HOSTS)
    each, _said = ask(played.answer, "--service", f"tcp/{_EXPORTER}")
    assert sum(line.startswith("scraper@mon1") for line in each.splitlines()) == len(_HOSTS)
