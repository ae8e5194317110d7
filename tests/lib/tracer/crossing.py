# SPDX-License-Identifier: GPL-3.0-or-later
"""Three network namespaces in a row, real ones: a client, a router that translates, and a server."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Addresses: of the client, of the router towards either side, of the server.
CLIENT, OUTSIDE, INSIDE, SERVER = "10.98.1.2", "10.98.1.1", "10.98.2.1", "10.98.2.2"
#: Port that the router publishes, and the server's own.
PUBLISHED, PORT = 8080, 7080

#: What docker does for a published port, and for what containers send.
DNAT = f"chain pre {{ type nat hook prerouting priority -100; tcp dport {PUBLISHED} dnat to {SERVER}:{PORT}; }}"
MASQUERADE = 'chain post { type nat hook postrouting priority 100; oif "inside" masquerade; }'

#: Answers one line on each connection, and keeps it.
SERVE = f"""
import socket, threading
server = socket.create_server(("0.0.0.0", {PORT}), reuse_port=False)
print("ready", flush=True)
kept = []
while True:
    kept.append(server.accept()[0])
    print(*kept[-1].getpeername(), flush=True)
    kept[-1].sendall(b"served")
"""
#: Calls when it is told to; ends when its input does.
CALL = """
import socket, sys
kept = []
for line in sys.stdin:
    address, port, how = line.split()
    made = socket.create_connection((address, int(port)), 5)
    assert made.recv(99) == b"served"
    print(*made.getsockname(), flush=True)
    kept.append(made)
    if how == "short":
        kept.pop().close()
"""


class Crossing:
    """The three namespaces; `ways` has the path of each by its role."""

    def __init__(self, name: str, rules: tuple[str, ...]) -> None:
        self.names = {role: f"{name}-{role}" for role in ("client", "router", "server")}
        self.ways = {role: f"/run/netns/{found}" for role, found in self.names.items()}
        self._rules = rules

    def build(self) -> None:
        """Make namespaces, links, routes and rules."""
        client, router, server = self.names.values()
        for name in self.names.values():
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "link", "add", "up0", "netns", client, "type", "veth", "peer", "name", "outside", "netns", router)
        _run("ip", "link", "add", "up0", "netns", server, "type", "veth", "peer", "name", "inside", "netns", router)
        for name, link, address in (
            (client, "up0", CLIENT), (router, "outside", OUTSIDE), (router, "inside", INSIDE), (server, "up0", SERVER),
        ):  # fmt: skip
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
            _run("ip", "-n", name, "link", "set", link, "up")
        _run("ip", "-n", client, "route", "add", "default", "via", OUTSIDE)
        _run("ip", "-n", server, "route", "add", "default", "via", INSIDE)
        inside = ["nsenter", f"--net={self.ways['router']}"]
        _run(*inside, sys.executable, "-c", "open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')")
        _run(*inside, "nft", "\n".join(("table ip nat {", *self._rules, "}")))

    def inode(self, role: str) -> int:
        """The namespace's number."""
        return Path(self.ways[role]).stat().st_ino

    def remove(self) -> None:
        """Remove what was made."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    @contextlib.contextmanager
    def running(self, role: str, program: str) -> Iterator[subprocess.Popen[str]]:
        """Run a program in one of the namespaces, with pipes to talk to it."""
        command = ["nsenter", f"--net={self.ways[role]}", sys.executable, "-c", program]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


def call(client: subprocess.Popen[str], address: str, port: int, how: str = "long") -> int:
    """Have the client connect; its port."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{address} {port} {how}\n")
    client.stdin.flush()
    return int(client.stdout.readline().split()[1])


@contextlib.contextmanager
def crossing(*rules: str) -> Iterator[Crossing]:
    """A crossing with these rules; skips where there cannot be one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    if shutil.which("nft") is None:
        pytest.skip("needs nft (package nftables)")
    for probe in (["unshare", "--net", "true"], ["nft", "list", "tables"]):
        if subprocess.run(probe, check=False, capture_output=True).returncode:
            pytest.skip(f"no right to {' '.join(probe)} here")
    made = Crossing(f"whoneeds-{os.getpid()}", rules)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
