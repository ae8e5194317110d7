# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting IP packets together that came in fragments, in bounded memory.

Where fragments overlap, what came first counts. A packet of which a part is missing is never metered: which flow it
belongs to would be known, and how long it was would not. Where the capture itself cut fragments short, nothing can be
put together; then the first one, which holds the ports, counts as a packet by itself and the others do not, as in Zeek.
"""

from typing import Any, NamedTuple

_MOST_PACKETS, _MOST_BYTES, _MOST_PACKET_BYTES = 4096, 8 << 20, 65535
_MOST_PARTS = 8192


class _Waiting(NamedTuple):
    """The fragments of one packet so far: by place, how long it is if that is known, and its unfragmented header."""

    parts: dict[int, bytes]
    facts: dict[str, int]


class Fragments:
    """Fragments whose packets are not complete.

    Attributes
    ----------
    left : int
        Packets that were given up, or never became whole.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[Any, ...], _Waiting] = {}
        self._bytes = 0
        self._given_up = 0

    @property
    def left(self) -> int:
        """Packets of which not all fragments came."""
        return self._given_up + len(self._waiting)

    def add(self, data: Any, packet: Any) -> bytes | None:
        """Take a fragment in that the loop stopped at.

        Parameters
        ----------
        data : uint8 array
        packet : PACKET
            As the decoder left them. Once there is a body, its protocol and lengths are written to the packet.

        Returns
        -------
        bytes or None
            The packet's body, if it is whole now, or what was captured of a first fragment that the capture cut.
        """
        body, end, header = int(packet["body"]), int(packet["body_end"]), int(packet["header"])
        if packet["family"] == 4:
            word = int(data[header + 6]) << 8 | int(data[header + 7])
            begin, more, name = (word & 0x1FFF) * 8, word & 0x2000, bytes(data[header + 4 : header + 6])
            protocol = int(data[header + 9])
        else:
            word = int(data[body + 2]) << 8 | int(data[body + 3])
            begin, more, name, protocol = word & 0xFFF8, word & 1, bytes(data[body + 4 : body + 8]), int(data[body])
            body += 8
        key = (
            *(int(packet[name]) for name in ("a_high", "a_low", "b_high", "b_low")),
            int(packet["family"]),
            name,
            int(packet["outer"]),
            protocol if packet["family"] == 4 else 0,
        )
        content = bytes(data[body:end])
        if end < packet["wire_end"] and begin == 0 and more:
            packet["protocol"], packet["wire_end"] = protocol, int(packet["wire_end"]) - body
            return content
        if end < packet["wire_end"] or begin + len(content) > _MOST_PACKET_BYTES or (more and len(content) % 8):
            self._forget(key)
            return None
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting({}, {})
        if begin not in waiting.parts or len(waiting.parts[begin]) < len(content):
            self._bytes += len(content) - len(waiting.parts.get(begin, b""))
            waiting.parts[begin] = content
        if not more:
            waiting.facts.setdefault("length", begin + len(content))
        if begin == 0:
            waiting.facts["protocol"] = protocol
            waiting.facts["header"] = (body if packet["family"] == 4 else body - 8) - header
        whole = _join(waiting)
        if whole is None:
            self._keep_within_bounds(key)
            return None
        self._drop(key)
        packet["protocol"], packet["ip_bytes"] = waiting.facts["protocol"], waiting.facts["header"] + len(whole)
        packet["wire_end"] = len(whole)
        return whole

    def _keep_within_bounds(self, key: tuple[Any, ...]) -> None:
        if len(self._waiting[key].parts) > _MOST_PARTS:
            self._forget(key)
        while len(self._waiting) > _MOST_PACKETS or self._bytes > _MOST_BYTES:
            self._forget(next(iter(self._waiting)))

    def _forget(self, key: tuple[Any, ...]) -> None:
        self._given_up += 1
        self._drop(key)

    def _drop(self, key: tuple[Any, ...]) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._bytes -= sum(map(len, waiting.parts.values()))


def _join(waiting: _Waiting) -> bytes | None:
    """The whole body, or None while something is missing."""
    length = waiting.facts.get("length")
    if length is None or "protocol" not in waiting.facts:
        return None
    if sum(map(len, waiting.parts.values())) < length:
        return None
    made = bytearray()
    for begin, content in sorted(waiting.parts.items()):
        if begin > len(made):
            return None
        made += content[len(made) - begin :]
    return bytes(made[:length]) if len(made) >= length else None
