# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiling: all entries and their parts become one object file.

Without numba's counting of references: nothing here makes an array, and counting took half of the time. Numba's own
wrappers are left out, so the code needs neither Python nor numba when it runs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np

from whoneeds.flow.compiled.ahead import teach_fetch
from whoneeds.flow.compiled.native import Entry

_OPTIONS = {"_nrt": False, "error_model": "numpy", "boundscheck": False}


def make_part(function: Callable[..., Any], is_inlined: bool) -> Any:
    """A function that numba compiles when it is called."""
    return numba.njit(forceinline=is_inlined, **_OPTIONS)(function)


def build_object(entries: Iterable[Entry], machine: Any) -> bytes:
    """Compile entries into one object file for a machine."""
    teach_fetch()
    whole = llvm.parse_assembly("")
    for one in entries:
        dispatcher = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(one.function)
        signature = _types(one.declared)
        dispatcher.compile(numba.types.int64(*signature))
        module = llvm.parse_assembly(dispatcher.inspect_llvm(signature))
        name = dispatcher.overloads[signature].fndesc.llvm_func_name
        for function in module.functions:
            if function.name == name:
                function.name = one.symbol
        whole.link_in(module)
    wanted = {one.symbol for one in entries}
    for function in whole.functions:
        if not function.is_declaration and function.name not in wanted:
            function.linkage = "internal"
    for value in whole.global_variables:
        if not value.is_declaration:
            value.linkage = "internal"
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(whole, builder)
    made: bytes = machine.emit_object(whole)
    return made


def _types(declared: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_type_of(one) for one in declared)


def _type_of(declared: Any) -> Any:
    if isinstance(declared, tuple):
        return numba.types.NamedTuple(_types(declared), type(declared))
    if isinstance(declared, np.dtype):
        return numba.types.Array(numba.from_dtype(declared), 1, "C")
    return numba.types.uint64 if declared is np.uint64 else numba.types.int64
