# SPDX-License-Identifier: GPL-3.0-or-later
"""Real processes that open, close, inherit and pass on real sockets when they are told to."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "python_lib/src"

_PROGRAM = r"""
import array, json, os, signal, socket, sys

control = socket.socket(fileno=int(sys.argv[1]))
sockets, files, children = {}, [open(os.devnull) for _ in range(4)], []


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def act(words):
    verb = words[0]
    if verb == "open":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        sockets[inode(made)] = made
        return inode(made)
    if verb == "close":
        sockets.pop(words[1]).close()
    elif verb == "swap":  # closes one socket and opens another: as many descriptors as before
        sockets.pop(words[1]).close()
        return act(["open"])
    elif verb == "hide":  # closes a file and opens a socket: as many descriptors as before
        files.pop().close()
        return act(["open"])
    elif verb == "fork":
        child = os.fork()
        if child == 0:
            control.close()
            signal.pause()
        children.append(child)
        return child
    elif verb == "reap":
        child = children.pop()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif verb == "give":
        descriptors = array.array("i", [sockets[words[1]].fileno()])
        control.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    elif verb == "take":  # takes a socket; with a file closed for it the number of descriptors stays
        if words[1]:
            files.pop().close()
        _, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4))
        taken = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
        sockets[inode(taken)] = taken
        return inode(taken)
    return None


while True:
    line = b""
    while not line.endswith(b"\n"):
        byte = control.recv(1)
        if not byte:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            sys.exit(0)
        line += byte
    answer = act(json.loads(line))
    control.sendall(json.dumps(answer).encode() + b"\n")
"""


class Actor:
    """One process that does what it is told; `pid` is its number."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self.pid = self.process.pid

    def act(self, *words: object) -> int:
        """Let it act and wait until it has."""
        self._control.sendall(json.dumps(words).encode() + b"\n")
        return self._answer()

    def _answer(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            line += self._control.recv(1)
        return json.loads(line)

    def hand_over(self, inode: int, other: "Actor", *, hidden: bool) -> None:
        """Pass a socket to another process, which closes a file for it if it is to be hidden."""
        self._control.sendall(json.dumps(["give", inode]).encode() + b"\n")
        _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        self._answer()
        other._control.sendall(json.dumps(["take", hidden]).encode() + b"\n")
        socket.send_fds(other._control, [b"!"], descriptors)
        os.close(descriptors[0])
        other._answer()

    def end(self) -> None:
        """Let it end, its children too."""
        self._control.close()
        self.process.wait(10)
