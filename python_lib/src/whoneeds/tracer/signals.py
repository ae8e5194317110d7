# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for a while, or until somebody wants the process to end."""

import os
import select
import signal
from types import FrameType
from typing import Optional


class StopSignal:
    """Notices SIGTERM and SIGINT, is woken by SIGCHLD, and can be waited for.

    Attributes
    ----------
    received : bool
        Whether the process was asked to end.
    """

    def __init__(self) -> None:
        self.received = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: Optional[FrameType]) -> None:
        if number != signal.SIGCHLD:
            self.received = True
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # it was told already

    def wait(self, seconds: float) -> None:
        """Wait until a signal comes or the time is over."""
        if self.received or seconds <= 0:
            return
        readable, _writable, _odd = select.select([self._read], [], [], seconds)
        if readable:
            os.read(self._read, 512)

    def close(self) -> None:
        """Give the signals back to what they do by default."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)
