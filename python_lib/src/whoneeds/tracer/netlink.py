# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the kernel over netlink: one request, and the messages of its answer.

`split_messages` is pure and bounded: every length is checked against what is left, so that no input makes it
read beyond the buffer or run for ever. A listing is mostly messages with one and the same header, which are found
together: taking them one by one would cost as much as all else.
"""

import errno
import os
import socket
import struct
from typing import Callable, Iterable, Iterator, List, NamedTuple, Tuple, TypeVar

from whoneeds.model.errors import Denied, HostError, Unsupported

Found = TypeVar("Found")

#: struct nlmsghdr: length, type, flags, sequence, port.
HEADER = struct.Struct("=IHHII")
#: struct nlattr or rtattr: length, type.
ATTRIBUTE = struct.Struct("=HH")

_ERROR = struct.Struct("=i")
_NLMSG_OVERRUN = 4
#: NLMSG_ERROR and NLMSG_DONE: nothing comes after.
_LAST = (2, 3)
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x01, 0x300, 0x10

#: The kernel fills at most 32 KiB a time, however much room it is given.
_BUFFER_BYTES = 1 << 16
_TIMEOUT_S = 10.0


#: Messages with equal headers, one after the other in their buffer: type, begin and end of the first one's payload,
#: bytes from one to the next, and how many.
Run = Tuple[int, int, int, int, int]

#: Length, type and flags: what must be equal within a run.
_ALIKE_BYTES = 8


class Part(NamedTuple):
    """What one buffer of an answer holds.

    Attributes
    ----------
    runs : list of Run
        Its messages.
    done : bool
        Whether the answer ends here.
    error : int
        Error number with which the kernel ended it, 0 for none.
    interrupted : bool
        Whether the kernel says that the table changed while it was listed.
    """

    runs: List[Run]
    done: bool
    error: int
    interrupted: bool


def split_messages(buffer: bytes) -> Part:
    """Split a buffer into its messages.

    Raises
    ------
    HostError
        If a length does not fit the buffer.
    """
    runs: List[Run] = []
    offset, size, interrupted = 0, len(buffer), False
    unpack_header, header_size = HEADER.unpack_from, HEADER.size
    while size - offset >= header_size:
        length, kind, flags, _sequence, _port = unpack_header(buffer, offset)
        if length < header_size or length > size - offset:
            raise HostError(
                "netlink message", expected=f"{header_size} to {size - offset} bytes", found=f"a length of {length}"
            )
        if flags & _NLM_F_DUMP_INTR:
            interrupted = True
        begin, end = offset + header_size, offset + length
        if kind in _LAST:
            code = _ERROR.unpack_from(buffer, begin)[0] if end - begin >= _ERROR.size else 0
            return Part(runs, True, -code if code < 0 else 0, interrupted)
        stride = (length + 3) & ~3
        count = count_alike(buffer, offset, stride, (size - offset) // stride, ((0, _ALIKE_BYTES),))
        if kind > _NLMSG_OVERRUN:
            runs.append((kind, begin, end, stride, count))
        offset += stride * count
    return Part(runs, False, 0, interrupted)


def count_alike(buffer: bytes, offset: int, stride: int, most: int, fields: Iterable[Tuple[int, int]]) -> int:
    """How many structures, one every `stride` bytes from `offset` on, have the first one's bytes in some fields.

    Parameters
    ----------
    buffer : bytes
    offset, stride : int
    most : int
        How many there can be; the answer is at least 1.
    fields : iterable of (int, int)
        Begin and end of each field, counted from a structure's begin.
    """
    for first, last in fields:
        here, there = offset + first, offset + stride
        if most > 1 and buffer[here : offset + last] != buffer[there + first : there + last]:
            return 1
        for at in range(here, offset + last):
            if most <= 1:
                return 1
            column = buffer[at : at + stride * most : stride]
            most = len(column) - len(column.lstrip(column[:1]))
    return max(most, 1)


def each_message(runs: Iterable[Run]) -> Iterator[Tuple[int, int, int]]:
    """The messages of runs one by one: type, begin and end of the payload."""
    for kind, begin, end, stride, count in runs:
        for _number in range(count):
            yield kind, begin, end
            begin, end = begin + stride, end + stride


def attributes(buffer: bytes, begin: int, end: int) -> Iterator[Tuple[int, int, int]]:
    """The attributes between two offsets: type, begin and end of the value. Stops at the first that does not fit."""
    while end - begin >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(buffer, begin)
        if length < ATTRIBUTE.size or length > end - begin:
            return
        yield kind & 0x3FFF, begin + ATTRIBUTE.size, begin + length
        begin += (length + 3) & ~3


def open_netlink(protocol: int) -> socket.socket:
    """A netlink socket in the network namespace of the calling thread.

    Raises
    ------
    Unsupported
        Where the system has no netlink.
    Denied
        If a sandbox forbids it.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise Unsupported("netlink", expected="Linux", found=os.uname().sysname, remedy="use --sources psutil")
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise _host_error(error.errno or 0, "netlink socket") from error
    made.settimeout(_TIMEOUT_S)
    return made


def dump(
    channel: socket.socket, kind: int, payload: bytes, what: str, parse: Callable[[bytes, List[Run]], Iterable[Found]]
) -> Tuple[List[Found], bool]:
    """Send a dump request and take in the whole answer.

    Parameters
    ----------
    channel : socket.socket
        From `open_netlink`.
    kind : int
        Message type of the request.
    payload : bytes
    what : str
        What is asked for, for errors.
    parse : callable
        From a buffer and the messages in it to what is found there; called at once, while the buffer is at hand.

    Returns
    -------
    found : list
    whole : bool
        False if the kernel says that the table changed meanwhile, or a buffer was cut.

    Raises
    ------
    Denied, Unsupported, HostError
    """
    request = HEADER.pack(HEADER.size + len(payload), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + payload
    found: List[Found] = []
    whole = True
    try:
        channel.sendto(request, (0, 0))
        while True:
            buffer, _ancillary, flags, sender = channel.recvmsg(_BUFFER_BYTES)
            if sender[0] != 0:  # only the kernel's own answers count
                continue
            part = split_messages(buffer)
            whole = whole and not part.interrupted and not flags & socket.MSG_TRUNC
            if part.error:
                raise _host_error(part.error, what)
            found += parse(buffer, part.runs)
            if part.done:
                return found, whole
    except OSError as error:
        raise _host_error(error.errno or 0, what) from error


def _host_error(number: int, what: str) -> HostError:
    words = os.strerror(number) if number else "no answer in time"
    if number in (errno.EPERM, errno.EACCES):
        return Denied(what, found=words, remedy="run the tracer as root or grant it CAP_NET_ADMIN")
    if number in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
        return Unsupported(what, found=words, remedy="load the kernel module inet_diag (and tcp_diag, udp_diag)")
    return HostError(what, found=words)
