# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the capture file beside a segment is the one that the segment names.

Nothing that is worked out here rests on it: a segment holds what packets came to. So one that is missing or damaged is
said, and its segment is used all the same.
"""

import hashlib
import os
import stat
from pathlib import Path

from whoneeds.segment.layout import CAPTURE_SUFFIX

_PIECE_BYTES = 1 << 20


def find_capture_problem(segment: Path, digest: str, size_bytes: int) -> str | None:
    """Why the capture file beside a segment cannot be used; None if it is as it should be.

    Parameters
    ----------
    segment : Path
        The segment's file.
    digest : str
        SHA-256 in hexadecimal.
    size_bytes : int
    """
    path = segment.with_suffix(CAPTURE_SUFFIX)
    try:
        # as for segments: no link is followed, and a pipe holds nothing up
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "it is not there"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return "it is no file"
        if found.st_size != size_bytes:
            return f"expected {size_bytes} bytes, found {found.st_size}"
        running, left = hashlib.sha256(), size_bytes
        while left > 0:
            piece = file.read(min(_PIECE_BYTES, left))
            if not piece:
                return "it shrank while it was read"
            running.update(piece)
            left -= len(piece)
    return None if running.hexdigest() == digest else "its bytes are not those that the segment names"
