# SPDX-License-Identifier: GPL-3.0-or-later
"""What really goes over the lab's bridge: connections begun and ended between hosts, from the frames themselves.

The third opinion on the truth file, beside the declaration and ``ss``. It also sees what no sample can: short ones.
Started as a file in the controller's network namespace: ``python wire.py`` says ``watching`` at once, and prints what
it saw as JSON when its standard input is closed.
"""

import contextlib
import json
import select
import socket
import struct
import sys
import time

_ETH_P_ALL = 3
_OUTGOING = 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_LOOK_UP_S = 0.5

# protocol, originator's address and port, responder's address and port
Ends = tuple[str, str, int, str, int]


def read_frame(frame: bytes) -> "tuple[str, str, int, str, int, int] | None":
    """Protocol, source, source port, destination, destination port and TCP flags of a frame; None for other frames."""
    if len(frame) < 34:
        return None
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0800:
        number, start = frame[23], 14 + (frame[14] & 15) * 4
        source, destination = (socket.inet_ntop(socket.AF_INET, frame[at : at + 4]) for at in (26, 30))
    elif kind == 0x86DD and len(frame) >= 54:
        number, start = frame[20], 54
        source, destination = (socket.inet_ntop(socket.AF_INET6, frame[at : at + 16]) for at in (22, 38))
    else:
        return None
    if number == 6 and len(frame) >= start + 14:
        ports = struct.unpack_from("!HH", frame, start)
        return "tcp", source, ports[0], destination, ports[1], frame[start + 13]
    if number == 17 and len(frame) >= start + 4:
        ports = struct.unpack_from("!HH", frame, start)
        return "udp", source, ports[0], destination, ports[1], 0
    return None


class Wire:
    """Connections seen so far, each with the time of its first and its last frame."""

    def __init__(self) -> None:
        # [opened or None where the beginning was not seen, last frame, closed or None]
        self._open: dict[Ends, list[float | None]] = {}
        self._ended: list[tuple[Ends, list[float | None]]] = []
        # What still comes of an ended one begins nothing.
        self._over: set[Ends] = set()

    def take(self, frame: bytes, at_s: float) -> None:
        """Count one frame."""
        read = read_frame(frame)
        if read is None:
            return
        protocol, source, source_port, destination, port, flags = read
        forward: Ends = (protocol, source, source_port, destination, port)
        backward: Ends = (protocol, destination, port, source, source_port)
        if protocol == "tcp" and flags & _SYN and not flags & _ACK:
            self._over.discard(forward)
            if forward not in self._open:
                self._open[forward] = [at_s, at_s, None]
            return
        known = next((ends for ends in (forward, backward) if ends in self._open), None)
        if known is None:
            if protocol == "udp":
                self._open[forward] = [at_s, at_s, None]
            elif forward not in self._over and backward not in self._over and not flags & (_FIN | _RST | _SYN):
                # In the middle of its life: who began it is not known.
                self._open[forward] = [None, at_s, None]
            return
        life = self._open[known]
        life[1] = at_s
        if flags & (_FIN | _RST):
            life[2] = at_s
            self._ended.append((known, life))
            self._over.add(known)
            del self._open[known]

    def connections(self) -> list[dict[str, object]]:
        """One row a connection; without ``opened_s`` it is not known which end began it."""
        names = ("protocol", "orig_addr", "orig_port", "resp_addr", "resp_port")
        return [
            {**dict(zip(names, ends, strict=True)), "opened_s": life[0], "last_s": life[1], "closed_s": life[2]}
            for ends, life in (*self._ended, *self._open.items())
        ]

    def rows(self) -> list[dict[str, object]]:
        """One row a service and pair of addresses, of those connections whose beginning was seen."""
        lives: dict[tuple[str, str, str, int], list[list[float | None]]] = {}
        for ends, life in (*self._ended, *self._open.items()):
            if life[0] is not None:
                lives.setdefault((ends[1], ends[3], ends[0], ends[4]), []).append(life)
        rows: list[dict[str, object]] = []
        for service, seen in sorted(lives.items()):
            durations = [closed - opened for opened, _, closed in seen if opened is not None and closed is not None]
            rows.append(
                {
                    "orig_addr": service[0],
                    "resp_addr": service[1],
                    "protocol": service[2],
                    "resp_port": service[3],
                    "begun": len(seen),
                    "ended": len(durations),
                    "mean_duration_s": sum(durations) / len(durations) if durations else None,
                }
            )
        return rows


def watch() -> dict[str, object]:
    """Watch every port of the bridge in this network namespace until standard input is closed."""
    wire = Wire()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        tap.settimeout(_LOOK_UP_S)
        began_ns, began_s = time.time_ns(), time.monotonic()
        look_up_s = began_s
        print("watching", flush=True)
        while True:
            with contextlib.suppress(TimeoutError):
                frame, (interface, _, packet_type, _, _) = tap.recvfrom(256)
                if packet_type != _OUTGOING and interface.startswith("lab-"):
                    wire.take(frame, time.monotonic())
            if time.monotonic() - look_up_s > _LOOK_UP_S:
                look_up_s = time.monotonic()
                if select.select([sys.stdin], [], [], 0)[0]:
                    break
        lost = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
    return {
        "began_ns": began_ns,
        "began_s": began_s,
        "ended_s": time.monotonic(),
        "frames_lost": lost,
        "rows": wire.rows(),
        "connections": wire.connections(),
    }


if __name__ == "__main__":
    json.dump(watch(), sys.stdout)
