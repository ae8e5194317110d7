# SPDX-License-Identifier: GPL-3.0-or-later
"""From real sockets in real namespaces through segments and store to connections and dependencies."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from crossing import CALL, CLIENT, DNAT, INSIDE, MASQUERADE, OUTSIDE, PORT, PUBLISHED, SERVE, SERVER, call, crossing
from runs import wait_for

from whoneeds.analysis.hosts import fold_to_hosts
from whoneeds.collector.connections import join_connections
from whoneeds.model.conclusions import ApplicationInstance, Attribution, Dependency, LocalUse
from whoneeds.model.evidence import FlowRecord
from whoneeds.pipeline import run_line
from whoneeds.store import open_store

#: Gives itself a name, as a program has one.
NAMED = "import sys; open('/proc/self/comm', 'w').write({name!r})\n"
ON_LOOPBACK = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 7000))
client = socket.socket()
client.bind(("127.0.0.1", 40007))
client.connect(("127.0.0.1", 7000))
kept = server.accept()[0]
client.sendall(b"x" * int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def analyzed(folder, name, *hosts):
    """Connections and dependencies of what the tracers of these hosts left in a folder."""
    incoming = folder / name
    for host in hosts:
        shutil.copytree(folder / host / "segments", incoming / host)
    with open_store(folder / f"{name}.store", create=True, write=True) as store:
        walk = run_line(store, [incoming])
        assert walk.taken_in.complete, walk.taken_in
        connections = store.read(join_connections(store.table(FlowRecord), store.table(Attribution))).to_pylist()
        needs = store.read(fold_to_hosts(store.table(Dependency))).to_pylist()
    return connections, needs


def trace_here(trace, folder):
    """Let a tracer of this machine look a few times."""
    subprocess.run([*trace, "run", "--for", "1.5", "--period", "0.5", "--dir", folder], check=True, stderr=-1)


def ends(rows):
    """Host and application at both ends of each."""
    return sorted([(row["orig_host"], row["orig_app"], row["resp_host"], row["resp_app"]) for row in rows], key=repr)


@pytest.mark.root
def test_a_published_port_and_a_masked_caller_on_one_host(trace, tmp_path):
    """A host with a router and a server in namespaces of their own: the call is one flow, between the real programs."""
    with (
        crossing(DNAT, MASQUERADE) as crossed,
        crossed.running("server", NAMED.format(name="shopd") + SERVE) as server,
        crossed.running("client", NAMED.format(name="visitor") + CALL) as client,
    ):
        server.stdout.readline()
        port = call(client, OUTSIDE, PUBLISHED)
        trace_here(trace, tmp_path / "host1")
    connections, needs = analyzed(tmp_path, "all", "host1")
    (row,) = [row for row in connections if row["orig_port"] == port and row["orig_addr"] == CLIENT]
    assert (row["orig_app"], row["orig_pid"], row["resp_app"], row["resp_pid"]) == (
        "visitor", client.pid, "shopd", server.pid,
    )  # fmt: skip
    assert (row["resp_addr"], row["resp_port"], row["called_addr"], row["called_port"]) == (
        SERVER, PORT, OUTSIDE, PUBLISHED,
    )  # fmt: skip
    assert (row["caller_addr"], row["translated"]) == (INSIDE, "resolved")
    (need,) = [row for row in needs if row["app"] == "visitor"]
    assert (need["resp_app"], need["resp_addr"], need["port"]) == ("shopd", SERVER, PORT)


def samples(folder):
    """How often a tracer has looked by now."""
    try:
        return json.loads((folder / "status.json").read_text())["samples"]
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def traced_host(crossed, role, program, trace, folder):
    """A namespace as a host of its own: its program and a tracer that sees no other process."""
    inside = ["nsenter", f"--net={crossed.ways[role]}", "unshare", "--pid", "--fork", "--mount-proc"]
    script = f"""
import subprocess, sys
for way in {[*crossed.ways.values()]!r}:  # else each would see the others' namespaces by their mounts
    subprocess.run(["umount", "--lazy", way], check=True)
tracer = subprocess.Popen({[*map(str, trace), "run", "--period", "0.5", "--dir", str(folder / role)]!r},
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
program = subprocess.Popen([sys.executable, "-c", {program!r}])
program.wait()
tracer.terminate()
tracer.wait()
"""
    command = [*inside, sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


@pytest.mark.root
def test_three_hosts_with_a_translator_between(trace, tmp_path):
    """Client, router and server as hosts: with the router's word both ends meet, without it nobody is wrongly named."""
    serve = NAMED.format(name="shopd") + SERVE.replace(
        "while True:", "import select\nwhile 0 not in select.select([0, server], [], [])[0]:"
    )
    visit = NAMED.format(name="visitor") + CALL
    idle = "import sys; sys.stdin.read()"
    with crossing(DNAT, MASQUERADE) as crossed, contextlib.ExitStack() as hosts:
        started = {
            role: hosts.enter_context(traced_host(crossed, role, program, trace, tmp_path))
            for role, program in (("server", serve), ("client", visit), ("router", idle))
        }
        started["server"].stdout.readline()
        port = call(started["client"], OUTSIDE, PUBLISHED)
        for role in started:
            wait_for(lambda role=role: samples(tmp_path / role) >= 3)
        for process in started.values():
            process.stdin.close()
        for process in started.values():
            process.wait(10)
    connections, _needs = analyzed(tmp_path, "all", *started)
    rows = [row for row in connections if {row["orig_app"], row["resp_app"]} & {"visitor", "shopd"}]
    assert ends(rows) == [("client", "visitor", "server", "shopd")]
    assert (rows[0]["orig_port"], rows[0]["translated"]) == (port, "resolved")

    connections, _needs = analyzed(tmp_path, "without", "client", "server")
    rows = [row for row in connections if {row["orig_app"], row["resp_app"]} & {"visitor", "shopd"}]
    assert ends(rows) == [("client", "visitor", None, None), (None, None, "server", "shopd")]


@pytest.mark.root
def test_loopback_of_two_namespaces_with_equal_ports_is_not_mixed(trace, tmp_path):
    """The same tuple on 127.0.0.1 in two namespaces is two flows, each with the process and the bytes of its own."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("needs root and the right to make network namespaces")
    with contextlib.ExitStack() as running:
        processes = []
        for name, count in (("alpha", 111), ("beta", 222)):
            command = ["unshare", "--net", sys.executable, "-c", NAMED.format(name=name) + ON_LOOPBACK, str(count)]
            process = running.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            running.callback(process.kill)
            assert process.stdout.readline() == "ready\n"
            processes.append(process)
        trace_here(trace, tmp_path / "host1")
    connections, needs = analyzed(tmp_path, "all", "host1")
    rows = [row for row in connections if (row["orig_port"], row["resp_port"]) == (40007, 7000)]
    wanted = ("orig_app", "orig_pid", "resp_app", "resp_pid", "orig_bytes")
    assert sorted(tuple(row[name] for name in wanted) for row in rows) == [
        (name, process.pid, name, process.pid, count)
        for name, process, count in zip(("alpha", "beta"), processes, (111, 222), strict=True)
    ]
    met = {(row["app"], row["resp_app"]) for row in needs if row["port"] == 7000}
    assert met == {("alpha", "alpha"), ("beta", "beta")}


@pytest.mark.root
def test_a_daemon_behind_a_path_is_a_local_need(trace, tmp_path):
    """A program that asks a daemon over AF_UNIX, and its forked worker, are told from segment to answer."""
    name = str(tmp_path / "d.sock")
    serve = f"""
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind({name!r})
server.listen()
print("ready", flush=True)
kept = server.accept()
sys.stdin.read()
"""
    ask = f"""
import os, socket, sys, time
made = socket.socket(socket.AF_UNIX)
made.connect({name!r})
server = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    client = socket.create_connection(server.getsockname())
    time.sleep(60)
kept = server.accept()
print("ready", flush=True)
sys.stdin.read()
"""
    with contextlib.ExitStack() as running:
        for program, called in ((serve, "storaged"), (ask, "asker")):
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", NAMED.format(name=called) + program],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                )
            )  # fmt: skip
            running.callback(os.killpg, process.pid, signal.SIGKILL)
            assert process.stdout.readline() == "ready\n"
        trace_here(trace, tmp_path / "host1")
        asker = process.pid
    analyzed(tmp_path, "all", "host1")
    with open_store(tmp_path / "all.store") as store:
        (use,) = [row for row in store.rows(LocalUse) if row["service"] == f"unix:{name}"]
        (worker,) = [row for row in store.rows(ApplicationInstance) if row["app"] == "asker"]
    assert (use["app"], use["daemon"], use["host"], use["processes"]) == ("asker", "storaged", "host1", 2)
    assert (worker["pid"] == asker, worker["leader_id"].split("/")[2]) == (False, str(asker))
    told = subprocess.run(
        [sys.executable, "-m", "whoneeds", "deps", "--store", str(tmp_path / "all.store"), "--app", "asker"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"unix:{name}" in told.stdout
