# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's programs tell of processes: taken apart, and filled up from /proc while the process lives."""

import os
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Set

from whoneeds.model.errors import HostError
from whoneeds.tracer import containers
from whoneeds.tracer.bpf.layout import MAX_STEPS, STEP_BYTES, TASK, TASK_PATH
from whoneeds.tracer.cgroups import parse_cgroup
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import (
    Attributes,
    UserNames,
    open_process,
    program_name,
    read_attributes,
    read_stat,
)
from whoneeds.tracer.text import legal_text

_EXE_LENGTH = 4096
#: Processes beyond which those that are gone are forgotten.
_MAX_REMEMBERED = 10_000
_MAX_CGROUPS = 10_000
#: The tree of control groups is not walked again sooner than after so many seconds.
_CGROUPS_EVERY_S = 10.0
_NO_USER = (1 << 32) - 1


class ToldTask(NamedTuple):
    """A process as the kernel told of it.

    Attributes
    ----------
    holder : Holder
    parent : Holder or None
    name : str
        That it gave itself, or its program's.
    exe : str or None
        Path of its program; None if it is too long.
    uid : int or None
    cgroup : int
    told_ns : int
        When, since boot: before that it may have been another program.
    """

    holder: Holder
    parent: Optional[Holder]
    name: str
    exe: Optional[str]
    uid: Optional[int]
    cgroup: int
    told_ns: int


class Change(NamedTuple):
    """What a process is from an instant on.

    Attributes
    ----------
    holder : Holder
    before, now : Attributes
        What it was known as, if it was, and what it is.
    since_ns : int
        Since boot.
    """

    holder: Holder
    before: Optional[Attributes]
    now: Attributes
    since_ns: int


def parse_task(record: bytes, ticks_per_s: int) -> ToldTask:
    """Take a record apart.

    Raises
    ------
    HostError
        If it is too short.
    """
    if len(record) < TASK_PATH:
        raise HostError("record of a process", expected=f"at least {TASK_PATH} bytes", found=f"{len(record)}")
    pid, ppid, start_ns, parent_start_ns, cgroup, told_ns, raw_name, uid, count = TASK.unpack_from(record)
    steps: Optional[List[bytes]] = []
    if not 0 < count <= MAX_STEPS or len(record) < TASK_PATH + count * STEP_BYTES:
        steps = None
    for number in range(count) if steps is not None else ():
        raw = record[TASK_PATH + number * STEP_BYTES :][:STEP_BYTES]
        step = raw.split(b"\0", 1)[0]
        if steps is None or not step or len(step) >= STEP_BYTES - 1:
            steps = None  # cut short, perhaps
            break
        steps.append(step)
    exe = None if steps is None else "/" + b"/".join(reversed(steps)).decode("utf-8", "surrogateescape")
    return ToldTask(
        Holder(pid, start_ns * ticks_per_s // 1_000_000_000),
        Holder(ppid, parent_start_ns * ticks_per_s // 1_000_000_000) if ppid else None,
        raw_name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"),
        exe,
        None if uid == _NO_USER else uid,
        cgroup,
        told_ns,
    )


class ToldTasks:
    """Attributes of processes that acted on sockets.

    Parameters
    ----------
    root : str
        Where the process file system lies.
    ticks_per_s : int, optional
        Unit of start times there.
    cgroups : ControlGroups, optional
    """

    def __init__(
        self, root: str = "/proc", ticks_per_s: Optional[int] = None, cgroups: Optional["ControlGroups"] = None
    ) -> None:
        self.root = root
        self.ticks_per_s = ticks_per_s or os.sysconf("SC_CLK_TCK")
        self._users = UserNames()
        self._cgroups = cgroups or ControlGroups()
        self._attributes: Dict[Holder, Attributes] = {}

    def take(self, record: bytes) -> Change:
        """Take in what the kernel told of one process.

        Raises
        ------
        HostError
        """
        told = parse_task(record, self.ticks_per_s)
        found = self._ask(told.holder, told.name)
        if found is None:
            found = self._attributes_told(told)
        elif found.exe is None and told.exe is not None:  # asked without the right to read that
            name = program_name(told.exe, told.name)
            found = found._replace(exe=legal_text(told.exe, _EXE_LENGTH), name=name)
        if found.parent is None and told.parent is not None:
            found = found._replace(parent=(told.parent.pid, told.parent.start_ticks))
        change = Change(told.holder, self._attributes.get(told.holder), found, told.told_ns)
        self._attributes[told.holder] = found
        return change

    def _attributes_told(self, told: ToldTask) -> Attributes:
        unit = container = container_name = None
        path = self._cgroups.path_of(told.cgroup)
        if path is not None:
            unit, container = parse_cgroup(f"0::{path}\n")
            container_name = containers.SYSTEM.name(container, path, told.uid)
        return Attributes(
            ppid=told.parent.pid if told.parent is not None else None,
            name=program_name(told.exe, told.name),
            exe=None if told.exe is None else legal_text(told.exe, _EXE_LENGTH),
            uid=told.uid,
            user=None if told.uid is None else self._users.name(told.uid),
            unit=unit,
            container=container,
            container_name=container_name,
            parent=None if told.parent is None else (told.parent.pid, told.parent.start_ticks),
        )

    def attributes_of(self, holder: Holder) -> Optional[Attributes]:
        """What is known of a process; one that was not told of is asked, if it lives."""
        if holder not in self._attributes:
            found = self._ask(holder, None)
            if found is None:
                return None
            self._attributes[holder] = found
        return self._attributes[holder]

    def _ask(self, holder: Holder, name: Optional[str]) -> Optional[Attributes]:
        """Ask the process itself, unless it is gone, or runs another program by now than the one with that name."""
        try:
            directory = open_process(self.root, holder.pid)
            try:
                stat = read_stat(directory)
                if stat.start_ticks != holder.start_ticks or (name is not None and stat.comm != name):
                    return None
                return read_attributes(directory, holder.pid, self._users)
            finally:
                os.close(directory)
        except (HostError, OSError):
            return None

    def forget_gone(self, used: Set[Holder]) -> None:
        """Drop what is remembered of processes that are gone and not of that set, once there is much of it."""
        if len(self._attributes) > _MAX_REMEMBERED:
            self._attributes = {
                holder: known
                for holder, known in self._attributes.items()
                if holder in used or os.path.exists(f"{self.root}/{holder.pid}")
            }


class ControlGroups:
    """Paths of control groups by the kernel's number, for processes that cannot be asked any more.

    Parameters
    ----------
    tops : sequence of str
        Where the tree of control groups (version 2) may lie.
    clock : callable
        Seconds; how long ago the tree was walked.
    """

    def __init__(
        self,
        tops: "tuple[str, ...]" = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tops, self._clock = tops, clock
        self._paths: Dict[int, str] = {}
        self._walked_s: Optional[float] = None

    def path_of(self, number: int) -> Optional[str]:
        """The path below the tree's top; None if there is none of that number any more."""
        if number not in self._paths:
            now_s = self._clock()
            if self._walked_s is None or now_s - self._walked_s >= _CGROUPS_EVERY_S:
                self._walked_s = now_s
                self._walk()
        return self._paths.get(number)

    def _walk(self) -> None:
        top = next((top for top in self._tops if os.path.exists(f"{top}/cgroup.procs")), None)
        self._paths = {}
        if top is None:
            return
        for folder, _folders, _files in os.walk(top):
            try:
                self._paths[os.stat(folder).st_ino] = folder[len(top) :] or "/"
            except OSError:
                continue
            if len(self._paths) >= _MAX_CGROUPS:
                return
