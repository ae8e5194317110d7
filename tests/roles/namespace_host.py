# SPDX-License-Identifier: GPL-3.0-or-later
"""A host without systemd: mount, PID, network and UTS namespaces on this machine, with nothing but a loopback link.

Everything that it writes can be listed, and everything of it ends with the test.
"""

import contextlib
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from .first_process import EMPTY, LAYERS, WRITABLE

HERE = Path(__file__).resolve().parent
#: Ansible's own, made by any module that runs.
NOT_OURS = ("root/.ansible", "root/.cache")


class NamespaceHost:
    """One host; ends with `stop`, or with the process that made it.

    Attributes
    ----------
    pid : int
        Its first process, seen from here.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._launcher = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--uts", "--fork",
                "--kill-child=SIGKILL", "--mount-proc", "--", sys.executable, "-I", "-S",
                str(HERE / "first_process.py"), name,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._launcher.stdout is not None
        with self._launcher.stdout as words:
            word = words.readline()
        if word != "alive\n":
            self._launcher.wait()
            raise RuntimeError("the host did not start; are namespaces and overlay mounts allowed here?")
        children = Path(f"/proc/{self._launcher.pid}/task/{self._launcher.pid}/children").read_text()
        self.pid = int(children)

    def stop(self) -> None:
        """End every process of it; its files and its network go with the last one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._launcher.wait(timeout=30)

    def command(self, *words: str) -> list[str]:
        """The words that run a command on it."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", "--", "env", "-i", "-C", "/"]
        return [*enter, "HOME=/root", "LANG=C.UTF-8", f"PATH={os.defpath}:/usr/sbin:/sbin", *words]

    def run(self, *words: str) -> str:
        """Standard output of a command on it."""
        return subprocess.run(self.command(*words), check=True, capture_output=True, text=True, timeout=60).stdout

    def path(self, inside: str) -> Path:
        """A path of the host as this process reaches it; what links lead to is not followed rightly."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def written(self) -> dict[str, str]:
        """Every file and folder that the host has written, changed or removed, and what it is now."""
        found = {}
        for name in WRITABLE + EMPTY:
            top = self.path(f"{LAYERS}/{name}/written")
            for path in sorted(top.rglob("*")):
                inside = f"{name}/{path.relative_to(top)}"
                if not inside.startswith(NOT_OURS):
                    found[inside] = _describe(path)
        # A folder that only stands in the layer because something in it was written says nothing of its own.
        kept = {name for name in found if found[name] != "folder" or not Path("/", name).is_dir()}
        return {name: what for name, what in found.items() if name in kept}

    def processes(self) -> list[str]:
        """Command lines of everything that runs on it, but for its first process."""
        space = Path(f"/proc/{self.pid}/ns/pid").readlink()
        lines = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == self.pid:
                continue
            with contextlib.suppress(OSError):
                if (folder / "ns" / "pid").readlink() == space:
                    words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                    lines.append(" ".join(words).strip())
        return sorted(filter(None, lines))


def _describe(path: Path) -> str:
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    if stat.S_ISREG(found.st_mode):
        return f"{stat.S_IMODE(found.st_mode):o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    # The mark of something that was removed is a character device 0/0.
    return "removed" if stat.S_ISCHR(found.st_mode) else "special"
