# SPDX-License-Identifier: GPL-3.0-or-later
"""UDP from real processes in a real namespace, through the tracer and the whole line to dependencies."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from whoneeds.cli.main import main
from whoneeds.segment.read import read_segment

pytestmark = pytest.mark.root

SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.98.0.1", 5300))
print("ready", flush=True)
while True:
    data, peer = server.recvfrom(512)
    server.sendto(data * 2, peer)
"""
CLIENT = """
import socket, sys, time
way, address = sys.argv[1], (sys.argv[2], int(sys.argv[3]))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("10.98.0.1", 0))
if way != "sendto":
    client.connect(address)
print(client.getsockname()[1], flush=True)
sys.stdin.readline()
if way == "sendto":
    for _ in range(3):
        client.sendto(b"ask", address)
        client.recv(100)
print("done", flush=True)
sys.stdin.readline()
"""


class Programs:
    """Processes in one namespace, each an executable of its own name."""

    def __init__(self, name, folder):
        self.name, self.folder, self.running = name, folder, []
        subprocess.run(["ip", "netns", "add", name], check=True)
        for words in (["link", "set", "lo", "up"], ["addr", "add", "10.98.0.1/32", "dev", "lo"]):
            subprocess.run(["ip", "-n", name, *words], check=True)

    def start(self, called, program, *words):
        """Start a program under a name, and return it with its first line."""
        link = self.folder / called
        link.write_text(f"#!{sys.executable}\n{program}")
        link.chmod(0o755)
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", str(link), *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.running.append(process)
        return process, process.stdout.readline().strip()

    def close(self):
        """End all of them, and let the namespace go."""
        for process in self.running:
            process.kill()
            process.communicate()
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@pytest.fixture(scope="module")
def traced():
    """A run in which one client spoke to a server, and two others connected UDP sockets and said nothing."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("needs root and the right to make network namespaces")
    with tempfile.TemporaryDirectory(prefix="whoneeds-udp-") as name:
        folder = Path(name)
        programs = Programs(f"whoneeds-line-{os.getpid()}", folder)
        try:
            server, _ready = programs.start("answerer", SERVER)
            trace = [sys.executable, "-m", "whoneeds", "trace", "run", "--dir", str(folder / "t"), "--period", "1"]
            with subprocess.Popen([*trace, "--for", "9"], stderr=subprocess.PIPE) as tracer:
                time.sleep(
                    3.5
                )  # the namespace is found by the first sample, and a first packet needs silence before it
                talker, port = programs.start("talker", CLIENT, "sendto", "10.98.0.1", 5300)
                silent, silent_port = programs.start("silent", CLIENT, "connect", "10.98.0.1", 5300)
                router, router_port = programs.start("router", CLIENT, "connect", "10.98.0.1", 0)
                time.sleep(1.5)  # seen by a sample
                talker.stdin.write("go\n")
                talker.stdin.flush()
                assert talker.stdout.readline() == "done\n"
                tracer.wait()
            pids = {"server": server.pid, "talker": talker.pid, "silent": silent.pid, "router": router.pid}
            ports = {"talker": int(port), "silent": int(silent_port), "router": int(router_port)}
            yield folder, pids, ports
        finally:
            programs.close()


def rows(capsys, *words):
    """What a command prints as JSON."""
    main([*map(str, words), "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_a_udp_dependency_is_found_with_the_right_processes(traced, capsys, tmp_path):
    """Two unconnected sockets that spoke are one dependency, between the programs and processes that really did."""
    folder, pids, ports = traced
    main(["run", "--from", str(folder / "t"), "--store", str(tmp_path / "s"), "--host", "h1"])
    capsys.readouterr()
    found = rows(capsys, "connections", "--store", tmp_path / "s")
    (row,) = [row for row in found if row["protocol"] == "udp" and 5300 in (row["orig_port"], row["resp_port"])]
    assert (row["orig_app"], row["orig_pid"], row["orig_port"]) == ("talker", pids["talker"], ports["talker"])
    assert (row["resp_app"], row["resp_pid"], row["resp_port"]) == ("answerer", pids["server"], 5300)
    assert (row["orig_packets"], row["resp_packets"], row["orig_bytes"], row["resp_bytes"]) == (3, 3, 9, 18)
    assert row["direction"] == "handshake"
    deps = rows(capsys, "deps", "--store", tmp_path / "s")
    assert [one["dependent"] for one in deps if one["port"] == 5300] == ["talker@h1"]


def test_sockets_that_never_spoke_are_in_no_conversation(traced, capsys, tmp_path):
    """Silent UDP sockets, one connected to a live server and one to port 0, are sampled and are no conversation."""
    folder, _pids, ports = traced
    main(["run", "--from", str(folder / "t"), "--store", str(tmp_path / "s"), "--host", "h1"])
    capsys.readouterr()
    segments = [read_segment(str(path)) for path in (folder / "t/segments").glob("*.seg")]
    sampled = {
        row.local_port for segment in segments for rows in segment.tables.values() for row in rows
        if getattr(row, "state", None) == "established" and row.protocol == "udp"
    }  # fmt: skip
    assert ports["silent"] in sampled
    found = rows(capsys, "connections", "--store", tmp_path / "s")
    told = {port for row in found for port in (row["orig_port"], row["resp_port"]) if row["protocol"] == "udp"}
    assert told.isdisjoint({ports["silent"], ports["router"]})


def test_the_capture_file_beside_the_segment_is_the_one_it_names(traced):
    """Each segment that names a capture file has it beside it, with that digest and size."""
    folder, _pids, _ports = traced
    for path in (folder / "t/segments").glob("*.seg"):
        header = read_segment(str(path)).header
        content = path.with_suffix(".pcap").read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (header.capture_digest, header.capture_bytes)
