# SPDX-License-Identifier: GPL-3.0-or-later
"""The meter's inner loop: what looks at each packet, as machine code that numba makes of it.

Everything here works on arrays that are handed in, and makes none. Two habits keep it right: a byte is widened before
it is shifted or added (``np.int64(data[at])``; numba makes floats of mixed signs), and no place in the data is read
before it was compared with the end, since compiled code does not check.

What Python calls is an `entry`, whose arguments are declared; it is built of parts. Numba is not imported until
something must be compiled: `whoneeds.flow.compiled.build` makes one object file of all entries,
`whoneeds.flow.compiled.kept` keeps it, and later starts load it as it is.
"""

from collections.abc import Callable
from typing import Any

from whoneeds.flow.compiled import native


class Part:
    """A function that is compiled into those that call it.

    Parameters
    ----------
    function : callable
    is_inlined : bool
        Whether it must be: to hand arrays to a function that is called costs more than most functions here do. Where
        little depends on that, compiling it once is better.
    """

    def __init__(self, function: Callable[..., Any], is_inlined: bool) -> None:
        self._function, self._is_inlined = function, is_inlined
        self._made: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it as Python."""
        return self._function(*arguments)

    @property
    def _numba_type_(self) -> Any:
        """What numba asks a value that it does not know for."""
        if self._made is None:
            from whoneeds.flow.compiled.build import make_part

            self._made = make_part(self._function, self._is_inlined)
        return self._made._numba_type_


def part(function: Callable[..., Any]) -> Part:
    """Have a function compiled into each place that calls it."""
    return Part(function, True)


def rare(function: Callable[..., Any]) -> Part:
    """Have a function compiled once; for what few packets need."""
    return Part(function, False)


def entry(*declared: Any) -> Callable[[Callable[..., Any]], native.Entry]:
    """Have a function compiled so that Python can call it; it answers with a whole number.

    Parameters
    ----------
    *declared
        Of each argument: `int`, `numpy.uint64`, the type of the elements of an array of one dimension, or a named tuple
        of such types.
    """
    return lambda function: native.Entry(function, declared)
