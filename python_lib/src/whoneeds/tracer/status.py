# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's own state: a small file that it writes and that `trace status` and `trace stop` read."""

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional

from whoneeds.model.errors import HostError
from whoneeds.model.schema import is_whole_number
from whoneeds.segment.write import commit_file
from whoneeds.tracer.processes import open_process, read_stat

STATUS_SCHEMA = 1
STATUS_FILE, SUPERVISOR_FILE = "status.json", "supervisor.json"
_FILE_BYTES = 1 << 20
#: Less room than this, and a segment does not fit.
_LEAST_ROOM_BYTES = 64 << 10
#: A daemon that has not written its state for so long, or for three periods, is held up.
_SILENT_S = 10.0
_WAITS = "{}, and it goes on by itself (what waits beyond 32 MiB is dropped and counted)"
#: The end of year 9999: a state file that says more is damaged.
_LATEST_NS = 253_402_300_799 * 10**9


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start_ticks: int


def own_identity() -> Identity:
    """Identity of the calling process."""
    return identity_of(os.getpid()) or Identity(os.getpid(), 0)


def identity_of(pid: int, root: str = "/proc") -> Optional[Identity]:
    """Identity of the process that has this number now, or None."""
    try:
        directory = open_process(root, pid)
        try:
            return Identity(pid, read_stat(directory).start_ticks)
        finally:
            os.close(directory)
    except (HostError, OSError):
        return None


def is_alive(document: Optional[Dict[str, Any]]) -> bool:
    """Whether the process that a state file names still runs."""
    if not document or not is_whole_number(document.get("pid")):
        return False
    if own_identity().start_ticks == 0:  # without /proc nothing but the number can tell
        return _exists(document["pid"])
    found = identity_of(document["pid"])
    return found is not None and found.start_ticks == document.get("start_ticks") and not _is_zombie(found.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def belongs_to(pid: int, uid: int) -> bool:
    """Whether a process is a user's whole: its real, effective, saved and file system user are this one."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return [int(word) for word in line.split()[1:]] == [uid] * 4
    except (OSError, ValueError):
        pass
    return False


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(4096).rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return True


def write_document(directory: int, name: str, document: Dict[str, Any]) -> None:
    """Replace a state file in one step. It need not survive a power cut.

    Raises
    ------
    OSError
    """
    text = json.dumps({"schema": STATUS_SCHEMA, **document}, sort_keys=True) + "\n"
    commit_file(directory, name, (text.encode("ascii"),), durable=False)


def read_document(path: str, name: str) -> Optional[Dict[str, Any]]:
    """Read a state file; None if there is none or it is not one."""
    try:
        descriptor = os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        document = json.loads(os.read(descriptor, _FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    return document if isinstance(document, dict) and document.get("schema") == STATUS_SCHEMA else None


def report(path: str) -> Dict[str, Any]:
    """What `trace status` says about a folder: the daemon's own words, checked against what runs and lies there.

    ``state`` is 'running', 'stopped' (ended on purpose, or never ran) or 'failed' (ended without saying so).

    Raises
    ------
    SettingsError
        If the folder cannot be trusted.
    """
    from whoneeds.segment.spool import spool_usage

    document = read_document(path, STATUS_FILE)
    supervisor = read_document(path, SUPERVISOR_FILE)
    runs = document is not None and document.get("state") == "running" and is_alive(document)
    if document is None:
        made: Dict[str, Any] = {"state": "stopped", "last_error": "no tracer ran here yet"}
    else:
        made = {name: value for name, value in document.items() if name != "schema"}
        if made.get("state") == "running" and not runs:
            made["state"] = "failed"
            made["last_error"] = made.get("last_error") or "it ended without saying why"
    made["supervised"] = is_alive(supervisor)
    if supervisor is not None:
        made["restarts"] = supervisor.get("restarts", 0)
        if supervisor.get("last_error") and not made.get("last_error"):
            made["last_error"] = supervisor["last_error"]
    made["dir"] = path
    if os.path.isdir(os.path.join(path, "segments")):
        made["segments"], made["bytes"], made["dropped"] = spool_usage(path)
    made["problems"] = (_tell_disk(path) + _tell_daemon(path, document)) if document is not None and runs else []
    return {"schema": STATUS_SCHEMA, **made}


def _tell_disk(path: str) -> List[str]:
    """What is wrong with the disk. Asked for here, since a daemon that cannot write cannot say so."""
    try:
        disk = os.statvfs(path)
    except OSError as error:
        return [f"{path}: {error.strerror}: make it readable"]
    if disk.f_flag & os.ST_RDONLY:
        return [f"the disk of {path} is read-only; segments wait in memory: {_WAITS.format('mount it writable')}"]
    if disk.f_bavail * disk.f_frsize < _LEAST_ROOM_BYTES:
        return [f"the disk of {path} is full; segments wait in memory: {_WAITS.format('make room')}"]
    return []


def _tell_daemon(path: str, document: Dict[str, Any]) -> List[str]:
    """What is wrong with a daemon that runs, by its own word or for want of one."""
    import time

    problems = []
    period_s = document.get("period_s")
    try:
        silent_s = time.time() - os.stat(os.path.join(path, STATUS_FILE)).st_mtime
    except OSError:
        silent_s = 0.0
    if isinstance(period_s, float) and silent_s > max(_SILENT_S, 3 * period_s):
        problems.append(
            f"it has said nothing for {silent_s:.0f} s: it is stopped, or its disk takes no files; what is said above "
            "is as old"
        )
    if document.get("privileged") is False:
        problems.append(
            "it may not look into processes of other users, whose sockets have no owner: run it as root, or with the "
            "capabilities SYS_PTRACE, DAC_READ_SEARCH and SYS_ADMIN"
        )
    if document.get("sources") == ["table"] and document.get("processes") == 0 and document.get("sockets"):
        problems.append(
            f"it finds no process behind any of {document['sockets']} sockets: if services run here, /proc does not "
            "show them; mount /proc, without hidepid, and it goes on by itself"
        )
    if own_identity().start_ticks == 0:
        problems.append("/proc cannot be read from here, so that only the number of its process is known: mount /proc")
    return problems


_LABELS = (
    ("state", "state"), ("pid", "process"), ("supervised", "supervised"), ("restarts", "restarts"), ("host", "host"),
    ("dir", "directory"), ("since", "since"), ("period_s", "period (s)"), ("sources", "sources"),
    ("location", "location"), ("privileged", "sees all processes"), ("samples", "samples"),
    ("sockets", "sockets now"), ("processes", "processes now"), ("segments", "segments on disk"),
    ("bytes", "bytes on disk"), ("waiting", "segments in memory"), ("dropped", "segments dropped"), ("gaps", "gaps"),
    ("cpu_s", "CPU used (s)"), ("cpu_share", "CPU share"), ("budget", "within its budget"),
    ("last_error", "last error"),
)  # fmt: skip


def render(document: Dict[str, Any]) -> List[str]:
    """Lines of the table that people read."""
    import time

    from whoneeds.tracer.text import shown_text

    shown = dict(document)
    if is_whole_number(shown.get("since_ns")) and 0 <= shown["since_ns"] <= _LATEST_NS:
        shown["since"] = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(shown["since_ns"] / 1e9))
    if isinstance(shown.get("cpu_share"), float):
        shown["cpu_share"] = f"{100 * shown['cpu_share']:.2f} %"
    lines = []
    for name, label in _LABELS:
        value = shown.get(name)
        if value is None:
            continue
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        lines.append(f"{label:<20}{shown_text(str(value))}")
    return lines + [f"{'problem':<20}{shown_text(text)}" for text in shown.get("problems", ())]
