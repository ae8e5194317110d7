# SPDX-License-Identifier: GPL-3.0-or-later
"""The meter's inner loop: what looks at each packet, as machine code that numba makes of it.

Everything here works on arrays that are handed in, and makes none. Two habits keep it right: a byte is widened before
it is shifted or added (``np.int64(data[at])``; numba makes floats of mixed signs), and no place in the data is read
before it was compared with the end, since compiled code does not check.

Compiling takes a while. The result is kept in the user's own cache (``$XDG_CACHE_HOME/whoneeds``, else
``~/.cache/whoneeds``), in a folder whose name is made of this room's sources and the vocabulary's, since numba looks at
one file only when it decides whether code is stale. Kept code is run, so a folder that belongs to somebody else, or in
which others may write, is not used; then it is compiled anew each time.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from whoneeds.model import evidence


def _prepare_cache() -> bool:
    """Have a folder for compiled code that only this user can write to; whether there is one."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return True  # whoever set it answers for it
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whoneeds"
        sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(evidence.__file__)]
        name = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
        folder = parent / f"compiled-{name}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (parent, folder):
            found = place.lstat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                return False
    except (OSError, RuntimeError):
        return False
    numba.config.CACHE_DIR = str(folder)
    return True


_IS_KEPT = _prepare_cache()


def njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let numba compile a function, and keep the result where that is safe.

    Without numba's counting of references: nothing here makes an array, and counting took half of the time.
    """
    compiled: Callable[..., Any] = numba.njit(cache=_IS_KEPT, _nrt=False)(function)
    return compiled


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let numba compile a function into each that calls it.

    Handing arrays to a function that is called costs more than most functions here do, and so does looking for what was
    kept of each when the program starts.
    """
    compiled: Callable[..., Any] = numba.njit(forceinline=True, _nrt=False)(function)
    return compiled
