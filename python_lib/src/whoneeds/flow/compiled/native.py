# SPDX-License-Identifier: GPL-3.0-or-later
"""Calling compiled code: an object file is loaded once, and its entries are called as numba has functions called.

A function of numba takes the place for its answer, the place for an error, and then its arguments, of which an array is
seven numbers (two that count references, which nobody does here; elements, their size, where they lie, and shape and
strides). It returns 0 if all went well.
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_PREFIX = "whoneeds_"


class Entry:
    """A compiled function that Python can call.

    Parameters
    ----------
    function : callable
        What it is compiled from.
    declared : tuple
        Types of its arguments; see `whoneeds.flow.compiled.entry`.
    """

    def __init__(self, function: Callable[..., Any], declared: tuple[Any, ...]) -> None:
        self.function, self.declared = function, declared
        self.symbol = _PREFIX + function.__name__
        self._native: Any = None

    def __call__(self, *arguments: Any) -> int:
        """Call it; arrays must be contiguous and of the types that were declared, and a tuple of them `Handed`."""
        if self._native is None:
            self._native = _bind(self)
        answer, error = ctypes.c_int64(), ctypes.c_void_p()
        numbers = _flat(arguments, self.declared)
        status = self._native(ctypes.addressof(answer), ctypes.addressof(error), *numbers)
        if status:
            raise RuntimeError(f"compiled code of {self.symbol} ended with status {status}, expected 0: report this")
        return answer.value


class Handed:
    """Arrays that are handed over in one, again and again.

    Parameters
    ----------
    arrays : tuple of array
    declared : tuple of dtype
        Their types.
    """

    def __init__(self, arrays: tuple[Any, ...], declared: tuple[Any, ...]) -> None:
        self._arrays = arrays  # so that they stay where they are
        self.numbers = tuple(
            number for given, kind in zip(arrays, declared, strict=True) for number in _numbers_of(given, kind)
        )


def count_of(declared: tuple[Any, ...]) -> int:
    """How many numbers arguments of some types are handed over as."""
    return sum(count_of(one) if isinstance(one, tuple) else 7 if isinstance(one, np.dtype) else 1 for one in declared)


def _bind(wanted: Entry) -> Any:
    from whoneeds.flow.compiled.kept import address_of

    kinds = [ctypes.c_int64] * (2 + count_of(wanted.declared))
    return ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address_of(wanted.symbol))


def _flat(arguments: tuple[Any, ...], declared: tuple[Any, ...]) -> Iterator[int]:
    for given, kind in zip(arguments, declared, strict=True):
        if isinstance(given, Handed):
            yield from given.numbers
        elif isinstance(kind, np.dtype):
            yield from _numbers_of(given, kind)
        else:
            yield int(given)


def _numbers_of(given: Any, kind: np.dtype[Any]) -> tuple[int, ...]:
    if (given.dtype is not kind and given.dtype != kind) or given.ndim != 1 or not given.flags.c_contiguous:
        raise TypeError(f"expected a contiguous array of {kind}, found {given.ndim} dimensions of {given.dtype}")
    count, size = len(given), kind.itemsize
    return 0, 0, count, size, given.ctypes.data, count, size
