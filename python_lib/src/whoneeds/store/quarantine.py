# SPDX-License-Identifier: GPL-3.0-or-later
"""Where bad segments go: a copy and the reason, so that nothing is lost and somebody can look.

It is bounded, since a host decides how many bad segments it makes: beyond the bound a segment is still named
in the result and left where it lies, but no more copies are made.
"""

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from whoneeds.store.durable import make_directory, replace_file

#: Reasons that speak of more than an accident.
ALARMS = frozenset({"conflict", "copied"})


@dataclass(frozen=True)
class Quarantined:
    """A segment that was not taken in, and why.

    Attributes
    ----------
    host : str
    file : str
        Name of the file it came in.
    reason : str
        corrupt, schema, limit, invalid, crashed, conflict or copied.
    message, expected, found, remedy : str or None
    sha256 : str or None
        Of the whole file; absent if it could not be read.
    kept : bool
        Whether a copy lies in the quarantine.
    alarm : bool
        Whether somebody should look at it soon: two segments claim one identity, or one segment came from two hosts.
    """

    host: str
    file: str
    reason: str
    message: str
    expected: str | None
    found: str | None
    remedy: str | None
    sha256: str | None
    kept: bool
    alarm: bool


class Quarantine:
    """The quarantine of a store.

    Parameters
    ----------
    root : Path
        The store.
    host_files, host_bytes : int
        Most copies, and most bytes of copies, that are kept of one host.
    file_bytes : int
        Largest file that is copied.
    """

    def __init__(
        self, root: Path, *, host_files: int = 256, host_bytes: int = 256 << 20, file_bytes: int = 64 << 20
    ) -> None:
        self._root = root
        self._host_files = host_files
        self._host_bytes = host_bytes
        self._file_bytes = file_bytes

    def put(
        self,
        host: str,
        path: Path,
        *,
        reason: str,
        message: str,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> Quarantined:
        """Keep a copy of a file with the reason, where the bounds allow it.

        Parameters
        ----------
        host : str
            A checked host name.
        path : Path
            The file; it stays where it is.
        reason, message, expected, found, remedy : str
        """
        folder = self._root / "quarantine" / host
        content = self._read(path)
        sha256 = None if content is None else hashlib.sha256(content).hexdigest()
        kept = False
        if content is not None and sha256 is not None:
            make_directory(folder, self._root)
            kept = (folder / f"{sha256}.seg").exists() or self._has_room(folder, len(content))
        entry = Quarantined(
            host=host,
            file=ascii(path.name)[1:-1],
            reason=reason,
            message=message,
            expected=expected,
            found=found,
            remedy=remedy,
            sha256=sha256,
            kept=kept,
            alarm=reason in ALARMS,
        )
        if kept and content is not None:
            with replace_file(folder / f"{sha256}.seg") as file:
                file.write(content)
            with replace_file(folder / f"{sha256}.json") as file:
                file.write(json.dumps(asdict(entry), indent=1, ensure_ascii=True).encode("ascii") + b"\n")
        return entry

    def _has_room(self, folder: Path, size: int) -> bool:
        sizes = [path.stat().st_size for path in folder.glob("*.seg")]
        return len(sizes) < self._host_files and sum(sizes) + size <= self._host_bytes

    def _read(self, path: Path) -> bytes | None:
        """Content of a regular file that is not too large; None otherwise."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > self._file_bytes:
                    return None
                return file.read(self._file_bytes)
        except OSError:
            return None
