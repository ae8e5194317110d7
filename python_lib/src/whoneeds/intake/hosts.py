# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections out of a host's own log as sockets and processes, so that they go down the line like any other.

A log knows no kernel cookie, no namespace and no boot. A socket is its tuple and the time at which it was told of; a
process is its number together with what makes that unique in the log: Sysmon's own identity of it, or else the path of
its program, in which case two runs under one number count as one. The place of the boot in an identity holds a digest
of that; when the process began stays unknown.
"""

import hashlib
import uuid

from whoneeds.intake.rows import HostConnection
from whoneeds.model.evidence import ProcessRecord, SocketRecord
from whoneeds.model.identity import process_id, socket_id

#: Hosts whose logs know no network namespaces have one.
NETNS = "-"


def boot_of(host: str) -> str:
    """What stands for the boot of a host whose log tells of none."""
    return _identity(f"import {host}")


def _identity(text: str) -> str:
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode("utf-8")).digest()[:16]))


class HostRows:
    """Sockets and processes of one host.

    Parameters
    ----------
    host : str

    Attributes
    ----------
    sockets : list of SocketRecord
    addresses : set of str
        The host's own, as far as its processes used them.
    """

    def __init__(self, host: str) -> None:
        self.sockets: list[SocketRecord] = []
        self.addresses: set[str] = set()
        self._host = host
        self._boot = boot_of(host)
        self._processes: dict[str, ProcessRecord] = {}

    @property
    def rows(self) -> int:
        """Rows that this holds."""
        return len(self.sockets) + len(self._processes)

    @property
    def processes(self) -> list[ProcessRecord]:
        """Each process once, for the time in which it was told of."""
        return list(self._processes.values())

    def add(self, row: HostConnection) -> None:
        """Take in a connection."""
        near, far = (row.orig_addr, row.orig_port), (row.resp_addr, row.resp_port)
        if not row.initiated:
            near, far = far, near
        owner = process_id(self._host, _identity(row.process_key), row.pid, 0)
        words = f"{row.protocol} {near[0]} {near[1]} > {far[0]} {far[1]}"
        self.addresses.add(near[0])
        self.sockets.append(
            SocketRecord(
                socket_id=socket_id(self._host, self._boot, NETNS, None, words, row.at_ns),
                host=self._host,
                netns=NETNS,
                protocol=row.protocol,
                local_addr=near[0],
                local_port=near[1],
                remote_addr=far[0],
                remote_port=far[1],
                state="established",
                inode=0,
                uid=None,
                process_id=owner,
                owners=1,
                sent_bytes=None,
                received_bytes=None,
                first_ns=row.at_ns,
                last_ns=row.at_ns,
                samples=0,
                source="event",
                initiated=row.initiated,
                end=None,
            )
        )
        known = self._processes.get(owner)
        first_ns = row.at_ns if known is None else min(known.first_ns, row.at_ns)
        last_ns = row.at_ns if known is None else max(known.last_ns, row.at_ns)
        self._processes[owner] = ProcessRecord(
            process_id=owner,
            host=self._host,
            pid=row.pid,
            start_ticks=None,
            ppid=None,
            name=row.name,
            exe=row.exe,
            uid=None,
            user=row.user,
            unit=None,
            container=None,
            first_ns=first_ns,
            last_ns=last_ns,
        )
