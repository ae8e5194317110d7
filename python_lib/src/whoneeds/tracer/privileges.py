# SPDX-License-Identifier: GPL-3.0-or-later
"""Give up every privilege, for good: what comes from packets, processes and peers is taken apart without any."""

import ctypes
import os
import struct
from typing import Any

from whoneeds.model.errors import HostError

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _AMBIENT_CLEAR = 38, 24, 47, 4
_VERSION = 0x20080522
_HEADER, _SETS = struct.Struct("=II"), struct.Struct("=6I")
_CAPABILITIES = 64


def give_up_privileges() -> None:
    """Drop all capabilities of this process, and the way to get any back. The user stays as it is.

    Raises
    ------
    HostError
        If the kernel refuses; the caller must not go on then.
    """
    library = ctypes.CDLL(None, use_errno=True)
    for capability in range(_CAPABILITIES):
        if library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # beyond the last one, or no right to: then there is none to lose that way
    library.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _refused()
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION, 0))
    nothing = ctypes.create_string_buffer(_SETS.pack(0, 0, 0, 0, 0, 0))
    if library.capset(header, nothing) != 0:
        raise _refused()


def _refused() -> HostError:
    number: Any = ctypes.get_errno()
    return HostError("giving up privileges", expected="that the kernel lets go", found=os.strerror(number))
