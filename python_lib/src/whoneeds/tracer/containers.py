# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's runtime calls it, out of the files that runtimes keep; no program is asked.

* docker: ``containers/<id>/config.v2.json``;
* podman: ``overlay-containers/containers.json``, root's and that of the user who runs the container;
* kubernetes: the names of the links in ``/var/log/containers``, which hold pod, namespace, container and its identity;
  else the folder of the pod in ``/var/log/pods``, by the pod's identity in the control group;
* LXC and systemd-nspawn: the control group itself has the name.

A file may be anybody's making: only small regular files are read, no link is followed, a name that is not one of its
runtime's is none. Below a user's home nothing is touched that lies on a file system which could keep the reader
waiting. What was found is remembered, and what was not, for a while.
"""

import json
import os
import re
import stat
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

#: A name of docker's, podman's or of a kubernetes object.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}\Z")
_POD_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_LOG_LINK = re.compile(r"([^_/]+)_([^_/]+)_(.+)-([0-9a-f]{64})\.log\Z")
_POD_FOLDER = re.compile(r"([^_/]+)_([^_/]+)_([0-9a-f-]{36})\Z")
_FILE_BYTES = 1 << 20
_MAX_ENTRIES = 10_000
_MAX_REMEMBERED = 10_000
_AGAIN_S = 60.0
#: File systems that answer at once, or at least as soon as the disk does.
_LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"))
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Places(NamedTuple):
    """Where runtimes keep their files."""

    docker: str = "/var/lib/docker/containers"
    podman: str = "/var/lib/containers/storage"
    log_links: str = "/var/log/containers"
    pods: str = "/var/log/pods"
    mounts: str = "/proc/self/mountinfo"


class ContainerNames:
    """Names of containers, each looked up once.

    Parameters
    ----------
    places : Places
    home_of : callable
        From a user number to that user's home; None if there is none.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        places: Places = Places(),
        home_of: Optional[Callable[[int], Optional[str]]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places, self._home_of, self._clock = places, home_of or _home_of, clock
        self._known: Dict[str, Tuple[Optional[str], float]] = {}

    def name(self, container: Optional[str], cgroup: str, uid: Optional[int]) -> Optional[str]:
        """The name of a process's container; None if it is in none, or nothing tells.

        Parameters
        ----------
        container : str or None
            ``<runtime>:<identity>``, from `whoneeds.tracer.cgroups.parse_cgroup`.
        cgroup : str
            The text that it came from.
        uid : int or None
            The process's user.
        """
        if container is None:
            return None
        found, until_s = self._known.get(container, (None, -1.0))
        if found is None and until_s < self._clock():
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            found = self._find(container, cgroup, uid)
            self._known[container] = (found, self._clock() + _AGAIN_S)
        return found

    def _find(self, container: str, cgroup: str, uid: Optional[int]) -> Optional[str]:
        runtime, _colon, identity = container.partition(":")
        if runtime in ("lxc", "nspawn"):
            return identity
        if "kubepods" in cgroup:
            return self._kubernetes(identity, cgroup)
        if runtime == "docker":
            return self._docker(identity)
        if runtime == "podman":
            return self._podman(identity, uid)
        return self._docker(identity) or self._podman(identity, uid)  # plain control groups bear no runtime's name

    def _docker(self, identity: str) -> Optional[str]:
        document = _read_json(self._places.docker, (identity, "config.v2.json"))
        name = document.get("Name") if isinstance(document, dict) else None
        return _checked(name[1:] if isinstance(name, str) and name.startswith("/") else name)

    def _podman(self, identity: str, uid: Optional[int]) -> Optional[str]:
        tops: List[Tuple[str, Tuple[str, ...]]] = [(self._places.podman, ())]
        home = self._home_of(uid) if uid else None
        if home is not None and os.path.isabs(home):
            below: Tuple[str, ...] = (".local", "share", "containers", "storage")
            if self._is_local(os.path.join(home, *below)):
                tops.append((home, below))
        for top, below in tops:
            document = _read_json(top, (*below, "overlay-containers", "containers.json"))
            for entry in document if isinstance(document, list) else ():
                if isinstance(entry, dict) and entry.get("id") == identity:
                    names = entry.get("names")
                    found = _checked(names[0]) if isinstance(names, list) and names else None
                    if found is not None:
                        return found
        return None

    def _kubernetes(self, identity: str, cgroup: str) -> Optional[str]:
        for link in _entries(self._places.log_links):
            named = _LOG_LINK.match(link)
            if named is not None and named.group(4) == identity:
                return _joined(named.group(2), named.group(1), named.group(3))
        pod = _POD_UID.search(cgroup)
        if pod is None:
            return None
        uid = pod.group(1).replace("_", "-")
        for folder in _entries(self._places.pods):
            found = _POD_FOLDER.match(folder)
            if found is not None and found.group(3) == uid:
                return _joined(found.group(1), found.group(2))
        return None

    def _is_local(self, path: str) -> bool:
        """Whether a path lies on a file system that answers; told by the list of mounts, without touching it."""
        best, kind = "", ""
        try:
            with open(self._places.mounts, encoding="utf-8", errors="surrogateescape") as file:
                for line in file.read(_FILE_BYTES).split("\n"):
                    fields = line.split(" ")
                    if len(fields) < 7 or "-" not in fields[6:]:
                        continue
                    point = fields[4].rstrip("/")
                    if (path + "/").startswith(point + "/") and len(point) >= len(best):
                        best, kind = point, fields[fields.index("-", 6) + 1]
        except (OSError, IndexError, ValueError):
            return False
        return kind in _LOCAL


def _checked(name: Any) -> Optional[str]:
    return name if isinstance(name, str) and _NAME.match(name) else None


def _joined(*names: str) -> Optional[str]:
    return "/".join(names) if all(map(_checked, names)) and len("/".join(names)) <= 255 else None


def _entries(folder: str) -> List[str]:
    """Names in a folder, at most `_MAX_ENTRIES` of them."""
    found: List[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) >= _MAX_ENTRIES:
                    break
    except OSError:
        pass  # not there, or not for us
    return found


def _read_json(top: str, below: Tuple[str, ...]) -> Any:
    """The document in a small regular file below a folder, reached without following links; None if there is none."""
    directory = -1
    try:
        directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for step in below[:-1]:
            inner = os.open(step, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(below[-1], flags, dir_fd=directory), "rb") as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode) or seen.st_size > _FILE_BYTES:
                return None
            return json.loads(file.read(_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        if directory >= 0:
            os.close(directory)


def _home_of(uid: int) -> Optional[str]:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_dir
    except (ImportError, KeyError, OverflowError, OSError):
        return None


#: The names of this machine's containers.
SYSTEM = ContainerNames()
