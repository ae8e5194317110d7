# SPDX-License-Identifier: GPL-3.0-or-later
"""What travels in tunnels: where the inner IP packet of a packet begins.

As Zeek does it: GRE and IP within IP carry no flow of their own; VXLAN, Geneve, GTP, Teredo and AYIYA are recognised by
the port of the UDP flow that carries them, the last two elsewhere by what is in them. What does not look like the
tunnel that the port says is left as UDP.
"""

import numpy as np

from whoneeds.flow.compiled import part, rare
from whoneeds.flow.compiled.frames import ETHERNET, IEEE_802_11, find_ip_behind, long_word, word
from whoneeds.flow.compiled.packet import (
    GRE,
    IN_AYIYA,
    IN_GENEVE,
    IN_GRE,
    IN_GTP,
    IN_IP,
    IN_TEREDO,
    IN_VXLAN,
    IPIP,
    IPV6_IN_IP,
    TCP,
    UDP,
)

_VXLAN, _GENEVE, _GTP, _TEREDO, _AYIYA = 4789, 6081, (2152, 2123), 3544, 5072
_PORTS = (_VXLAN, _GENEVE, *_GTP, _TEREDO, _AYIYA)
_ETHERNET_WITHIN = 0x6558
_ERSPAN = (0x88BE, 0x22EB)
_MOST_OPTIONS = 16
_LIKE_TEREDO, _LIKE_AYIYA = 1, 2
#: What addresses of Teredo begin with; and of AYIYA how it signs (SHA-1), whom it trusts, and that it forwards.
_TEREDO_PREFIX, _AYIYA_MARK = 0x20010000, 0x5211


@part
def may_be_tunnel(packet):
    """0 if a packet carries no other one; 1 if it does right behind IP, or behind GRE; -1 if it may, behind UDP."""
    if packet["protocol"] == TCP:
        return 0
    if packet["protocol"] == UDP:
        return (
            -1
            if not packet["is_bad"]
            and (packet["flags"] or packet["source_port"] in _PORTS or packet["target_port"] in _PORTS)
            else 0
        )
    return 1 if packet["protocol"] in (IPIP, IPV6_IN_IP, GRE) else 0


@rare
def open_tunnel(data, packet):
    """Where the inner IP packet of a packet begins; -1 if there is none."""
    return _open_udp_tunnel(data, packet) if packet["protocol"] == UDP else _open_ip_tunnel(data, packet)


@part
def _open_ip_tunnel(data, packet):
    """The same without ports."""
    at, end = packet["body"], packet["body_end"]
    if packet["protocol"] != GRE:
        version = data[at] >> 4
        if version != (4 if packet["protocol"] == IPIP else 6):
            return -1
        packet["tunnel"] = IN_IP
        return at
    flags, kind = word(data, at), word(data, at + 2)
    version = flags & 7
    at += 4
    if version == 0:
        if flags & 0x4000:  # routing: an old form that nobody uses
            return -1
        at += 4 * ((flags >> 15) & 1) + 4 * ((flags >> 13) & 1) + 4 * ((flags >> 12) & 1)
    elif version == 1 and kind == 0x880B:
        at += 4 + 4 * ((flags >> 12) & 1) + 4 * ((flags >> 7) & 1)
    else:
        return -1
    if at + 4 > end:
        return -1
    packet["tunnel"] = IN_GRE
    if version == 1:
        if data[at] == 0xFF and data[at + 1] == 3:
            at += 2
            if at + 2 > end:
                return -1
        return at + 2 if word(data, at) in (0x0021, 0x0057) else -1
    if kind in (0x0800, 0x86DD):
        return at
    link = ETHERNET
    if kind in _ERSPAN:
        if kind == _ERSPAN[1]:
            at += 12 + (8 if at + 12 <= end and data[at + 11] & 1 else 0)
        elif flags & 0x1000:  # with a sequence number: type II, which has a header
            at += 8
    elif _is_from_access_point(kind):
        link = IEEE_802_11
    elif kind != _ETHERNET_WITHIN:
        return at if fits(data, at, end, packet["wire_end"]) else -1
    return find_ip_behind(data, at, end, link, packet) if at < end else -1


@part
def _is_from_access_point(kind):
    """Whether a type in GRE is one by which access points of Aruba send frames of their network on."""
    return kind == 0x9000 or (0x8200 <= kind <= 0x8370 and not kind & 15)


@part
def _open_udp_tunnel(data, packet):
    """The same behind UDP."""
    ports = packet["source_port"], packet["target_port"]
    at, end = packet["body"] + 8, packet["body_end"]
    if _VXLAN in ports:
        return _open_vxlan(data, at, end, packet)
    if _GENEVE in ports:
        return _open_geneve(data, at, end, packet)
    if ports[0] in _GTP or ports[1] in _GTP:
        return _open_gtp(data, at, end, packet)
    if _TEREDO in ports:
        return _open_teredo(data, at, end, packet)
    if _AYIYA in ports:
        return _open_ayiya(data, at, end, packet)
    if packet["flags"] == _LIKE_TEREDO:
        return _open_teredo(data, at, end, packet)
    if packet["flags"] == _LIKE_AYIYA:
        return _open_ayiya(data, at, end, packet)
    return -1


@rare
def fits(data, at, end, wire_end):
    """Whether something that looks like a whole IP packet begins here."""
    if at < 0 or at + 20 > end:
        return False
    version = data[at] >> 4
    if version == 4:
        header, total = (np.int64(data[at]) & 15) * 4, word(data, at + 2)
        return header >= 20 and total >= header and at + total <= wire_end
    return version == 6 and at + 40 <= end and at + 40 + word(data, at + 4) <= wire_end


@part
def _open_vxlan(data, at, end, packet):
    if at + 8 > end or not data[at] & 8:
        return -1
    packet["tunnel"] = IN_VXLAN
    return find_ip_behind(data, at + 8, end, ETHERNET, packet)


@part
def _open_geneve(data, at, end, packet):
    if at + 8 > end or data[at] >> 6:
        return -1
    kind = word(data, at + 2)
    at += 8 + 4 * (np.int64(data[at]) & 63)
    if at >= end:
        return -1
    packet["tunnel"] = IN_GENEVE
    if kind in (0x0800, 0x86DD):
        return at
    return find_ip_behind(data, at, end, ETHERNET, packet) if kind == _ETHERNET_WITHIN else -1


@part
def _open_gtp(data, at, end, packet):
    """GTP version 1, user plane: packets of users are messages of type 255."""
    if at + 8 > end or data[at] >> 5 != 1 or not data[at] & 16 or data[at + 1] != 255:
        return -1
    flags, length = data[at], word(data, at + 2)
    if at + 8 + length > packet["wire_end"]:
        return -1
    begin = at + 8
    if flags & 7:
        if begin + 4 > end:
            return -1
        following = data[begin + 3] if flags & 4 else 0
        begin += 4
        for _option in range(_MOST_OPTIONS):
            if not following:
                break
            if begin + 4 > end or not data[begin]:
                return -1
            size = 4 * np.int64(data[begin])
            if begin + size > end:
                return -1
            following = data[begin + size - 1]
            begin += size
    if not fits(data, begin, end, packet["wire_end"]):
        return -1
    packet["tunnel"] = IN_GTP
    return begin


@part
def _open_teredo(data, at, end, packet):
    """IPv6 over UDP, behind an authentication and an origin that may be there; it must fill the packet."""
    if at + 4 <= end and word(data, at) == 1:
        at += 13 + np.int64(data[at + 2]) + np.int64(data[at + 3])
    if at + 2 <= end and word(data, at) == 0:
        at += 8
    if at + 40 > end or data[at] >> 4 != 6 or at + 40 + word(data, at + 4) != packet["wire_end"]:
        return -1
    packet["tunnel"] = IN_TEREDO
    return at


@part
def what_it_looks_like(data, at, end):
    """Which tunnel a UDP packet's payload looks like, whatever its ports; 0 for none. It is kept as its flags."""
    if at + 40 > end:
        return 0
    if data[at] >> 4 in (0, 6) and _looks_like_teredo(data, at, end):
        return _LIKE_TEREDO
    return _LIKE_AYIYA if word(data, at + 1) == _AYIYA_MARK else 0


@rare
def _looks_like_teredo(data, at, end):
    """Whether an address of Teredo's follows, or an IPv6 packet behind one of its own headers."""
    if data[at] >> 4 == 6:
        return long_word(data, at + 8) == _TEREDO_PREFIX or long_word(data, at + 24) == _TEREDO_PREFIX
    if word(data, at) == 1:
        at += 13 + np.int64(data[at + 2]) + np.int64(data[at + 3])
        if at + 48 > end or word(data, at) != 0:
            return False
    elif word(data, at) != 0:
        return False
    return at + 48 <= end and data[at + 8] >> 4 == 6


@part
def _open_ayiya(data, at, end, packet):
    if at + 8 > end:
        return -1
    identity, signature, operation = 1 << (data[at] >> 4), 4 * (data[at + 1] >> 4), data[at + 2] & 15
    kind = data[at + 3]
    if operation != 1 or kind not in (4, 41):
        return -1
    at += 8 + identity + signature
    if not fits(data, at, end, packet["wire_end"]) or long_word(data, at) == 0:
        return -1
    packet["tunnel"] = IN_AYIYA
    return at
