# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process a thread belongs to, told by the kernel's events and, while it lives, by /proc.

An event names a thread. A process that lives for one connection is gone before anybody can look it up; but its
begin, its program and its end were told, and that is enough to name it. What began before the events did is looked
up when it first matters, and refused if the number has gone to another process since.
"""

import os
from typing import Callable, Dict, NamedTuple, Optional, Set, Tuple

from whoneeds.model.errors import HostError
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import (
    SYSTEM_FOLDERS,
    Attributes,
    UserNames,
    open_process,
    program_name,
    read_attributes,
    read_stat,
    read_text,
)
from whoneeds.tracer.tracepoints import Executed, TaskBegan, TaskEnded

#: The kernel takes a process's start time a moment before it tells of it: the tick may be the one before.
_TICKS_APART = 1
#: A process ends before its files are closed, by the kernel's order of telling: so long it still counts.
_LEAVING_NS = 2_000_000_000
#: Where links are followed, and how many.
_TRUSTED_FOLDERS = SYSTEM_FOLDERS | {"/etc/alternatives"}
_MAX_LINKS = 8
#: Ends that are lost leave threads behind; beyond this many, those that no longer run are forgotten.
_MAX_TASKS = 1 << 17
_MAX_REMEMBERED = 10_000
#: Parent of all threads of the kernel: they act on sockets for others, and hold none.
_KERNEL_THREADS = 2
#: Programs that were executed by a descriptor have no name there.
_BY_DESCRIPTOR = ("/dev/fd/", "/proc/self/fd/")


class _Task(NamedTuple):
    """A thread and its process, as told."""

    holder: Holder
    ppid: Optional[int]
    name: str
    path: Optional[str]
    parent: Optional[Holder] = None


class Tasks:
    """Threads that are known, by number.

    Parameters
    ----------
    root : str
        Where the process file system lies.
    ticks_per_s : int
        Unit of start times there.
    most : int
        Threads, and processes, beyond which those that are gone are forgotten.
    """

    def __init__(self, root: str = "/proc", ticks_per_s: Optional[int] = None, most: int = _MAX_REMEMBERED) -> None:
        self.root, self._most = root, most
        self._ticks_per_s = ticks_per_s or os.sysconf("SC_CLK_TCK")
        self._tasks: Dict[int, _Task] = {}
        self._leaving: Dict[int, Tuple[int, Holder]] = {}
        self._changed: Set[Holder] = set()
        self._attributes: Dict[Holder, Attributes] = {}
        self._users = UserNames()
        self._take: Dict[type, Callable[..., None]] = {
            TaskBegan: self._begin, Executed: self._execute, TaskEnded: self._end
        }  # fmt: skip

    def take(self, event: NamedTuple) -> None:
        """Take in one event; events come in the order of their times."""
        self._take[type(event)](event)

    def _begin(self, event: TaskBegan) -> None:
        creator = self._tasks.get(event.creator_tid)
        if creator is None and self._look_up(event.creator_tid, event.at_ns) is not None:
            creator = self._tasks[event.creator_tid]
        if event.is_thread:
            if creator is not None:
                self._tasks[event.tid] = creator
            else:
                self._tasks.pop(event.tid, None)  # looked up when it matters
            return
        if len(self._tasks) >= _MAX_TASKS:
            self.forget_gone()
        holder = Holder(event.tid, self._ticks(event.at_ns))
        if creator is None:
            self._tasks[event.tid] = _Task(holder, None, event.name, None)
        else:
            self._tasks[event.tid] = _Task(holder, creator.holder.pid, event.name, creator.path, creator.holder)

    def _execute(self, event: Executed) -> None:
        task = self._tasks.get(event.old_tid) or self._tasks.get(event.pid)
        # a thread that executes becomes the process: what was told of its first thread's end is not the process's
        self._leaving.pop(event.pid, None)
        if event.old_tid != event.pid:
            self._tasks.pop(event.old_tid, None)
        if task is None:
            known = self._look_up(event.pid, event.at_ns)
            if known is not None:
                self._changed.add(known)
        else:
            path: Optional[str] = event.path
            name = os.path.basename(event.path)[:15]
            if event.path.startswith(_BY_DESCRIPTOR):
                path, name = None, "unknown"
            self._tasks[event.pid] = task._replace(name=name, path=path)
            self._changed.add(task.holder)  # what it was stays known until it is asked for again

    def _end(self, event: TaskEnded) -> None:
        task = self._tasks.get(event.tid)
        if task is not None:
            self._leaving[event.tid] = (event.at_ns, task.holder)

    def drop_ended(self, now_ns: int) -> None:
        """Forget threads that ended some time ago; called now and then, with the events' clock."""
        for tid, (at_ns, holder) in list(self._leaving.items()):
            if at_ns > now_ns - _LEAVING_NS:
                break  # in the order of their ends
            del self._leaving[tid]
            if tid in self._tasks and self._tasks[tid].holder == holder:
                del self._tasks[tid]

    def find_holder(self, tid: int, at_ns: int) -> Optional[Holder]:
        """The process of a thread at an instant of the events' clock; None if it cannot be known any more."""
        task = self._tasks.get(tid)
        if task is None:
            return self._look_up(tid, at_ns)
        if task.holder not in self._attributes or task.holder in self._changed:
            task = self._confirm(tid, task)
        return None if task.ppid == _KERNEL_THREADS else task.holder

    def attributes_of(self, holder: Holder) -> Optional[Attributes]:
        """What is known of a process that `find_holder` gave."""
        return self._attributes.get(holder)

    def _confirm(self, tid: int, task: _Task) -> _Task:
        """Ask the process itself while it lives; else make do with what was told."""
        self._changed.discard(task.holder)
        seen = self._read(task.holder.pid, anew=True)
        if seen is not None and abs(seen.start_ticks - task.holder.start_ticks) <= _TICKS_APART:
            task = task._replace(holder=seen, ppid=self._attributes[seen].ppid)
            self._tasks[tid] = task
            return task
        name = program_name(_resolved(task.path), task.name)
        told = Attributes(task.ppid, name, None, None, None, None, None)
        self._attributes[task.holder] = told._replace(parent=task.parent)
        return task

    def _look_up(self, tid: int, at_ns: int) -> Optional[Holder]:
        """A thread that began before the events did."""
        try:
            directory = open_process(self.root, tid)
        except HostError:
            return None
        try:
            status = read_text(directory, "status")
            if read_stat(directory).start_ticks > self._ticks(at_ns) + _TICKS_APART:
                return None  # the thread began after the event
        except (HostError, OSError):
            return None
        finally:
            os.close(directory)
        begin = status.find("\nTgid:")
        number = status[begin + 6 : begin + 20].split()[:1] if begin >= 0 else []
        if not number or not number[0].isdigit():
            return None
        holder = self._read(int(number[0]))
        if holder is None or holder.start_ticks > self._ticks(at_ns) + _TICKS_APART:
            return None  # it began after the event: the number is another's by now
        known = self._attributes[holder]
        self._tasks[tid] = _Task(holder, known.ppid, known.name, known.exe)
        return None if known.ppid == _KERNEL_THREADS else holder

    def _ticks(self, at_ns: int) -> int:
        return at_ns * self._ticks_per_s // 1_000_000_000

    def _read(self, pid: int, *, anew: bool = False) -> Optional[Holder]:
        try:
            directory = open_process(self.root, pid)
        except HostError:
            return None
        try:
            holder = Holder(pid, read_stat(directory).start_ticks)
            if anew or holder not in self._attributes:
                self._attributes[holder] = read_attributes(directory, pid, self._users)
            return holder
        except (HostError, OSError):
            return None
        finally:
            os.close(directory)

    def forget_gone(self) -> None:
        """Drop what is remembered of processes and threads that are gone, once there is much of it.

        Not earlier: events about them may still be on their way.
        """
        if max(len(self._tasks), len(self._attributes)) <= self._most:
            return
        self._tasks = {
            tid: task
            for tid, task in self._tasks.items()
            if tid in self._leaving or os.path.exists(f"{self.root}/{tid}")
        }
        known = {task.holder for task in self._tasks.values()}
        self._attributes = {holder: told for holder, told in self._attributes.items() if holder in known}
        self._changed &= known


def _resolved(path: Optional[str]) -> Optional[str]:
    """The executable behind links in the system's own folders (such as python3), as far as they stay there.

    Any other folder could be one of the process's making, and looking into it could block the tracer.
    """
    for _step in range(_MAX_LINKS):
        if path is None or os.path.normpath(path) != path or os.path.dirname(path) not in _TRUSTED_FOLDERS:
            break
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        except (OSError, ValueError):
            break
    return path
