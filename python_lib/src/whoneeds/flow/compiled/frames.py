# SPDX-License-Identifier: GPL-3.0-or-later
"""Link layers: where in a frame the IP packet begins.

No address that a frame gives is followed without looking whether it lies within what was captured.
"""

import numpy as np

from whoneeds.flow.compiled import part, rare

ETHERNET, NULL, PPP, PPP_HDLC, PPP_ETHER, RAW, LOOP = 1, 0, 9, 50, 51, 101, 108
LINUX_SLL, LINUX_SLL2, RADIOTAP, IEEE_802_11, IPV4, IPV6 = 113, 276, 127, 105, 228, 229
TOKEN_RING, FDDI, NFLOG = 6, 10, 239
#: What is read here; all else goes through scapy.
KNOWN = (
    ETHERNET, NULL, PPP, PPP_HDLC, PPP_ETHER, 12, 14, RAW, LOOP, LINUX_SLL, LINUX_SLL2, RADIOTAP, IEEE_802_11,
    IPV4, IPV6, TOKEN_RING, FDDI, NFLOG,
)  # fmt: skip
_MOST_LAYERS, _MOST_ATTRIBUTES = 16, 64
_NFLOG_PAYLOAD = 9
_VLANS = (0x8100, 0x88A8, 0x9100)
_FABRIC_PATH, _PPPOE, _MPLS, _LLC_LIMIT = 0x8903, 0x8864, (0x8847, 0x8848), 1536
_BACKBONE, _VN_TAG, _PPP_MPLS = 0x88E7, 0x8926, 0x0281


@part
def word(data, at):
    """Two bytes in the network's order."""
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@part
def long_word(data, at):
    """Four bytes in the network's order."""
    return (word(data, at) << 16) | word(data, at + 2)


@part
def find_ip(data, at, end, link, packet):
    """Where the IP packet of a frame begins, or -1 if it has none; notes the VLANs on the way."""
    if link == ETHERNET and at + 14 <= end and word(data, at + 12) in (0x0800, 0x86DD):
        return at + 14
    return find_ip_behind(data, at, end, link, packet)


@rare
def find_ip_behind(data, at, end, link, packet):
    """The same, whatever stands before it."""
    if link == ETHERNET:
        return _behind_type(data, at + 14, end, word(data, at + 12), packet) if at + 14 <= end else -1
    if link in (12, 14, RAW, IPV4, IPV6):
        return at
    if link == LINUX_SLL:
        return _behind_type(data, at + 16, end, word(data, at + 14), packet) if at + 16 <= end else -1
    if link == LINUX_SLL2:
        return _behind_type(data, at + 20, end, word(data, at), packet) if at + 20 <= end else -1
    if link in (NULL, LOOP):
        return _behind_family(data, at, end)
    if link in (PPP, PPP_HDLC):
        return _behind_ppp(data, at, end)
    if link == PPP_ETHER:
        return _behind_ppp(data, at + 6, end)
    if link == RADIOTAP:
        if at + 4 > end:
            return -1
        length = np.int64(data[at + 2]) | (np.int64(data[at + 3]) << 8)
        return _behind_wlan(data, at + length, end, packet)
    if link == IEEE_802_11:
        return _behind_wlan(data, at, end, packet)
    if link == FDDI:
        return _behind_llc(data, at + 13, end, packet)
    if link == TOKEN_RING:
        routing = np.int64(data[at + 14]) & 31 if at + 15 <= end and data[at + 8] & 0x80 else 0
        return _behind_llc(data, at + 14 + routing, end, packet)
    if link == NFLOG:
        return _behind_attributes(data, at, end)
    return -1


@rare
def _behind_type(data, at, end, kind, packet):
    """Behind an Ethernet type; `at` is what follows it."""
    for _layer in range(_MOST_LAYERS):
        if kind in (0x0800, 0x86DD):
            return at
        if kind in _VLANS:
            if at + 4 > end:
                return -1
            if packet["vlan"] < 0:
                packet["vlan"] = word(data, at) & 0xFFF
            else:
                packet["inner_vlan"] = word(data, at) & 0xFFF
            kind = word(data, at + 2)
            at += 4
        elif kind == _FABRIC_PATH:
            # two bytes of a tag, then a whole frame
            if at + 16 > end:
                return -1
            kind = word(data, at + 14)
            at += 16
        elif kind == _BACKBONE:
            # provider backbone bridging: four bytes of a tag, then the customer's whole frame
            if at + 18 > end:
                return -1
            kind = word(data, at + 16)
            at += 18
        elif kind == _VN_TAG:
            if at + 6 > end:
                return -1
            kind = word(data, at + 4)
            at += 6
        elif kind == _PPPOE:
            return _behind_ppp(data, at + 6, end)
        elif kind in _MPLS:
            return _behind_labels(data, at, end)
        elif kind < _LLC_LIMIT:
            # a length: LLC follows, and behind SNAP a type again
            kind = _type_in_snap(data, at, end)
            at += 8
            if kind < _LLC_LIMIT:
                return -1
        else:
            return -1
    return -1


@rare
def _type_in_snap(data, at, end):
    """The Ethernet type that LLC and SNAP name, or -1."""
    if at + 8 > end or data[at] != 0xAA or data[at + 1] != 0xAA or data[at + 2] != 3:
        return -1
    if data[at + 3] or data[at + 4] or data[at + 5]:
        return -1
    return word(data, at + 6)


@rare
def _behind_llc(data, at, end, packet):
    kind = _type_in_snap(data, at, end)
    return _behind_type(data, at + 8, end, kind, packet) if kind >= _LLC_LIMIT else -1


@rare
def _behind_attributes(data, at, end):
    """The log of Linux' packet filter: attributes in the order of the machine, the packet is one of them."""
    at += 4
    for _attribute in range(_MOST_ATTRIBUTES):
        if at + 4 > end:
            return -1
        length = np.int64(data[at]) | (np.int64(data[at + 1]) << 8)
        if data[at + 2] == _NFLOG_PAYLOAD and data[at + 3] == 0:
            return at + 4
        if length < 4:
            return -1
        at += (length + 3) // 4 * 4
    return -1


@rare
def _behind_labels(data, at, end):
    for _label in range(_MOST_LAYERS):
        if at + 4 > end:
            return -1
        last = data[at + 2] & 1
        at += 4
        if last:
            return at if at < end and (data[at] >> 4) in (4, 6) else -1
    return -1


@rare
def _behind_ppp(data, at, end):
    if at + 4 > end:
        return -1
    if data[at] in (0xFF, 0x0F) and data[at + 1] in (0x03, 0x00):  # address and control of HDLC, or of Cisco's
        at += 2
        kind = word(data, at)
        if kind in (0x0800, 0x86DD):
            return at + 2
    kind = word(data, at)
    if kind in (0x0021, 0x0057):
        return at + 2
    if kind == _PPP_MPLS:
        return _behind_labels(data, at + 2, end)
    if data[at] in (0x21, 0x57):  # the protocol in one byte
        return at + 1
    return -1


@rare
def _behind_family(data, at, end):
    """The null header: a family of addresses, in the order of the machine that captured."""
    if at + 5 > end:
        return -1
    version = data[at + 4] >> 4
    family = max(data[at], data[at + 3])
    if family == 2:
        return at + 4 if version == 4 else -1
    return at + 4 if family in (10, 24, 28, 30) and version == 6 else -1


@rare
def _behind_wlan(data, at, end, packet):
    if at + 24 > end:
        return -1
    kind, flags = data[at], data[at + 1]
    if (kind >> 2) & 3 != 2 or kind & 0x40 or flags & 0x40:  # data, not the kinds without data, not encrypted
        return -1
    at += 24
    if flags & 3 == 3:
        at += 6
    if kind & 0x80:
        at += 2
        if flags & 0x80:
            at += 4
    return _behind_llc(data, at, end, packet)
