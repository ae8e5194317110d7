# SPDX-License-Identifier: GPL-3.0-or-later
"""What the time is, by the wall and since boot, and which boot this is."""

import time
import uuid

from whoneeds.model.identity import BOOT_ID
from whoneeds.tracer.observation import Instant


def now() -> Instant:
    """Read both clocks."""
    return Instant(time.time_ns(), boot_ns())


def boot_ns() -> int:
    """Nanoseconds since boot, suspended time included where the system counts it."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)


def in_time_namespace(root: str = "/proc") -> bool:
    """Whether time since boot is another one here than the kernel's own events carry."""
    try:
        with open(f"{root}/self/timens_offsets", encoding="ascii") as file:
            return any(number != "0" for line in file for number in line.split()[1:])
    except OSError:
        return False  # a kernel without time namespaces


def read_boot_id(path: str = "/proc/sys/kernel/random/boot_id") -> str:
    """The kernel's identifier of this boot; elsewhere one made of the time of boot."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(64).strip()
        if BOOT_ID.match(text):
            return text
    except (OSError, UnicodeDecodeError):
        pass
    import psutil

    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"whoneeds boot {int(psutil.boot_time()) // 60}"))
