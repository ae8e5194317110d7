# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the transport header of an IPv4 or IPv6 packet begins, and which two ends it names. Pure and bounded."""

from typing import Optional, Tuple

from whoneeds.tracer.capture_filter import IPV6_EXTENSIONS, TCP, UDP

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_FRAGMENT = 44
_MOST_EXTENSIONS = 8


def find_transport(protocol: bytes, data: bytes) -> Optional[Tuple[int, int, bytes]]:
    """Transport protocol, offset of its header, and both ends, of a packet from its network header on.

    Parameters
    ----------
    protocol : bytes
        Ethertype, as on the wire.
    data : bytes
        The packet, perhaps cut.

    Returns
    -------
    tuple or None
        The ends are the sender's address, the receiver's, the sender's port, the receiver's. None for what is neither
        TCP nor UDP, for fragments but the first, and for what is no proper packet.
    """
    if protocol == _IPV4:
        if len(data) < 28 or data[0] >> 4 != 4:
            return None
        begin = (data[0] & 15) * 4
        if begin < 20 or data[6] & 0x1F or data[7] or data[9] not in (UDP, TCP) or len(data) < begin + 8:
            return None
        return data[9], begin, data[12:20] + data[begin : begin + 4]
    if protocol != _IPV6 or len(data) < 48 or data[0] >> 4 != 6:
        return None
    kind, begin = data[6], 40
    for _number in range(_MOST_EXTENSIONS):
        if kind not in IPV6_EXTENSIONS:
            break
        if len(data) < begin + 8 or (kind == _FRAGMENT and (data[begin + 2] or data[begin + 3] & 0xF8)):
            return None
        kind, begin = data[begin], begin + (8 if kind == _FRAGMENT else 8 * (data[begin + 1] + 1))
    if kind not in (UDP, TCP) or len(data) < begin + 8:
        return None
    return kind, begin, data[8:40] + data[begin : begin + 4]
