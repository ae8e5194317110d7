# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are wholly there or not at all, even after a power cut."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: End of the name of a file that is still being written; such files mean nothing.
TEMPORARY = ".tmp"


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name; at the end flush it, rename it into place and flush its directory.

    Parameters
    ----------
    path : Path
        Where it shall be; what was there is replaced in one step, or stays if the block fails.

    Yields
    ------
    file open for writing bytes
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, root: Path) -> None:
    """Make a directory below ``root`` and flush each new name on the way (mode 0700)."""
    missing = []
    while path != root and not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        flush_directory(directory.parent)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
