# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand over what needed privilege: descriptors, from the loader to the tracer, by way of the service manager.

The loader runs as root, for a moment, before the service does (``ExecStartPre=+``); it puts the descriptors into the
service manager's keeping, each with a name. The service itself runs as a user without any right, and finds them among
its own (``LISTEN_FDS``). When the service is stopped, the manager closes them, and the programs leave the kernel.
"""

import array
import os
import select
import socket
from typing import Dict, List, Mapping, Sequence, Tuple

from whoneeds.model.errors import HostError

_FIRST_DESCRIPTOR = 3
_MAX_DESCRIPTORS = 1024
_PATIENCE_MS = 5_000


def store_descriptors(named: Sequence[Tuple[str, int]], address: str) -> None:
    """Put descriptors into the service manager's keeping, in the place of those that had their names.

    Parameters
    ----------
    named : sequence of (str, int)
        Several may have one name; they keep their order.
    address : str
        ``NOTIFY_SOCKET``.

    Raises
    ------
    HostError
        If the service manager does not take them.
    """
    place = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(place)
            for name in dict.fromkeys(name for name, _descriptor in named):
                channel.send(f"FDSTOREREMOVE=1\nFDNAME={name}".encode("ascii"))
            for name, descriptor in named:
                words = f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}".encode("ascii")
                _send_with(channel, words, descriptor)
            _await_manager(channel)
    except OSError as error:
        raise HostError("service manager", expected="that it keeps descriptors", found=str(error.strerror)) from error


def _send_with(channel: socket.socket, words: bytes, descriptor: int) -> None:
    rights = array.array("i", [descriptor])
    channel.sendmsg([words], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _await_manager(channel: socket.socket) -> None:
    """Wait until the manager has read everything: it closes the other end of a pipe then."""
    reading, writing = os.pipe()
    try:
        try:
            _send_with(channel, b"BARRIER=1", writing)
        finally:
            os.close(writing)
        poll = select.poll()
        poll.register(reading, 0)
        if not poll.poll(_PATIENCE_MS):
            raise HostError("service manager", expected="an answer within 5 s", found="none")
    finally:
        os.close(reading)


def handed_descriptors(environment: Mapping[str, str]) -> Dict[str, List[int]]:
    """Descriptors that this process was started with, by name.

    Parameters
    ----------
    environment : mapping of str to str
        ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` are read.
    """
    count, names = environment.get("LISTEN_FDS", ""), environment.get("LISTEN_FDNAMES", "").split(":")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or int(count) > _MAX_DESCRIPTORS:
        return {}
    found: Dict[str, List[int]] = {}
    for number, name in zip(range(int(count)), names):
        descriptor = _FIRST_DESCRIPTOR + number
        os.set_inheritable(descriptor, False)
        found.setdefault(name, []).append(descriptor)
    return found
