# SPDX-License-Identifier: GPL-3.0-or-later
"""A trace ring of our own in the kernel: made, filled with chosen events, read without waiting, and removed.

Nothing of the host's own tracing is touched: an instance has its own buffers, filters and switches. One that a
killed tracer left behind is removed by the next one. Where tracefs is not mounted, a thread mounts it in a mount
namespace of its own, opens the directory and ends, so that the host's mounts stay as they are.
"""

import ctypes
import itertools
import os
import re
import tempfile
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from whoneeds.model.errors import Denied, HostError, Unsupported

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NAME = re.compile(r"whoneeds-(\d+)-(\d+)-\d+-\w+\Z")
_COUNT = itertools.count(1)
_PAGE_BYTES = 1 << 16
_LEAST_BYTES = 1 << 17
_CLONE_NEWNS, _MS_REC, _MS_SLAVE, _MNT_DETACH = 0x00020000, 0x4000, 0x80000, 2


def open_tracefs() -> int:
    """A descriptor of the directory of tracefs; the caller closes it.

    Raises
    ------
    Denied, Unsupported
    """
    for place in _PLACES:
        try:
            descriptor = os.open(place, _DIRECTORY)
        except OSError:
            continue
        if _is_tracefs(descriptor):
            return descriptor
        os.close(descriptor)
    return _mount_apart()


def _is_tracefs(descriptor: int) -> bool:
    try:
        return "trace_clock" in os.listdir(descriptor) and "instances" in os.listdir(descriptor)
    except OSError:
        return False


def _mount_apart() -> int:
    """Mount tracefs where only a descriptor can reach it."""
    opened: List[Any] = []

    def visit() -> None:
        try:
            opened.append(_mount_here())
        except Exception as error:  # a thread has nobody above it: whatever it was becomes an answer
            opened.append(error)

    thread = threading.Thread(target=visit, name="whoneeds-tracefs")
    thread.start()
    thread.join()
    if isinstance(opened[0], int):
        return opened[0]
    number = getattr(opened[0], "errno", None)
    kind = Denied if number in (1, 13) else Unsupported
    raise kind("kernel events (tracefs)", found=str(opened[0]), remedy="mount tracefs at /sys/kernel/tracing, as root")


def _mount_here() -> int:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(done: int) -> None:
        if done != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    call(libc.unshare(_CLONE_NEWNS))
    call(libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None))
    place = tempfile.mkdtemp(prefix="whoneeds-tracefs-")
    try:
        call(libc.mount(b"tracefs", place.encode(), b"tracefs", 0, None))
        descriptor = os.open(place, _DIRECTORY)
        libc.umount2(place.encode(), _MNT_DETACH)
        return descriptor
    finally:
        os.rmdir(place)


class TraceInstance:
    """A ring of our own.

    Parameters
    ----------
    tracefs : int
        Descriptor from `open_tracefs`; stays the caller's.
    name : str
        What it is for; one word.
    owner : (int, int)
        Number and start of the process that it belongs to: who finds it later can tell whether that still lives.
    buffer_bytes : int
        Size of the ring, all processors together; each has 128 KiB at least.

    Raises
    ------
    Denied, Unsupported
    """

    def __init__(self, tracefs: int, name: str, owner: Tuple[int, int], buffer_bytes: int) -> None:
        self._tracefs = tracefs
        self._name = f"instances/whoneeds-{owner[0]}-{owner[1]}-{next(_COUNT)}-{name}"
        self._pipes: Dict[int, int] = {}
        self._events: List[str] = []
        try:
            os.mkdir(self._name, dir_fd=tracefs)
            self._directory = os.open(self._name, _DIRECTORY, dir_fd=tracefs)
        except OSError as error:
            raise _trace_error(error, "a trace instance") from error
        try:
            self._write("trace_clock", "boot")
            processors = self._processors()
            each_bytes = max(buffer_bytes // max(len(processors), 1), _LEAST_BYTES)
            self._write("buffer_size_kb", str(each_bytes >> 10))
            for number in processors:
                self._pipes[number] = self._open(f"per_cpu/cpu{number}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self.close()
            raise _trace_error(error, "a trace instance") from error

    def read_format(self, event: str) -> str:
        """The text of an event's ``format`` file.

        Raises
        ------
        Denied, Unsupported
        """
        try:
            with open(self._open(f"events/{event}/format", os.O_RDONLY), encoding="ascii", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise _trace_error(error, f"event {event}") from error

    def enable(self, event: str, condition: Optional[str] = None) -> None:
        """Switch an event on, with a filter in the kernel's own words.

        Raises
        ------
        Denied, Unsupported
        """
        try:
            if condition is not None:
                self._write(f"events/{event}/filter", condition)
            self._write(f"events/{event}/enable", "1")
            self._events.append(event)
        except OSError as error:
            raise _trace_error(error, f"event {event}") from error

    def read_pages(self, most: int) -> List[bytes]:
        """All pages that are there, of all processors.

        Parameters
        ----------
        most : int
            Pages that are read of one processor at the most, so that reading ends while the kernel goes on writing.

        Raises
        ------
        HostError
        """
        pages: List[bytes] = []
        for pipe in self._pipes.values():
            for _turn in range(most):
                try:
                    page = os.read(pipe, _PAGE_BYTES)
                except BlockingIOError:
                    break
                except OSError as error:
                    raise HostError("trace ring", found=str(error.strerror)) from error
                if not page:
                    break
                pages.append(page)
        return pages

    def close(self) -> None:
        """Switch the events off and remove the instance."""
        for event in self._events:
            try:
                self._write(f"events/{event}/enable", "0")
            except OSError:
                continue
        for pipe in self._pipes.values():
            os.close(pipe)
        os.close(self._directory)
        self._pipes, self._events = {}, []
        try:
            os.rmdir(self._name, dir_fd=self._tracefs)
        except OSError:
            pass  # somebody reads in it; the next tracer removes it

    def _processors(self) -> List[int]:
        folder = self._open("per_cpu", _DIRECTORY)
        try:
            return sorted(int(name[3:]) for name in os.listdir(folder) if re.match(r"cpu\d+\Z", name))
        finally:
            os.close(folder)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)

    def _write(self, name: str, text: str) -> None:
        descriptor = self._open(name, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, text.encode("ascii"))
        finally:
            os.close(descriptor)


def remove_stale(tracefs: int, is_alive: Callable[[int, int], bool]) -> List[str]:
    """Remove the instances of tracers that are gone.

    Parameters
    ----------
    tracefs : int
        Descriptor from `open_tracefs`.
    is_alive : callable
        From number and start of a process to whether it still runs.

    Returns
    -------
    list of str
        Names of those removed.
    """
    removed: List[str] = []
    try:
        instances = os.open("instances", _DIRECTORY, dir_fd=tracefs)
    except OSError:
        return removed
    try:
        for name in os.listdir(instances):
            found = _NAME.match(name)
            if found is None or is_alive(int(found.group(1)), int(found.group(2))):
                continue
            try:
                os.rmdir(name, dir_fd=instances)
                removed.append(name)
            except OSError:
                continue
    finally:
        os.close(instances)
    return removed


def _trace_error(error: OSError, what: str) -> HostError:
    if isinstance(error, PermissionError):
        return Denied(
            what, found=str(error.strerror), remedy="run the tracer as root, or without a sandbox over tracefs"
        )
    if isinstance(error, FileNotFoundError):
        return Unsupported(what, found="this kernel has none", remedy="it is traced by samples alone")
    return HostError(what, found=str(error.strerror))
