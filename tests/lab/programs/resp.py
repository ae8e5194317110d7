# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis' protocol, as much as the lab's programs need: a command out, an answer in."""

import socket


class Redis:
    """One connection to a Redis server."""

    def __init__(self, host, port=6379):
        self._socket = socket.create_connection((host, port), timeout=30)
        self._answers = self._socket.makefile("rb")

    def __call__(self, *words):
        """Send one command; return bytes, int, list or None; RuntimeError when the server refuses it."""
        parts = [str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(request)
        return self._answer()

    def _answer(self):
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the Redis server hung up")
        mark, rest = line[:1], line[1:-2]
        if mark == b"+":
            return rest
        if mark == b":":
            return int(rest)
        if mark == b"$":
            return None if rest == b"-1" else self._answers.read(int(rest) + 2)[:-2]
        if mark == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise RuntimeError(f"Redis refused the command: {rest.decode(errors='replace')}")

    def close(self):
        """Close the connection."""
        self._answers.close()
        self._socket.close()
