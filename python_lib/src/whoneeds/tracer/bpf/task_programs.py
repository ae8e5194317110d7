# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs for the kernel: who a process is, told once, the first time it acts on a socket.

Later it may be gone. What is told is what the kernel knows at that moment: number and start, parent, user, control
group, the name that it gave itself, and the path of its program as steps of directories, last step first.
"""

from whoneeds.tracer.bpf.assembler import R0, R1, R2, R3, R4, R7, R8, R10, Assembler
from whoneeds.tracer.bpf.btf import KernelTypes
from whoneeds.tracer.bpf.layout import (
    BOOT_TIME,
    DELETE,
    LOOK_UP,
    LOST_TASKS,
    MAX_STEPS,
    READ,
    READ_TEXT,
    RESERVE,
    STEP_BYTES,
    SUBMIT,
    TASK_BYTES,
    TASK_NAME,
    TASK_PATH,
    TASK_STEPS,
    UPDATE,
    Maps,
    Scope,
)

#: Do not wake the reader: it comes by itself.
QUIETLY = 1
_KERNEL_THREAD, _FORKED_ONLY = 0x00200000, 0x00000040
_LEVELS = 4
#: Places on the stack, below the top. The first 64 bytes are the caller's.
_SCRATCH, _TGID, _START, _DENTRY, _MOUNT, _KEY, _SECOND = -72, -80, -88, -96, -104, -112, -120


class TaskWords:
    """Pieces of programs that are about the process that runs.

    Parameters
    ----------
    types : KernelTypes
    maps : Maps
    scope : Scope
    """

    def __init__(self, types: KernelTypes, maps: Maps, scope: Scope) -> None:
        self.types, self.maps, self.scope = types, maps, scope

    def number_process(self, code: Assembler, elsewhere: str) -> None:
        """Put number and start of the process of the task in R7 onto the stack; jump if it has none here.

        Threads of the kernel act on sockets for others, and hold none. R0 to R5 are used up.
        """
        offset = self.types.offset
        code.load(R1, R7, offset("task_struct", "flags"), 4)
        code.jump_if(R1, "&", _KERNEL_THREAD, elsewhere)
        code.load(R1, R7, offset("task_struct", "group_leader"), 8)
        code.load(R2, R1, offset("task_struct", "start_boottime"), 8)
        code.store(R10, _START, R2, 8)
        if self.scope.pid_namespace is None:
            code.load(R1, R7, offset("task_struct", "tgid"), 4)
            code.store(R10, _TGID, R1, 8)
            return
        # the number that the process has in the tracer's pid namespace, on whatever level that is
        pids = offset("signal_struct", "pids") + 8  # PIDTYPE_TGID
        self._read(code, _SCRATCH, 8, R7, offset("task_struct", "signal"))
        code.load(R1, R10, _SCRATCH, 8)
        self._read(code, _SCRATCH, 8, R1, pids)
        found = code.new_label("numbered")
        for level in range(_LEVELS):
            upid = offset("pid", "numbers") + level * self.types.size("upid")
            code.load(R1, R10, _SCRATCH, 8)
            code.store_value(R10, _SECOND, 0, 8)
            self._read(code, _SECOND, 4, R1, offset("pid", "level"))
            code.load(R1, R10, _SECOND, 8)
            code.jump_if(R1, "<", level, elsewhere)
            code.load(R1, R10, _SCRATCH, 8)
            self._read(code, _KEY, 8, R1, upid + offset("upid", "ns"))
            code.load(R1, R10, _KEY, 8)
            code.store_value(R10, _SECOND, 0, 8)
            self._read(code, _SECOND, 4, R1, offset("pid_namespace", "ns.inum"))
            code.store_value(R10, _TGID, 0, 8)
            code.load(R1, R10, _SCRATCH, 8)
            self._read(code, _TGID, 4, R1, upid + offset("upid", "nr"))
            code.load(R1, R10, _SECOND, 8)
            code.set_wide(R2, self.scope.pid_namespace)
            code.jump_if_register(R1, "==", R2, found)
        code.jump(elsewhere)
        code.label(found)

    def load_numbers(self, code: Assembler, number: int, start: int) -> None:
        """Take what `number_process` found into two registers."""
        code.load(number, R10, _TGID, 8)
        code.load(start, R10, _START, 8)

    def tell_once(self, code: Assembler) -> None:
        """Tell of the process that `number_process` found, unless it was told of; the task in R7. R8 is used up."""
        known = code.new_label("known")
        code.set_map(R1, self.maps.known)
        code.copy(R2, R10)
        code.compute(R2, "+", _TGID)
        code.call(LOOK_UP)
        unknown = code.new_label("unknown")
        code.jump_if(R0, "==", 0, unknown)
        code.load(R1, R0, 0, 8)
        code.load(R2, R10, _START, 8)
        code.jump_if_register(R1, "==", R2, known)
        code.label(unknown)
        self._tell(code, known)
        code.set_map(R1, self.maps.known)
        code.copy(R2, R10)
        code.compute(R2, "+", _TGID)
        code.copy(R3, R10)
        code.compute(R3, "+", _START)
        code.set(R4, 0)
        code.call(UPDATE)
        code.label(known)

    def _tell(self, code: Assembler, failed: str) -> None:
        offset = self.types.offset
        code.set_map(R1, self.maps.tasks)
        code.set(R2, TASK_BYTES)
        code.set(R3, 0)
        code.call(RESERVE)
        reserved = code.new_label("reserved")
        code.jump_if(R0, "!=", 0, reserved)
        self.count(code, LOST_TASKS)
        code.jump(failed)
        code.label(reserved)
        code.copy(R8, R0)
        code.load(R1, R10, _TGID, 8)
        code.store(R8, 0, R1, 4)
        code.load(R1, R10, _START, 8)
        code.store(R8, 8, R1, 8)
        code.load(R1, R7, offset("task_struct", "real_parent"), 8)
        code.load(R2, R1, offset("task_struct", "tgid"), 4)
        code.store(R8, 4, R2, 4)
        code.load(R1, R1, offset("task_struct", "group_leader"), 8)
        code.load(R2, R1, offset("task_struct", "start_boottime"), 8)
        code.store(R8, 16, R2, 8)
        if self.scope.pid_namespace is not None:
            code.store_value(R8, 4, 0, 4)  # the parent may have no number here
        self._read(code, _SCRATCH, 8, R7, offset("task_struct", "cred"))
        code.load(R1, R10, _SCRATCH, 8)
        self._read(code, _SECOND, 4, R1, offset("cred", "euid"))
        code.load(R1, R10, _SECOND, 4)
        code.store(R8, 56, R1, 4)
        # not of the process that runs now: a listing tells of others
        self._read(code, _SCRATCH, 8, R7, offset("task_struct", "cgroups"))
        for structure, name in (("css_set", "dfl_cgrp"), ("cgroup", "kn"), ("kernfs_node", "id")):
            code.load(R1, R10, _SCRATCH, 8)
            self._read(code, _SCRATCH, 8, R1, offset(structure, name))
        code.load(R1, R10, _SCRATCH, 8)
        code.store(R8, 24, R1, 8)
        code.call(BOOT_TIME)
        code.store(R8, 32, R0, 8)
        code.load(R3, R7, offset("task_struct", "group_leader"), 8)
        code.compute(R3, "+", offset("task_struct", "comm"))
        code.copy(R1, R8)
        code.compute(R1, "+", TASK_NAME)
        code.set(R2, 16)
        code.call(READ)
        self._tell_path(code)
        code.copy(R1, R8)
        code.set(R2, QUIETLY)
        code.call(SUBMIT)

    def _tell_path(self, code: Assembler) -> None:
        """The steps of the program's path, from its file up to the root of the mount namespace."""
        offset, steps = self.types.offset, TASK_STEPS
        done, lost = code.new_label("path"), code.new_label("no_path")
        code.store_value(R8, steps, 0, 4)
        self._read(code, _SCRATCH, 8, R7, offset("task_struct", "mm"))
        code.load(R1, R10, _SCRATCH, 8)
        living = code.new_label("living")
        code.jump_if(R1, "!=", 0, living)
        self._take_parents_memory(code, lost)
        code.label(living)
        code.load(R1, R10, _SCRATCH, 8)
        self._read(code, _SCRATCH, 8, R1, offset("mm_struct", "exe_file"))
        code.load(R1, R10, _SCRATCH, 8)
        code.jump_if(R1, "==", 0, lost)
        for place, field in ((_DENTRY, "f_path.dentry"), (_MOUNT, "f_path.mnt")):
            code.load(R1, R10, _SCRATCH, 8)
            self._read(code, place, 8, R1, offset("file", field))
        for step in range(MAX_STEPS):
            self._leave_mounts(code, done)
            code.load(R1, R10, _DENTRY, 8)
            self._read(code, _SCRATCH, 8, R1, offset("dentry", "d_parent"))
            code.load(R1, R10, _DENTRY, 8)
            code.load(R2, R10, _SCRATCH, 8)
            code.jump_if_register(R1, "==", R2, done)
            self._read(code, _SECOND, 8, R1, offset("dentry", "d_name.name"))
            code.copy(R1, R8)
            code.compute(R1, "+", TASK_PATH + step * STEP_BYTES)
            code.set(R2, STEP_BYTES)
            code.load(R3, R10, _SECOND, 8)
            code.call(READ_TEXT)
            code.store_value(R8, steps, step + 1, 4)
            code.load(R1, R10, _SCRATCH, 8)
            code.store(R10, _DENTRY, R1, 8)
        self._leave_mounts(code, done)
        code.load(R1, R10, _DENTRY, 8)
        self._read(code, _SCRATCH, 8, R1, offset("dentry", "d_parent"))
        code.load(R1, R10, _DENTRY, 8)
        code.load(R2, R10, _SCRATCH, 8)
        code.jump_if_register(R1, "==", R2, done)
        code.label(lost)
        code.store_value(R8, steps, 0, 4)  # no path is better than a part of one
        code.label(done)

    def _take_parents_memory(self, code: Assembler, elsewhere: str) -> None:
        """A worker whose end closes its connection has given its memory back by then.

        If it executed nothing since it was forked, and its parent neither, both run the same program. A parent that
        only took the worker over, since its own was gone, seldom has that name and as many executions behind it.
        """
        offset = self.types.offset
        code.load(R1, R7, offset("task_struct", "flags"), 4)
        code.compute(R1, "&", _FORKED_ONLY)
        code.jump_if(R1, "==", 0, elsewhere)
        parent = offset("task_struct", "real_parent")
        code.load(R1, R7, parent, 8)
        code.load(R2, R7, offset("task_struct", "parent_exec_id"), 4)
        code.load(R3, R1, offset("task_struct", "self_exec_id"), 8)
        code.jump_if_register(R2, "!=", R3, elsewhere)
        for at in (0, 8):  # the name, of which this process's is in the record already
            code.load(R1, R7, parent, 8)
            code.load(R1, R1, offset("task_struct", "group_leader"), 8)
            self._read(code, _SECOND, 8, R1, offset("task_struct", "comm") + at)
            code.load(R1, R10, _SECOND, 8)
            code.load(R2, R8, TASK_NAME + at, 8)
            code.jump_if_register(R1, "!=", R2, elsewhere)
        code.load(R1, R7, parent, 8)
        self._read(code, _SCRATCH, 8, R1, offset("task_struct", "mm"))
        code.load(R1, R10, _SCRATCH, 8)
        code.jump_if(R1, "==", 0, elsewhere)

    def _leave_mounts(self, code: Assembler, done: str) -> None:
        """Where the walk stands at the root of a file system, go on where that is mounted."""
        offset, within = self.types.offset, self.types.offset("mount", "mnt")
        inside = code.new_label("inside")
        for _stacked in range(2):
            code.load(R1, R10, _MOUNT, 8)
            self._read(code, _KEY, 8, R1, offset("vfsmount", "mnt_root"))
            code.load(R1, R10, _KEY, 8)
            code.load(R2, R10, _DENTRY, 8)
            code.jump_if_register(R1, "!=", R2, inside)
            code.load(R1, R10, _MOUNT, 8)
            self._read(code, _KEY, 8, R1, offset("mount", "mnt_parent") - within)
            code.load(R1, R10, _KEY, 8)
            code.compute(R1, "+", within)
            code.load(R2, R10, _MOUNT, 8)
            code.jump_if_register(R1, "==", R2, done)
            code.store(R10, _KEY, R1, 8)
            self._read(code, _DENTRY, 8, R2, offset("mount", "mnt_mountpoint") - within)
            code.load(R1, R10, _KEY, 8)
            code.store(R10, _MOUNT, R1, 8)
        code.label(inside)

    def count(self, code: Assembler, counter: int) -> None:
        """One more that could not be told. R0 to R5 are used up."""
        none = code.new_label("uncounted")
        code.store_value(R10, _KEY, 0, 4)
        code.set_map(R1, self.maps.counters)
        code.copy(R2, R10)
        code.compute(R2, "+", _KEY)
        code.call(LOOK_UP)
        code.jump_if(R0, "==", 0, none)
        code.set(R1, 1)
        code.add_atomically(R0, counter, R1)
        code.label(none)

    def _read(self, code: Assembler, place: int, width: int, source: int, offset: int) -> None:
        """Copy from memory of the kernel onto the stack; zeros if it cannot be read. R0 to R5 are used up."""
        code.copy(R3, source)
        if offset:
            code.compute(R3, "+", offset)
        code.copy(R1, R10)
        code.compute(R1, "+", place)
        code.set(R2, width)
        code.call(READ)


def on_exec(words: TaskWords) -> bytes:
    """A process runs another program from now on: it is told of anew when it next acts."""
    code = Assembler()
    code.load(R7, R1, 0, 8)
    words.number_process(code, "out")
    code.set_map(R1, words.maps.known)
    code.copy(R2, R10)
    code.compute(R2, "+", _TGID)
    code.call(DELETE)
    code.label("out")
    code.set(R0, 0)
    code.leave()
    return code.assemble()
