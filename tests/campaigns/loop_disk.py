# SPDX-License-Identifier: GPL-3.0-or-later
"""An ext4 file system in a file, whose power can be cut.

The caller must be root in a mount namespace of its own: whatever happens to it, the kernel then takes the mount and
with it the loop device away.
"""

import ctypes
import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

#: EXT4_IOC_SHUTDOWN, and its way that does not even write the journal back: what was not flushed is gone.
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = struct.pack("=I", 2)
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_IMAGE_BYTES = 64 << 20


class Unavailable(Exception):
    """Such a disk cannot be made on this system; the text says why."""


def enter_mount_namespace() -> None:
    """Move this process into a mount namespace of its own, out of which no mount spreads.

    Raises
    ------
    Unavailable
    """
    if os.geteuid() != 0:
        raise Unavailable("mounting needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None):
        raise Unavailable(f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}")


class LoopDisk:
    """One such file system; mounted from the beginning.

    Parameters
    ----------
    place : Path
        An empty folder for the image and the mount point.

    Raises
    ------
    Unavailable
    """

    def __init__(self, place: Path) -> None:
        self._image, self.path = place / "disk.img", place / "disk"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        # no discards and no lazy initialisation: they would work on beside the trial
        self._run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self._mount()

    def _run(self, *words: str) -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Unavailable(f"{words[0]}: {error.strerror}") from error
        if done.returncode:
            raise Unavailable(f"{' '.join(words[:3])}: {done.stderr.strip()[:200]}")

    def _mount(self) -> None:
        self._run("mount", "-o", "loop", str(self._image), str(self.path))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and every call on it fails."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, _NOLOGFLUSH)
        except OSError as error:
            raise Unavailable(f"EXT4_IOC_SHUTDOWN: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def restart(self) -> None:
        """What happens when power comes back: the file system is mounted anew and its journal replayed."""
        self.remove()
        self._mount()

    def remove(self) -> None:
        """Unmount it; the loop device goes with that."""
        until_s = time.monotonic() + 20
        while True:
            try:
                self._run("umount", str(self.path))
                return
            except Unavailable:
                if time.monotonic() > until_s:  # a process that was killed may take a moment to let go
                    raise
                time.sleep(0.01)
