# SPDX-License-Identifier: GPL-3.0-or-later
"""One writer or many readers, never both: an advisory lock that the kernel drops when its holder dies."""

import fcntl
import os
from pathlib import Path

from whoneeds.model.errors import StoreError


class StoreLock:
    """A held lock.

    Parameters
    ----------
    path : Path
        The lock file; made if it is missing.
    exclusive : bool
        True to write, False to read.

    Raises
    ------
    StoreError
        At once, if another process holds a lock that this one cannot share; names that process where the kernel does.
    """

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags | (os.O_RDWR if exclusive else os.O_RDONLY), 0o600)
        except OSError as error:
            raise StoreError(
                "the store's lock cannot be opened",
                expected=f"a file that can be {'written' if exclusive else 'read'}",
                found=f"{path}: {error.strerror}",
                remedy="run as the user who owns the store",
            ) from error
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            inode = os.fstat(self._descriptor).st_ino
            os.close(self._descriptor)
            raise StoreError(
                "the store is busy",
                expected="no other process that uses it" if exclusive else "no other process that writes to it",
                found=find_holder(inode),
                remedy="run this again when that one is done",
            ) from None

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self._descriptor)


def find_holder(inode: int, locks: Path = Path("/proc/locks")) -> str:
    """Say in words which process holds an advisory lock on a file.

    Parameters
    ----------
    inode : int
        Inode number of the lock file.
    locks : Path
        The kernel's list of locks.
    """
    try:
        lines = locks.read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        # 12: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF; a waiting one has "->" behind the number
        parts = line.split()
        if len(parts) == 8 and parts[1] == "FLOCK" and parts[5].rpartition(":")[2] == str(inode) and parts[4] > "0":
            return f"process {parts[4]} ({_read_name(parts[4])})"
    return "another process"


def _read_name(pid: str) -> str:
    try:
        return ascii(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip())[1:-1]
    except OSError:
        return "gone by now"
