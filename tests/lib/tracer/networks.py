# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace of one's own, to send real packets in; and a wire into it, to send what no socket would."""

import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path

from whoneeds.tracer.namespaces import open_in_namespaces

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Network:
    """A namespace with loopback up; `inode` is its number and `doors` the way into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        path = f"/run/netns/{name}"
        self.inode = Path(path).stat().st_ino
        self.doors = {self.inode: [path]}
        self._opened = []

    def inside(self, make):
        """What `make` returns when it is called in the namespace."""
        made, refused = open_in_namespaces(self.doors, make)
        for error in refused.values():
            raise error
        return made[self.inode]

    def udp(self, address="127.0.0.1", port=0):
        """A bound UDP socket there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self.inside(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._opened.append(made)
        made.bind((address, port))
        made.settimeout(5)
        return made

    def tcp_pair(self):
        """Both ends of a TCP connection there."""
        server, client = self.inside(lambda: (socket.socket(), socket.socket()))
        with server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
            accepted = server.accept()[0]
        self._opened += [client, accepted]
        return client, accepted

    def wire(self, name="tun0", address="10.99.0.1/24"):
        """A descriptor: each packet written to it arrives at an interface of the namespace."""

        def make():
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
            return descriptor

        descriptor = self.inside(make)
        subprocess.run(["ip", "-n", self.name, "addr", "add", address, "dev", name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", name, "up"], check=True)
        return descriptor

    def close(self) -> None:
        """Close what was opened there, and let the namespace go."""
        for one in self._opened:
            one.close()
        subprocess.run(["ip", "netns", "del", self.name], check=True)
