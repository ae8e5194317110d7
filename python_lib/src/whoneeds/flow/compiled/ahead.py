# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking the processor to fetch from memory what will be needed soon, so that the waits of many packets overlap."""

from typing import Any

_FOR_WRITING, _KEEP, _DATA = 1, 3, 1


def fetch(_array, _at):
    """Say that an element of an array will be read and written soon; any place may be given, and nothing changes."""


def teach_fetch() -> None:
    """Have numba know the instruction, for which Python has no words."""
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic, overload

    @intrinsic
    def prefetch(_typing: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            held = context.make_array(signature.args[0])(context, builder, arguments[0])
            pointer = builder.bitcast(cgutils.gep(builder, held.data, arguments[1]), cgutils.voidptr_t)
            number = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
            called = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(called, [pointer, *(number(one) for one in (_FOR_WRITING, _KEEP, _DATA))])
            return context.get_dummy_value()

        return types.void(array, at), generate

    @overload(fetch, inline="always")
    def _fetch(_array, _at):
        def ask(_array, _at):
            return prefetch(_array, _at)

        return ask
