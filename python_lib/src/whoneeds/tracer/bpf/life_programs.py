# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs for the kernel: the life of every TCP connection, told in one record when it is over.

Who acts on a socket (connects, shuts down, closes) holds its lock. So a process counts as an owner only while the
lock of the very socket is held: a packet that is worked on while some process happens to run does not hold it. That
is exact where flags of interrupts are not: the process at a passive ``established`` is never taken.
"""

from typing import Dict

from whoneeds.segment.lives import (
    ACCEPTED,
    END_CODES,
    INITIATED,
    LIFE_BYTES,
    MAX_ACTORS,
    MORE_ACTORS,
    OFFSETS,
    TOLD,
)
from whoneeds.tracer.bpf.assembler import R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Assembler
from whoneeds.tracer.bpf.layout import (
    BOOT_TIME,
    CURRENT_TASK,
    DELETE,
    LOOK_UP,
    LOST_LIVES,
    NOT_REMEMBERED,
    OPEN_ACTORS,
    OPEN_BEGUN,
    OPEN_BYTES,
    OPEN_END,
    OPEN_ENDED,
    OPEN_FLAGS,
    OPEN_PIDS,
    OPEN_STARTS,
    RESERVE,
    SOCKET_COOKIE,
    SUBMIT,
    TCP_SOCKET,
    UPDATE,
)
from whoneeds.tracer.bpf.socket_words import SocketWords
from whoneeds.tracer.bpf.task_programs import QUIETLY, TaskWords

_ESTABLISHED, _SYN_SENT, _SYN_RECV, _FIN_WAIT1, _CLOSE, _CLOSE_WAIT, _LAST_ACK = 1, 2, 3, 4, 7, 8, 9
_TCP = 6
#: The kernel repeats an unanswered SYN after a second.
_FIRST_REPEAT_NS = 1_000_000_000
#: Bit of sk_flags: the peer's FIN has come, which the kernel counts as a byte.
_DONE = 1 << 1
#: What is done once the actor is known.
_KEEP, _TELL, _TELL_IF_HELD = 0, 1, 2
#: Places on the stack, below the top, out of the way of `TaskWords`.
_SOCKET, _THEN, _VALUE = -136, -144, -144 - OPEN_BYTES


class LifePrograms:
    """Makes the programs.

    Parameters
    ----------
    words : TaskWords
    """

    def __init__(self, words: TaskWords) -> None:
        self._words = words
        self._sockets = SocketWords(words.types, words.scope)
        self._types, self._maps = words.types, words.maps

    def on_state(self) -> bytes:
        """A socket goes from one state to another."""
        code = Assembler()
        code.copy(R9, R1)
        code.load(R6, R9, 0, 8)
        code.load(R7, R9, 8, 8)
        code.load(R8, R9, 16, 8)
        code.jump_if_register(R7, "==", R8, "out")  # said again (MPTCP does)
        self._sockets.check(code, _TCP, "out")
        code.store(R10, _SOCKET, R6, 8)
        code.store_value(R10, _THEN, _KEEP, 8)
        for state, label in ((_SYN_SENT, "called"), (_FIN_WAIT1, "shut"), (_LAST_ACK, "shut"), (_CLOSE, "closed")):
            code.jump_if(R8, "==", state, label)
        code.jump_if(R8, "!=", _ESTABLISHED, "out")
        code.jump_if(R7, "!=", _SYN_RECV, "out")
        self._remember(code, ACCEPTED, begun=True)
        code.jump("out")

        code.label("called")
        self._remember(code, INITIATED, begun=True)
        self._find(code, "out")
        code.jump("act")

        code.label("shut")
        self._end(code, "fin")
        code.jump("act")

        code.label("closed")
        code.jump_if(R7, "==", _SYN_SENT, "failed")
        code.jump_if(R7, "==", _ESTABLISHED, "reset")
        code.jump_if(R7, "!=", _CLOSE_WAIT, "out")
        code.label("reset")
        self._end(code, "rst")
        # whoever closes it later holds it, if nobody is known yet
        code.store_value(R10, _THEN, _TELL_IF_HELD, 8)
        code.jump("act")

        code.label("failed")
        self._find_or_remember(code, "out")
        code.call(BOOT_TIME)
        code.store(R9, OPEN_ENDED, R0, 8)
        code.store_value(R10, _THEN, _TELL, 8)
        code.store_value(R9, OPEN_END, END_CODES["unanswered"], 4)
        code.load(R1, R9, OPEN_BEGUN, 8)
        code.jump_if(R1, "==", 0, "act")
        code.compute_with(R0, "-", R1)
        code.jump_if(R0, ">=", _FIRST_REPEAT_NS, "act")
        code.store_value(R9, OPEN_END, END_CODES["rejected"], 4)

        code.label("act")
        self._add_actor(code)
        code.load(R1, R10, _THEN, 8)
        code.jump_if(R1, "==", _KEEP, "out")
        code.jump_if(R1, "==", _TELL, "tell")
        code.load(R1, R9, OPEN_ACTORS, 4)
        code.jump_if(R1, "==", 0, "out")
        code.label("tell")
        self._tell(code)
        self._mark(code, TOLD)
        code.label("out")
        code.set(R0, 0)
        code.leave()
        return code.assemble()

    def on_destroy(self) -> bytes:
        """A socket is no more: whatever was not told of its connection is told now."""
        code = Assembler()
        code.load(R6, R1, 0, 8)
        self._sockets.check(code, _TCP, "out")
        code.store(R10, _SOCKET, R6, 8)
        self._look_up(code)
        code.jump_if(R0, "!=", 0, "found")
        # one that waited for callers, or was never used, has no peer
        code.load(R1, R6, self._types.offset("sock", "__sk_common.skc_dport"), 2)
        code.jump_if(R1, "==", 0, "out")
        self._remember(code, 0, begun=False)
        self._find(code, "out")
        code.jump("open")
        code.label("found")
        code.copy(R9, R0)
        code.load(R1, R9, OPEN_FLAGS, 4)
        code.jump_if(R1, "&", TOLD, "forget")
        code.label("open")
        code.load(R1, R9, OPEN_END, 4)
        code.jump_if(R1, ">", END_CODES["fin"], "ended")
        # one end may be shut long before the other: it is over when the socket is gone
        code.call(BOOT_TIME)
        code.store(R9, OPEN_ENDED, R0, 8)
        code.label("ended")
        self._add_actor(code)
        self._tell(code)
        code.label("forget")
        code.set_map(R1, self._maps.open)
        self._point_at_socket(code)
        code.call(DELETE)
        code.label("out")
        code.set(R0, 0)
        code.leave()
        return code.assemble()

    def _end(self, code: Assembler, end: str) -> None:
        """The connection ends now, so; jump to where the actor is taken if it had ended before."""
        self._find_or_remember(code, "out")
        code.load(R1, R9, OPEN_END, 4)
        code.jump_if(R1, "!=", 0, "act")
        code.call(BOOT_TIME)
        code.store(R9, OPEN_ENDED, R0, 8)
        code.store_value(R9, OPEN_END, END_CODES[end], 4)

    def _point_at_socket(self, code: Assembler) -> None:
        code.copy(R2, R10)
        code.compute(R2, "+", _SOCKET)

    def _look_up(self, code: Assembler) -> None:
        code.set_map(R1, self._maps.open)
        self._point_at_socket(code)
        code.call(LOOK_UP)

    def _find(self, code: Assembler, elsewhere: str) -> None:
        """R9 becomes what is remembered of the socket; jump if that is nothing."""
        self._look_up(code)
        code.jump_if(R0, "==", 0, elsewhere)
        code.copy(R9, R0)

    def _find_or_remember(self, code: Assembler, elsewhere: str) -> None:
        found = code.new_label("found")
        self._look_up(code)
        code.copy(R9, R0)
        code.jump_if(R0, "!=", 0, found)
        self._remember(code, 0, begun=False)
        self._find(code, elsewhere)
        code.label(found)

    def _remember(self, code: Assembler, flags: int, *, begun: bool) -> None:
        """Begin to remember the socket in R6."""
        for at in range(0, OPEN_BYTES, 8):
            code.store_value(R10, _VALUE + at, 0, 8)
        if begun:
            code.call(BOOT_TIME)
            code.store(R10, _VALUE + OPEN_BEGUN, R0, 8)
        code.store_value(R10, _VALUE + OPEN_FLAGS, flags, 4)
        code.set_map(R1, self._maps.open)
        self._point_at_socket(code)
        code.copy(R3, R10)
        code.compute(R3, "+", _VALUE)
        code.set(R4, 0)
        code.call(UPDATE)
        done = code.new_label("remembered")
        code.jump_if(R0, "==", 0, done)
        self._words.count(code, NOT_REMEMBERED)
        code.label(done)

    def _mark(self, code: Assembler, flag: int) -> None:
        code.load(R1, R9, OPEN_FLAGS, 4)
        code.compute(R1, "|", flag)
        code.store(R9, OPEN_FLAGS, R1, 4)

    def _add_actor(self, code: Assembler) -> None:
        """If a process holds the lock of the socket in R6, it is one of those that held the connection in R9."""
        nobody, done = code.new_label("nobody"), code.new_label("actor")
        code.load(R1, R6, self._types.offset("sock", "sk_lock.owned"), 4)
        code.jump_if(R1, "==", 0, nobody)
        code.call(CURRENT_TASK)
        code.copy(R7, R0)
        self._words.number_process(code, nobody)
        self._words.load_numbers(code, R3, R4)
        code.load(R1, R9, OPEN_ACTORS, 4)
        for slot in range(MAX_ACTORS):
            other, taken = code.new_label("other"), code.new_label("taken")
            code.jump_if(R1, ">", slot, taken)
            code.store(R9, OPEN_PIDS + 4 * slot, R3, 4)
            code.store(R9, OPEN_STARTS + 8 * slot, R4, 8)
            code.store_value(R9, OPEN_ACTORS, slot + 1, 4)
            code.jump(done)
            code.label(taken)
            code.load(R2, R9, OPEN_PIDS + 4 * slot, 4)
            code.jump_if_register(R2, "!=", R3, other)
            code.load(R2, R9, OPEN_STARTS + 8 * slot, 8)
            code.jump_if_register(R2, "==", R4, done)
            code.label(other)
        self._mark(code, MORE_ACTORS)
        code.label(done)
        self._words.tell_once(code)
        code.label(nobody)

    def _tell(self, code: Assembler) -> None:
        """Write the record of the connection in R9 of the socket in R6. R7 and R8 are used up."""
        code.copy(R1, R6)
        code.call(SOCKET_COOKIE)
        code.copy(R7, R0)
        code.set_map(R1, self._maps.lives)
        code.set(R2, LIFE_BYTES)
        code.set(R3, 0)
        code.call(RESERVE)
        reserved, end = code.new_label("reserved"), code.new_label("told")
        code.jump_if(R0, "!=", 0, reserved)
        self._words.count(code, LOST_LIVES)
        code.jump(end)
        code.label(reserved)
        code.copy(R8, R0)
        code.store(R8, OFFSETS.cookie, R7, 8)
        same = {OPEN_BEGUN: (OFFSETS.begun_ns, 8), OPEN_ENDED: (OFFSETS.ended_ns, 8)}
        same.update({OPEN_PIDS + 4 * slot: (OFFSETS.pids + 4 * slot, 4) for slot in range(MAX_ACTORS)})
        same.update({OPEN_STARTS + 8 * slot: (OFFSETS.starts + 8 * slot, 8) for slot in range(MAX_ACTORS)})
        same.update({OPEN_FLAGS: (OFFSETS.flags, 1), OPEN_END: (OFFSETS.end, 1), OPEN_ACTORS: (OFFSETS.actors, 1)})
        self._copy_fields(code, same)
        code.store_value(R8, OFFSETS.protocol, _TCP, 1)
        self._sockets.tell(code)
        self._tell_tcp(code)
        code.copy(R1, R8)
        code.set(R2, QUIETLY)
        code.call(SUBMIT)
        code.label(end)

    def _copy_fields(self, code: Assembler, places: Dict[int, "tuple[int, int]"]) -> None:
        for source, (target, width) in places.items():
            code.load(R1, R9, source, 8 if width == 8 else 4)
            code.store(R8, target, R1, width)

    def _tell_tcp(self, code: Assembler) -> None:
        """Local port and bytes of data: SYN and FIN, which the kernel counts as well, are taken off."""
        field = self._types.offset
        other, done = code.new_label("no_tcp"), code.new_label("counted")
        code.copy(R1, R6)
        code.call(TCP_SOCKET)
        code.jump_if(R0, "==", 0, other)
        code.load(R1, R0, field("tcp_sock", "inet_conn.icsk_inet.inet_sport"), 2)
        code.from_network_order(R1, 16)
        code.store(R8, OFFSETS.local_port, R1, 2)
        code.load(R1, R0, field("tcp_sock", "bytes_acked"), 8)
        code.load(R2, R0, field("tcp_sock", "bytes_sent"), 8)
        code.load(R3, R0, field("tcp_sock", "bytes_retrans"), 8)
        code.compute_with(R2, "-", R3)
        fewer, none = code.new_label("fewer"), code.new_label("none")
        code.jump_if_register(R1, "<=", R2, fewer)
        code.copy(R1, R2)
        code.label(fewer)
        code.store(R8, OFFSETS.sent, R1, 8)
        code.load(R1, R0, field("tcp_sock", "bytes_received"), 8)
        code.load(R2, R6, field("sock", "__sk_common.skc_flags"), 8)
        code.jump_if(R2, "&", _DONE, none)
        code.jump(done)
        code.label(none)
        code.jump_if(R1, "==", 0, done)
        code.compute(R1, "-", 1)
        code.label(done)
        code.store(R8, OFFSETS.received, R1, 8)
        after = code.new_label("after")
        code.jump(after)
        code.label(other)
        code.store_value(R8, OFFSETS.local_port, 0, 2)
        code.store_value(R8, OFFSETS.sent, -1, 8)
        code.store_value(R8, OFFSETS.received, -1, 8)
        code.label(after)
