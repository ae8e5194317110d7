# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile a packet expression of the user's (the language of tcpdump) by the libpcap that the host has.

No program is started and nothing is searched for: the library is opened by its own name, or it is not there.
"""

import struct
from typing import Any, List, NamedTuple, Optional, Tuple

from whoneeds.model.errors import SettingsError, Unsupported
from whoneeds.tracer.capture_filter import SNAP_BYTES

_NAMES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
#: DLT_RAW: a packet begins with its network header, as a cooked socket shows it.
_FROM_NETWORK_HEADER = 12
_NETMASK_UNKNOWN = 0xFFFFFFFF
_MAX_INSTRUCTIONS = 4000

Instruction = Tuple[int, int, int, int]


class _Library(NamedTuple):
    pcap: Any
    ctypes: Any


def compile_expression(expression: str) -> List[Instruction]:
    """Instructions (code, jump if true, jump if false, number) of an expression.

    Raises
    ------
    SettingsError
        If it is not an expression, or one about what comes before the network header (``ether``, ``vlan``).
    Unsupported
        Where the host has no libpcap.
    """
    library = _load()
    if library is None:
        raise Unsupported(
            "packet expression", expected="libpcap on the host", found="none", remedy="install it, or set 'headers'"
        )
    ctypes, pcap = library.ctypes, library.pcap

    class Program(ctypes.Structure):  # type: ignore[misc,name-defined]
        _fields_ = (("count", ctypes.c_uint), ("instructions", ctypes.c_void_p))

    handle = pcap.pcap_open_dead(_FROM_NETWORK_HEADER, SNAP_BYTES)
    if not handle:
        raise Unsupported("packet expression", expected="a working libpcap", found="one that does not begin")
    program = Program()
    try:
        code = pcap.pcap_compile(handle, ctypes.byref(program), expression.encode("ascii"), 1, _NETMASK_UNKNOWN)
        if code != 0:
            words = bytes(pcap.pcap_geterr(handle) or b"").decode("ascii", "replace")
            raise SettingsError(
                "packet expression",
                expected="one that libpcap compiles for packets from their network header on",
                found=words[:120] or "an error without words",
                remedy="correct it (see pcap-filter(7)), or set 'headers'",
            )
        try:
            raw = ctypes.string_at(program.instructions, 8 * min(program.count, _MAX_INSTRUCTIONS + 1))
        finally:
            pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)
    return list(struct.Struct("=HBBI").iter_unpack(raw))


def check_expression(expression: str) -> None:
    """Refuse a wrong expression early, where the host can tell.

    Raises
    ------
    SettingsError
    """
    try:
        compile_expression(expression)
    except Unsupported:
        return  # told when the capture is opened, as something that was not seen


def _load() -> Optional[_Library]:
    try:
        import ctypes
    except ImportError:
        return None
    for name in _NAMES:
        try:
            pcap = ctypes.CDLL(name)
        except OSError:
            continue
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        pcap.pcap_compile.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
        ]  # fmt: skip
        pcap.pcap_geterr.restype = ctypes.c_char_p
        pcap.pcap_geterr.argtypes = [ctypes.c_void_p]
        pcap.pcap_freecode.argtypes = [ctypes.c_void_p]
        pcap.pcap_close.argtypes = [ctypes.c_void_p]
        return _Library(pcap, ctypes)
    return None
