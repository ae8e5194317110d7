# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands on hosts of the lab, by the same ssh that Ansible takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .declaration import Host
from .rundir import RUN

CTL_SSH = Path(__file__).resolve().parent / "ctl-ssh"


def on_host(host: Host, command: str, limit_s: float = 15.0, run: Path = RUN) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a host.

    Parameters
    ----------
    host : Host
    command : str
        Read by the host's shell.
    limit_s : float
        Time limit, seconds; afterwards the return code is 255.

    Returns
    -------
    subprocess.CompletedProcess
        Return code 255 when ssh itself failed.
    """
    words = [
        str(CTL_SSH), "-F", "none", "-i", str(run / "ssh" / "id_ed25519"), "-o", "IdentitiesOnly=yes",
        "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={run / 'ssh' / 'known_hosts'}",
        "-o", "GlobalKnownHostsFile=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3",
        f"root@{host.address}", command,
    ]  # fmt: skip
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 255, "", f"no answer within {limit_s:.0f} s")
