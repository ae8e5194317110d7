# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own list of sockets (NETLINK_SOCK_DIAG): ends, state, owner's user, inode, byte counters.

Byte counters. ``tcpi_bytes_acked`` counts the SYN of the end that connected and the FIN of the end that closed,
as one byte each; ``tcpi_bytes_sent`` less ``tcpi_bytes_retrans`` counts data only, but also what is still under
way. The smaller of the two is exact whenever nothing is under way, and at most one byte too much otherwise.
``tcpi_bytes_received`` counts the peer's FIN; it is taken off in the states that a FIN leads to. Kernels before
4.19 do not give ``bytes_sent``; the count there may be two bytes too much.
"""

import socket
import struct
from ipaddress import IPv6Address
from typing import Any, Dict, List, Optional, Sequence, Tuple

from whoneeds.model.errors import HostError, Unsupported
from whoneeds.tracer.netlink import ATTRIBUTE, Message, dump, open_netlink
from whoneeds.tracer.observation import Ends, Row

NETLINK_SOCK_DIAG = 4
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
PROTOCOL_NAMES = {TCP: "tcp", UDP: "udp"}
IPV4, IPV6 = 2, 10

_TCPDIAG_GETSOCK, _SOCK_DIAG_BY_FAMILY = 18, 20
_KINDS = (_SOCK_DIAG_BY_FAMILY, _TCPDIAG_GETSOCK)
_INET_DIAG_INFO = 2
_WANT_INFO = 1 << (_INET_DIAG_INFO - 1)
#: struct inet_diag_req_v2: family, protocol, extensions, padding, states, socket identity (all zero: any).
_REQUEST = struct.Struct("=BBBxI48x")
#: struct inet_diag_req: no family (any), lengths, extensions, socket identity (any), states, tables.
_OLD_REQUEST = struct.Struct("=3xB48xII")
#: struct inet_diag_msg: family, state, (timer, retransmits), identity, (3 numbers), uid, inode.
_ENTRY = struct.Struct("=BB2x48s12xII")
#: The identity of struct inet_diag_sockid: ports, addresses, interface, cookie.
_IDENTITY = struct.Struct(">HH16s16s")
_COOKIE = struct.Struct("=Q")
#: struct tcp_info from byte 120 on: bytes_acked, bytes_received; from byte 200 on: bytes_sent, bytes_retrans.
_ACKED = struct.Struct("=QQ")
_ACKED_OFFSET, _SENT_OFFSET = 120, 200

_CLOSE, _LISTEN = 7, 10
_AFTER_PEERS_FIN = (8, 9, 11)
#: TCP: every state that is on the wire or listens. Bound but silent sockets (close) need nobody yet.
_TCP_STATES = 0xFFF & ~(1 << 0) & ~(1 << _CLOSE) | (1 << 12)
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = (1 << 64) - 1
_MAPPED = b"\0" * 10 + b"\xff\xff"


def parse_rows(buffer: bytes, messages: Sequence[Message]) -> List[Row]:
    """Decode one buffer of a listing.

    Pure and bounded. Messages too short to be a socket are refused, attributes that do not fit are not read.

    Parameters
    ----------
    buffer : bytes
    messages : sequence of Message
        From `whoneeds.tracer.netlink.split_messages`.

    Raises
    ------
    HostError
    """
    rows: List[Row] = []
    unpack, entry_size = _ENTRY.unpack_from, _ENTRY.size
    # The kernel puts the same attributes before the counters in (nearly) every message of a listing: where a
    # message has the attribute headers of the one before, its counters lie where they lay there.
    layout = _NO_LAYOUT
    headers: Tuple[int, ...] = ()
    info = 0
    for kind, begin, end in messages:
        if kind not in _KINDS:
            continue
        if end - begin < entry_size:
            raise HostError("socket listing", expected=f"at least {entry_size} bytes", found=f"{end - begin}")
        family, state, identity, uid, inode = unpack(buffer, begin)
        at = begin + entry_size
        if state == _LISTEN:
            rows.append((identity, state, inode, uid, None, None, family))
            continue
        if end - at < layout.size or layout.unpack_from(buffer, at) != headers or not headers:
            layout, headers, info = _find_counters(buffer, at, end)
        if not headers:
            rows.append((identity, state, inode, uid, None, None, family))
            continue
        sent, received = _byte_counts(buffer, at + info, headers[-2] - ATTRIBUTE.size, state)
        rows.append((identity, state, inode, uid, sent, received, family))
    return rows


_NO_LAYOUT = struct.Struct("=")
_LAYOUTS: Dict[str, struct.Struct] = {}
_MAX_ATTRIBUTES = 64


def _find_counters(buffer: bytes, begin: int, end: int) -> Tuple[struct.Struct, Tuple[int, ...], int]:
    """Find struct tcp_info among the attributes of a message.

    Returns
    -------
    layout : struct.Struct
        Reads the headers of all attributes up to it, padded to its end.
    headers : tuple of int
        What that reads in this message; empty if there is no such attribute.
    info : int
        Offset of tcp_info.
    """
    shape, at = "=", begin
    headers: List[int] = []
    for _attribute in range(_MAX_ATTRIBUTES):
        if end - at < ATTRIBUTE.size:
            break
        length, name = ATTRIBUTE.unpack_from(buffer, at)
        if length < ATTRIBUTE.size or length > end - at:
            break
        headers += [length, name]
        if name == _INET_DIAG_INFO:
            shape += f"HH{length - ATTRIBUTE.size}x"
            layout = _LAYOUTS.get(shape)
            if layout is None:
                if len(_LAYOUTS) > 1000:
                    _LAYOUTS.clear()
                layout = _LAYOUTS[shape] = struct.Struct(shape)
            return layout, tuple(headers), at - begin + ATTRIBUTE.size
        padded = (length + 3) & ~3
        shape += f"HH{padded - ATTRIBUTE.size}x"
        at += padded
    return _NO_LAYOUT, (), 0


def _byte_counts(buffer: bytes, at: int, length: int, state: int) -> Tuple[Optional[int], Optional[int]]:
    """Bytes of data sent and received, out of a struct tcp_info of any kernel's length."""
    if length < _ACKED_OFFSET + 16:
        return None, None
    sent, received = _ACKED.unpack_from(buffer, at + _ACKED_OFFSET)
    if length >= _SENT_OFFSET + 16:
        data, again = _ACKED.unpack_from(buffer, at + _SENT_OFFSET)
        sent = min(sent, max(data - again, 0))
    if state in _AFTER_PEERS_FIN and received:
        received -= 1
    return sent, received


def decode_ends(family: int, identity: bytes) -> Ends:
    """Decode a socket's identity: canonical address text, IPv4-mapped IPv6 unmapped.

    Examples
    --------
    >>> decode_ends(2, bytes.fromhex("01bb0000" "7f000001" + "00" * 12 + "00" * 16 + "00" * 4 + "07" + "00" * 7))
    Ends(local_addr='127.0.0.1', local_port=443, remote_addr=None, remote_port=None, cookie=7)
    """
    local_port, remote_port, local, remote = _IDENTITY.unpack_from(identity)
    cookie: Optional[int] = _COOKIE.unpack_from(identity, 40)[0]
    if cookie in (0, _NO_COOKIE):
        cookie = None
    elif cookie is not None:
        cookie &= (1 << 63) - 1
    if remote_port == 0 and not any(remote):
        return Ends(address_text(family, local), local_port, None, None, cookie)
    return Ends(address_text(family, local), local_port, address_text(family, remote), remote_port, cookie)


def address_text(family: int, raw: bytes) -> str:
    r"""Canonical text of an address in 16 bytes (IPv4 in the first four).

    Examples
    --------
    >>> address_text(10, bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1]))
    '10.0.0.1'
    """
    if family == IPV4:
        return socket.inet_ntoa(raw[:4])
    if raw[:12] == _MAPPED:
        return socket.inet_ntoa(raw[12:])
    return str(IPv6Address(raw))


def open_channel() -> Any:
    """A socket to ask on, bound to the calling thread's network namespace."""
    return open_netlink(NETLINK_SOCK_DIAG)


def list_sockets(channel: Any, protocol: int) -> Tuple[List[Row], bool]:
    """List all sockets of a protocol, over IPv4 and IPv6, in the channel's network namespace.

    TCP is asked for in the older form of the request, which lists both families in one pass over the kernel's
    table: that pass costs more than the sockets in it where there are many namespaces.

    Returns
    -------
    rows : list of Row
    whole : bool
        False if the kernel says that the listing is not.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    what = f"{PROTOCOL_NAMES[protocol]} sockets"
    if protocol == TCP:
        try:
            return _list(channel, _TCPDIAG_GETSOCK, _OLD_REQUEST.pack(_WANT_INFO, _TCP_STATES, 0), what)
        except Unsupported:
            pass  # a kernel that has given up the older form
    rows: List[Row] = []
    whole = True
    for family in (IPV4, IPV6):
        extensions, states = (_WANT_INFO, _TCP_STATES) if protocol == TCP else (0, _ANY_STATE)
        request = _REQUEST.pack(family, protocol, extensions, states)
        found, listed_whole = _list(channel, _SOCK_DIAG_BY_FAMILY, request, what)
        rows += found
        whole = whole and listed_whole
    return rows, whole


def _list(channel: Any, kind: int, request: bytes, what: str) -> Tuple[List[Row], bool]:
    buffers, whole = dump(channel, kind, request, what)
    rows: List[Row] = []
    for buffer, messages in buffers:
        rows += parse_rows(buffer, messages)
    return rows, whole
