# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets that the kernel destroys, told by itself in each network namespace: identity and last byte counts.

The message has the socket's cookie, so that what it says is said of the very socket that a sample listed before. It
does not name a process: `whoneeds.tracer.lives` does.

A channel that stays open keeps its namespace alive. It is closed at the first sample that finds no other way into
the namespace, so that a container's is gone at most a period later than it would be.
"""

import errno
import socket
from typing import Any, Dict, List, NamedTuple, Tuple

from whoneeds.model.errors import Gone, HostError
from whoneeds.tracer import sock_diag
from whoneeds.tracer.namespaces import open_in_namespaces
from whoneeds.tracer.netlink import split_messages
from whoneeds.tracer.socket_rows import Row

#: SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY.
_GROUPS = 1 << 0 | 1 << 2
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 1 << 16
_MAX_MESSAGES = 1 << 17


class Told(NamedTuple):
    """What was told since the last time.

    Attributes
    ----------
    rows : list of (str, Row)
        Network namespace and socket.
    lost : int
        Times that a channel lost messages, and nobody knows how many.
    """

    rows: List[Tuple[str, Row]]
    lost: int


class DestroyedSockets:
    """Channels on which the kernel tells of destroyed TCP sockets.

    Parameters
    ----------
    buffer_bytes : int
        Room for messages that were not read yet, for each namespace.
    """

    def __init__(self, buffer_bytes: int = 16 << 20) -> None:
        self._buffer_bytes = buffer_bytes
        self._channels: Dict[int, Any] = {}

    def watch(self, own: int, doors: Dict[int, List[str]]) -> List[HostError]:
        """Watch exactly these namespaces from now on.

        Parameters
        ----------
        own : int
            The caller's own namespace.
        doors : dict of int to list of str
            Ways into the others, as `whoneeds.tracer.namespaces.NamespaceFinder` finds them.

        Returns
        -------
        list of HostError
            Why some cannot be watched; one that is gone by now is none.
        """
        for inode in [inode for inode in self._channels if inode != own and inode not in doors]:
            self._channels.pop(inode).close()
        problems: List[HostError] = []
        if own not in self._channels:
            self._channels[own] = self._open()
        missing = {inode: paths for inode, paths in doors.items() if inode not in self._channels}
        opened, refused = open_in_namespaces(missing, self._open)
        self._channels.update(opened)
        problems += [error for error in refused.values() if not isinstance(error, Gone)]
        return problems

    def _open(self) -> Any:
        channel = sock_diag.open_channel()
        try:
            try:
                channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, self._buffer_bytes)
            except OSError:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
            channel.bind((0, _GROUPS))
            channel.setblocking(False)
        except OSError as error:
            channel.close()
            raise HostError("messages about destroyed sockets", found=str(error.strerror)) from error
        return channel

    def read(self) -> Told:
        """Everything that was told since the last time, without waiting."""
        rows: List[Tuple[str, Row]] = []
        lost = 0
        for inode, channel in self._channels.items():
            netns = str(inode)
            for _message in range(_MAX_MESSAGES):
                try:
                    buffer, _ancillary, _flags, sender = channel.recvmsg(_BUFFER_BYTES)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise HostError("messages about destroyed sockets", found=str(error.strerror)) from error
                    lost += 1
                    continue
                if sender[0] == 0:  # only the kernel's own words count
                    raw_rows = sock_diag.parse_rows(buffer, split_messages(buffer).runs)
                    rows += [(netns, sock_diag.read_row(raw)) for raw in raw_rows]
        return Told(rows, lost)

    def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels = {}
