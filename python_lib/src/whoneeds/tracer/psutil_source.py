# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets and owners by psutil, for systems whose kernel does not list sockets over netlink.

It sees the tracer's own network namespace, gives no cookies, inodes or byte counts, and of several processes that
hold one socket names only the first.
"""

import socket
from typing import Any, Dict, List, NamedTuple, Tuple

from whoneeds.model.evidence import STATES
from whoneeds.tracer.namespaces import own_namespace
from whoneeds.tracer.owners import Holder, Holders
from whoneeds.tracer.processes import Attributes, program_name
from whoneeds.tracer.socket_rows import Batch, Ends, Row
from whoneeds.tracer.text import legal_text

_STATES = {
    "ESTABLISHED": "established", "SYN_SENT": "syn_sent", "SYN_RECV": "syn_recv", "FIN_WAIT1": "fin_wait1",
    "FIN_WAIT2": "fin_wait2", "TIME_WAIT": "time_wait", "CLOSE": "close", "CLOSE_WAIT": "close_wait",
    "LAST_ACK": "last_ack", "LISTEN": "listen", "CLOSING": "closing", "NEW_SYN_RECV": "new_syn_recv",
}  # fmt: skip
_UDP_BOUND = 7
_MAPPED = "::ffff:"


class Listing(NamedTuple):
    """What psutil gave: listings, holders by made-up (negative) inodes, attributes, refused processes."""

    batches: List[Batch]
    holders: Dict[int, Holders]
    attributes: Dict[Holder, Attributes]
    denied: int


def list_sockets() -> Listing:
    """List sockets and their owners.

    Raises
    ------
    ImportError
        Without psutil; `whoneeds.tracer.sampler.choose_source` says what to do.
    """
    import psutil

    rows: Dict[str, List[Row]] = {"tcp": [], "udp": []}
    holders: Dict[int, Holders] = {}
    known: Dict[int, Any] = {}
    denied = 0
    for number, found in enumerate(psutil.net_connections(kind="inet"), start=1):
        protocol = "tcp" if found.type == socket.SOCK_STREAM else "udp"
        key = (found.family, protocol, tuple(found.laddr), tuple(found.raddr))
        word = _STATES.get(found.status)
        state = STATES.index(word) + 1 if word and protocol == "tcp" else (1 if found.raddr else _UDP_BOUND)
        inode = 0
        if found.pid is not None:
            if found.pid not in known:
                known[found.pid] = _describe(psutil, found.pid)
            if known[found.pid] is not None:
                inode = -number
                holders[inode] = (known[found.pid][0],)
        elif protocol == "udp" or word not in ("time_wait", "syn_recv", "fin_wait2"):
            denied += 1
            inode = -number
        rows[protocol].append((key, state, inode, None, None, None, int(found.family)))
    netns = str(own_namespace())
    batches = [Batch(netns, protocol, "psutil", made, _decode) for protocol, made in rows.items()]
    return Listing(batches, holders, dict(pair for pair in known.values() if pair is not None), denied)


def _decode(_place: int, key: Tuple[int, str, Tuple[str, int], Tuple[Any, ...]]) -> Ends:
    local, remote = key[2], key[3]
    if remote:
        return Ends(_plain(local[0]), local[1], _plain(remote[0]), remote[1], None)
    return Ends(_plain(local[0]), local[1], None, None, None)


def _plain(address: str) -> str:
    address = address.partition("%")[0].lower()
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) and "." in address else address


def _describe(psutil: Any, pid: int) -> Any:
    """The identity and attributes of a process, or None if it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            holder = Holder(pid, int(process.create_time() * 100))
            try:
                exe = process.exe() or None
            except psutil.AccessDenied:
                exe = None
            try:
                uid = process.uids().effective
                user = legal_text(process.username(), 64)
            except psutil.AccessDenied:
                uid = user = None
            name = program_name(exe, process.name())
            return holder, Attributes(process.ppid(), name, exe and legal_text(exe, 4096), uid, user, None, None)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
