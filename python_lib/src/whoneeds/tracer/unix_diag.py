# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's list of AF_UNIX sockets (unix_diag): who is connected to which named socket.

A daemon's end of a connection bears the name that the daemon waits on, the end of who connected usually none. Pairs
without any name (socketpair) lead from a process to its own kind, and are left out.
"""

import struct
from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from whoneeds.model.errors import HostError, Unsupported
from whoneeds.tracer.netlink import Run, attributes, dump, each_message
from whoneeds.tracer.text import legal_text

_SOCK_DIAG_BY_FAMILY = 20
_AF_UNIX = 1
#: struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
_REQUEST = struct.Struct("=BBHIIIII")
_ANY_STATE, _NO_COOKIE = 0xFFFFFFFF, 0xFFFFFFFF
_SHOW_NAME, _SHOW_PEER = 0x1, 0x4
#: struct unix_diag_msg: family, type, state, padding, inode, cookie.
_ENTRY = struct.Struct("=BBBxI8x")
_NAME, _PEER = 0, 2
_NUMBER = struct.Struct("=I")
_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
_LISTEN = 10
_NAME_LENGTH = 255


class UnixSocket(NamedTuple):
    """One socket, as listed.

    Attributes
    ----------
    inode : int
    type : str
    listens : bool
    name : bytes or None
        What it is bound to; an abstract name begins with a zero byte.
    peer : int
        Inode of the other end; 0 for none.
    """

    inode: int
    type: str
    listens: bool
    name: Optional[bytes]
    peer: int


class Talk(NamedTuple):
    """A connection to a named socket, by the inodes of its ends."""

    type: str
    path: str
    client: int
    server: int


def parse_unix_sockets(buffer: bytes, runs: Sequence[Run]) -> List[UnixSocket]:
    """Decode one buffer of a listing. Pure and bounded.

    Parameters
    ----------
    buffer : bytes
    runs : sequence of Run
        From `whoneeds.tracer.netlink.split_messages`.

    Raises
    ------
    HostError
        If a message is too short to be a socket.
    """
    found = []
    for kind, begin, end in each_message(runs):
        if kind != _SOCK_DIAG_BY_FAMILY:
            continue
        if end - begin < _ENTRY.size:
            raise HostError("list of AF_UNIX sockets", expected=f"{_ENTRY.size} bytes", found=f"{end - begin}")
        family, number, state, inode = _ENTRY.unpack_from(buffer, begin)
        if family != _AF_UNIX or number not in _TYPES:
            continue
        name, peer = None, 0
        for what, at, until in attributes(buffer, begin + _ENTRY.size, end):
            if what == _NAME and until > at:
                name = buffer[at:until]
            elif what == _PEER and until - at == _NUMBER.size:
                (peer,) = _NUMBER.unpack_from(buffer, at)
        if peer or name is not None:
            found.append(UnixSocket(inode, _TYPES[number], state == _LISTEN, name, peer))
    return found


def list_unix_sockets(channel: Any) -> Tuple[List[UnixSocket], bool]:
    """The AF_UNIX sockets that have a name or a peer, in the channel's network namespace.

    Parameters
    ----------
    channel : socket
        From `whoneeds.tracer.sock_diag.open_channel`.

    Returns
    -------
    found : list of UnixSocket
    whole : bool
        False if the kernel says that the listing is not.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    request = _REQUEST.pack(_AF_UNIX, 0, 0, _ANY_STATE, 0, _SHOW_NAME | _SHOW_PEER, _NO_COOKIE, _NO_COOKIE)
    try:
        return dump(channel, _SOCK_DIAG_BY_FAMILY, request, "AF_UNIX sockets", parse_unix_sockets)
    except Unsupported as error:
        raise Unsupported("AF_UNIX sockets", found=error.found, remedy="load the kernel module unix_diag") from error


def find_talks(sockets: Iterable[UnixSocket]) -> Iterator[Talk]:
    """Connections of which it is known which end is the daemon's.

    Of two ends with names, the one whose name somebody waits on is the daemon's. Of two datagram sockets that are
    connected to each other, and of two names that both or neither are waited on, it is not known.

    Parameters
    ----------
    sockets : iterable of UnixSocket
        Of all namespaces: a path leads from one to another.
    """
    by_inode: Dict[int, UnixSocket] = {socket.inode: socket for socket in sockets if socket.inode}
    waiting = Counter(socket.name for socket in by_inode.values() if socket.listens and socket.name)
    for client in by_inode.values():
        server = by_inode.get(client.peer)
        if server is None or server.name is None or server.type != client.type or server is client:
            continue
        if client.name is not None:
            mutual = server.peer == client.inode
            if client.type == "dgram":
                if mutual:
                    continue
            elif not waiting[server.name] or waiting[client.name]:
                continue
        yield Talk(client.type, name_text(server.name), client.inode, server.inode)


def name_text(name: bytes) -> str:
    r"""A socket's name as text: a path, or ``@`` and an abstract name.

    Examples
    --------
    >>> name_text(b"/run/x.sock\0"), name_text(b"\0dbus-\xff")
    ('/run/x.sock', '@dbus-\\udcff')
    """
    if name[:1] == b"\0":
        return "@" + legal_text(name[1:].decode("utf-8", "surrogateescape"), _NAME_LENGTH - 1)
    return legal_text(name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"), _NAME_LENGTH)
