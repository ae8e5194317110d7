# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands of whoneeds as processes of their own that can be killed: forked, so that thousands are quick."""

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


def fork_call(call: Callable[[], int], log: Path) -> int:
    """Call a function in a forked process that leads its own group; what it prints goes to a file.

    Returns
    -------
    int
        Process number.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((null, 0), (target, 1), (target, 2)):
            os.dup2(source, number)
        gc.freeze()
        code = call()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def spawn(words: Sequence[str], log: Path) -> int:
    """Start a command as a new program, in its own group; its process number. The caller waits for it."""
    with log.open("ab") as target:
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, target.fileno(), number) for number in (1, 2)]
        try:
            return os.posix_spawn(words[0], list(words), os.environ, file_actions=actions, setsid=True)
        finally:
            os.close(null)


def kill_group(leader: int) -> None:
    """Kill a process that leads its group, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    # it may not have made its group yet
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)


def wait(child: int, seconds: float = 60.0) -> int:
    """Wait for a process and return its exit code, negative for a signal.

    Raises
    ------
    TimeoutError
        If it does not end; it is killed then.
    """
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    kill_group(child)
    os.waitpid(child, 0)
    raise TimeoutError(f"process {child} did not end within {seconds} s")


@contextlib.contextmanager
def open_sockets(number: int) -> Iterator[None]:
    """Some sockets on loopback, for a tracer to see."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made.bind(("127.0.0.1", 0))
        yield


def python_words(*words: str) -> list[str]:
    """A command of whoneeds as a new program."""
    return [sys.executable, "-m", "whoneeds", *words]


def find_strace() -> str | None:
    """Path of an strace that can inject signals here; None if there is none."""
    path = shutil.which("strace")
    if path is None:
        return None
    # not --seccomp-bpf, although it is quicker: with it strace 6.1 forgets to inject
    probe = [path, "-f", "-qq", "-o", os.devnull, "-e", "inject=exit_group:signal=KILL", "/bin/true"]
    return path if subprocess.run(probe, capture_output=True, check=False).returncode == -signal.SIGKILL else None
