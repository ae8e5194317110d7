# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder in which a host keeps its segments until they are collected, within a budget of bytes.

A segment may have a capture file beside it, which counts with it, is there before it, and goes with it. The oldest
segments go first when a new one would not fit, and they are counted, also over restarts. A segment that
the disk refuses waits in memory, within a limit of its own; what goes beyond is dropped, oldest first, and counted.
"""

import errno
import fcntl
import os
import stat
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple, Type

from whoneeds.model.errors import Busy, SettingsError
from whoneeds.model.evidence import SegmentHeader
from whoneeds.segment.layout import CAPTURE_SUFFIX, SUFFIX, TEMPORARY_SUFFIX
from whoneeds.segment.lives import LifeBlock
from whoneeds.segment.write import commit_file, encode_segment, segment_file_name

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEGMENTS, _LOCK, _DROPPED = "segments", "tracer.lock", "dropped"
_COUNT_FORMAT = "{:020d}\n"
#: What may wait in memory while the disk refuses.
_WAITING_BYTES = 32 << 20


def open_private_directory(path: str, *, create: bool = True, reads: bool = False) -> int:
    """Open a directory that only its owner may change; make it (mode 0700) if it is not there.

    Parameters
    ----------
    path : str
    create : bool, default True
    reads : bool, default False
        Nothing is written into it. Then root, who may read everything, may open that of another user: of the one that
        a tracer without privilege runs as. Nothing in it is to be trusted.

    Returns
    -------
    int
        Descriptor of the directory.

    Raises
    ------
    SettingsError
        If it is a link, belongs to somebody else, or others may write into it.
    """
    try:
        if create:
            os.makedirs(path, mode=0o700, exist_ok=True)
        descriptor = os.open(path, _DIRECTORY)
    except OSError as error:
        raise SettingsError(
            f"directory {path}",
            expected="a directory of its own, not a link",
            found=str(error.strerror),
            remedy="make it, or name another one with --dir",
        ) from error
    found, user = os.fstat(descriptor), os.geteuid()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022 or (found.st_uid != user and not (reads and user == 0)):
        os.close(descriptor)
        raise SettingsError(
            f"directory {path}",
            expected=f"one of user {user} that nobody else may write into",
            found=f"owner {found.st_uid}, mode {mode:04o}",
            remedy=f"chown {user} and chmod 0700 it, or name another one with --dir",
        )
    return descriptor


class Spooled(NamedTuple):
    """What lies in a spool."""

    segments: int
    bytes: int
    dropped: int


class Spool:
    """A host's segments on disk. Open it with `open_spool`.

    Attributes
    ----------
    dropped_segments : int
        Segments that the budget pushed out, ever.
    lost_segments : int
        Segments that were never on disk, since this spool was opened: larger than the whole budget, or refused by
        the disk for so long that memory did not suffice.
    """

    def __init__(self, directory: int, segments: int, lock: int, budget_bytes: int) -> None:
        self.directory = directory
        self.budget_bytes = budget_bytes
        self.lost_segments = 0
        self._segments, self._lock = segments, lock
        self._waiting: List[Tuple[str, bytes, bytes]] = []
        self.dropped_segments = _read_count(directory)
        self._counted = self.dropped_segments
        self._clean_up()

    def _clean_up(self) -> None:
        """Remove what a writer that died left half-written.

        The lock says that no other writer of segments is alive. Beside them a supervisor may be writing its state.
        """
        for descriptor in (self._segments, self.directory):
            for name in os.listdir(descriptor):
                if not name.startswith(".") or not name.endswith(TEMPORARY_SUFFIX):
                    continue
                if descriptor == self._segments or not _is_being_written(name):
                    os.unlink(name, dir_fd=descriptor)
        names = set(os.listdir(self._segments))
        for name in names:
            if name.endswith(CAPTURE_SUFFIX) and _stem(name) + SUFFIX not in names:
                os.unlink(name, dir_fd=self._segments)

    def put(
        self,
        header: SegmentHeader,
        tables: Mapping[Type[Any], Iterable[Any]],
        lives: Sequence[LifeBlock] = (),
        capture: bytes = b"",
    ) -> int:
        """Commit a segment, dropping the oldest ones if the budget asks for it.

        Parameters
        ----------
        header : SegmentHeader
        tables : mapping of record class to records
        lives : sequence of LifeBlock
        capture : bytes
            Its capture file, as the header says; empty for none.

        Returns
        -------
        int
            Size of the segment in bytes, without its capture file. It may still wait in memory: see `waiting`.
        """
        content = b"".join(encode_segment(header, tables, lives))
        if len(content) + len(capture) > self.budget_bytes:
            self.lost_segments += 1
            return len(content)
        self._waiting.append((segment_file_name(header), content, capture))
        self.flush()
        return len(content)

    def flush(self) -> bool:
        """Try to commit what waits in memory; whether nothing waits any more."""
        while self._waiting:
            name, content, capture = self._waiting[0]
            try:
                self._make_room(len(content) + len(capture))
                if capture:  # first: a segment never names a file that is not there
                    commit_file(self._segments, _stem(name) + CAPTURE_SUFFIX, (capture,))
                commit_file(self._segments, name, (content,))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG):
                    raise
                self._shed()
                return not self._waiting
            self._waiting.pop(0)
        self._keep_count()
        return True

    @property
    def waiting(self) -> int:
        """Segments that the disk has not taken yet."""
        return len(self._waiting)

    def usage(self) -> Spooled:
        """What lies on disk now; capture files count with their segments."""
        sizes = _sizes(self._segments)
        return Spooled(len(sizes), sum(sizes.values()), self.dropped_segments)

    def _make_room(self, wanted: int) -> None:
        sizes = _sizes(self._segments)
        total = sum(sizes.values())
        for name in sorted(sizes):
            if total + wanted <= self.budget_bytes:
                break
            total -= sizes[name]
            gone = _remove(self._segments, name)  # before its capture file: a segment never names one that is not there
            _remove(self._segments, _stem(name) + CAPTURE_SUFFIX)
            self.dropped_segments += gone
        self._keep_count()

    def _shed(self) -> None:
        while len(self._waiting) > 1 and sum(map(_waiting_bytes, self._waiting)) > _WAITING_BYTES:
            self._waiting.pop(0)
            self.lost_segments += 1

    def _keep_count(self) -> None:
        if self._counted == self.dropped_segments:
            return
        try:
            _write_count(self.directory, self.dropped_segments)
        except OSError:
            return  # the disk is full: tried again with the next segment
        self._counted = self.dropped_segments

    def close(self) -> None:
        """Release the folder."""
        for descriptor in (self._segments, self.directory, self._lock):
            os.close(descriptor)


def open_spool(path: str, budget_bytes: int) -> Spool:
    """Open a folder for writing segments; one writer at a time.

    Parameters
    ----------
    path : str
        The tracer's folder; segments lie in its subfolder ``segments``.
    budget_bytes : int
        All segments together never take more.

    Raises
    ------
    Busy
        If another tracer writes there.
    SettingsError
        If the folder is not safe to write into.
    """
    directory = open_private_directory(path)
    try:
        lock = _open_lock(directory, path)
        try:
            _take_lock(lock, directory, path)
            segments = open_private_directory(os.path.join(path, _SEGMENTS))
        except BaseException:
            os.close(lock)
            raise
        return Spool(directory, segments, lock, budget_bytes)
    except BaseException:
        os.close(directory)
        raise


def _open_lock(directory: int, path: str) -> int:
    try:
        # not held open for writing, so that the disk can be made read-only meanwhile
        return os.open(_LOCK, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        raise SettingsError(
            f"directory {path}",
            expected="a directory that files can be made in",
            found=str(error.strerror),
            remedy="make room or choose another one with --dir",
        ) from error


def _take_lock(lock: int, directory: int, path: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        raise Busy(
            f"another tracer writes into {path}",
            expected="one tracer a directory",
            found=f"process {holder}" if holder.isdigit() else "a locked directory",
            remedy="stop that one (whoneeds trace stop --dir), or name another directory",
        ) from error
    writer = os.open(_LOCK, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(writer, f"{os.getpid()}\n".encode("ascii"))
    finally:
        os.close(writer)


def spool_usage(path: str) -> Spooled:
    """What lies in a folder, without becoming its writer.

    Raises
    ------
    SettingsError
    """
    directory = open_private_directory(path, create=False, reads=True)
    try:
        segments = open_private_directory(os.path.join(path, _SEGMENTS), create=False, reads=True)
        try:
            sizes = _sizes(segments)
        finally:
            os.close(segments)
        return Spooled(len(sizes), sum(sizes.values()), _read_count(directory))
    finally:
        os.close(directory)


def _waiting_bytes(waiting: Tuple[str, bytes, bytes]) -> int:
    return len(waiting[1]) + len(waiting[2])


def _stem(name: str) -> str:
    return name[: name.rindex(".")]


def _remove(directory: int, name: str) -> bool:
    """Remove a file; whether it was there."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _is_being_written(name: str) -> bool:
    """Whether the process that a temporary file is named after is another one that lives."""
    number = name[: -len(TEMPORARY_SUFFIX)].rpartition(".")[2]
    if not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) in (0, os.getpid()):
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sizes(directory: int) -> Dict[str, int]:
    """Bytes of each segment, its capture file included; such a file alone counts as a segment's until it has one."""
    sizes: Dict[str, int] = {}
    for name in os.listdir(directory):
        if name.endswith((SUFFIX, CAPTURE_SUFFIX)) and not name.startswith("."):
            segment = _stem(name) + SUFFIX
            try:
                size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            sizes[segment] = sizes.get(segment, 0) + size
    return sizes


def _read_count(directory: int) -> int:
    try:
        descriptor = os.open(_DROPPED, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return 0
    try:
        text = os.pread(descriptor, 64, 0)
    finally:
        os.close(descriptor)
    return int(text) if len(text) == len(_COUNT_FORMAT.format(0)) and text[:-1].isdigit() else 0


def _write_count(directory: int, count: int) -> None:
    """Overwrite the count in place: of fixed length, so that a full disk still takes it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(_DROPPED, flags, 0o600, dir_fd=directory)
    try:
        os.pwrite(descriptor, _COUNT_FORMAT.format(count).encode("ascii"), 0)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
