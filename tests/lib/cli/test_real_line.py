# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole line on this machine: real servers and clients on loopback, the real tracer, the real commands."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

SERVER = """\
import socket, sys, threading

family, address = (socket.AF_INET6, "::1") if sys.argv[1] == "6" else (socket.AF_INET, "127.0.0.1")
waiting = socket.socket(family)
waiting.bind((address, 0))
waiting.listen()
print(waiting.getsockname()[1], flush=True)


def serve(connection):
    while piece := connection.recv(4096):
        connection.sendall(piece * 2)


while True:
    threading.Thread(target=serve, args=waiting.accept()[:1], daemon=True).start()
"""
CLIENT = """\
import socket, sys, time

address = ("::1" if sys.argv[1] == "6" else "127.0.0.1", int(sys.argv[2]))
connection = socket.create_connection(address)
print("connected", flush=True)
while True:
    connection.sendall(b"ping")
    connection.recv(64)
    time.sleep(0.1)
"""
#: Client program, server program, IP version, clients.
PAIRS = (("shopfront", "ordersd", "4", 3), ("mailer", "queued", "6", 1))


@dataclass(frozen=True)
class Edge:
    """What is really going on: a client program that talks to a server program."""

    client: str
    client_pids: frozenset
    server: str
    server_pid: int
    port: int


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """The store of a real observation, and the truth about what went on meanwhile."""
    folder = tmp_path_factory.mktemp("real")
    with ExitStack() as running:

        def start(name, text, *words):
            """Start a program under its own name and wait for its first word."""
            path = folder / name
            path.write_text(f"#!{sys.executable}\n{text}")
            path.chmod(0o755)
            process = running.enter_context(subprocess.Popen([str(path), *words], stdout=subprocess.PIPE, text=True))
            running.callback(process.kill)
            return process.pid, process.stdout.readline().strip()

        truth = []
        for client, server, version, count in PAIRS:
            server_pid, port = start(server, SERVER, version)
            pids = frozenset(start(client, CLIENT, version, port)[0] for _ in range(count))
            truth.append(Edge(client, pids, server, server_pid, int(port)))
        whoneeds("trace", "run", "--for", "6", "--period", "0.5", "--dir", folder / "traced")
    said = whoneeds("run", "--from", folder / "traced", "--host", "here", "--store", folder / "store")
    return folder / "store", truth, said


def whoneeds(*words):
    """Run the command as a program; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "whoneeds", *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def answer(*words):
    """Rows that a query answers."""
    return json.loads(whoneeds(*words, "--format", "json").stdout)


def test_connections_have_the_right_processes(observed):
    """Every connection that was really there is found, with the right program and pid at both ends."""
    store, truth, _ = observed
    rows = answer("connections", "--store", store)
    for edge in truth:
        found = [row for row in rows if row["resp_port"] == edge.port]
        assert {row["orig_app"] for row in found} == {edge.client}
        assert sorted(row["orig_pid"] for row in found) == sorted(edge.client_pids)
        assert {(row["resp_app"], row["resp_pid"]) for row in found} == {(edge.server, edge.server_pid)}
        assert {(row["orig_host"], row["resp_host"], row["rule"]) for row in found} == {
            ("here", "here", "socket/socket")
        }
        assert all(row["samples"] >= 8 for row in found)
        # four bytes go out ten times a second, and twice as many come back
        assert all(80 <= row["orig_bytes"] <= row["resp_bytes"] for row in found)


def test_dependencies_are_the_real_ones(observed):
    """Each client program needs its server program, statically, and none of the four programs needs anything else."""
    store, truth, _ = observed
    names = {name for edge in truth for name in (edge.client, edge.server)}
    rows = [row for row in answer("deps", "--store", store) if row["app"] in names]
    found = {(row["dependent"], row["depends_on"], row["kind"], row["support"]) for row in rows}
    assert found == {
        (f"{edge.client}@here", f"{edge.server}@here tcp/{edge.port}", "static", len(edge.client_pids))
        for edge in truth
    }


def test_instances_are_counted(observed):
    """Three processes of one program are three instances, all of which use the service."""
    store, truth, _ = observed
    rows = answer("deps", "--store", store, "--level", "3", "--app", "shopfront")
    assert {row["pid"] for row in rows} == truth[0].client_pids
    assert {(row["support"], row["population"], row["usage_share"]) for row in rows} == {(3, 3, 1.0)}


def test_facts_carry_the_real_dependencies(observed, tmp_path):
    """The facts of this machine name the needs and the provisions that really exist."""
    store, truth, _ = observed
    whoneeds("facts", "--store", store, "--out", tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())["hosts"]["here"]
    for edge in truth:
        need = next(need for need in facts["needs"] if need["port"] == edge.port)
        assert (need["app"], need["provider"], need["host"], need["kind"]) == (
            edge.client,
            edge.server,
            "here",
            "static",
        )
        offer = next(offer for offer in facts["provides"] if offer["port"] == edge.port)
        assert (offer["app"], offer["loopback_only"], offer["needed_by_apps"]) == (edge.server, True, [edge.client])
        assert edge.client in facts["runs"]


def test_the_walk_is_told(observed):
    """Each step of the walk is one line on standard error, and what was looked at is stated."""
    _, _, said = observed
    for step in ("ingest", "flows", "attribute", "instances", "dependencies"):
        assert sum(line.startswith(f"{step} ") for line in said.stderr.splitlines()) == 1
    assert "Seen: 1 host, " in said.stderr
    assert said.stdout == ""
