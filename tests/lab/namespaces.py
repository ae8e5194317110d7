# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, networks and roots of the lab: the anchor, the bridge, and hosts that boot on it.

The anchor is PID 1 of an outer PID namespace and stands in the controller's network namespace, where the bridge is.
Hosts are PID namespaces inside it. Its death ends them all, and with the last process go the mounts and the networks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from .declaration import Fleet, Host
from .failure import LabError
from .hostfiles import HostFile

HERE = Path(__file__).resolve().parent
BRIDGE = "lab0"
BOOT_LIMIT_S = 20.0


@dataclass
class Anchor:
    """The process that holds the lab together.

    Attributes
    ----------
    launcher : subprocess.Popen
        ``unshare`` outside; it ends when the anchor ends.
    pid : int
        The anchor, seen from outside.
    """

    launcher: subprocess.Popen[str]
    pid: int

    def enter(self, *, pid_namespace: bool) -> list[str]:
        """The words before a command that is to run at the anchor's."""
        return ["nsenter", f"--target={self.pid}", "--net", *(["--pid"] if pid_namespace else [])]


def run(command: list[str], text: str = "") -> str:
    """Run a command to its end; LabError with its own words when it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def start_anchor() -> Anchor:
    """Start the anchor in PID and network namespaces of its own; it dies with the calling process."""
    launcher = subprocess.Popen(
        [
            "setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--net", "--fork", "--kill-child=SIGKILL", "--",
            sys.executable, "-I", "-S", str(HERE / "reaper.py"),
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert launcher.stdout is not None
    if launcher.stdout.readline() != "alive\n":
        launcher.wait()
        raise LabError("the lab's first process did not start; are PID and network namespaces allowed here?")
    return Anchor(launcher, int(Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()))


def make_bridge(anchor: Anchor, fleet: Fleet) -> None:
    """The bridge that joins all hosts, and the controller's addresses on it."""
    prefixes = fleet.ipv4_network.partition("/")[2], fleet.ipv6_network.partition("/")[2]
    lines = [
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0",
        f"link set {BRIDGE} up",
        f"address add {fleet.controller_ipv4}/{prefixes[0]} dev {BRIDGE}",
        f"address add {fleet.controller_ipv6}/{prefixes[1]} dev {BRIDGE} nodad",
    ]
    run([*anchor.enter(pid_namespace=False), "ip", "-batch", "-"], "\n".join(lines) + "\n")


def make_root(tree: Path, private: Path, host: Host, files: list[HostFile]) -> Path:
    """Mount a host's root over the common tree, and write the host's own files into it.

    Parameters
    ----------
    tree : Path
        The common tree; it stays as it is.
    private : Path
        A folder of the keeper's own mount namespace, for the layers.
    host : Host
    files : list of HostFile

    Returns
    -------
    Path
        The mounted root.
    """
    place = private / host.name
    layers = [place / name for name in ("upper", "work", "root")]
    for layer in layers:
        layer.mkdir(parents=True)
        layer.chmod(0o755)
    upper, work, root = layers
    options = f"lowerdir={tree},upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "-o", options, "overlay", str(root)])
    for file in files:
        path = root / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            path.unlink()
        if file.target is not None:
            path.symlink_to(file.target)
        else:
            path.write_text(file.text or "")
            path.chmod(file.mode)
    return root


def boot_host(
    anchor: Anchor, host: Host, number: int, fleet: Fleet, root: Path, cgroup: Path
) -> tuple[subprocess.Popen[str], int]:
    """Boot one host: its namespaces, its cable to the bridge, then systemd.

    Parameters
    ----------
    anchor : Anchor
    host : Host
    number : int
        Its place in the fleet, for the name of its cable.
    fleet : Fleet
    root : Path
        Its mounted root.
    cgroup : Path
        Its cgroup's folder, made here.

    Returns
    -------
    subprocess.Popen
        The process outside that ends when the host ends.
    int
        PID of the host's systemd, seen from outside.
    """
    cgroup.mkdir(parents=True)
    process = subprocess.Popen(
        [
            *anchor.enter(pid_namespace=True), "/bin/sh", str(HERE / "host_boot.sh"), "enter",
            str(cgroup), str(root), host.name, str(uuid.uuid4()),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline().strip()
    if not first.isdigit():
        process.kill()
        raise LabError(f"host {host.name} did not start: {process.stderr.read().strip()[-500:]}")
    pid = int(first)
    _plug_in(anchor, pid, host, f"lab-{number}", fleet)
    process.stdin.write("go\n")
    process.stdin.close()
    deadline_s = time.monotonic() + BOOT_LIMIT_S
    while _command_name(pid) != "systemd":
        if time.monotonic() > deadline_s or process.poll() is not None:
            process.kill()
            said = process.stderr.read().strip()[-500:]
            raise LabError(f"host {host.name} did not reach systemd within {BOOT_LIMIT_S:.0f} s: {said}")
        time.sleep(0.02)
    return process, pid


def _command_name(pid: int) -> str | None:
    """What the kernel calls a process; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def _plug_in(anchor: Anchor, pid: int, host: Host, cable: str, fleet: Fleet) -> None:
    """A cable from the bridge into a host's network namespace, and the host's addresses."""
    run(
        [*anchor.enter(pid_namespace=False), "ip", "-batch", "-"],
        f"link add {cable} type veth peer name eth0 netns {pid}\n"
        f"link set {cable} master {BRIDGE} up\n",
    )  # fmt: skip
    lines = ["link set lo up"]
    if host.ipv4:
        lines.append(f"address add {host.ipv4}/{fleet.ipv4_network.partition('/')[2]} dev eth0")
    if host.ipv6:
        lines.append(f"address add {host.ipv6}/{fleet.ipv6_network.partition('/')[2]} dev eth0 nodad")
    lines.append("link set eth0 up")
    run(["nsenter", f"--target={pid}", "--net", "ip", "-batch", "-"], "\n".join(lines) + "\n")


def network_of(pid: int | str) -> str | None:
    """Identity of a process' network namespace; None when the process is gone or not ours to read."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return None


def end_strays(networks: set[str]) -> list[int]:
    """Kill processes that still stand in the lab's networks, such as a shell that someone opened there."""
    ended = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and network_of(entry.name) in networks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
                ended.append(int(entry.name))
    return ended


def mount_cgroups(place: Path) -> None:
    """Mount the machine's cgroup2 tree at a folder of this mount namespace, whatever else is mounted elsewhere."""
    place.mkdir(exist_ok=True)
    run(["mount", "-t", "cgroup2", "cgroup2", str(place)])


def remove_cgroups(top: Path, limit_s: float = 10.0) -> None:
    """Remove a cgroup and all below it, waiting for their last processes to be gone."""
    deadline_s = time.monotonic() + limit_s
    while top.exists():
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if time.monotonic() > deadline_s:
            raise LabError(f"cgroup {top} still holds processes after {limit_s:.0f} s")
        time.sleep(0.05)
