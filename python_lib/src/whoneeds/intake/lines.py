# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a file of any size in bounded memory; a line that is too long is passed over and said."""

import gzip
from collections.abc import Iterator
from typing import BinaryIO, cast

#: Longest line that is read: an event of a security agent has a few thousand bytes.
LONGEST_BYTES = 1 << 20
_UTF8_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


def unpack(file: BinaryIO) -> BinaryIO:
    """A file as it is, or unpacked if it is packed by gzip; what can be looked into only once is taken as it is."""
    if not file.seekable():
        return file
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file


def read_lines(file: BinaryIO, longest_bytes: int = LONGEST_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers, from 1; ends are left out, and so are empty lines.

    Parameters
    ----------
    file : binary file
    longest_bytes : int

    Yields
    ------
    number : int
    line : bytes or None
        None in the place of a line that is longer.
    """
    number = 0
    while piece := file.readline(longest_bytes + 1):
        number += 1
        whole = piece.endswith(b"\n")
        if not whole and len(piece) > longest_bytes:
            while piece and not piece.endswith(b"\n"):
                piece = file.readline(longest_bytes)
            yield number, None
            continue
        line = piece.rstrip(b"\r\n")
        if number == 1:
            line = line.removeprefix(_UTF8_MARK)
        if line:
            yield number, line
