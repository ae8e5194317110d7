# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own addresses in its main network namespace (RTM_GETADDR)."""

import functools
import socket
from typing import List, Optional, Sequence, Set

from whoneeds.model.errors import HostError
from whoneeds.tracer.netlink import Run, attributes, dump, each_message, open_netlink
from whoneeds.tracer.sock_diag import IPV4, IPV6, address_text

_NETLINK_ROUTE = 0
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
#: struct ifaddrmsg: family, prefix length, flags, scope, interface.
_ADDRESS_BYTES, _SCOPE_OFFSET = 8, 3
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_MAX_ADDRESSES = 4096


def parse_addresses(buffer: bytes, runs: Sequence[Run], *, everything: bool = False) -> Set[str]:
    """Addresses in one buffer of the kernel's answer; loopback and link-local ones are left out unless asked for."""
    found: Set[str] = set()
    for kind, begin, end in each_message(runs):
        if kind != _RTM_NEWADDR or end - begin < _ADDRESS_BYTES:
            continue
        family, scope = buffer[begin], buffer[begin + _SCOPE_OFFSET]
        length = {IPV4: 4, IPV6: 16}.get(family)
        if length is None or (scope in (_SCOPE_LINK, _SCOPE_HOST) and not everything):
            continue
        values = {
            name: buffer[value:stop]
            for name, value, stop in attributes(buffer, begin + _ADDRESS_BYTES, end)
            if stop - value == length
        }
        raw = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
        if raw is not None:
            text = address_text(family, raw)
            if everything or (not text.startswith("127.") and text != "::1"):
                found.add(text)
    return found


def open_addresses() -> socket.socket:
    """A channel on which the addresses of the calling thread's network namespace can be asked for, also later.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    return open_netlink(_NETLINK_ROUTE)


def list_addresses(channel: Optional[socket.socket] = None, *, everything: bool = False) -> List[str]:
    """Addresses of a network namespace, sorted.

    Parameters
    ----------
    channel : socket.socket, optional
        From `open_addresses`; by default the namespace is the calling thread's.
    everything : bool, default False
        Loopback and link-local addresses too.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    asked = open_addresses() if channel is None else channel
    parse = functools.partial(parse_addresses, everything=everything)
    try:
        found: Set[str] = set()
        for _attempt in range(3):  # the kernel says when they changed while they were listed
            listed, whole = dump(asked, _RTM_GETADDR, bytes(_ADDRESS_BYTES), "addresses", parse)
            found = set(listed)
            if whole:
                break
    finally:
        if channel is None:
            asked.close()
    if len(found) > _MAX_ADDRESSES:
        raise HostError("addresses", expected=f"at most {_MAX_ADDRESSES}", found=str(len(found)))
    return sorted(found)
