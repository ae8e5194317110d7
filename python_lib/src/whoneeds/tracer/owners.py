# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes hold which sockets, without walking every descriptor of every process each time.

A walk of ``/proc/PID/fd`` costs one system call a descriptor. Between two samples few processes change, and the
kernel says which: since Linux 6.2 the size of ``/proc/PID/fd`` is the number of descriptors. So only these are
walked, in this order:

1. processes that are new, or whose number of descriptors changed, or whose number went to another process;
2. the holders of sockets that are gone (one closed and another opened leaves the number as it was);
3. while a listed socket has no holder: all others, those that changed last first;
4. one in `ROUND` of the rest, in turn. This bounds how long the one case can last that the steps before cannot
   see: a descriptor that was handed over while another one was closed, so that neither the number nor the list of
   sockets changed.

A socket that nobody holds (the kernel's own, or one in flight between processes) is looked for again ever more
seldom.
"""

import os
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from whoneeds.model.errors import Denied, Gone, HostError
from whoneeds.tracer.processes import open_process, process_error, read_stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_INODES: FrozenSet[int] = frozenset()


class Holder(NamedTuple):
    """A process, told apart from later ones with the same number."""

    pid: int
    start_ticks: int


Holders = Tuple[Holder, ...]


class Ownership(NamedTuple):
    """Who holds what.

    Attributes
    ----------
    holders : dict of int to tuple of Holder
        By socket inode; also of sockets that were not asked for. Sockets without holders are not in it.
    changed : set of int
        Processes that are new or that changed.
    denied : int
        Processes that may not be looked into.
    walked : int
        Processes whose descriptors were read.
    holding : int
        Processes that hold a socket that was asked for.
    moved : set of int
        Inodes whose holders changed since the last update.
    """

    holders: Dict[int, Holders]
    changed: Set[int]
    denied: int
    walked: int
    holding: int
    moved: Set[int]


class _Walk(NamedTuple):
    """What the last walk of a process found. ``signature``: inode of its directory and number of descriptors."""

    signature: Tuple[int, int]
    holder: Optional[Holder]
    inodes: FrozenSet[int]
    denied: bool
    changed_at: int


def list_pids(root: str = "/proc") -> List[int]:
    """Numbers of all processes that can be seen."""
    return [int(name) for name in os.listdir(root) if name.isdigit()]


def walk_descriptors(root: str, pid: int) -> Tuple[Holder, FrozenSet[int]]:
    """Socket inodes that a process holds.

    The directory stays with the process, so identity and descriptors are of the same one. Only the descriptors
    of the first thread are seen; threads with a table of their own are rare.

    Raises
    ------
    Gone, Denied
    """
    directory = open_process(root, pid)
    try:
        descriptors = os.open("fd", _DIRECTORY, dir_fd=directory)
        try:
            inodes = []
            for name in os.listdir(descriptors):
                try:
                    link = os.readlink(name, dir_fd=descriptors)
                except FileNotFoundError:
                    continue
                if link.startswith("socket:["):
                    inodes.append(int(link[8:-1]))
        finally:
            os.close(descriptors)
        return Holder(pid, read_stat(directory).start_ticks), frozenset(inodes)
    except OSError as error:
        raise process_error(error, pid) from error
    except ValueError as error:
        raise Gone(f"process {pid}", found=str(error)) from error
    finally:
        os.close(directory)


def walk_everything(root: str = "/proc") -> Dict[int, Holders]:
    """The plain way: walk every process. The incremental map must come to the same."""
    holders: Dict[int, Set[Holder]] = {}
    for pid in list_pids(root):
        try:
            holder, inodes = walk_descriptors(root, pid)
        except HostError:
            continue
        for inode in inodes:
            holders.setdefault(inode, set()).add(holder)
    return {inode: tuple(sorted(found)) for inode, found in holders.items()}


class OwnerMap:
    """The map of sockets to processes, kept up to date from sample to sample.

    Parameters
    ----------
    root : str
        Where the process file system lies.

    Attributes
    ----------
    holders : dict of int to tuple of Holder
        By socket inode, as of the last update.
    """

    ROUND = 30
    _PATIENCE = 64

    def __init__(self, root: str = "/proc") -> None:
        self.root = root
        self._walks: Dict[int, _Walk] = {}
        self.holders: Dict[int, Holders] = {}
        self._wanted: Set[int] = set()
        self._missing: Dict[int, Tuple[int, int]] = {}
        self._turn = 0
        self._done: Set[int] = set()
        self._moved: Set[int] = set()

    def update(self, pids: Iterable[int], wanted: Set[int]) -> Ownership:
        """Bring the map up to date for the sockets in `wanted`.

        Parameters
        ----------
        pids : iterable of int
            All processes, from `list_pids`.
        wanted : set of int
            Inodes of the sockets that were just listed.
        """
        self._turn += 1
        self._done, self._moved = set(), set()
        pids = set(pids)
        for pid in [pid for pid in self._walks if pid not in pids]:
            self._forget(pid)
        changed = self._walk_changed(pids)
        for inode in self._wanted - wanted:
            for holder in self.holders.get(inode, ()):
                self._walk_again(holder.pid)
        self._wanted = wanted
        self._search(wanted)
        for pid in list(self._walks):
            if (pid + self._turn) % self.ROUND == 0 and self._walks[pid].signature[1]:
                self._walk_again(pid)
        denied = sum(1 for walk in self._walks.values() if walk.denied)
        holding = sum(1 for walk in self._walks.values() if not walk.inodes.isdisjoint(wanted))
        return Ownership(self.holders, changed, denied, len(self._done), holding, self._moved)

    def _walk_changed(self, pids: Set[int]) -> Set[int]:
        """Walk processes that are new or changed since their last walk; return their numbers."""
        changed = set()
        root, walks, stat = self.root, self._walks, os.stat
        for pid in pids:
            try:
                seen = stat(f"{root}/{pid}/fd")
            except OSError:
                self._forget(pid)
                continue
            signature = (seen.st_ino, seen.st_size)
            walk = walks.get(pid)
            if walk is None or walk.signature != signature:
                changed.add(pid)
                self._walk(pid, signature, self._turn)
        return changed

    def _search(self, wanted: Set[int]) -> None:
        """Walk further processes for as long as a listed socket is without a holder."""
        unresolved = wanted.difference(self.holders)
        self._missing = {inode: wait for inode, wait in self._missing.items() if inode in unresolved}
        due = {inode for inode in unresolved if self._missing.get(inode, (0, 0))[0] <= self._turn}
        if due:
            for pid in sorted(self._walks, key=lambda pid: -self._walks[pid].changed_at):
                if pid not in self._done and not self._walks[pid].denied:
                    self._walk_again(pid)
                    due = {inode for inode in due if inode not in self.holders}
                    if not due:
                        break
        for inode in due:
            wait = min(2 * self._missing.get(inode, (0, 1))[1], self._PATIENCE)
            self._missing[inode] = (self._turn + wait, wait)

    def _walk_again(self, pid: int) -> None:
        walk = self._walks.get(pid)
        if walk is not None and pid not in self._done:
            self._walk(pid, walk.signature, walk.changed_at)

    def _walk(self, pid: int, signature: Tuple[int, int], changed_at: int) -> None:
        self._done.add(pid)
        before = self._walks.get(pid)
        holder: Optional[Holder] = None
        inodes, denied = _NO_INODES, False
        try:
            holder, inodes = walk_descriptors(self.root, pid)
        except Denied:
            denied = True
        except HostError:
            self._forget(pid)
            return
        if before is not None and before.holder == holder:
            if before.inodes == inodes:
                self._walks[pid] = _Walk(signature, holder, before.inodes, denied, changed_at)
                return
            held = before.inodes
        else:
            self._forget(pid)
            held = _NO_INODES
        self._walks[pid] = _Walk(signature, holder, inodes, denied, self._turn)
        if holder is not None:
            self._drop(holder, held - inodes)
            self._take(holder, inodes - held)

    def _take(self, holder: Holder, inodes: FrozenSet[int]) -> None:
        """A process holds sockets that it did not hold before."""
        self._moved |= inodes
        for inode in inodes:
            held = self.holders.get(inode)
            self.holders[inode] = (holder,) if held is None else tuple(sorted((*held, holder)))

    def _drop(self, holder: Holder, inodes: FrozenSet[int]) -> None:
        """A process holds sockets no longer."""
        self._moved |= inodes
        for inode in inodes:
            rest = tuple(other for other in self.holders[inode] if other != holder)
            if rest:
                self.holders[inode] = rest
            else:
                del self.holders[inode]

    def _forget(self, pid: int) -> None:
        walk = self._walks.pop(pid, None)
        if walk is not None and walk.holder is not None:
            self._drop(walk.holder, walk.inodes)
