# SPDX-License-Identifier: GPL-3.0-or-later
"""A program for the kernel that lists sockets with who holds them: one row for each open file that is a socket.

The kernel walks all processes and their files for it; so namespaces need not be entered, nor processes be looked into
from outside, and the reader needs no privilege. What no file is open for (closed, not accepted yet) is not listed.
"""

import struct

from whoneeds.tracer.bpf.assembler import R0, R1, R2, R3, R6, R7, R8, R9, R10, Assembler
from whoneeds.tracer.bpf.layout import READ, SOCKET_COOKIE, SOCKET_OF_FILE, TCP_SOCKET, WRITE_TO_LISTING
from whoneeds.tracer.bpf.task_programs import TaskWords

#: A row: the socket's identity as the kernel's own listings have it (ports, addresses, interface, cookie), family,
#: state, protocol, user, network namespace, inode, bytes sent and received (all ones: not counted), holder's number
#: and start.
LISTED = struct.Struct("=48sBBHIIQQQQQ")
_IDENTITY_PORTS, _LOCAL, _REMOTE, _INTERFACE, _COOKIE = 0, 4, 20, 36, 40
_FAMILY, _STATE, _PROTOCOL, _UID, _NETNS, _INODE, _SENT, _RECEIVED, _PID, _START = (
    48, 49, 50, 52, 56, 60, 68, 76, 84, 92,
)  # fmt: skip
#: On the stack, below what `TaskWords` uses; it must end at a multiple of 8.
_ROW = -128 - 104
_UNIX, _IPV4, _IPV6, _TCP, _UDP = 1, 2, 10, 6, 17
_CLOSE, _LISTEN = 7, 10
#: Bit of sk_flags: the peer's FIN has come, which the kernel counts as a byte.
_DONE = 1 << 1


def list_sockets(words: TaskWords) -> bytes:
    """The program; asked once for each open file of each process."""
    field = words.types.offset
    code = Assembler()
    code.copy(R9, R1)
    code.load(R7, R9, field("bpf_iter__task_file", "task"), 8)
    code.load(R6, R9, field("bpf_iter__task_file", "file"), 8)
    code.jump_if(R7, "==", 0, "out")
    code.jump_if(R6, "==", 0, "out")
    code.copy(R1, R6)
    code.call(SOCKET_OF_FILE)
    code.jump_if(R0, "==", 0, "out")
    code.load(R8, R0, field("socket", "sk"), 8)
    code.jump_if(R8, "==", 0, "out")
    for at in range(0, 104, 8):
        code.store_value(R10, _ROW + at, 0, 8)
    code.store_value(R10, _ROW + _SENT, -1, 4)
    code.store_value(R10, _ROW + _SENT + 4, -1, 4)
    code.store_value(R10, _ROW + _RECEIVED, -1, 4)
    code.store_value(R10, _ROW + _RECEIVED + 4, -1, 4)
    code.load(R1, R8, field("sock", "__sk_common.skc_family"), 2)
    code.store(R10, _ROW + _FAMILY, R1, 1)
    code.jump_if(R1, "==", _UNIX, "held")
    code.jump_if(R1, "==", _IPV4, "inet")
    code.jump_if(R1, "!=", _IPV6, "out")
    code.label("inet")
    code.load(R2, R8, field("sock", "sk_protocol"), 2)
    code.load(R3, R8, field("sock", "__sk_common.skc_num"), 2)
    code.jump_if(R3, "==", 0, "out")  # not bound: nobody can speak to it
    code.jump_if(R2, "==", _UDP, "wanted")
    code.jump_if(R2, "!=", _TCP, "out")
    code.load(R3, R8, field("sock", "__sk_common.skc_state"), 1)
    code.jump_if(R3, "==", _CLOSE, "out")
    code.label("wanted")
    code.store(R10, _ROW + _PROTOCOL, R2, 2)
    for name, at in (("skc_daddr", _REMOTE), ("skc_rcv_saddr", _LOCAL)):
        code.load(R3, R8, field("sock", f"__sk_common.{name}"), 4)
        _store_unaligned(code, at, R3)
    code.jump_if(R1, "==", _IPV4, "addressed")
    for name, at in (("skc_v6_daddr", _REMOTE), ("skc_v6_rcv_saddr", _LOCAL)):
        code.copy(R3, R8)
        code.compute(R3, "+", field("sock", f"__sk_common.{name}"))
        code.copy(R1, R10)
        code.compute(R1, "+", _ROW + at)
        code.set(R2, 16)
        code.call(READ)
    code.label("addressed")
    code.load(R1, R8, field("sock", "__sk_common.skc_dport"), 2)
    code.store(R10, _ROW + _IDENTITY_PORTS + 2, R1, 2)
    code.copy(R3, R8)
    code.compute(R3, "+", field("inet_sock", "inet_sport"))
    code.copy(R1, R10)
    code.compute(R1, "+", _ROW + _IDENTITY_PORTS)
    code.set(R2, 2)
    code.call(READ)
    code.load(R1, R8, field("sock", "__sk_common.skc_bound_dev_if"), 4)
    code.store(R10, _ROW + _INTERFACE, R1, 4)
    code.copy(R1, R8)
    code.call(SOCKET_COOKIE)
    code.store(R10, _ROW + _COOKIE, R0, 8)
    code.label("held")
    code.load(R1, R8, field("sock", "__sk_common.skc_state"), 1)
    code.store(R10, _ROW + _STATE, R1, 1)
    code.load(R1, R8, field("sock", "sk_uid"), 4)
    code.store(R10, _ROW + _UID, R1, 4)
    code.load(R1, R8, field("sock", "__sk_common.skc_net.net"), 8)
    code.load(R1, R1, field("net", "ns.inum"), 4)
    code.store(R10, _ROW + _NETNS, R1, 4)
    code.load(R1, R6, field("file", "f_inode"), 8)
    code.load(R1, R1, field("inode", "i_ino"), 8)
    _store_unaligned(code, _INODE, R1, wide=True)
    _count_bytes(code, words)
    words.number_process(code, "out")
    words.load_numbers(code, R1, R2)
    _store_unaligned(code, _PID, R1, wide=True)
    _store_unaligned(code, _START, R2, wide=True)
    code.load(R1, R9, field("bpf_iter__task_file", "meta"), 8)
    code.load(R1, R1, field("bpf_iter_meta", "seq"), 8)
    code.copy(R2, R10)
    code.compute(R2, "+", _ROW)
    code.set(R3, LISTED.size)
    code.call(WRITE_TO_LISTING)
    words.tell_once(code)
    code.label("out")
    code.set(R0, 0)
    code.leave()
    return code.assemble()


def _store_unaligned(code: Assembler, at: int, source: int, *, wide: bool = False) -> None:
    """Store at any multiple of 4; the machine wants 8 bytes at multiples of 8."""
    code.store(R10, _ROW + at, source, 4)
    if wide:
        code.compute(source, ">>", 32)
        code.store(R10, _ROW + at + 4, source, 4)


def _count_bytes(code: Assembler, words: TaskWords) -> None:
    """Bytes of data of a TCP connection: SYN and FIN, which the kernel counts as well, are taken off."""
    field = words.types.offset
    code.copy(R1, R8)
    code.call(TCP_SOCKET)
    code.jump_if(R0, "==", 0, "uncounted")
    code.load(R1, R8, field("sock", "__sk_common.skc_state"), 1)
    code.jump_if(R1, "==", _LISTEN, "uncounted")
    code.load(R1, R0, field("tcp_sock", "bytes_acked"), 8)
    code.load(R2, R0, field("tcp_sock", "bytes_sent"), 8)
    code.load(R3, R0, field("tcp_sock", "bytes_retrans"), 8)
    code.compute_with(R2, "-", R3)
    code.jump_if_register(R1, "<=", R2, "sent")
    code.copy(R1, R2)
    code.label("sent")
    _store_unaligned(code, _SENT, R1, wide=True)
    code.load(R1, R0, field("tcp_sock", "bytes_received"), 8)
    code.load(R2, R8, field("sock", "__sk_common.skc_flags"), 8)
    code.jump_if(R2, "&", _DONE, "closed")
    code.jump("received")
    code.label("closed")
    code.jump_if(R1, "==", 0, "received")
    code.compute(R1, "-", 1)
    code.label("received")
    _store_unaligned(code, _RECEIVED, R1, wide=True)
    code.label("uncounted")
