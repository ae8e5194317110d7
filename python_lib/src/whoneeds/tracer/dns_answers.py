# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and their addresses out of one DNS answer (RFC 1035), which may be anything.

Pure and bounded: no input makes it read beyond its end, follow a pointer forward or in a circle, or run for long.
"""

import struct
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

from whoneeds.tracer.sock_diag import IPV4, IPV6, address_text

_HEAD = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")
_A, _CNAME, _AAAA = 1, 5, 28
_INTERNET = 1
_RESPONSE, _OPCODE, _RCODE = 0x8000, 0x7800, 0x000F
#: Multicast DNS uses the class's highest bit for something else.
_CLASS_BITS = 0x7FFF
_MOST_RECORDS, _MOST_NAME_BYTES = 64, 255


class Answer(NamedTuple):
    """What an answer says.

    Attributes
    ----------
    names : list of (bytes, str)
        Name (labels joined by dots, unchecked) and address.
    whole : bool
        False if it broke off or was not an answer.
    """

    names: List[Tuple[bytes, str]]
    whole: bool


_NOTHING = Answer([], False)


def parse_answer(message: bytes) -> Answer:
    """Read an answer.

    The name that was asked for stands for every address at the end of its chain of aliases; where nothing was asked
    (multicast DNS), each record stands for itself.

    Parameters
    ----------
    message : bytes
        What the packet carries, perhaps cut.
    """
    if len(message) < _HEAD.size:
        return _NOTHING
    _number, flags, questions, answers, authorities, additional = _HEAD.unpack_from(message)
    if not flags & _RESPONSE or flags & (_OPCODE | _RCODE) or questions > 1:
        return _NOTHING
    at = _HEAD.size
    asked: Optional[bytes] = None
    if questions:
        read = _read_name(message, at)
        if read is None or read[1] + 4 > len(message):
            return _NOTHING
        asked, at = read[0], read[1] + 4
    # multicast DNS puts addresses into the additional records too
    count = answers if questions else answers + authorities + additional
    aliases: Dict[bytes, bytes] = {}
    addresses: List[Tuple[bytes, str]] = []
    whole = count <= _MOST_RECORDS
    for _number in range(min(count, _MOST_RECORDS)):
        read = _read_name(message, at)
        if read is None or read[1] + _FIXED.size > len(message):
            whole = False
            break
        owner, at = read
        kind, group, _lifetime, length = _FIXED.unpack_from(message, at)
        at += _FIXED.size
        if at + length > len(message):
            whole = False
            break
        if group & _CLASS_BITS == _INTERNET:
            if kind == _A and length == 4:
                addresses.append((owner, address_text(IPV4, message[at : at + 4])))
            elif kind == _AAAA and length == 16:
                addresses.append((owner, address_text(IPV6, message[at : at + 16])))
            elif kind == _CNAME:
                target = _read_name(message, at)
                if target is not None:
                    aliases[owner] = target[0]
        at += length
    if asked is None:
        return Answer(addresses, whole)
    reached = _follow(asked, aliases)
    return Answer([(asked, address) for owner, address in addresses if owner in reached], whole)


def _follow(name: bytes, aliases: Dict[bytes, bytes]) -> Set[bytes]:
    reached = {name}
    while name in aliases and aliases[name] not in reached:
        name = aliases[name]
        reached.add(name)
    return reached


def _read_name(message: bytes, at: int) -> Optional[Tuple[bytes, int]]:
    """A name in lower case and where what follows it begins; None if there is none."""
    labels: List[bytes] = []
    size, behind = 0, -1
    lowest = at
    while at < len(message):
        length = message[at]
        if length >= 0xC0:
            if at + 2 > len(message):
                return None
            goal = (length & 0x3F) << 8 | message[at + 1]
            if goal >= lowest:  # only ever backwards, so that it ends
                return None
            behind = at + 2 if behind < 0 else behind
            at = lowest = goal
        elif length > 63:  # label types that nobody uses
            return None
        elif length == 0:
            return b".".join(labels).lower(), at + 1 if behind < 0 else behind
        else:
            size += length + 1
            if at + 1 + length > len(message) or size > _MOST_NAME_BYTES:
                return None
            labels.append(message[at + 1 : at + 1 + length])
            at += 1 + length
    return None
