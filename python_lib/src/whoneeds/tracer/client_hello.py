# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's name out of a TLS ClientHello (RFC 8446, RFC 6066), which may be anything.

Pure and bounded: every length is checked against what is left. A hello that goes on in the next packet is read as far
as it is here.
"""

from typing import Optional

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_MOST_EXTENSIONS = 128


def is_client_hello(data: bytes) -> bool:
    """Whether bytes begin as a ClientHello does."""
    return len(data) > 5 and data[0] == _HANDSHAKE and data[1] == 3 and data[5] == _CLIENT_HELLO


def server_name(data: bytes) -> Optional[bytes]:
    """The name that the client says it wants, unchecked; None if it says none here.

    Parameters
    ----------
    data : bytes
        What a TCP segment carries, perhaps cut.
    """
    if not is_client_hello(data):
        return None
    at = 5 + 4 + 2 + 32  # record, handshake, version, random
    for width in (1, 2, 1):  # session, ciphers, compressions
        if at + width > len(data):
            return None
        at += width + int.from_bytes(data[at : at + width], "big")
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    at += 2
    for _number in range(_MOST_EXTENSIONS):
        if at + 4 > min(end, len(data)):
            return None
        kind = int.from_bytes(data[at : at + 2], "big")
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        if kind == _SERVER_NAME:
            return _first_host_name(data[at : min(at + length, end)], length)
        at += length
    return None


def _first_host_name(names: bytes, length: int) -> Optional[bytes]:
    """The name in a list of names that holds exactly one."""
    if len(names) < length or length < 6:
        return None
    listed, kind, size = int.from_bytes(names[:2], "big"), names[2], int.from_bytes(names[3:5], "big")
    if kind != _HOST_NAME or listed != length - 2 or size != length - 5:
        return None
    return names[5 : 5 + size]
