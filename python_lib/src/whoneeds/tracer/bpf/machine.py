# SPDX-License-Identifier: GPL-3.0-or-later
"""The system call bpf(2): make maps, load programs, attach them. All that it makes is gone with its last descriptor.

Nothing is pinned: when the tracer ends, however it ends, its programs leave the kernel.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Any, List

from whoneeds.model.errors import Denied, HostError, Unsupported

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN, _LINK_CREATE, _ITER_CREATE = 0, 5, 17, 28, 33

#: Kinds of maps.
HASH, ARRAY, LRU_HASH, RING = 1, 2, 9, 27
NO_PREALLOCATION, CAN_BE_MAPPED = 1, 1 << 10

#: Kinds of programs: tracing (with types), and checks of a control group's sockets.
_TRACING, _CGROUP_SOCK = 26, 9
#: What a program is attached to.
ON_TRACEPOINT, ON_ITERATION, ON_SOCKET_CREATE, ON_SOCKET_RELEASE = 23, 28, 2, 34

_INFO, _INFO_BYTES, _MISSES_AT = 15, 216, 208
_MAP = struct.Struct("=IIIIIII16s")
_PROGRAM = struct.Struct("=IIQQIIQII16sIIIIQIIQIII")
_LICENSE = b"GPL\0"
_LOG_BYTES = 1 << 16


def make_map(kind: int, name: str, key: int, value: int, entries: int, flags: int = 0) -> int:
    """A map's descriptor.

    Parameters
    ----------
    kind : int
        `HASH`, `ARRAY`, `LRU_HASH` or `RING`.
    name : str
        At most 15 letters.
    key, value : int
        Bytes of each.
    entries : int
        Most entries; of a ring, its bytes.
    flags : int

    Raises
    ------
    Denied, Unsupported, HostError
    """
    attributes = _MAP.pack(kind, key, value, entries, flags, 0, 0, name.encode("ascii"))
    return _call(_MAP_CREATE, attributes, f"kernel map {name}")


def load_tracing(name: str, code: bytes, attach: int, type_id: int) -> int:
    """Load a program that looks at what the kernel does.

    Parameters
    ----------
    name : str
        At most 15 letters.
    code : bytes
        From `whoneeds.tracer.bpf.assembler`.
    attach : int
        `ON_TRACEPOINT` or `ON_ITERATION`.
    type_id : int
        The kernel's type of what it is attached to.

    Raises
    ------
    Denied, Unsupported, HostError
        HostError if the kernel refuses the program, with its last words.
    """
    return _load(name, code, _TRACING, attach, type_id)


def load_socket_check(name: str, code: bytes, attach: int) -> int:
    """Load a program that is asked about every socket of a control group; ours always says yes.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    return _load(name, code, _CGROUP_SOCK, attach, 0)


def _load(name: str, code: bytes, kind: int, attach: int, type_id: int) -> int:
    instructions, license_text = ctypes.create_string_buffer(code), ctypes.create_string_buffer(_LICENSE)

    def attempt(log: Any) -> int:
        attributes = _PROGRAM.pack(
            kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license_text),
            1 if log else 0, len(log) if log else 0, ctypes.addressof(log) if log else 0,
            0, 0, name.encode("ascii"), 0, attach, 0, 0, 0, 0, 0, 0, 0, type_id, 0,
        )  # fmt: skip
        return _call(_PROG_LOAD, attributes, f"kernel program {name}")

    try:
        return attempt(None)
    except Denied:
        raise
    except HostError as first:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(log)
        except HostError:
            lines = log.value.decode("ascii", "replace").strip().splitlines()
            if not lines:
                raise first from None
            said = " / ".join(lines[-3:])
            raise HostError(f"kernel program {name}", expected="one that the kernel takes", found=said) from first


def attach_tracepoint(program: int) -> int:
    """Have a program run from now on, as long as the returned descriptor is open."""
    return _call(_RAW_TRACEPOINT_OPEN, struct.pack("=QI4x", 0, program), "kernel program")


def attach_iteration(program: int) -> int:
    """A descriptor from which `begin_iteration` makes listings."""
    return _call(_LINK_CREATE, struct.pack("=IIIIII", program, 0, ON_ITERATION, 0, 0, 0), "kernel program")


def attach_to_cgroup(program: int, cgroup: int, attach: int) -> int:
    """Have a program be asked about a control group and all below it, as long as the returned descriptor is open."""
    return _call(_LINK_CREATE, struct.pack("=IIIIII", program, cgroup, attach, 0, 0, 0), "kernel program")


def begin_iteration(link: int) -> int:
    """A descriptor from which one listing can be read; needs no privilege."""
    return _call(_ITER_CREATE, struct.pack("=II", link, 0), "kernel listing")


def count_misses(program: int) -> int:
    """How often the kernel left a program out because it was running on that processor already.

    Needs no privilege. 0 where the kernel does not count.

    Raises
    ------
    HostError
    """
    info = ctypes.create_string_buffer(_INFO_BYTES)
    _call(_INFO, struct.pack("=IIQ", program, _INFO_BYTES, ctypes.addressof(info)), "kernel program")
    return int(struct.unpack_from("=Q", info, _MISSES_AT)[0])


def _call(command: int, attributes: bytes, what: str) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise Unsupported(what, expected=f"one of {', '.join(sorted(_NUMBERS))}", found=platform.machine())
    library = _library()
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    for _attempt in range(5):  # the kernel gives up when a signal comes, and wants to be asked again
        found: int = library.syscall(
            ctypes.c_long(number), ctypes.c_long(command), buffer, ctypes.c_ulong(len(attributes))
        )
        if found >= 0:
            return found
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    words = os.strerror(code)
    if (code in (errno.EPERM, errno.EACCES) and command != _PROG_LOAD) or code == errno.EPERM:
        raise Denied(what, expected="the capabilities BPF and PERFMON", found=words)
    if code == errno.ENOSYS:
        raise Unsupported(what, expected="a kernel with BPF", found=words)
    raise HostError(what, found=words)


_LIBRARIES: List[Any] = []


def _library() -> Any:
    if not _LIBRARIES:
        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        _LIBRARIES.append(library)
    return _LIBRARIES[0]
