# SPDX-License-Identifier: GPL-3.0-or-later
"""Find every network namespace of the host and open a channel in each.

Namespaces are found by the processes in them and by the mounts that keep them (``ip netns``). A channel to another
namespace is opened by a thread that enters it and ends; nothing is kept open between samples, since an open
channel would keep a namespace (and the links in it) alive after its last process.
"""

import os
import re
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from whoneeds.model.errors import Denied, Gone, HostError, Unsupported

_CLONE_NEWNET = 0x40000000
_MOUNTS_BYTES = 16 << 20
_OCTAL = re.compile(r"\\([0-7]{3})")


class Sighting(NamedTuple):
    """Namespaces that were found.

    Attributes
    ----------
    doors : dict of int to list of str
        Paths by which each namespace (by inode number) can be entered.
    denied : int
        Processes whose namespace may not be read.
    """

    doors: Dict[int, List[str]]
    denied: int


def parse_namespace_mounts(text: str) -> List[str]:
    r"""Paths of mounted network namespaces out of the text of ``/proc/self/mountinfo``.

    Examples
    --------
    >>> parse_namespace_mounts("88 31 0:4 net:[4026532301] /run/netns/a\\040b rw shared:7 - nsfs nsfs rw\n")
    ['/run/netns/a b']
    """
    paths = []
    for line in text.split("\n"):
        fields = line.split(" ")
        if len(fields) > 6 and fields[3].startswith("net:[") and "nsfs" in fields[6:]:
            paths.append(_OCTAL.sub(lambda found: chr(int(found.group(1), 8)), fields[4]))
    return paths


class NamespaceFinder:
    """Keeps the map of namespaces up to date without asking every process each time.

    A process may change its namespace at any time after it began. New processes are asked twice, the others in
    turn, so that each is asked again within `ROUND` samples.
    """

    ROUND = 12

    def __init__(self, root: str = "/proc") -> None:
        self.root = root
        self._seen: Dict[int, int] = {}
        self._fresh: Set[int] = set()
        self._turn = 0

    def find(self, pids: List[int], suspicious: Set[int]) -> Sighting:
        """Find the namespaces of these processes and of mounts.

        Parameters
        ----------
        pids : list of int
            All processes.
        suspicious : set of int
            Those that are new or changed.
        """
        self._turn += 1
        denied = 0
        again, self._fresh = self._fresh, set()
        seen: Dict[int, int] = {}
        for pid in pids:
            inode = self._seen.get(pid)
            if inode is None or pid in suspicious or pid in again or (pid + self._turn) % self.ROUND == 0:
                if inode is None:
                    self._fresh.add(pid)
                try:
                    inode = os.stat(f"{self.root}/{pid}/ns/net").st_ino
                except PermissionError:
                    denied += 1
                    inode = 0
                except OSError:
                    continue
            elif inode == 0:
                denied += 1
            seen[pid] = inode
        self._seen = seen
        doors: Dict[int, List[str]] = {}
        for pid, inode in seen.items():
            if inode:
                paths = doors.setdefault(inode, [])
                if len(paths) < 3:
                    paths.append(f"{self.root}/{pid}/ns/net")
        for path in self._mounted():
            try:
                doors.setdefault(os.stat(path).st_ino, []).append(path)
            except OSError:
                continue
        return Sighting(doors, denied)

    def _mounted(self) -> List[str]:
        try:
            with open(f"{self.root}/self/mountinfo", "rb") as file:
                text = file.read(_MOUNTS_BYTES)
        except OSError:
            return []
        if b" nsfs " not in text:
            return []
        return parse_namespace_mounts(text.decode("utf-8", "surrogateescape"))


def own_namespace(root: str = "/proc") -> int:
    """Inode number of the caller's own network namespace; 0 where the system has none."""
    try:
        return os.stat(f"{root}/self/ns/net").st_ino
    except OSError:
        return 0


Opened = Tuple[Dict[int, Any], Dict[int, HostError]]


def open_in_namespaces(doors: Dict[int, List[str]], open_channel: Callable[[], Any]) -> Opened:
    """Open one channel inside each namespace.

    Parameters
    ----------
    doors : dict of int to list of str
        From `NamespaceFinder.find`.
    open_channel : callable
        Makes a socket in the namespace of the thread that calls it.

    Returns
    -------
    channels : dict of int to channel
        The caller closes them.
    refused : dict of int to HostError
        Denied, Unsupported or Gone for each of the others.
    """
    channels: Dict[int, Any] = {}
    refused: Dict[int, HostError] = {}
    if not doors:
        return channels, refused

    def visit() -> None:
        for inode, paths in doors.items():
            try:
                _enter(inode, paths)
                channels[inode] = open_channel()
            except HostError as error:
                refused[inode] = error
            except Exception as error:  # a thread has nobody above it: whatever it was becomes an answer
                refused[inode] = HostError("network namespace", found=str(error))

    thread = threading.Thread(target=visit, name="whoneeds-netns")
    thread.start()
    thread.join()
    return channels, refused


def _enter(inode: int, paths: List[str]) -> None:
    """Move the calling thread into a namespace."""
    last: HostError = Gone(f"network namespace {inode}")
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            last = Denied(f"network namespace {inode}", found=str(error.strerror))
            continue
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_ino != inode:
                continue  # the process moved on, or the mount was replaced
            _setns(descriptor)
            return
        except PermissionError as error:
            last = Denied(f"network namespace {inode}", found=str(error.strerror))
        except OSError as error:
            last = HostError(f"network namespace {inode}", found=str(error.strerror))
        finally:
            os.close(descriptor)
    raise last


_libc: Optional[Any] = None


def _setns(descriptor: int) -> None:
    """Put the calling thread into the network namespace behind the descriptor."""
    native = getattr(os, "setns", None)  # Python 3.12 and newer
    if native is not None:
        native(descriptor, _CLONE_NEWNET)
        return
    global _libc
    if _libc is None:
        try:
            import ctypes

            _libc = ctypes.CDLL(None, use_errno=True)
        except (ImportError, OSError) as error:
            raise Unsupported("setns", found=str(error), remedy="use a Python with ctypes, or 3.12 or newer") from error
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
