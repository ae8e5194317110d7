# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that stay open and are renewed when they reach their age."""

import contextlib
import queue
import time


class Renewed:
    """A connection that is opened when first needed and replaced after ``duration_s``."""

    def __init__(self, connect, duration_s):
        self._connect = connect
        self._duration_s = duration_s
        self._connection = None
        self._opened_s = 0.0

    def get(self):
        """The open connection, renewed when it is too old."""
        if self._connection is not None and time.monotonic() - self._opened_s >= self._duration_s:
            self.drop()
        if self._connection is None:
            self._connection = self._connect()
            self._opened_s = time.monotonic()
        return self._connection

    def drop(self):
        """Close it; the next ``get`` opens another."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None


class Pool:
    """Several renewed connections, lent one at a time, all open from the start."""

    def __init__(self, connect, size, duration_s):
        self._free = queue.Queue()
        for _ in range(size):
            member = Renewed(connect, duration_s)
            while True:
                try:
                    member.get()
                    break
                except Exception:  # the server is still starting
                    time.sleep(0.5)
            self._free.put(member)

    @contextlib.contextmanager
    def lend(self):
        """A connection for one request; it is dropped when the request fails."""
        member = self._free.get()
        try:
            yield member.get()
        except Exception:
            member.drop()
            raise
        finally:
            self._free.put(member)
