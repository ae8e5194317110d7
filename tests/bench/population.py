# SPDX-License-Identifier: GPL-3.0-or-later
"""Real processes with real connections on loopback, some of which change theirs when they are told to."""

import contextlib
import os
import resource
import socket
import sys
from types import TracebackType
from typing import Self

PROCESSES = 50
#: One process in so many changes, and then so many of its connections.
_CHURNING, _CHANGED = 10, 10


def _connect(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(server.getsockname())
    accepted, _address = server.accept()
    client.sendall(b"x" * 100)
    accepted.recv(100)
    return client, accepted


def _serve(control: socket.socket, number: int, sockets: int) -> None:
    """In a process of its own: hold both ends of connections to oneself; exchange some at each word."""
    server = socket.create_server((f"127.0.1.{number + 1}", 0), backlog=64)
    pairs = [_connect(server) for _each in range((sockets - 1) // 2)]
    control.send(b"!")
    while control.recv(1):
        # as many are opened as closed: the number of descriptors does not tell
        for _each in range(max(len(pairs) // _CHANGED, 1)):
            for end in pairs.pop(0):
                # reset instead of ended, so that no closed connections pile up
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                end.close()
            pairs.append(_connect(server))
        control.send(b"!")


class Population:
    """Processes that hold sockets together, from construction to the end of a ``with`` block.

    Parameters
    ----------
    sockets : int
        All together; about, since connections have two ends.
    """

    def __init__(self, sockets: int) -> None:
        _low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (high, high))
        self._children: list[tuple[int, socket.socket]] = []
        for number in range(PROCESSES):
            ours, theirs = socket.socketpair()
            child = os.fork()
            if child == 0:
                self._live(ours, theirs, number, sockets // PROCESSES)
            theirs.close()
            self._children.append((child, ours))
        for _child, control in self._children:
            if control.recv(1) != b"!":
                raise RuntimeError("a process of the population did not come up")

    def _live(self, ours: socket.socket, theirs: socket.socket, number: int, sockets: int) -> None:
        code = 1
        try:
            for _child, control in self._children:
                control.close()
            ours.close()
            _serve(theirs, number, sockets)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def churn(self) -> None:
        """Let a tenth of the processes exchange a tenth of their connections, and wait until they have."""
        changing = self._children[::_CHURNING]
        for _child, control in changing:
            control.send(b"!")
        for _child, control in changing:
            control.recv(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child, control in self._children:
            control.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
