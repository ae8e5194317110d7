# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces of programs that are about a socket: which it is, and what is told of it in a record."""

from whoneeds.segment.lives import OFFSETS
from whoneeds.tracer.bpf.assembler import R1, R2, R3, R6, R8, Assembler
from whoneeds.tracer.bpf.btf import KernelTypes
from whoneeds.tracer.bpf.layout import READ, Scope

_IPV4 = 2


class SocketWords:
    """Pieces of programs; the socket is in R6, the record in R8.

    Parameters
    ----------
    types : KernelTypes
    scope : Scope
    """

    def __init__(self, types: KernelTypes, scope: Scope) -> None:
        self._types, self._scope = types, scope

    def check(self, code: Assembler, protocol: int, elsewhere: str) -> None:
        """Jump unless the socket is of that protocol and within the scope. R1 and R2 are used up."""
        code.load(R1, R6, self._types.offset("sock", "sk_protocol"), 2)
        code.jump_if(R1, "!=", protocol, elsewhere)
        if self._scope.netns is not None:
            self._load_netns(code)
            code.set_wide(R2, self._scope.netns)
            code.jump_if_register(R1, "!=", R2, elsewhere)

    def _load_netns(self, code: Assembler) -> None:
        code.load(R1, R6, self._types.offset("sock", "__sk_common.skc_net.net"), 8)
        code.load(R1, R1, self._types.offset("net", "ns.inum"), 4)

    def tell(self, code: Assembler) -> None:
        """Write namespace, user, state, addresses and the remote port. R0 to R5 are used up."""
        field = self._types.offset
        self._load_netns(code)
        code.store(R8, OFFSETS.netns, R1, 4)
        code.load(R1, R6, field("sock", "sk_uid"), 4)
        code.store(R8, OFFSETS.uid, R1, 4)
        code.load(R1, R6, field("sock", "__sk_common.skc_state"), 1)
        code.store(R8, OFFSETS.state, R1, 4)
        code.load(R1, R6, field("sock", "__sk_common.skc_dport"), 2)
        code.from_network_order(R1, 16)
        code.store(R8, OFFSETS.remote_port, R1, 2)
        self._tell_addresses(code)

    def _tell_addresses(self, code: Assembler) -> None:
        field = self._types.offset
        sixth, done = code.new_label("ipv6"), code.new_label("addressed")
        code.load(R1, R6, field("sock", "__sk_common.skc_family"), 2)
        code.jump_if(R1, "!=", _IPV4, sixth)
        for target, name in ((OFFSETS.local, "skc_rcv_saddr"), (OFFSETS.remote, "skc_daddr")):
            code.store_value(R8, target, 0, 8)
            code.store_value(R8, target + 8, 0, 2)
            code.store_value(R8, target + 10, -1, 2)
            code.load(R1, R6, field("sock", f"__sk_common.{name}"), 4)
            code.store(R8, target + 12, R1, 4)
        code.jump(done)
        code.label(sixth)
        for target, name in ((OFFSETS.local, "skc_v6_rcv_saddr"), (OFFSETS.remote, "skc_v6_daddr")):
            code.copy(R1, R8)
            code.compute(R1, "+", target)
            code.set(R2, 16)
            code.copy(R3, R6)
            code.compute(R3, "+", field("sock", f"__sk_common.{name}"))
            code.call(READ)
        code.label(done)
