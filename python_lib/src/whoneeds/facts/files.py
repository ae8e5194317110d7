# SPDX-License-Identifier: GPL-3.0-or-later
"""How files land: planned first, then written whole or not at all, and never over what is not ours.

A `FileChange` is a plan: what is there, what shall be there. Making plans touches nothing, so check mode and a
real run tell the same story. `apply_change` writes to a temporary name in the same directory, syncs, renames and
syncs the directory; an interruption leaves the old file or the new one.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoneeds.model.errors import FactsError

#: Files of the facts may tell process names and addresses: the owner writes, the group reads.
FILE_MODE = 0o640
FOLDER_MODE = 0o750

Verify = Callable[[Path], None]


@dataclass(frozen=True)
class FileChange:
    """What is in a file, and what shall be; None where there is no file."""

    path: Path
    before: str | None
    after: str | None

    @property
    def changed(self) -> bool:
        """Whether the contents differ."""
        return self.before != self.after

    def diff(self) -> dict[str, str]:
        """The change as Ansible shows one."""
        return {
            "before": self.before or "",
            "after": self.after or "",
            "before_header": f"{self.path} (now)" if self.before is not None else f"{self.path} (not there)",
            "after_header": f"{self.path} (new)" if self.after is not None else f"{self.path} (removed)",
        }


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """Contents of a plain file, or None if there is none.

    Raises
    ------
    FactsError
        If it is not a plain file, cannot be read, or is larger than ``max_bytes``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # O_NOFOLLOW met a link
            raise FactsError(
                f"{path}", expected="a plain file", found="a symbolic link", remedy="give the path that it leads to"
            ) from error
        raise FactsError(
            f"{path} cannot be read", found=error.strerror or str(error), remedy="check its path and permissions"
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FactsError(f"{path}", expected="a plain file", found=_kind_of(status), remedy="move it away")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1) if status.st_size <= max_bytes else None
    if content is None or len(content) > max_bytes:
        raise FactsError(
            f"{path} is too large", expected=f"at most {max_bytes} bytes", found=f"{status.st_size}",
            remedy="move it away and publish anew",
        )  # fmt: skip
    return content


def apply_change(change: FileChange, verify: Verify | None = None) -> None:
    """Bring a file to its planned content; nothing is touched where it has it already.

    Parameters
    ----------
    change : FileChange
    verify : callable, optional
        Called with the temporary file before it takes the place of the old one; it raises to refuse.

    Raises
    ------
    FactsError
        If the file cannot be written.
    """
    if not change.changed:
        return
    path = change.path
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if change.after is None:
            path.unlink(missing_ok=True)
        else:
            _replace(path, change.after.encode("utf-8"), verify)
        _sync_folder(path.parent)
    except OSError as error:
        raise FactsError(
            f"{path} cannot be written", found=error.strerror or str(error), remedy="check its folder and free space"
        ) from error


def summarize(changes: Iterable[FileChange], hosts: int, *, diff: bool = False) -> dict[str, Any]:
    """What a run did or would do: ``{"changed", "hosts", "files": [{"path", "changed"}], "diff"}``."""
    changes = tuple(changes)
    told: dict[str, Any] = {
        "changed": any(change.changed for change in changes),
        "hosts": hosts,
        "files": [{"path": str(change.path), "changed": change.changed} for change in changes],
    }
    if diff:
        told["diff"] = [change.diff() for change in changes if change.changed]
    return told


def _kind_of(status: os.stat_result) -> str:
    return "a folder" if stat.S_ISDIR(status.st_mode) else "something else"


def _replace(path: Path, content: bytes, verify: Verify | None) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if verify is not None:
            verify(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
