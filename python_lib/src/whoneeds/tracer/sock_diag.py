# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own list of sockets (NETLINK_SOCK_DIAG): ends, state, owner's user, inode, byte counters.

Byte counters. ``tcpi_bytes_acked`` counts the SYN of the end that connected and the FIN of the end that closed,
as one byte each; ``tcpi_bytes_sent`` less ``tcpi_bytes_retrans`` counts data only, but also what is still under
way. The smaller of the two is exact whenever nothing is under way, and at most one byte too much otherwise.
``tcpi_bytes_received`` counts the peer's FIN; it is taken off in the states that a FIN leads to. Kernels before
4.19 do not give ``bytes_sent``; the count there may be two bytes too much.
"""

import functools
import socket
import struct
from ipaddress import IPv6Address
from operator import itemgetter
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from whoneeds.model.errors import HostError, Unsupported
from whoneeds.tracer.netlink import ATTRIBUTE, Run, count_alike, dump, open_netlink
from whoneeds.tracer.socket_rows import Ends, Row

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
_ENTRY = "=BB2x48s12xII"
_ENTRY_BYTES = struct.calcsize(_ENTRY)
#: Where in a `RawRow` the identity and the inode are.
IDENTITY, _INODE = 2, 4
#: The identity of struct inet_diag_sockid: ports, addresses, interface, cookie.
_IDENTITY = struct.Struct(">HH16s16s")
_COOKIE = struct.Struct("=Q")
#: struct tcp_info from byte 120 on: bytes_acked, bytes_received; from byte 200 on: bytes_sent, bytes_retrans.
_ACKED_OFFSET, _SENT_OFFSET = 120, 200

_CLOSE, _LISTEN = 7, 10
_AFTER_PEERS_FIN = (8, 9, 11)
#: TCP: every state that is on the wire or listens. Bound but silent sockets (close) need nobody yet.
_TCP_STATES = 0xFFF & ~(1 << 0) & ~(1 << _CLOSE) | (1 << 12)
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = (1 << 64) - 1
_MAPPED = b"\0" * 10 + b"\xff\xff"


#: What of a message is kept from sample to sample: family, state, identity, uid, inode and, where the kernel gives
#: them, bytes acknowledged, received, sent and sent again. Equal for a socket with which nothing happened, so that
#: such ones need not be looked at; `read_row` says what it means.
RawRow = Tuple[Any, ...]


def parse_rows(buffer: bytes, runs: Sequence[Run]) -> List[RawRow]:
    """Decode one buffer of a listing.

    Pure and bounded. Messages too short to be a socket are refused, attributes that do not fit are not read.

    Parameters
    ----------
    buffer : bytes
    runs : sequence of Run
        From `whoneeds.tracer.netlink.split_messages`.

    Raises
    ------
    HostError
    """
    rows: List[RawRow] = []
    for kind, begin, end, stride, count in runs:
        if kind not in _KINDS:
            continue
        size = end - begin
        if size < _ENTRY_BYTES:
            raise HostError("socket listing", expected=f"at least {_ENTRY_BYTES} bytes", found=f"{size}")
        while count:
            layout = _LAYOUTS.get(size)
            if layout is None or layout.headers.unpack_from(buffer, begin) != layout.expected:
                layout = _find_layout(buffer, begin, size)
            # where messages have the attribute headers of the first one, their counters lie where its counters lie
            alike = count_alike(buffer, begin, stride, count, layout.fields) if count > 1 else 1
            if alike == 1:
                rows.append(layout.row.unpack_from(buffer, begin))
            else:
                stop = begin + stride * (alike - 1)
                rows += _every(layout.row, stride).iter_unpack(memoryview(buffer)[begin:stop])
                rows.append(layout.row.unpack_from(buffer, stop))
            begin += stride * alike
            count -= alike
    return rows


class _Layout:
    """Where in a message of some length the attributes and, among them, the counters lie.

    Attributes
    ----------
    fields : list of (int, int)
        Begin and end of the header of each attribute up to the counters, from the message's begin.
    headers : struct.Struct
        Reads those; `expected` is what it reads in such a message.
    row : struct.Struct
        Reads a `RawRow`.
    """

    __slots__ = ("expected", "fields", "headers", "row")

    def __init__(self, buffer: bytes, begin: int, offsets: Sequence[int], counters: str) -> None:
        shape, at = "=", 0
        for offset in offsets:
            shape += f"{offset - at}x4s"
            at = offset + ATTRIBUTE.size
        self.fields = [(offset, offset + ATTRIBUTE.size) for offset in offsets]
        self.headers = struct.Struct(shape)
        self.expected = self.headers.unpack_from(buffer, begin)
        self.row = struct.Struct(_ENTRY + counters)


#: The last layout of each length of message. A layout is checked against every message before it is used.
_LAYOUTS: Dict[int, _Layout] = {}
_EVERY: Dict[Tuple[str, int], struct.Struct] = {}
_MAX_KEPT = 1000
_MAX_ATTRIBUTES = 64


def _find_layout(buffer: bytes, begin: int, size: int) -> _Layout:
    """Find struct tcp_info among the attributes of a message, and keep where it was."""
    at = _ENTRY_BYTES
    offsets: List[int] = []
    counters = ""
    while size - at >= ATTRIBUTE.size and len(offsets) < _MAX_ATTRIBUTES:
        length, name = ATTRIBUTE.unpack_from(buffer, begin + at)
        offsets.append(at)
        if length < ATTRIBUTE.size or length > size - at:
            break
        if name == _INET_DIAG_INFO:
            counters = _counters(at + ATTRIBUTE.size - _ENTRY_BYTES, length - ATTRIBUTE.size)
            break
        at += (length + 3) & ~3
    if len(_LAYOUTS) > _MAX_KEPT:
        _LAYOUTS.clear()
    layout = _LAYOUTS[size] = _Layout(buffer, begin, offsets, counters)
    return layout


def _counters(info: int, length: int) -> str:
    """The part of a row's structure that reads the counters of a tcp_info of any kernel's length."""
    if length < _ACKED_OFFSET + 16:
        return ""
    shape = f"{info + _ACKED_OFFSET}xQQ"
    return shape if length < _SENT_OFFSET + 16 else f"{shape}{_SENT_OFFSET - _ACKED_OFFSET - 16}xQQ"


def _every(row: struct.Struct, stride: int) -> struct.Struct:
    """The structure of a row, as long as the distance from one message to the next."""
    made = _EVERY.get((row.format, stride))
    if made is None:
        if len(_EVERY) > _MAX_KEPT:
            _EVERY.clear()
        made = _EVERY[row.format, stride] = struct.Struct(f"{row.format}{stride - row.size}x")
    return made


def read_row(raw: RawRow) -> Row:
    """What a raw row says; bytes of data sent and received, out of the kernel's counters."""
    family, state, identity, uid, inode = raw[:5]
    if len(raw) == 5 or state == _LISTEN:
        return identity, state, inode, uid, None, None, family
    sent, received = raw[5], raw[6]
    if len(raw) > 7:
        sent = min(sent, max(raw[7] - raw[8], 0))
    if received and state in _AFTER_PEERS_FIN:
        received -= 1
    return identity, state, inode, uid, sent, received, family


def inodes_of(rows: Iterable[RawRow]) -> Set[int]:
    """Inodes of the sockets in a listing; those of which the kernel keeps none are left out."""
    inodes = set(map(itemgetter(_INODE), rows))
    inodes.discard(0)
    return inodes


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


@functools.lru_cache(maxsize=1 << 16)
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


def list_sockets(channel: Any, protocol: int) -> Tuple[List[RawRow], bool]:
    """List all sockets of a protocol, over IPv4 and IPv6, in the channel's network namespace.

    TCP is asked for in the older form of the request, which lists both families in one pass over the kernel's
    table: that pass costs more than the sockets in it where there are many namespaces.

    Returns
    -------
    rows : list of RawRow
    whole : bool
        False if the kernel says that the listing is not.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    what = f"{PROTOCOL_NAMES[protocol]} sockets"
    if protocol == TCP:
        try:
            return dump(channel, _TCPDIAG_GETSOCK, _OLD_REQUEST.pack(_WANT_INFO, _TCP_STATES, 0), what, parse_rows)
        except Unsupported:
            pass  # a kernel that has given up the older form
    rows: List[RawRow] = []
    whole = True
    for family in (IPV4, IPV6):
        extensions, states = (_WANT_INFO, _TCP_STATES) if protocol == TCP else (0, _ANY_STATE)
        request = _REQUEST.pack(family, protocol, extensions, states)
        found, listed_whole = dump(channel, _SOCK_DIAG_BY_FAMILY, request, what, parse_rows)
        rows += found
        whole = whole and listed_whole
    return rows, whole
