# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's table of tracked conversations (conntrack) over netlink: those that it translates.

Each entry holds two tuples: the conversation as its first packet came, and the answer as it comes back. Where the
answer is not the mirror of the first, addresses or ports are translated (DNAT, SNAT, masquerade). Only such entries
are kept; newer kernels leave out the others already.

Pure but for `open_channel`, `open_events` and `list_translations`.
"""

import socket
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from whoneeds.model.errors import Denied, Gone, HostError, Unsupported
from whoneeds.tracer.netlink import ATTRIBUTE, Run, attributes, dump, each_message, open_netlink
from whoneeds.tracer.sock_diag import IPV4, IPV6, PROTOCOL_NAMES, address_text

NETLINK_NETFILTER = 12
#: Messages of the subsystem ctnetlink: new (also: as listed), get, delete.
NEW, _GET, DELETE = 0x100, 0x101, 0x102
#: NFNLGRP_CONNTRACK_NEW and NFNLGRP_CONNTRACK_DESTROY.
_GROUPS = 1 << 0 | 1 << 2
_SO_RCVBUFFORCE = 33
_COUNT_FILE = "sys/net/netfilter/nf_conntrack_count"

#: struct nfgenmsg: family, version, resource.
_GENERIC = struct.Struct(">BBH")
_ORIG, _REPLY, _STATUS, _STATUS_MASK = 1, 2, 3, 26
_IP, _PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
#: IPS_SRC_NAT and IPS_DST_NAT.
_NAT = (1 << 4, 1 << 5)
#: A table up to this size is asked for whole; of a larger one the kernel is asked to pick, once for each kind.
_SMALL = 2000


class Translation(NamedTuple):
    """A translated conversation, undecoded: family and protocol, ends as they came and as they went on.

    Ports are the two bytes of the wire. ``new_src`` is what the called end takes for the caller.
    """

    family: int
    protocol: int
    src: bytes
    src_port: bytes
    dst: bytes
    dst_port: bytes
    new_src: bytes
    new_src_port: bytes
    new_dst: bytes
    new_dst_port: bytes


#: Type of the message, and what it speaks of.
Told = Tuple[int, Translation]


def _header(length: int, kind: int) -> bytes:
    return ATTRIBUTE.pack(length, kind)


#: Nearly all entries are IPv4 with tuples in one form. There it takes one look: each header must be as expected.
_NESTED = 0x8000
_V4 = struct.Struct("=4x" + "12s4s4s4s8sB3x4s2s2x4s2s2x" * 2)
_V4_HEADERS = tuple(
    header
    for which in (_ORIG, _REPLY)
    for header in (
        _header(52, which | _NESTED) + _header(20, _IP | _NESTED) + _header(8, _V4_SRC),
        _header(8, _V4_DST),
        _header(28, _PROTO | _NESTED) + _header(5, _PROTO_NUM),
        _header(6, _SRC_PORT),
        _header(6, _DST_PORT),
    )
)


def parse_translations(buffer: bytes, runs: Sequence[Run]) -> List[Told]:
    """The translated conversations among the messages of one buffer.

    Pure and bounded: attributes that do not fit are not read, and an entry that lacks a part is passed over.

    Parameters
    ----------
    buffer : bytes
    runs : sequence of Run
        From `whoneeds.tracer.netlink.split_messages`.
    """
    found: List[Told] = []
    for kind, begin, end in each_message(runs):
        if kind not in (NEW, DELETE):
            continue
        made = _parse_v4(buffer, begin, end)
        if made is None:
            made = _parse_entry(buffer, begin, end)
        if made is not None and made.protocol in PROTOCOL_NAMES and _is_translated(made):
            found.append((kind, made))
    return found


def _is_translated(entry: Translation) -> bool:
    return (entry.src, entry.src_port, entry.dst, entry.dst_port) != (
        entry.new_src, entry.new_src_port, entry.new_dst, entry.new_dst_port,
    )  # fmt: skip


def _parse_v4(buffer: bytes, begin: int, end: int) -> Optional[Translation]:
    if end - begin < _V4.size:
        return None
    fields = _V4.unpack_from(buffer, begin)
    (h0, src, h1, dst, h2, protocol, h3, src_port, h4, dst_port,
     h5, back_src, h6, back_dst, h7, _protocol, h8, back_src_port, h9, back_dst_port) = fields  # fmt: skip
    if (h0, h1, h2, h3, h4, h5, h6, h7, h8, h9) != _V4_HEADERS:
        return None
    return Translation(
        IPV4, protocol, src, src_port, dst, dst_port, back_dst, back_dst_port, back_src, back_src_port
    )  # fmt: skip


class _Tuple(NamedTuple):
    family: int
    protocol: int
    src: bytes
    src_port: bytes
    dst: bytes
    dst_port: bytes


def _parse_entry(buffer: bytes, begin: int, end: int) -> Optional[Translation]:
    first = back = None
    for kind, at, until in attributes(buffer, begin + _GENERIC.size, end):
        if kind == _ORIG:
            first = _parse_tuple(buffer, at, until)
        elif kind == _REPLY:
            back = _parse_tuple(buffer, at, until)
    if first is None or back is None or (first.family, first.protocol) != (back.family, back.protocol):
        return None
    return Translation(*first, back.dst, back.dst_port, back.src, back.src_port)


_SIZES = {_V4_SRC: 4, _V4_DST: 4, _V6_SRC: 16, _V6_DST: 16}


def _parse_tuple(buffer: bytes, begin: int, end: int) -> Optional[_Tuple]:
    ends = {}
    ports = {}
    protocol: Optional[int] = None
    for kind, at, until in attributes(buffer, begin, end):
        if kind == _IP:
            for name, value, last in attributes(buffer, at, until):
                if last - value == _SIZES.get(name):
                    ends[name] = buffer[value:last]
        elif kind == _PROTO:
            for name, value, last in attributes(buffer, at, until):
                if name == _PROTO_NUM and last - value == 1:
                    protocol = buffer[value]
                elif name in (_SRC_PORT, _DST_PORT) and last - value == 2:
                    ports[name] = buffer[value:last]
    if protocol is None or len(ports) != 2:
        return None
    for family, src, dst in ((IPV4, _V4_SRC, _V4_DST), (IPV6, _V6_SRC, _V6_DST)):
        if src in ends and dst in ends:
            return _Tuple(family, protocol, ends[src], ports[_SRC_PORT], ends[dst], ports[_DST_PORT])
    return None


def decode_translation(entry: Translation) -> Tuple[Any, ...]:
    r"""Protocol, and address and port of: who began, what was called, who began and what was called afterwards.

    Examples
    --------
    >>> web, api, pod = (bytes([10, 0, 0, last]) for last in (1, 2, 3))
    >>> decode_translation(Translation(2, 6, web, b"\x9c\x40", api, b"\x1f\x90", web, b"\x9c\x40", pod, b"\0P"))
    ('tcp', '10.0.0.1', 40000, '10.0.0.2', 8080, '10.0.0.1', 40000, '10.0.0.3', 80)
    """
    made: List[Any] = [PROTOCOL_NAMES[entry.protocol]]
    rest = entry[2:]
    for address, port in zip(rest[::2], rest[1::2]):
        made += [address_text(entry.family, address), int.from_bytes(port, "big")]
    return tuple(made)


def count_tracked(root: str = "/proc") -> int:
    """Conversations that the kernel tracks in the calling thread's network namespace; 0 where it tracks none at all.

    It is asked before anything else, so that nothing is loaded into a kernel that tracks nothing.
    """
    try:
        with open(f"{root}/{_COUNT_FILE}", "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return 0


def open_channel(root: str = "/proc") -> Tuple[Any, int]:
    """A socket to ask on, bound to the calling thread's network namespace, and how much is tracked there.

    Raises
    ------
    Gone
        If nothing is tracked there.
    Denied, Unsupported
    """
    tracked = count_tracked(root)
    if not tracked:
        raise Gone("tracked conversations", found="none")
    return open_netlink(NETLINK_NETFILTER), tracked


def open_events(buffer_bytes: int) -> Any:
    """A socket on which the kernel tells of new and forgotten conversations of the calling thread's namespace.

    Raises
    ------
    HostError
    """
    channel = open_netlink(NETLINK_NETFILTER)
    try:
        try:
            channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except OSError:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        channel.bind((0, _GROUPS))
        channel.setblocking(False)
    except OSError as error:
        channel.close()
        what = "messages about translated conversations"
        kind = Denied if isinstance(error, PermissionError) else HostError
        raise kind(what, found=str(error.strerror)) from error
    return channel


def list_translations(channel: Any, tracked: int) -> Tuple[List[Translation], bool]:
    """The translated conversations of the channel's namespace.

    Parameters
    ----------
    channel : socket
        From `open_channel`.
    tracked : int
        How many are tracked in all.

    Returns
    -------
    found : list of Translation
        Each once.
    whole : bool
        False if the kernel says that the listing is not.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    requests = [b""]
    if tracked > _SMALL:
        wanted = [struct.pack(">I", bit) for bit in _NAT]
        requests = [
            ATTRIBUTE.pack(8, _STATUS) + bit + ATTRIBUTE.pack(8, _STATUS_MASK) + bit for bit in wanted
        ]  # kernels that do not know the mask list everything, and what is not wanted is passed over here
    found: Dict[Translation, None] = {}
    whole = True
    for request in requests:
        try:
            told, complete = dump(channel, _GET, _GENERIC.pack(0, 0, 0) + request, "translations", parse_translations)
        except Unsupported as error:
            remedy = "load the kernel module nf_conntrack_netlink"
            raise Unsupported("translations (conntrack)", found=error.found, remedy=remedy) from error
        found.update((entry, None) for _kind, entry in told)
        whole = whole and complete
    return list(found), whole
