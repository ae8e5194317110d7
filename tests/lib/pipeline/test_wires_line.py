# SPDX-License-Identifier: GPL-3.0-or-later
"""Real connections, traced and captured at once: the capture, as a monitor's an hour off, meets what the host saw."""

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from whoneeds.cli.main import main
from whoneeds.model.conclusions import WireJoin
from whoneeds.model.evidence import FlowRecord
from whoneeds.store.session import open_store

pytestmark = pytest.mark.root

AHEAD_S = 3600
TALK = """
import socket, threading
server = socket.create_server(("10.98.7.1", 7001))
def serve():
    while True:
        peer, _ = server.accept()
        while peer.recv(65536):
            peer.sendall(b"y" * 90)
        peer.close()
threading.Thread(target=serve, daemon=True).start()
for number in range(6):
    client = socket.socket()
    client.bind(("10.98.7.2", 42000 + number))
    client.connect(("10.98.7.1", 7001))
    client.sendall(b"x" * 30)
    left = 90
    while left:
        left -= len(client.recv(left))
    client.close()
    print(number, flush=True)
"""


@pytest.fixture(scope="module")
def watched():
    """A folder of segments and captures of six connections, and the captures once more with a clock an hour ahead."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("needs root and the right to make network namespaces")
    space = f"whoneeds-wire-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="whoneeds-wire-") as name:
        folder = Path(name)
        subprocess.run(["ip", "netns", "add", space], check=True)
        try:
            subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
            for address in ("10.98.7.1/32", "10.98.7.2/32"):
                subprocess.run(["ip", "-n", space, "addr", "add", address, "dev", "lo"], check=True)
            inside = ["nsenter", f"--net=/run/netns/{space}"]
            trace = [*inside, sys.executable, "-m", "whoneeds", "trace", "run", "--dir", str(folder / "t")]
            options = ["--period", "1", "--for", "6", "--packets", "all"]
            with subprocess.Popen([*trace, *options], stderr=subprocess.PIPE) as tracer:
                time.sleep(3)
                subprocess.run([*inside, sys.executable, "-c", TALK], check=True, stdout=subprocess.DEVNULL)
                tracer.communicate()
            for path in sorted((folder / "t").rglob("*.pcap")):
                (folder / path.name).write_bytes(put_ahead(path.read_bytes(), AHEAD_S))
            yield folder
        finally:
            subprocess.run(["ip", "netns", "del", space], check=True)


def put_ahead(capture, seconds):
    """A capture whose clock was ahead: the time of every packet changed."""
    made, at = bytearray(capture), 24
    while at < len(made):
        begin, _fraction, length, _whole = struct.unpack_from(">IIII", made, at)
        struct.pack_into(">I", made, at, begin + seconds)
        at += 16 + length
    return bytes(made)


def test_a_monitor_an_hour_off_meets_the_host(watched, tmp_path, capsys):
    """Each connection of the host is found in the capture, none is told twice, and the clock is said to be off."""
    store = tmp_path / "s"
    main(["ingest", str(watched / "t"), "--store", str(store), "--host", "h1"])
    captures = [str(path) for path in watched.glob("*.pcap")]
    assert captures
    assert main(["import", "pcap", *captures, "--host", "mon1", "--store", str(store)]) == 0
    assert main(["attribute", "--store", str(store)]) == 0
    with open_store(store) as opened:
        flows = [row for row in opened.rows(FlowRecord) if row["resp_port"] == 7001]
        joins = [row for row in opened.rows(WireJoin) if row["host"] == "h1"]
    assert sorted(row["orig_port"] for row in flows) == [42000 + number for number in range(6)]
    assert {(row["orig_bytes"], row["resp_bytes"]) for row in flows} == {(30, 90)}
    # a capture of headers does not prove that no packet is missing
    assert {(row["orig_packets"], row["resp_packets"]) for row in flows} == {(None, None)}
    assert {(row["orig_host"], row["resp_host"], row["end"]) for row in flows} == {("h1", "h1", "fin")}
    assert [row["monitor"] for row in joins] == ["mon1"]
    assert joins[0]["joined"] >= 6
    assert abs(joins[0]["ahead_ns"] - AHEAD_S * 10**9) < 10**9
    capsys.readouterr()
    main(["connections", "--store", str(store)])
    assert "the clock of monitor mon1 is 3600.0 s ahead" in capsys.readouterr().err
