# SPDX-License-Identifier: GPL-3.0-or-later
"""First process of a namespace host: gives it a file system of its own to write to, says so, and buries orphans.

It is started as a file by ``unshare`` with new mount, PID, network and UTS namespaces. What the host writes goes to
a layer above the machine's files; the layer can be read to the last file, and is gone when this process ends.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

#: Where the written layers lie, seen from the host.
LAYERS = "/mnt/layers"
WRITABLE = ("etc", "home", "opt", "root", "srv", "usr", "var")
EMPTY = ("run", "tmp")


def mount(kind: str, target: str, options: str) -> None:
    """Mount; the words of mount(8) go to standard error where it fails."""
    subprocess.run(["mount", "-t", kind, "-o", options, "whoneeds", target], check=True)


def main() -> None:
    """Make the file system and the loopback link, then wait for children for ever."""
    socket.sethostname(sys.argv[1])
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    mount("tmpfs", "/mnt", "mode=0755")
    for name in WRITABLE + EMPTY:
        for part in ("written", "work"):
            Path(LAYERS, name, part).mkdir(parents=True)
    for name in WRITABLE:
        if Path("/", name).is_dir():
            layer = f"{LAYERS}/{name}"
            mount("overlay", "/" + name, f"lowerdir=/{name},upperdir={layer}/written,workdir={layer}/work")
    for name in EMPTY:
        subprocess.run(["mount", "--bind", f"{LAYERS}/{name}/written", "/" + name], check=True)
    Path("/tmp").chmod(0o1777)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("alive", flush=True)
    while True:
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        time.sleep(0.2)


if __name__ == "__main__":
    main()
