# SPDX-License-Identifier: GPL-3.0-or-later
"""Try, before a service is built on it, whether a user without any right can trace with what root has loaded.

Kernels differ in what they let such a user do (before 5.19, ``kernel.unprivileged_bpf_disabled`` forbids every call of
bpf, not only those that load), and an interpreter may lie where nobody else may go.
"""

import os
import subprocess
import sys
from typing import NoReturn

from whoneeds.model.errors import HostError
from whoneeds.tracer.bpf import machine
from whoneeds.tracer.bpf.load import LIVES_BYTES, TASKS_BYTES, Loaded
from whoneeds.tracer.bpf.ring import KernelRing
from whoneeds.tracer.privileges import give_up_privileges

_NOBODY = 65534
_WORDS_BYTES = 1000


def try_without_privilege(loaded: Loaded) -> None:
    """Do once, in a process without any right, what a tracer does all the time.

    Parameters
    ----------
    loaded : Loaded

    Raises
    ------
    HostError
        What such a process cannot do here.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _try(loaded, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        words = pipe.read(_WORDS_BYTES).decode("utf-8", "replace").strip()
    _pid, status = os.waitpid(child, 0)
    if status:
        raise HostError(
            "tracing without privilege",
            expected="that a user without any right can use what root has loaded, and run this interpreter",
            found=words or f"an interpreter that ends with status {status}",
            remedy="trace as root (tracer_privilege: root), or name another interpreter (tracer_python)",
        )


def _try(loaded: Loaded, writing: int) -> NoReturn:
    """In the forked process. Never returns."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        give_up_privileges()
        KernelRing(loaded.lives, LIVES_BYTES).close()
        KernelRing(loaded.tasks, TASKS_BYTES).close()
        machine.count_misses(loaded.programs[0])
        os.read(machine.begin_iteration(loaded.listing), 1 << 16)
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True, stderr=subprocess.DEVNULL)
        os._exit(0)
    except BaseException as error:
        os.write(writing, f"{error}".encode("utf-8", "replace")[:_WORDS_BYTES])
    finally:
        os._exit(1)
