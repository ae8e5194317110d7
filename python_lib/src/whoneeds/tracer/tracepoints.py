# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's events as values: where each field lies is read from the kernel, which may move it.

Only five events are wanted. A socket's state change says which socket (by its address in the kernel, which is the
only thing that stays the same from connect to close), from which state to which, and its ends as far as they are
known by then: at ``syn_sent`` the local port is still 0. The process that an event names is the one that the
processor was busy with; it has to do with the socket only if the kernel was not serving an interrupt.
"""

import re
import struct
from typing import Dict, NamedTuple, Optional, Tuple

from whoneeds.model.errors import Unsupported

#: Folder below ``events``, and the fields that are read.
STATE = "sock/inet_sock_set_state"
DESTROYED = "tcp/tcp_destroy_sock"
TASK = "task/task_newtask"
EXEC = "sched/sched_process_exec"
EXIT = "sched/sched_process_exit"

#: Serving an interrupt, or shutting them out: a packet that a process hands in (through a TUN device, say) is worked on
#: in that process, with interrupts shut out, and has nothing to do with it either.
_IN_INTERRUPT = 0x08 | 0x10 | 0x80
_FIELD = re.compile(r"^\tfield:(?P<type>[^;]*?)\s*\b(?P<name>\w+)(?:\[(?P<count>\d*)\])?;"
                    r"\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);", re.MULTILINE)  # fmt: skip
_IDENTITY = re.compile(r"^ID: (\d+)$", re.MULTILINE)


class StateChange(NamedTuple):
    """A TCP socket went from one state to another."""

    at_ns: int
    tid: int
    in_interrupt: bool
    socket: int
    old_state: int
    state: int
    local_port: int
    remote_port: int
    local: bytes
    remote: bytes


class SocketDestroyed(NamedTuple):
    """A TCP socket is no more; its cookie is the name that it has in the kernel's lists."""

    at_ns: int
    socket: int
    cookie: int
    local_port: int
    remote_port: int
    local: bytes
    remote: bytes


class TaskBegan(NamedTuple):
    """A process began, or a thread of one."""

    at_ns: int
    creator_tid: int
    tid: int
    name: str
    is_thread: bool


class Executed(NamedTuple):
    """A process runs another program from now on; its number is that of the thread that did not ask for it."""

    at_ns: int
    pid: int
    old_tid: int
    path: str


class TaskEnded(NamedTuple):
    """A thread ended."""

    at_ns: int
    tid: int


class Format(NamedTuple):
    """Where an event's fields lie.

    Attributes
    ----------
    number : int
        The event's number in the ring.
    fields : dict of str to (int, int)
        Offset and size of each field.
    """

    number: int
    fields: Dict[str, Tuple[int, int]]


def parse_format(text: str, *wanted: str) -> Format:
    r"""Read the text of an event's ``format`` file.

    Raises
    ------
    Unsupported
        If a wanted field is not there: another kernel than this was written for.

    Examples
    --------
    >>> parse_format("name: x\nID: 7\nformat:\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n", "common_pid")
    Format(number=7, fields={'common_pid': (4, 4)})
    """
    number = _IDENTITY.search(text)
    fields = {found["name"]: (int(found["offset"]), int(found["size"])) for found in _FIELD.finditer(text)}
    missing = sorted(set(wanted) - set(fields))
    if number is None or missing:
        raise Unsupported("kernel event", expected=f"a format with {', '.join(wanted)}", found=f"none of {missing}")
    return Format(int(number.group(1)), {name: fields[name] for name in wanted})


class SocketDecoder:
    """Reads what becomes of sockets: changes of state, destruction.

    Parameters
    ----------
    changed, destroyed : str
        The events' ``format`` files.
    """

    _COOKIE_BITS = (1 << 63) - 1

    def __init__(self, changed: str, destroyed: str) -> None:
        self.changed, self._changed, self._changed_size = _read_format(changed, {
            "common_flags": "B", "common_pid": "i", "skaddr": "Q", "oldstate": "i", "newstate": "i", "sport": "H",
            "dport": "H", "saddr_v6": "16s", "daddr_v6": "16s",
        })  # fmt: skip
        self.destroyed, self._destroyed, self._destroyed_size = _read_format(destroyed, {
            "skaddr": "Q", "sport": "H", "dport": "H", "saddr_v6": "16s", "daddr_v6": "16s", "sock_cookie": "Q",
        })  # fmt: skip

    def decode(self, number: int, at_ns: int, page: bytes, begin: int, end: int) -> Optional[NamedTuple]:
        """One event as `StateChange` or `SocketDestroyed`; None if it is another one or too short."""
        if number == self.changed and end - begin >= self._changed_size:
            flags, tid, socket, old, new, sport, dport, local, remote = self._changed.unpack_from(page, begin)
            return StateChange(at_ns, tid, flags & _IN_INTERRUPT != 0, socket, old, new, sport, dport, local, remote)
        if number == self.destroyed and end - begin >= self._destroyed_size:
            socket, sport, dport, local, remote, cookie = self._destroyed.unpack_from(page, begin)
            return SocketDestroyed(at_ns, socket, cookie & self._COOKIE_BITS, sport, dport, local, remote)
        return None


class TaskDecoder:
    """Reads what becomes of processes: begin, execution of a program, end.

    Parameters
    ----------
    began, executed, ended : str
        The events' ``format`` files.
    """

    _CLONE_THREAD = 0x00010000

    def __init__(self, began: str, executed: str, ended: str) -> None:
        fields = {"common_pid": "i", "pid": "i", "comm": "16s", "clone_flags": "Q"}
        self.began, self._began, self._began_size = _read_format(began, fields)
        fields = {"filename": "I", "pid": "i", "old_pid": "i"}
        self.executed, self._executed, self._executed_size = _read_format(executed, fields)
        self.ended, self._ended, self._ended_size = _read_format(ended, {"pid": "i"})

    def decode(self, number: int, at_ns: int, page: bytes, begin: int, end: int) -> Optional[NamedTuple]:
        """One event as `TaskBegan`, `Executed` or `TaskEnded`; None if it is another one or too short."""
        if number == self.began and end - begin >= self._began_size:
            creator, tid, name, flags = self._began.unpack_from(page, begin)
            return TaskBegan(at_ns, creator, tid, _text(name), bool(flags & self._CLONE_THREAD))
        if number == self.executed and end - begin >= self._executed_size:
            where, pid, old = self._executed.unpack_from(page, begin)
            offset, length = where & 0xFFFF, where >> 16
            if offset + length > end - begin:
                return None
            return Executed(at_ns, pid, old, _text(page[begin + offset : begin + offset + length]))
        if number == self.ended and end - begin >= self._ended_size:
            return TaskEnded(at_ns, self._ended.unpack_from(page, begin)[0])
        return None


def _read_format(text: str, codes: Dict[str, str]) -> Tuple[int, struct.Struct, int]:
    """The event's number, and a structure that reads those fields, wherever they lie, if they lie in that order.

    Raises
    ------
    Unsupported
        If a field has another size, or they come in another order.
    """
    form = parse_format(text, *codes)
    shape, at = "=", 0
    for name, code in codes.items():
        offset, size = form.fields[name]
        if struct.calcsize("=" + code) != size or offset < at:
            raise Unsupported("kernel event", expected=f"{name} of {code} after byte {at}", found=f"{size} at {offset}")
        shape += f"{offset - at}x{code}"
        at = offset + size
    return form.number, struct.Struct(shape), at


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
