# SPDX-License-Identifier: GPL-3.0-or-later
"""What a control group path says about a process: its systemd unit and its container.

Understands cgroup v1 (the hierarchy ``name=systemd``), v2 and both at once.
"""

import re
from typing import NamedTuple, Optional

from whoneeds.tracer.text import legal_text

_UNIT = re.compile(r"[^/]+\.(?:service|scope)\Z")
#: A container's 64 hexadecimal digits, with the words around them that runtimes use.
_IDENTITY = re.compile(r"(?:\A|[^0-9a-f])([0-9a-f]{64})(?:\.scope)?\Z")
_RUNTIMES = (
    ("libpod", "podman"),
    ("podman", "podman"),
    ("cri-containerd", "containerd"),
    ("crio", "crio"),
    ("docker", "docker"),
    ("containerd", "containerd"),
)
_LXC = re.compile(r"/(?:lxc\.payload[./]|lxc/)([^/]+)")
_NSPAWN = re.compile(r"/(?:machine-([^/]+)\.scope/payload|systemd-nspawn@([^/]+)\.service)(?:/|\Z)")
_MAX_LENGTH = 255


class Belonging(NamedTuple):
    """Where a process belongs."""

    unit: Optional[str]
    container: Optional[str]


def parse_cgroup(text: str) -> Belonging:
    r"""Read the text of ``/proc/PID/cgroup``.

    Returns
    -------
    Belonging
        unit : the innermost service or scope; container : ``<runtime>:<identity>``.

    Examples
    --------
    >>> parse_cgroup("0::/system.slice/nginx.service\n")
    Belonging(unit='nginx.service', container=None)
    """
    paths = {}
    for line in text.split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            paths[parts[1]] = parts[2]
    unit = next((found for found in (_unit(paths.get(name, "")) for name in ("name=systemd", "")) if found), None)
    container = next((found for found in map(_container, paths.values()) if found), None)
    return Belonging(unit, container)


def _unit(path: str) -> Optional[str]:
    for part in reversed(path.split("/")):
        if _UNIT.match(part):
            # systemd puts an underscore before names that the kernel would take for its own files
            return legal_text(part[1:] if part.startswith("_") else part, _MAX_LENGTH)
    return None


def _container(path: str) -> Optional[str]:
    for part in reversed(path.split("/")):
        found = _IDENTITY.search(part)
        if found:
            runtime = next((name for word, name in _RUNTIMES if word in path), "")
            if not runtime:
                runtime = "kubernetes" if "kubepods" in path else "container"
            return f"{runtime}:{found.group(1)}"
    found = _LXC.search(path)
    if found:
        return legal_text(f"lxc:{found.group(1)}", _MAX_LENGTH)
    found = _NSPAWN.search(path)
    if found:
        return legal_text(f"nspawn:{found.group(1) or found.group(2)}", _MAX_LENGTH)
    return None
