# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's programs and the tracer agree on: maps, the record of a process, the numbers of helpers."""

import struct
from typing import NamedTuple, Optional

#: Helpers of the kernel, by their numbers (``include/uapi/linux/bpf.h``).
LOOK_UP, UPDATE, DELETE = 1, 2, 3
SOCKET_COOKIE = 46
READ, READ_TEXT, BOOT_TIME = 113, 115, 125
WRITE_TO_LISTING, RESERVE, SUBMIT, TCP_SOCKET, CURRENT_TASK, SOCKET_OF_FILE = 127, 131, 132, 137, 158, 162

#: What is remembered of an open socket, by its address in the kernel: begun, end, flags, end code, actors, numbers,
#: starts.
OPEN_BYTES = 64
OPEN_BEGUN, OPEN_ENDED, OPEN_FLAGS, OPEN_END, OPEN_ACTORS, OPEN_PIDS, OPEN_STARTS = 0, 8, 16, 20, 24, 28, 40

#: A process, told when it first acts on a socket as what it is: number, parent's number, start, parent's start, control
#: group, instant, name, user, steps of its path; then the path, last step first.
TASK = struct.Struct("=IIQQQQ16sII")
TASK_NAME, TASK_STEPS = 40, 60
TASK_PATH, STEP_BYTES, MAX_STEPS = TASK.size, 64, 16
TASK_BYTES = TASK_PATH + STEP_BYTES * MAX_STEPS

#: Counters, 8 bytes each.
LOST_LIVES, LOST_TASKS, NOT_REMEMBERED = 0, 8, 16
COUNTER_BYTES = 64


class Maps(NamedTuple):
    """Descriptors of the maps.

    Attributes
    ----------
    lives, tasks : int
        Rings that the tracer reads.
    counters : int
        What could not be told.
    open : int
        Open sockets.
    known : int
        Processes that were told of.
    """

    lives: int
    tasks: int
    counters: int
    open: int
    known: int


class Scope(NamedTuple):
    """Of what the programs tell.

    Attributes
    ----------
    netns : int or None
        Of this network namespace alone, by its inode; of all by default.
    pid_namespace : int or None
        Processes have the numbers of this pid namespace, by its inode, and those that have none there are left out;
        the kernel's own numbers by default.
    """

    netns: Optional[int] = None
    pid_namespace: Optional[int] = None
