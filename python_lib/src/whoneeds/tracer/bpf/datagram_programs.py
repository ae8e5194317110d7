# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs for the kernel: who speaks over UDP.

A name is resolved within milliseconds by a socket that no sample sees. So the first datagram that a process sends on
a socket to a peer, and the first that it takes, are told as they happen: two records of one socket, from which its
life on the wire is known. A socket that is connected and never used is never told of.
"""

from whoneeds.segment.lives import ACCEPTED, INITIATED, LIFE_BYTES, OFFSETS, UNKNOWN_COUNT
from whoneeds.tracer.bpf.assembler import R0, R1, R2, R3, R4, R6, R7, R8, R10, Assembler
from whoneeds.tracer.bpf.layout import (
    BOOT_TIME,
    CURRENT_TASK,
    LOOK_UP,
    LOST_LIVES,
    READ,
    RESERVE,
    SOCKET_COOKIE,
    SUBMIT,
    UPDATE,
)
from whoneeds.tracer.bpf.socket_words import SocketWords
from whoneeds.tracer.bpf.task_programs import QUIETLY, TaskWords

_UDP = 17
#: On the stack, out of the way of `TaskWords`: what was told already (cookie, process, peer and way), and that it was.
_KEY, _TOLD, _PORT, _FIRST = -160, -168, -176, -184
#: Bytes of a key: cookie, process number and way, peer's port and half of its address.
KEY_BYTES = 32
#: Tracepoints and whether the process sends there.
TRACEPOINTS = (("sock_send_length", True), ("sock_recv_length", False))


def on_datagram(words: TaskWords, sends: bool, spoken: int) -> bytes:
    """A process sent a datagram, or took one.

    Parameters
    ----------
    words : TaskWords
    sends : bool
    spoken : int
        Map of what was told already.
    """
    field, sockets = words.types.offset, SocketWords(words.types, words.scope)
    code = Assembler()
    code.load(R6, R1, 0, 8)
    code.load(R7, R1, 8, 4)
    sockets.check(code, _UDP, "out")
    code.compute(R7, "<<", 32)
    code.jump_if(R7, "==", 0, "out")
    code.compute(R7, ">>", 63)
    code.jump_if(R7, "!=", 0, "out")  # an error, and no datagram
    code.call(CURRENT_TASK)
    code.copy(R7, R0)
    words.number_process(code, "out")
    for at in range(0, KEY_BYTES, 8):
        code.store_value(R10, _KEY + at, 0, 8)
    code.copy(R1, R6)
    code.call(SOCKET_COOKIE)
    code.store(R10, _KEY, R0, 8)
    words.load_numbers(code, R1, R2)
    code.store(R10, _KEY + 8, R1, 4)
    code.store_value(R10, _KEY + 12, int(sends), 2)
    code.load(R1, R6, field("sock", "__sk_common.skc_dport"), 2)
    code.store(R10, _KEY + 14, R1, 2)
    code.load(R1, R6, field("sock", "__sk_common.skc_daddr"), 4)
    code.store(R10, _KEY + 16, R1, 4)
    code.copy(R3, R6)
    code.compute(R3, "+", field("sock", "__sk_common.skc_v6_daddr") + 8)
    code.copy(R1, R10)
    code.compute(R1, "+", _KEY + 24)
    code.set(R2, 8)
    code.call(READ)
    code.set_map(R1, spoken)
    code.copy(R2, R10)
    code.compute(R2, "+", _KEY)
    code.call(LOOK_UP)
    code.jump_if(R0, "!=", 0, "out")
    # whoever did the first of both began it, or was called
    code.store_value(R10, _FIRST, INITIATED if sends else ACCEPTED, 8)
    code.store_value(R10, _KEY + 12, int(not sends), 2)
    code.set_map(R1, spoken)
    code.copy(R2, R10)
    code.compute(R2, "+", _KEY)
    code.call(LOOK_UP)
    code.store_value(R10, _KEY + 12, int(sends), 2)
    code.jump_if(R0, "==", 0, "first")
    code.store_value(R10, _FIRST, 0, 8)
    code.label("first")
    code.store_value(R10, _TOLD, 1, 8)
    code.set_map(R1, spoken)
    code.copy(R2, R10)
    code.compute(R2, "+", _KEY)
    code.copy(R3, R10)
    code.compute(R3, "+", _TOLD)
    code.set(R4, 0)
    code.call(UPDATE)
    words.tell_once(code)
    _tell(code, words, sockets)
    code.label("out")
    code.set(R0, 0)
    code.leave()
    return code.assemble()


def _tell(code: Assembler, words: TaskWords, sockets: SocketWords) -> None:
    code.set_map(R1, words.maps.lives)
    code.set(R2, LIFE_BYTES)
    code.set(R3, 0)
    code.call(RESERVE)
    code.jump_if(R0, "!=", 0, "reserved")
    words.count(code, LOST_LIVES)
    code.jump("out")
    code.label("reserved")
    code.copy(R8, R0)
    for at in range(0, LIFE_BYTES, 8):
        code.store_value(R8, at, 0, 8)
    code.load(R1, R10, _KEY, 8)
    code.store(R8, OFFSETS.cookie, R1, 8)
    code.call(BOOT_TIME)
    code.store(R8, OFFSETS.begun_ns, R0, 8)
    code.store(R8, OFFSETS.ended_ns, R0, 8)
    code.set_wide(R1, UNKNOWN_COUNT)
    code.store(R8, OFFSETS.sent, R1, 8)
    code.store(R8, OFFSETS.received, R1, 8)
    sockets.tell(code)
    code.store_value(R10, _PORT, 0, 8)
    code.copy(R3, R6)
    code.compute(R3, "+", words.types.offset("inet_sock", "inet_sport"))
    code.copy(R1, R10)
    code.compute(R1, "+", _PORT)
    code.set(R2, 2)
    code.call(READ)
    code.load(R1, R10, _PORT, 2)
    code.from_network_order(R1, 16)
    code.store(R8, OFFSETS.local_port, R1, 2)
    code.store_value(R8, OFFSETS.protocol, _UDP, 1)
    code.load(R1, R10, _FIRST, 8)
    code.store(R8, OFFSETS.flags, R1, 1)
    code.store_value(R8, OFFSETS.actors, 1, 1)
    words.load_numbers(code, R1, R2)
    code.store(R8, OFFSETS.pids, R1, 4)
    code.store(R8, OFFSETS.starts, R2, 8)
    code.copy(R1, R8)
    code.set(R2, QUIETLY)
    code.call(SUBMIT)
