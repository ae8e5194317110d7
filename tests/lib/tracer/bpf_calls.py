# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests ask of bpf(2) that the product never does: run a program on the spot, and list those that are loaded."""

import ctypes
import os
import struct

from whoneeds.tracer.bpf.machine import _NUMBERS

_PROG_LOAD, _TEST_RUN, _NEXT_ID, _BY_ID, _INFO = 5, 10, 11, 13, 15
_SOCKET_FILTER = 1


def _bpf(command, attributes):
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    found = library.syscall(ctypes.c_long(_NUMBERS[os.uname().machine]), command, buffer, len(attributes))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found, buffer.raw


def run(code):
    """Have the kernel check a program and run it once; what R0 is at its end, 32 bits of it."""
    instructions, text = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL\0")
    log = ctypes.create_string_buffer(1 << 16)
    load = struct.pack(
        "=IIQQIIQ", _SOCKET_FILTER, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(text),
        1, len(log), ctypes.addressof(log),
    )  # fmt: skip
    try:
        program, _ = _bpf(_PROG_LOAD, load)
    except OSError as error:
        raise AssertionError(log.value.decode("ascii", "replace")[-600:]) from error
    try:
        packet = ctypes.create_string_buffer(64)
        asked = struct.pack("=IIIIQQIIIIQQ", program, 0, 64, 0, ctypes.addressof(packet), 0, 1, 0, 0, 0, 0, 0)
        return struct.unpack_from("=I", _bpf(_TEST_RUN, asked)[1], 4)[0]
    finally:
        os.close(program)


def _info(descriptor):
    info = ctypes.create_string_buffer(128)
    _bpf(_INFO, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    return struct.unpack_from("=I", info, 4)[0], info.raw[64:80].split(b"\0")[0].decode("ascii", "replace")


def number(descriptor):
    """The kernel's number of a program."""
    return _info(descriptor)[0]


def programs():
    """Names of all programs that are in the kernel by now, by their numbers."""
    found, last = {}, 0
    while True:
        try:
            _, answer = _bpf(_NEXT_ID, struct.pack("=III", last, 0, 0))
        except FileNotFoundError:
            return found
        last = struct.unpack_from("=I", answer, 4)[0]
        try:
            descriptor, _ = _bpf(_BY_ID, struct.pack("=III", last, 0, 0))
        except FileNotFoundError:
            continue  # gone meanwhile
        try:
            found[last] = _info(descriptor)[1]
        finally:
            os.close(descriptor)
