# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH keys of a lab, made when it starts and gone when it stops: the controller's, and one for each host."""

from __future__ import annotations

from pathlib import Path

from .declaration import Fleet
from .hostfiles import HostFile
from .namespaces import run


def make_key(path: Path, comment: str) -> str:
    """Make a key pair without passphrase; return the public half."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path.with_suffix(".pub").read_text().strip()


def make_keys(fleet: Fleet, folder: Path) -> dict[str, list[HostFile]]:
    """Make all keys of a lab.

    Parameters
    ----------
    fleet : Fleet
    folder : Path
        Gets ``id_ed25519`` (the controller's) and ``known_hosts`` (every host's, by its addresses).

    Returns
    -------
    dict of str to list of HostFile
        For each host, the files that its sshd reads.
    """
    folder.mkdir(mode=0o700)
    controller = make_key(folder / "id_ed25519", "whoneeds lab controller")
    files: dict[str, list[HostFile]] = {}
    known = []
    for host in fleet.hosts:
        path = folder / f"host-{host.name}"
        public = make_key(path, host.name)
        kind, key, _ = public.split(" ")
        addresses = [address for address in (host.ipv4, host.ipv6) if address]
        known.append(f"{','.join([host.name, *addresses])} {kind} {key}\n")
        files[host.name] = [
            HostFile("/etc/ssh/ssh_host_ed25519_key", path.read_text(), mode=0o600),
            HostFile("/etc/ssh/ssh_host_ed25519_key.pub", f"{public}\n"),
            HostFile("/etc/ssh/authorized_keys", f"{controller}\n", mode=0o600),
        ]
        path.unlink()
        path.with_suffix(".pub").unlink()
    (folder / "known_hosts").write_text("".join(known))
    return files
