# SPDX-License-Identifier: GPL-3.0-or-later
"""How things are named so that the same thing always has the same name, and two things never share one.

A process is (host, boot, pid, start time in clock ticks since boot): a pid alone is used again. A socket is
(host, boot, network namespace, kernel cookie), or its tuple and the time it was first seen where the kernel
gives no cookie. The host part is always the inventory name that the *controller* knows; what a host calls
itself is replaced when a segment is taken in (`rehost`).
"""

import re
from typing import NamedTuple, Optional

from whoneeds.model.errors import InvalidRecord

#: What a host may be called: also safe as a file name, a group name's source and an ssh target.
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")

#: The kernel's random boot identifier, in its own notation.
BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")

#: A name of the domain name system as it is kept: lower case, no dot at the end, nothing that needs quoting anywhere.
DOMAIN_NAME = re.compile(
    r"(?!.{254})(?![0-9.]+\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
)


class ProcessKey(NamedTuple):
    """The parts of a process identity."""

    host: str
    boot_id: str
    pid: int
    start_ticks: int


def check_host_name(name: str) -> str:
    """Return the name if it can be a host's, refuse it otherwise.

    Raises
    ------
    InvalidRecord

    Examples
    --------
    >>> check_host_name("db1.example.org")
    'db1.example.org'
    """
    if not isinstance(name, str) or HOST_NAME.match(name) is None or ".." in name:
        raise InvalidRecord(
            "host name",
            expected="letters, digits, '.', '_' or '-', beginning with a letter or digit",
            found=ascii(name)[:80],
            remedy="rename the host in the inventory",
        )
    return name


def process_id(host: str, boot_id: str, pid: int, start_ticks: int) -> str:
    """Identity of a process.

    Examples
    --------
    >>> process_id("db1", "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b", 812, 4711)
    'db1/0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b/812/4711'
    """
    return f"{host}/{boot_id}/{pid}/{start_ticks}"


def parse_process_id(text: str) -> ProcessKey:
    """Take a process identity apart.

    Raises
    ------
    InvalidRecord
        If the text is not one that `process_id` makes.
    """
    parts = text.split("/")
    if (
        len(parts) == 4
        and HOST_NAME.match(parts[0])
        and BOOT_ID.match(parts[1])
        and all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts[2:])
    ):
        return ProcessKey(parts[0], parts[1], int(parts[2]), int(parts[3]))
    raise InvalidRecord("process identity", expected="host/boot/pid/start ticks", found=ascii(text)[:80])


def socket_id(
    host: str, boot_id: str, netns: str, cookie: Optional[int], flow: str = "", first_ns: Optional[int] = None
) -> str:
    """Identity of a socket: by its kernel cookie, or by its tuple and the time it was first seen.

    Parameters
    ----------
    host, boot_id, netns : str
    cookie : int or None
        The kernel's socket cookie; ``None`` where the source does not give one.
    flow : str
        The socket's tuple in words, used only without a cookie.
    first_ns : int or None
        When it was first seen, used only without a cookie.
    """
    if cookie is not None:
        return f"{host}/{boot_id}/{netns}/{cookie:x}"
    return f"{host}/{boot_id}/{netns}/{flow}@{first_ns}"


def segment_id(host: str, boot_id: str, sequence: int) -> str:
    """Identity of a segment."""
    return f"{host}/{boot_id}/{sequence}"


def rehost(identity: str, claimed: str, host: str) -> str:
    """Put the controller's name for the host in the place of the one that the segment claims.

    Raises
    ------
    InvalidRecord
        If the identity does not begin with the claimed host: it speaks of another one.
    """
    head, slash, rest = identity.partition("/")
    if head != claimed or not slash:
        raise InvalidRecord("identity", expected=f"one of host {claimed}", found=ascii(identity)[:80])
    return f"{host}/{rest}"
