# SPDX-License-Identifier: GPL-3.0-or-later
"""The one tree under all hosts: a small Debian with systemd and the services, built once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from .failure import LabError, MirrorError

SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv", "dbus", "openssh-server", "python3", "python3-psycopg2", "iproute2", "procps", "haproxy",
    "nginx-light", "postgresql", "redis-server", "dnsmasq-base",
)  # fmt: skip
# Raised when the recipe below changes what comes out of it.
RECIPE = 1

# The tree while it is built, with the packages beside what they unpack to.
NEEDED_BYTES = 1200 << 20

# What the controller itself needs: command and Debian package.
CONTROLLER_TOOLS = {
    "debootstrap": "debootstrap", "ip": "iproute2", "ssh": "openssh-client", "ssh-keygen": "openssh-client",
    "nsenter": "util-linux", "unshare": "util-linux", "setpriv": "util-linux", "mount": "mount",
}  # fmt: skip
# How debootstrap says that the mirror does not answer, which is no fault of the lab.
_NO_MIRROR = "Failed getting release file"

# Caches, texts and rights that no host of the lab reads.
_STRIP = (
    "var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "usr/share/doc/*",
    "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*", "var/log/*.log", "etc/ssh/ssh_host_*",
    "etc/machine-id",
)  # fmt: skip
# What the packages enabled at installation; each host enables its own.
_UNWANTED_LINKS = ("etc/systemd/system/*.wants/*", "etc/systemd/system/*.service")

Progress = Callable[[str], None]


def tree_name() -> str:
    """The tree's folder name: it changes with the list of packages and with the recipe."""
    recipe = json.dumps([SUITE, sorted(PACKAGES), RECIPE, _STRIP, _UNWANTED_LINKS])
    return f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


def missing_packages(cache: Path) -> list[str]:
    """Debian packages whose commands are needed and not found here; debootstrap counts only while there is no tree."""
    tools = dict(CONTROLLER_TOOLS)
    if (cache / tree_name()).is_dir():
        del tools["debootstrap"]
    return sorted({package for command, package in tools.items() if shutil.which(command) is None})


def require_tools(cache: Path) -> None:
    """LabError that names what is missing and how to install it; nothing is installed unasked."""
    if missing := missing_packages(cache):
        install = f"apt-get install --yes --no-install-recommends {' '.join(missing)}"
        raise LabError(f"expected the commands of the packages {', '.join(missing)}, found none; run `{install}`")


def debian_mirror() -> str | None:
    """The mirror that apt is configured to take this suite from; None leaves the choice to debootstrap."""
    if shutil.which("apt-get") is None:
        return None
    # What `update` would fetch: this is known from the configuration alone, also where nothing was ever fetched.
    listed = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True)
    found = re.search(rf"^'((?:https?|ftp|file):[^']*?)/*/dists/{SUITE}/main/", listed.stdout, re.MULTILINE)
    return found[1] if found else None


def proxy_environment() -> dict[str, str]:
    """Apt's own proxies, for debootstrap, which does not read apt's configuration."""
    variables = dict(os.environ)
    if shutil.which("apt-config"):
        for scheme in ("http", "https"):
            asked = f"Acquire::{scheme}::Proxy"
            done = subprocess.run(["apt-config", "--format", "%v", "dump", asked], capture_output=True, text=True)
            if proxy := done.stdout.strip():
                variables[f"{scheme}_proxy"] = proxy
    return variables


def build_tree(cache: Path, progress: Progress, limit_s: float = 900.0) -> Path:
    """Return the tree, built first where the cache does not hold it.

    Parameters
    ----------
    cache : Path
        The cache folder; the tree appears in it by one rename, whole or not at all.
    progress : callable
        Told what happens.
    limit_s : float
        Time limit of the build, seconds.

    Returns
    -------
    Path
        The folder of the tree, not to be written to.

    Raises
    ------
    LabError
        When debootstrap fails, with its last lines.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / tree_name()
    if tree.is_dir():
        return tree
    for left_over in cache.glob("building-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    free_bytes = shutil.disk_usage(cache).free
    if free_bytes < NEEDED_BYTES:
        raise LabError(f"{cache} has {free_bytes >> 20} MiB free, expected {NEEDED_BYTES >> 20} MiB or more; make room")
    progress("building the hosts' tree with debootstrap (once, one to three minutes)")
    building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    building.chmod(0o755)
    try:
        mirror = debian_mirror()
        command = [
            # Namespaces of its own: whatever the build mounts or starts ends with it, also when it is killed.
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
            "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(building),
            *([mirror] if mirror else []),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, env=proxy_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                stdin=subprocess.DEVNULL, timeout=limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise LabError(
                f"debootstrap was not done within {limit_s:.0f} s; is the Debian mirror reachable?"
            ) from late
        if done.returncode != 0 and _NO_MIRROR in done.stdout:
            raise MirrorError(
                f"no Debian mirror answers ({mirror or 'debootstrap chose it'}): {done.stdout.strip()[-200:]}"
            )
        if done.returncode != 0:
            raise LabError(f"debootstrap ended with {done.returncode}: {done.stdout.strip()[-800:]}")
        strip_tree(building)
        building.rename(tree)
    finally:
        if building.exists():
            shutil.rmtree(building, ignore_errors=True)
    return tree


def strip_tree(tree: Path) -> None:
    """Remove what no lab host reads, and what the packages enabled."""
    for pattern in (*_STRIP, *_UNWANTED_LINKS):
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
