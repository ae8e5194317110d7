# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a tracer running in the background where systemd does not: start, watch over, stop.

`start` leaves one process behind, the supervisor. It forks the tracer, waits for it, and forks it again when it
dies, after a pause that doubles with every failure. It ends when the tracer ends on purpose: asked to, or because
its time is over. Who is meant by ``supervisor.json`` is told by process number and start time, never by the
number alone.
"""

import os
import signal
import sys
import time
import traceback
from typing import Any, Dict, Optional

from whoneeds.model.errors import Busy, HostError, SettingsError, WhoneedsError
from whoneeds.segment.spool import open_private_directory, open_spool
from whoneeds.tracer import clocks, daemon
from whoneeds.tracer.events import remove_left_rings
from whoneeds.tracer.sampler import choose_source
from whoneeds.tracer.settings import Settings
from whoneeds.tracer.signals import StopSignal
from whoneeds.tracer.status import (
    STATUS_FILE,
    SUPERVISOR_FILE,
    belongs_to,
    identity_of,
    is_alive,
    own_identity,
    read_document,
    write_document,
)  # fmt: skip

_LOG = "tracer.log"
_LOG_BYTES = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
#: After so long without a failure the pause is short again.
_GOOD_S = 120.0
_START_S, _STOP_S, _CHILD_STOP_S = 20.0, 45.0, 30.0
#: Exit codes of the tracer's process: on purpose, failed, not worth another try.
_DONE, _FAILED, _HOPELESS = 0, 1, 2


def start(settings: Settings) -> str:
    """Begin to trace in the background; return when the first sample is taken.

    Returns
    -------
    str
        One line for people: what runs now, or what ran already.

    Raises
    ------
    WhoneedsError
        If it does not come up; nothing is left running then.
    """
    directory = open_private_directory(settings.dir)
    try:
        for name in (SUPERVISOR_FILE, STATUS_FILE):
            document = read_document(settings.dir, name)
            if document is not None and is_alive(document):
                return f"a tracer runs already for {settings.dir}: process {document['pid']}"
        choose_source(settings.sources)
        open_spool(settings.dir, settings.budget_bytes).close()
        begun_ns = clocks.boot_ns()
        leader = os.fork()
        if leader == 0:
            _become_supervisor(settings, directory)
        os.waitpid(leader, 0)
        return _await_first_sample(settings, begun_ns)
    finally:
        os.close(directory)


def _await_first_sample(settings: Settings, begun_ns: int) -> str:
    """Wait until the new tracer says that it has sampled, or its supervisor that it failed."""
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        time.sleep(0.05)
        status = read_document(settings.dir, STATUS_FILE) or {}
        supervisor = read_document(settings.dir, SUPERVISOR_FILE) or {}
        if supervisor.get("begun_ns", 0) < begun_ns:
            continue
        if status.get("samples") and status.get("pid") == supervisor.get("child"):
            return f"tracing {settings.host} every {settings.period_s:g} s into {settings.dir}: process {status['pid']}"
        if supervisor.get("last_error") and not is_alive(supervisor):
            break
    supervisor = read_document(settings.dir, SUPERVISOR_FILE) or {}
    stop(settings.dir)
    raise HostError(
        "the tracer did not come up",
        expected=f"a first sample within {_START_S:g} s",
        found=str(supervisor.get("last_error") or "no word from it"),
        remedy=f"look into {os.path.join(settings.dir, _LOG)}, or try 'whoneeds trace run' to see it fail",
    )


def _become_supervisor(settings: Settings, directory: int) -> None:
    """In the forked process: leave the session and the terminal, then supervise. Never returns."""
    code = _FAILED
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        _replace_descriptors(directory)
        directory = open_private_directory(settings.dir)
        _Supervisor(settings, directory).run()
        code = _DONE
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _replace_descriptors(directory: int) -> None:
    """Hold nothing of the caller's: its pipes would wait for us. What is said goes to a log file."""
    null = os.open(os.devnull, os.O_RDWR)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    log = os.open(_LOG, flags, 0o600, dir_fd=directory)
    if os.fstat(log).st_size > _LOG_BYTES:
        os.ftruncate(log, 0)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                continue  # the descriptor of this very listing


class _Supervisor:
    """Watches over one tracer."""

    def __init__(self, settings: Settings, directory: int) -> None:
        self.settings, self.directory = settings, directory
        self.identity = own_identity()
        self.stop = StopSignal()
        self.child: Optional[int] = None
        self.restarts = 0
        self.last_error: Optional[str] = None
        self.begun_ns = clocks.boot_ns()
        for_s = settings.for_s
        self.end_ns = None if for_s is None else self.begun_ns + int(for_s * 1e9)

    def run(self) -> None:
        """Supervise until the tracer ends on purpose."""
        pause_s = _FIRST_PAUSE_S
        while not self.stop.received and not self._is_over():
            began_s = time.monotonic()
            self.child = self._fork_tracer()
            self._write()
            code = self._wait_for(self.child)
            if code in (_DONE, _HOPELESS):
                break
            self.restarts += 1
            pause_s = _FIRST_PAUSE_S if time.monotonic() - began_s > _GOOD_S else pause_s
            self._note_failure(code, pause_s)
            until_s = time.monotonic() + pause_s
            while not self.stop.received and time.monotonic() < until_s:
                self.stop.wait(until_s - time.monotonic())
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self.child = None
        self._write()

    def _is_over(self) -> bool:
        return self.end_ns is not None and clocks.boot_ns() >= self.end_ns

    def _fork_tracer(self) -> int:
        for_s = None if self.end_ns is None else max((self.end_ns - clocks.boot_ns()) / 1e9, 0.1)
        child = os.fork()
        if child == 0:
            os._exit(_trace(self.settings._replace(for_s=for_s), self.stop))
        return child

    def _wait_for(self, child: int) -> int:
        """Wait for the tracer's end, passing on a wish to stop; return its exit code, negative for a signal."""
        asked_s: Optional[float] = None
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
            if self.stop.received:
                now_s = time.monotonic()
                if asked_s is None:
                    asked_s = now_s
                    os.kill(child, signal.SIGTERM)
                elif now_s - asked_s > _CHILD_STOP_S:
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.05)
            else:
                self.stop.wait(60.0)

    def _note_failure(self, code: int, pause_s: float) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        status = read_document(self.settings.dir, STATUS_FILE) or {}
        reason = status.get("last_error") if code > 0 else None
        self.last_error = f"the tracer ended by {how}" + (f": {reason}" if reason else "")
        print(f"{self.last_error}; next try in {pause_s:g} s", file=sys.stderr, flush=True)
        self._write()

    def _write(self) -> None:
        document: Dict[str, Any] = {
            "pid": self.identity.pid,
            "start_ticks": self.identity.start_ticks,
            "begun_ns": self.begun_ns,
            "child": self.child,
            "restarts": self.restarts,
            "last_error": self.last_error or self._word_of_child(),
        }
        try:
            write_document(self.directory, SUPERVISOR_FILE, document)
        except OSError as error:
            print(f"state file: {error.strerror}", file=sys.stderr, flush=True)

    def _word_of_child(self) -> Optional[str]:
        status = read_document(self.settings.dir, STATUS_FILE) or {}
        return status.get("last_error") if status.get("state") == "failed" else None


def _trace(settings: Settings, stop: StopSignal) -> int:
    """In the tracer's process: trace to the end and return the exit code."""
    try:
        stop.close()
        daemon.run(settings, confine=True)
        return _DONE
    except (SettingsError, Busy) as error:
        print(error, file=sys.stderr, flush=True)
        return _HOPELESS
    except WhoneedsError as error:
        print(error, file=sys.stderr, flush=True)
        return _FAILED
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return _FAILED


def stop(path: str) -> str:
    """End the tracer of a directory and wait until it has written what it saw; what killed ones left is removed.

    A state file says which process that is, and its writer may be a user without privilege while the caller is root:
    so only a process of the user to whom the directory belongs is ended.

    Returns
    -------
    str
        One line for people.

    Raises
    ------
    HostError
        If it does not end, or belongs to somebody else.
    """
    ended = []
    for name in (SUPERVISOR_FILE, STATUS_FILE):
        document = read_document(path, name)
        if document is not None and is_alive(document):
            _end(document, path)
            ended.append(document["pid"])
    remove_left_rings()
    return f"stopped process {ended[0]}" if ended else f"no tracer runs for {path}"


def _end(document: Dict[str, Any], path: str) -> None:
    pid, ticks = document["pid"], document["start_ticks"]
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        found = identity_of(pid)
        if found is None or found.start_ticks != ticks:
            return  # the number went to another process meanwhile
        owner = os.stat(path, follow_symlinks=False).st_uid
        if not belongs_to(pid, owner):
            raise HostError(
                f"process {pid} is not the tracer of {path}",
                expected=f"a process of user {owner}, to whom the directory belongs",
                found="one of somebody else",
                remedy=f"look who writes into {path}; nothing was stopped",
            )
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise HostError(
                f"process {pid} cannot be stopped", found=str(error.strerror), remedy="stop it as its own user"
            ) from error
    finally:
        os.close(handle)
    until_s = time.monotonic() + _STOP_S
    while is_alive(document):
        if time.monotonic() > until_s:
            raise HostError(
                f"process {pid} does not end",
                expected=f"its end within {_STOP_S:g} s",
                found="it still runs",
                remedy=f"kill -9 {pid}",
            )
        time.sleep(0.05)
