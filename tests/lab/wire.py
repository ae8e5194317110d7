# SPDX-License-Identifier: GPL-3.0-or-later
"""What really goes over the lab's bridge: connections begun and ended between hosts, from the frames themselves.

The third opinion on the truth file, beside the declaration and ``ss``. It also sees what no sample can: short ones.
Started as a file in the controller's network namespace: ``python wire.py SECONDS`` prints JSON rows.
"""

import json
import socket
import struct
import sys
import time

_ETH_P_ALL = 3
_OUTGOING = 4
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


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
    """Connections seen so far, by originator, responder, protocol and responder's port."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, int, str, int], float] = {}
        self._seen: dict[tuple[str, str, str, int], list[float]] = {}
        self._begun: dict[tuple[str, str, str, int], int] = {}

    def take(self, frame: bytes, at_s: float) -> None:
        """Count one frame."""
        read = read_frame(frame)
        if read is None:
            return
        protocol, source, source_port, destination, port, flags = read
        forward = (protocol, source, source_port, destination, port)
        service = (source, destination, protocol, port)
        if protocol == "udp":
            backward = ("udp", destination, port, source, source_port)
            if backward not in self._open and forward not in self._open:
                self._begin(forward, service, at_s)
            return
        if flags & _SYN and not flags & _ACK:
            self._begin(forward, service, at_s)
        elif flags & (_FIN | _RST):
            for key in (forward, (protocol, destination, port, source, source_port)):
                began_s = self._open.pop(key, None)
                if began_s is not None:
                    self._seen.setdefault((key[1], key[3], protocol, key[4]), []).append(at_s - began_s)

    def _begin(self, key: tuple[str, str, int, str, int], service: tuple[str, str, str, int], at_s: float) -> None:
        if key not in self._open:
            self._open[key] = at_s
            self._begun[service] = self._begun.get(service, 0) + 1

    def rows(self) -> list[dict[str, object]]:
        """One row a service and pair of addresses."""
        rows: list[dict[str, object]] = []
        for service, begun in sorted(self._begun.items()):
            durations = self._seen.get(service, [])
            rows.append(
                {
                    "orig_addr": service[0],
                    "resp_addr": service[1],
                    "protocol": service[2],
                    "resp_port": service[3],
                    "begun": begun,
                    "ended": len(durations),
                    "mean_duration_s": sum(durations) / len(durations) if durations else None,
                }
            )
        return rows


def watch(seconds: float) -> list[dict[str, object]]:
    """Watch every port of the bridge in this network namespace."""
    wire = Wire()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            tap.settimeout(left_s)
            try:
                frame, (interface, _, packet_type, _, _) = tap.recvfrom(256)
            except TimeoutError:
                break
            if packet_type != _OUTGOING and interface.startswith("lab-"):
                wire.take(frame, time.monotonic())
    return wire.rows()


if __name__ == "__main__":
    json.dump(watch(float(sys.argv[1])), sys.stdout)
