# SPDX-License-Identifier: GPL-3.0-or-later
"""What parsers give: flows as they are stored, and what names and connections of hosts are made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from whoneeds.intake.values import BadLine
from whoneeds.model.evidence import WireFlow

#: Numbers of transports in IP, and what they are called here.
TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}


@dataclass(frozen=True, slots=True)
class SeenName:
    """A name that stood for an address at a time.

    Attributes
    ----------
    name, address, source : str
    at_ns : int
    """

    name: str
    address: str
    source: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class HostConnection:
    """A connection of one process of one host, as that host's log tells it.

    Attributes
    ----------
    host : str or None
        What the log calls the host.
    protocol : str
    orig_addr, resp_addr : str
        Who began, and who was called.
    orig_port, resp_port : int
    initiated : bool
        Whether the host's process began it.
    at_ns : int
    pid : int
    process_key : str
        What makes the process's number unique: the log's own identity of it, or the path of its program.
    name : str
    exe, user : str or None
    """

    host: str | None
    protocol: str
    orig_addr: str
    orig_port: int
    resp_addr: str
    resp_port: int
    initiated: bool
    at_ns: int
    pid: int
    process_key: str
    name: str
    exe: str | None
    user: str | None


Row = WireFlow | SeenName | HostConnection


class Parser(Protocol):
    """Reads one format, a line at a time; a new one for each file.

    Attributes
    ----------
    expects : str
        What a file of the format looks like, in words.
    recognised : int
        Lines so far that are of this format, whether they gave rows or not.
    """

    expects: str
    recognised: int

    def read(self, line: bytes) -> Iterable[Row]:
        """Rows of a line, its end left out.

        Raises
        ------
        BadLine
        """

    def finish(self) -> Iterable[Row]:
        """Rows that waited for lines that did not come."""


@dataclass(frozen=True)
class Label:
    """How a file's flows are named.

    Attributes
    ----------
    host : str
        Who watched.
    prefix : str
        Stands before the number of each flow.
    """

    host: str
    prefix: str


def require(held: dict[str, Any], name: str) -> Any:
    """A field that must be there.

    Raises
    ------
    BadLine
    """
    value = held.get(name)
    if value is None:
        raise BadLine("line", expected=f"a field {name}", found="none")
    return value
