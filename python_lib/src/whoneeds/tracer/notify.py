# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell systemd that the service is ready and alive (the sd_notify protocol), where systemd asks for it."""

import os
import socket
from typing import Mapping, Optional


class ServiceNotifier:
    """Sends notices to the service manager; does nothing where there is none.

    Parameters
    ----------
    environment : mapping of str to str
        ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are read.

    Attributes
    ----------
    watchdog_s : float or None
        Time within which the service manager wants to hear of us.
    """

    def __init__(self, environment: Optional[Mapping[str, str]] = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() and int(usec) and meant else None

    def ready(self) -> None:
        """Say that the first sample was taken."""
        self._send("READY=1")

    def alive(self) -> None:
        """Say that the sampling goes on."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service ends on purpose."""
        self._send("STOPPING=1")

    def _send(self, words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(words.encode("ascii"), self._address)
        except OSError:
            pass  # nobody listens any more: the sampling matters more
