# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packets the kernel hands over, and how much of each: a program in classic BPF, attached to a packet socket.

A program has three parts. The first drops the second sight of what goes over a loopback interface, which shows every
packet on its way out and on its way in. The second is the selection: `headers` (UDP, and of TCP what begins or ends a
connection or names a server), `all`, or an expression of the user's. The third says how much: answers of name
services and TLS ClientHello messages as far as names can be in them, of everything else the headers.

Programs see a packet from its network header on (the socket is a cooked one), so that they are the same for every
kind of interface; a VLAN tag is what the kernel has taken off before.
"""

import struct
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from whoneeds.model.errors import SettingsError

#: What is kept of a packet, and of one whose names are read.
SNAP_BYTES = 128
NAMES_BYTES = 1514
#: UDP ports that answers of name services come from: DNS, multicast DNS, LLMNR.
NAME_PORTS = (53, 5353, 5355)
#: Words that stand for a selection; anything else is an expression.
WORDS = ("headers", "all", "off")

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
UDP, TCP = 17, 6
#: sll_pkttype: a packet for somebody else, and one that leaves.
OTHER_HOST, OUTGOING = 3, 4
ARPHRD_LOOPBACK = 772
#: FIN, SYN, RST.
_BEGIN_OR_END = 0x07
_FRAGMENT_OFFSET = 0x1FFF
#: IPv6 headers that may stand between: hop by hop, routing, fragment, destination.
IPV6_EXTENSIONS = (0, 43, 44, 60)

_INSTRUCTION = struct.Struct("=HBBI")
_ANCILLARY = 0xFFFFF000
_PROTOCOL, _PACKET_TYPE, _HARDWARE_TYPE = _ANCILLARY, _ANCILLARY + 4, _ANCILLARY + 28
_MAX_INSTRUCTIONS = 4096

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_LENGTH = 0x20, 0x28, 0x30, 0x80
_LOAD_HALF_AT_X, _LOAD_BYTE_AT_X = 0x48, 0x50
_X_FROM_IPV4_LENGTH, _X_FROM_NUMBER, _X_FROM_MEMORY, _X_FROM_A = 0xB1, 0x01, 0x61, 0x07
_A_FROM_X, _STORE_X, _ADD, _ADD_X, _SHIFT_RIGHT, _SHIFT_LEFT = 0x87, 0x03, 0x04, 0x0C, 0x74, 0x64
_IF_EQUAL, _IF_AT_LEAST, _IF_SET, _IF_ABOVE_X = 0x15, 0x35, 0x45, 0x2D
_GO, _RETURN = 0x05, 0x06
_CLASS, _CLASS_JUMP, _CLASS_RETURN, _RETURN_A = 0x07, 0x05, 0x06, 0x16


class _Step(NamedTuple):
    """An instruction whose jumps are words; an empty word is the next instruction."""

    code: int
    number: int = 0
    yes: str = ""
    no: str = ""
    mark: str = ""


def make_filter(selection: Optional[Sequence[Tuple[int, int, int, int]]], word: str) -> bytes:
    """The program for a selection, as the kernel takes it.

    Parameters
    ----------
    selection : sequence of (int, int, int, int) or None
        Instructions (code, jump if true, jump if false, number) of a compiled expression, which end by returning 0
        or not; None for one of the words.
    word : str
        'headers' or 'all', where there is no compiled expression.

    Returns
    -------
    bytes
        Instructions, 8 bytes each.

    Raises
    ------
    SettingsError
        If an expression makes too long a program.
    """
    begin = [
        _Step(_LOAD_WORD, _HARDWARE_TYPE),
        _Step(_IF_EQUAL, ARPHRD_LOOPBACK, no="selection"),
        _Step(_LOAD_WORD, _PACKET_TYPE),
        _Step(_IF_EQUAL, OUTGOING, no="selection"),
        _Step(_RETURN, 0),
    ]
    chosen = [_Step(_GO, yes="length", mark="selection")]
    if selection is not None:
        chosen = _embed(selection)
    elif word == "headers":
        chosen = _select_headers()
    return _assemble([*begin, *chosen, *_choose_length()])


def _select_headers() -> List[_Step]:
    """UDP whole, and of TCP what begins or ends a connection or names a server."""
    extensions = [_Step(_IF_EQUAL, number, yes="length") for number in IPV6_EXTENSIONS]
    return [
        _Step(_LOAD_WORD, _PACKET_TYPE, mark="selection"),
        _Step(_IF_EQUAL, OTHER_HOST, yes="drop"),
        _Step(_LOAD_WORD, _PROTOCOL),
        _Step(_IF_EQUAL, ETHERTYPE_IPV4, yes="select ipv4"),
        _Step(_IF_EQUAL, ETHERTYPE_IPV6, yes="select ipv6", no="drop"),
        _Step(_LOAD_BYTE, 9, mark="select ipv4"),
        _Step(_IF_EQUAL, UDP, yes="length"),
        _Step(_IF_EQUAL, TCP, no="drop"),
        _Step(_LOAD_HALF, 6),
        _Step(_IF_SET, _FRAGMENT_OFFSET, yes="drop"),
        _Step(_X_FROM_IPV4_LENGTH, 0),
        _Step(_GO, yes="select tcp"),
        _Step(_LOAD_BYTE, 6, mark="select ipv6"),
        _Step(_IF_EQUAL, UDP, yes="length"),
        *extensions,
        _Step(_IF_EQUAL, TCP, no="drop"),
        _Step(_X_FROM_NUMBER, 40),
        _Step(_LOAD_BYTE_AT_X, 13, mark="select tcp"),
        _Step(_IF_SET, _BEGIN_OR_END, yes="length"),
        *_find_hello("select", "names", "drop"),
    ]


def _choose_length() -> List[_Step]:
    """Answers of name services and ClientHello messages are wanted longer than the rest."""
    ports = [_Step(_IF_EQUAL, port, yes="names") for port in NAME_PORTS]
    return [
        _Step(_LOAD_WORD, _PROTOCOL, mark="length"),
        _Step(_IF_EQUAL, ETHERTYPE_IPV4, yes="length ipv4"),
        _Step(_IF_EQUAL, ETHERTYPE_IPV6, yes="length ipv6", no="headers"),
        _Step(_LOAD_LENGTH, mark="length ipv4"),
        _Step(_IF_AT_LEAST, 28, no="headers"),
        _Step(_LOAD_HALF, 6),
        _Step(_IF_SET, _FRAGMENT_OFFSET, yes="headers"),
        _Step(_X_FROM_IPV4_LENGTH, 0),
        _Step(_LOAD_BYTE, 9),
        _Step(_GO, yes="length protocol"),
        _Step(_LOAD_LENGTH, mark="length ipv6"),
        _Step(_IF_AT_LEAST, 48, no="headers"),
        _Step(_X_FROM_NUMBER, 40),
        _Step(_LOAD_BYTE, 6),
        _Step(_IF_EQUAL, UDP, yes="length udp", mark="length protocol"),
        _Step(_IF_EQUAL, TCP, yes="length tcp", no="headers"),
        _Step(_LOAD_HALF_AT_X, 0, mark="length udp"),
        *ports,
        _Step(_GO, yes="headers"),
        *_find_hello("length", "names", "headers"),
        _Step(_RETURN, SNAP_BYTES, mark="headers"),
        _Step(_RETURN, NAMES_BYTES, mark="names"),
        _Step(_RETURN, 0, mark="drop"),
    ]


def _find_hello(where: str, yes: str, no: str) -> List[_Step]:
    """Whether a TCP segment, whose header X points at, begins with a TLS ClientHello; X is lost.

    What lies beyond a packet's end must not be loaded, since that drops the packet.
    """
    return [
        _Step(_STORE_X, 0, mark=f"{where} tcp" if where == "length" else ""),
        _Step(_A_FROM_X),
        _Step(_ADD, 14),
        _Step(_X_FROM_A),
        _Step(_LOAD_LENGTH),
        _Step(_IF_ABOVE_X, no=no),
        _Step(_X_FROM_MEMORY, 0),
        _Step(_LOAD_BYTE_AT_X, 12),
        _Step(_SHIFT_RIGHT, 4),
        _Step(_SHIFT_LEFT, 2),
        _Step(_ADD_X),
        _Step(_X_FROM_A),
        _Step(_STORE_X, 0),
        _Step(_ADD, 5),
        _Step(_X_FROM_A),
        _Step(_LOAD_LENGTH),
        _Step(_IF_ABOVE_X, no=no),
        _Step(_X_FROM_MEMORY, 0),
        _Step(_LOAD_BYTE_AT_X, 0),
        _Step(_IF_EQUAL, 0x16, no=no),
        _Step(_LOAD_BYTE_AT_X, 1),
        _Step(_IF_EQUAL, 3, no=no),
        _Step(_LOAD_BYTE_AT_X, 5),
        _Step(_IF_EQUAL, 1, yes=yes, no=no),
    ]


def _embed(selection: Sequence[Tuple[int, int, int, int]]) -> List[_Step]:
    """A compiled expression, going on to the choice of length where it would have accepted."""
    made: List[_Step] = []
    for index, (code, yes, no, number) in enumerate(selection):
        mark = "selection" if not index else f"expression {index}"
        if code & _CLASS == _CLASS_RETURN:
            if code == _RETURN_A:
                raise SettingsError("packet expression", expected="a yes or no", found="a computed length")
            made.append(_Step(_GO, yes="length" if number else "drop", mark=mark))
        elif code == _GO:
            made.append(_Step(_GO, yes=f"expression {index + 1 + number}", mark=mark))
        elif code & _CLASS == _CLASS_JUMP:
            made.append(_Step(code, number, f"expression {index + 1 + yes}", f"expression {index + 1 + no}", mark=mark))
        else:
            made.append(_Step(code, number, mark=mark))
    return made


def _assemble(steps: List[_Step]) -> bytes:
    """Turn words into distances. Those within an expression stay as they were compiled."""
    if len(steps) > _MAX_INSTRUCTIONS:
        raise SettingsError(
            "packet expression", expected=f"at most {_MAX_INSTRUCTIONS} instructions", found=str(len(steps))
        )
    places: Dict[str, int] = {step.mark: index for index, step in enumerate(steps) if step.mark}
    program = bytearray()
    for index, step in enumerate(steps):
        yes = places[step.yes] - index - 1 if step.yes else 0
        no = places[step.no] - index - 1 if step.no else 0
        if step.code == _GO:
            program += _INSTRUCTION.pack(step.code, 0, 0, yes)
        else:
            program += _INSTRUCTION.pack(step.code, yes, no, step.number)
    return bytes(program)
