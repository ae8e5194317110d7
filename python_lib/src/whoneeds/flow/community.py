# SPDX-License-Identifier: GPL-3.0-or-later
"""Community ID, version 1: a name that other tools give the same flow, so that records can be joined."""

import base64
import hashlib

from whoneeds.flow.compiled.packet import ICMP, ICMP6, SCTP, TCP, UDP

_PREFIX = b"\x00\x00"  # the seed
_HAS_PORTS = frozenset((TCP, UDP, SCTP, ICMP, ICMP6))


def community_id(protocol: int, orig: bytes, orig_port: int, resp: bytes, resp_port: int, one_way: bool) -> str:
    """The ID of a flow.

    Parameters
    ----------
    protocol : int
        Of IP.
    orig, resp : bytes
        Addresses, of 4 or of 16 bytes.
    orig_port, resp_port : int
        Ports; of ICMP, type and counterpart or code.
    one_way : bool
        Whether its ends must not be exchanged: a message of ICMP that has no answer.

    Examples
    --------
    >>> community_id(6, bytes((128, 232, 110, 120)), 34855, bytes((66, 35, 250, 204)), 80, False)
    '1:LQU9qZlK+B5F3KDmev6m5PMibrg='
    """
    ends = (orig, orig_port), (resp, resp_port)
    (first, first_port), (second, second_port) = ends if one_way else sorted(ends)
    text = _PREFIX + first + second + bytes((protocol, 0))
    if protocol in _HAS_PORTS:
        text += first_port.to_bytes(2, "big") + second_port.to_bytes(2, "big")
    return "1:" + base64.b64encode(hashlib.sha1(text, usedforsecurity=False).digest()).decode("ascii")
