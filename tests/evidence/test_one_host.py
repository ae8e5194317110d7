# SPDX-License-Identifier: GPL-3.0-or-later
"""Cases on one host: this machine, traced once at the default period while all of them play."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests.evidence.stage import Answer, free_port, walk

pytestmark = pytest.mark.root
#: The case says a minute, which `make test-long` plays; five seconds are one period as well.
_HASTY_EVERY_S = float(os.environ.get("HASTY_EVERY_S", "5"))
_WORKERS, _CALLS = 3, 12
_PEERS = 12


@dataclass(frozen=True)
class Played:
    """What really happened, by case, and what the line made of it."""

    truth: dict[str, Any]
    answer: Answer


@pytest.fixture(scope="module")
def played(stage, tmp_path_factory):
    """All cases in one traced run of some twelve seconds."""
    truth: dict[str, Any] = {"early": open_early(stage), "high_early": call_high_port(stage, "highd1", "lowcaller1")}
    tracer = stage.trace().await_first_sample()
    server = stage.start("clockd")
    port = server.tell("listen", "127.0.0.1")
    shots = [stage.call_once("hasty", "127.0.0.1", port)]
    until_s = time.monotonic() + _HASTY_EVERY_S
    truth["reused"] = reuse_port(stage)
    truth["high"] = call_high_port(stage, "highd2", "lowcaller2", lasts=False)
    truth["mapped"] = call_mapped(stage)
    truth["forked"] = call_forked(stage)
    truth["fixed"] = call_fixed_port(stage)
    truth["changed"] = change_program(stage)
    old = truth["early"]
    old["caller"].tell("say", old["key"], 24)
    time.sleep(max(until_s - time.monotonic(), 0))
    shots.append(stage.call_once("hasty", "127.0.0.1", port))
    truth["hasty"] = {"port": port, "server": server.pid, "shots": shots}
    tracer.stop()
    return Played(truth, walk(tmp_path_factory.mktemp("line"), [tracer]))


def open_early(stage):
    """A connection that is there before the tracer, and stays."""
    server, caller = stage.start("olddb"), stage.start("oldapp")
    port = server.tell("listen", "127.0.0.1")
    key, _, local_port = caller.tell("connect", "127.0.0.1", port)
    caller.tell("say", key, 1000)
    return {"server": server.pid, "caller": caller, "port": port, "key": key, "local_port": local_port}


def reuse_port(stage):
    """Two programs, one after the other, from one port to one server, with nothing left of the first in between."""
    server = stage.start("reused")
    port, local_port = server.tell("listen", "127.0.0.1"), free_port(20000, 21000)
    pids = {}
    for name, count in (("firstcaller", 11), ("nextcaller", 222)):
        caller = stage.start(name)
        key, _, _ = caller.tell("connect", "127.0.0.1", port, local_port)
        caller.tell("say", key, count)
        caller.tell("close", key, reset=True)
        pids[name] = (caller.pid, count)
        caller.end()
    return {"server": server.pid, "port": port, "local_port": local_port, "pids": pids}


def call_high_port(stage, server_name, caller_name, *, lasts=True):
    """A server's port above the caller's."""
    server, caller = stage.start(server_name), stage.start(caller_name)
    port = server.tell("listen", "127.0.0.1", free_port(61000, 62000))
    key, _, local_port = caller.tell("connect", "127.0.0.1", port, free_port(21000, 22000))
    caller.tell("say", key, 5)
    if not lasts:
        caller.tell("close", key)
    return {"server": server.pid, "caller": caller.pid, "port": port, "local_port": local_port}


def call_mapped(stage):
    """Callers that speak IPv4 over sockets of either family to a server that waits on both."""
    server, caller = stage.start("bothd"), stage.start("mappedcaller")
    port = server.tell("listen", "::", 0, "AF_INET6", both=True)
    ports = []
    for address, family in (("::ffff:127.0.0.1", "AF_INET6"), ("127.0.0.1", "AF_INET")):
        for lasts in (False, True):
            key, _, local_port = caller.tell("connect", address, port, 0, family)
            caller.tell("say", key, 7)
            ports.append(local_port)
            if not lasts:
                caller.tell("close", key)
    return {"server": server.pid, "caller": caller.pid, "port": port, "ports": ports}


def call_forked(stage):
    """A server of several processes with one listening socket; who answered each connection is what it says itself."""
    server, caller = stage.start("preforkd"), stage.start("forkcaller")
    port, workers = server.tell("prefork", "127.0.0.1", _WORKERS)
    open_now, answered = [], {}
    for number in range(_CALLS):
        key, _, local_port = caller.tell("connect", "127.0.0.1", port)
        answered[local_port] = int(caller.tell("say", key, 3).split()[0])
        if number % 4:
            caller.tell("close", key)
        else:
            open_now.append(key)  # a worker is busy with it from now on
        if len(open_now) == _WORKERS:
            caller.tell("close", open_now.pop(0))
    return {"server": server.pid, "workers": workers, "port": port, "answered": answered}


def call_fixed_port(stage):
    """A dozen processes of one program that all call port 40000, and each one more on a port of the moment."""
    port = free_port(40000, 40010)
    service, peers = stage.start("steadyd"), []
    service.tell("listen", "127.0.0.1", port)
    other = stage.start("peerd")
    for _ in range(_PEERS):
        peer, moment = stage.start("peer"), other.tell("listen", "127.0.0.1")
        for called in (port, moment):
            key, _, _ = peer.tell("connect", "127.0.0.1", called)
            peer.tell("say", key, 4)
            peer.tell("close", key)
        peer.end()
        peers.append(moment)
    return {"port": port, "moments": peers}


def change_program(stage):
    """A process that connects, becomes another program, and connects again."""
    server, caller = stage.start("changed"), stage.start("programone")
    port = server.tell("listen", "127.0.0.1")
    ports = []
    for name in ("programone", "programtwo"):
        if ports:
            caller.become(stage.program(name))
        key, _, local_port = caller.tell("connect", "127.0.0.1", port)
        caller.tell("say", key, 9)
        caller.tell("close", key)
        ports.append(local_port)
    return {"pid": caller.pid, "port": port, "ports": ports}


def test_a_process_of_a_moment(played):
    """Two processes of 100 ms, a period or a minute apart, are found with their connections and names."""
    truth = played.truth["hasty"]
    rows = played.answer.calls(truth["port"])
    assert [(row["orig_pid"], row["orig_port"]) for row in rows] == truth["shots"]
    assert {(row["orig_app"], row["resp_app"], row["resp_pid"]) for row in rows} == {
        ("hasty", "clockd", truth["server"])
    }
    assert {(row["orig_bytes"], row["resp_bytes"]) for row in rows} == {(10, 20)}


def test_a_port_that_is_used_again(played):
    """Two connections of two processes from one port within one period are two, each with its own process."""
    truth = played.truth["reused"]
    rows = played.answer.calls(truth["port"], orig_port=truth["local_port"])
    assert {row["orig_app"]: (row["orig_pid"], row["orig_bytes"]) for row in rows} == truth["pids"]
    assert [row["orig_app"] for row in rows] == list(truth["pids"])
    assert [(row["resp_app"], row["resp_pid"]) for row in rows] == [("reused", truth["server"])] * 2


def test_a_connection_older_than_the_tracer(played):
    """A connection that was open before the tracer began has both programs, its direction and all its bytes."""
    truth = played.truth["early"]
    (row,) = played.answer.calls(truth["port"])
    assert (row["orig_port"], row["orig_app"], row["orig_pid"]) == (
        truth["local_port"], "oldapp", truth["caller"].pid
    )  # fmt: skip
    assert (row["resp_app"], row["resp_pid"]) == ("olddb", truth["server"])
    assert (row["orig_bytes"], row["resp_bytes"]) == (1024, 2048)


@pytest.mark.parametrize("case", ["high_early", "high"])
def test_a_server_above_its_caller(played, case):
    """A server on a port above its caller's is the called end, whether events tell of it or only samples."""
    truth = played.truth[case]
    (row,) = played.answer.calls(truth["port"])
    assert (row["orig_port"], row["orig_pid"], row["resp_pid"]) == (
        truth["local_port"], truth["caller"], truth["server"]
    )  # fmt: skip
    assert row["direction"] in ("event", "listener")


def test_mapped_addresses(played):
    """A caller on an IPv4-mapped IPv6 socket and its server meet under one address in IPv4 text."""
    truth = played.truth["mapped"]
    rows = played.answer.calls(truth["port"])
    assert sorted(row["orig_port"] for row in rows) == sorted(truth["ports"])
    assert {(row["orig_addr"], row["resp_addr"]) for row in rows} == {("127.0.0.1", "127.0.0.1")}
    assert {(row["orig_pid"], row["resp_pid"]) for row in rows} == {(truth["caller"], truth["server"])}
    assert not [row for row in played.answer.connections if row["orig_port"] == truth["port"]]


def test_a_forking_server(played):
    """Of a server with one listening socket in many processes each connection belongs to the one that answered it."""
    truth = played.truth["forked"]
    rows = played.answer.calls(truth["port"])
    assert {row["orig_port"]: row["resp_pid"] for row in rows} == truth["answered"]
    assert {row["resp_app"] for row in rows} == {"preforkd"}
    assert len(Counter(truth["answered"].values())) > 1
    assert truth["server"] not in {row["resp_pid"] for row in rows}
    offers = [offer for offer in played.answer.hosts["here"]["provides"] if offer["port"] == truth["port"]]
    assert [(offer["app"], offer["needed_by_apps"]) for offer in offers] == [("preforkd", ["forkcaller"])]
    assert played.answer.needs("forkcaller") == {("tcp", truth["port"]): "static"}


def test_a_service_on_port_40000(played):
    """A service on an ephemeral port is a static need and a group, and the ports of the moment beside it are not."""
    truth = played.truth["fixed"]
    needs = played.answer.needs("peer")
    assert set(needs) == {("tcp", port) for port in (truth["port"], *truth["moments"])}
    assert needs.pop(("tcp", truth["port"])) == "static"
    assert set(needs.values()) == {"transient"}
    groups = played.answer.hosts["here"]["groups"]
    assert f"whoneeds_provides_tcp_{truth['port']}" in groups
    assert not {f"whoneeds_provides_tcp_{port}" for port in truth["moments"]} & set(groups)


def test_another_program_in_the_same_process(played):
    """Connections of a process that became another program carry the name of the program that made them."""
    truth = played.truth["changed"]
    rows = played.answer.calls(truth["port"])
    assert [(row["orig_port"], row["orig_pid"]) for row in rows] == [(port, truth["pid"]) for port in truth["ports"]]
    assert [row["orig_app"] for row in rows] == ["programone", "programtwo"]
