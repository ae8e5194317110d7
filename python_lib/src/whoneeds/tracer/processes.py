# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes of processes out of /proc: identity, name, user, unit, container. Never arguments or environment.

Everything is read through a descriptor of ``/proc/PID``, which stays with the process that had the number when it
was opened: once that process is gone, reads fail, even when the number is in use again.
"""

import os
import re
from typing import Callable, Dict, NamedTuple, Optional, Tuple

from whoneeds.model.errors import Denied, Gone, HostError
from whoneeds.tracer import containers
from whoneeds.tracer.cgroups import parse_cgroup
from whoneeds.tracer.text import legal_text

#: Programs that run other programs: there the process's own name (comm) says more than the executable's.
INTERPRETERS = re.compile(
    r"(?:python|pypy|perl|ruby|php|php-fpm|node|nodejs|java|lua|luajit|tclsh|wish|guile|Rscript|R|beam|erl|dotnet|mono"
    r"|bash|sh|dash|zsh|ksh|mksh|ash|fish|csh|tcsh|busybox|toybox)[0-9.]*(?:-mt|\.smp)?\Z"
)
#: Names that interpreters give to their own first thread.
_OWN_NAMES = frozenset(("MainThread", "main", "node-MainThread"))
#: Folders that only the system itself writes into.
SYSTEM_FOLDERS = frozenset(
    f"{above}/{folder}" for above in ("", "/usr", "/usr/local") for folder in ("bin", "sbin", "libexec")
)
#: A number that is not negative and fits in 63 bits.
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_NAME_LENGTH, _EXE_LENGTH = 64, 4096
_DELETED = " (deleted)"
_FILE_BYTES = 1 << 16
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Attributes(NamedTuple):
    """What is known of a process; the columns of ProcessRecord of the same names."""

    ppid: Optional[int]
    name: str
    exe: Optional[str]
    uid: Optional[int]
    user: Optional[str]
    unit: Optional[str]
    container: Optional[str]
    container_name: Optional[str] = None
    session: Optional[int] = None
    #: Number and start of the process that began it.
    parent: Optional[Tuple[int, int]] = None


class Stat(NamedTuple):
    """The part of ``/proc/PID/stat`` that is used."""

    comm: str
    ppid: int
    start_ticks: int
    session: int


def parse_stat(text: str) -> Stat:
    """Read the text of ``/proc/PID/stat``. The name in it may hold anything, brackets and newlines too.

    Raises
    ------
    HostError
        If it is not such a text.

    Examples
    --------
    >>> parse_stat("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0")
    Stat(comm='a) b', ppid=1, start_ticks=4711, session=7)
    """
    opening, closing = text.find("("), text.rfind(")")
    fields = text[closing + 1 :].split()
    if 0 <= opening < closing and len(fields) >= 20 and all(_NUMBER.match(fields[at]) for at in (1, 3, 19)):
        return Stat(text[opening + 1 : closing], int(fields[1]), int(fields[19]), int(fields[3]))
    raise HostError("process state", expected="22 fields or more, with small numbers", found=ascii(text[:60]))


def program_name(exe: Optional[str], comm: str, read_link: Callable[[str], str] = os.readlink) -> str:
    """Name of the program that a process runs.

    The executable's base name; where that is an interpreter and the process calls itself otherwise, the latter;
    where the executable cannot be read, what the process calls itself (cut at 15 characters by the kernel).

    Some executables are several programs, told apart by the name they are started by: Debian's ``redis-server`` is
    a link to ``redis-check-rdb`` beside it. There the link's name is the program's. Only links in the system's own
    folders count: following a path of the process's choice could block the tracer on a file system of its making.

    Parameters
    ----------
    exe : str or None
        Path of the executable.
    comm : str
        What the process calls itself.
    read_link : callable, default os.readlink

    Examples
    --------
    >>> program_name("/usr/sbin/nginx (deleted)", "nginx"), program_name("/usr/bin/python3.11", "gunicorn")
    ('nginx', 'gunicorn')
    """
    if exe is None or exe.startswith("/memfd:"):
        return legal_text(comm, _NAME_LENGTH) or "unknown"
    if exe.endswith(_DELETED):
        exe = exe[: -len(_DELETED)]
    folder, _slash, base = exe.rpartition("/")
    if base.startswith(comm):
        return legal_text(base, _NAME_LENGTH) or "unknown"
    if INTERPRETERS.match(base) and comm and comm not in _OWN_NAMES and not INTERPRETERS.match(comm):
        return legal_text(comm, _NAME_LENGTH)
    if folder in SYSTEM_FOLDERS and "/" not in comm and comm not in (".", ".."):
        try:
            if os.path.normpath(os.path.join(folder, read_link(f"{folder}/{comm}"))) == exe:
                return legal_text(comm, _NAME_LENGTH)
        except (OSError, ValueError):
            pass  # no such link: it gave itself the name
    return legal_text(base or comm, _NAME_LENGTH) or "unknown"


class UserNames:
    """Names of user numbers, each looked up once."""

    def __init__(self) -> None:
        self._names: Dict[int, Optional[str]] = {}

    def name(self, uid: int) -> Optional[str]:
        """The user's name, or None where the host knows none."""
        if uid not in self._names:
            if len(self._names) > 10_000:
                self._names.clear()
            self._names[uid] = _look_up_user(uid)
        return self._names[uid]


def _look_up_user(uid: int) -> Optional[str]:
    try:
        import pwd

        return legal_text(pwd.getpwuid(uid).pw_name, _NAME_LENGTH)
    except (ImportError, KeyError, OverflowError, OSError):
        return None


def open_process(root: str, pid: int) -> int:
    """A descriptor of the process's directory; the caller closes it.

    Raises
    ------
    Gone, Denied
    """
    try:
        return os.open(f"{root}/{pid}", _DIRECTORY)
    except OSError as error:
        raise process_error(error, pid) from error


def process_error(error: OSError, pid: int) -> HostError:
    """The error of a process's file, as one of ours: a permission is missing, or the process is gone."""
    if isinstance(error, PermissionError):
        return Denied(f"process {pid}", found=str(error.strerror))
    return Gone(f"process {pid}", found=str(error.strerror))


def read_text(directory: int, name: str) -> str:
    """The text of a small file of a process, at most 64 KiB of it.

    Raises
    ------
    OSError
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        return os.read(descriptor, _FILE_BYTES).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


def read_stat(directory: int) -> Stat:
    """Name, parent and start time of an open process.

    Raises
    ------
    OSError, HostError
    """
    return parse_stat(read_text(directory, "stat"))


def read_attributes(directory: int, pid: int, users: UserNames) -> Attributes:
    """Attributes of an open process; what may not be read is None.

    Parameters
    ----------
    directory : int
        Descriptor from `open_process`.
    pid : int
    users : UserNames

    Raises
    ------
    Gone
        If the process ended meanwhile.
    """
    try:
        stat = read_stat(directory)
        uid = _effective_uid(read_text(directory, "status"))
    except OSError as error:
        raise process_error(error, pid) from error
    exe = None
    try:
        exe = os.readlink("exe", dir_fd=directory)
    except OSError:
        pass  # no right to, or a process that is just ending
    unit = container = container_name = None
    try:
        cgroup = read_text(directory, "cgroup")
        unit, container = parse_cgroup(cgroup)
        container_name = containers.SYSTEM.name(container, cgroup, uid)
    except OSError:
        pass  # a kernel without control groups
    return Attributes(
        ppid=stat.ppid,
        name=program_name(exe, stat.comm),
        exe=None if exe is None else legal_text(exe, _EXE_LENGTH),
        uid=uid,
        user=None if uid is None else users.name(uid),
        unit=unit,
        container=container,
        container_name=container_name,
        session=stat.session,
        parent=_find_parent(directory, stat),
    )


def _find_parent(directory: int, stat: Stat) -> Optional[Tuple[int, int]]:
    """Number and start of the parent of an open process; None for one without, or if that changed meanwhile.

    A process whose parent ends gets another parent at once. So if it has the same one after the parent was asked as
    before, it was that one that answered, and no later process with its number.
    """
    if stat.ppid == 0:
        return None
    try:
        parent = parse_stat(read_text(directory, f"../{stat.ppid}/stat"))
        again = read_stat(directory)
    except (OSError, HostError):
        return None
    return (stat.ppid, parent.start_ticks) if again.ppid == stat.ppid else None


def _effective_uid(status: str) -> Optional[int]:
    found = re.search(r"^Uid:\s+\d+\s+(\d{1,10})\s", status, re.MULTILINE)
    return int(found.group(1)) if found else None
