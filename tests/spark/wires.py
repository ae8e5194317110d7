# SPDX-License-Identifier: GPL-3.0-or-later
"""A store with hosts, a capture and a Zeek log of two monitors, each with a clock of its own."""

import ipaddress
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.fleet_evidence import write_fleet
from whoneeds.intake.take import import_files
from whoneeds.model.evidence import SocketRecord
from whoneeds.store import open_store

_S = 10**9
#: How far the monitors' clocks are ahead.
_CAPTURE_AHEAD_NS, _LOG_AHEAD_NS = 3600 * _S, -20 * _S
_SYN, _FIN, _RST, _ACK = 2, 1, 4, 16
_RAW_IP = 101

Ends = tuple[str, int, str, int]


def write_watched(path: Path) -> None:
    """Write a store whose hosts' connections two monitors saw in part, and others that no host recorded."""
    write_fleet(path, 3_000, hosts=6, days=1)
    with open_store(path, write=True) as store:
        sockets = [row for row in store.rows(SocketRecord) if row["protocol"] == "tcp" and row["remote_port"]]
        calls = sorted(
            (
                row["first_ns"],
                row["last_ns"],
                row["local_addr"],
                row["local_port"],
                row["remote_addr"],
                row["remote_port"],
            )
            for row in sockets
            if row["local_port"] > row["remote_port"]
        )
        capture, log = path.parent / "tap.pcap", path.parent / "conn.log"
        capture.write_bytes(_capture(_packets(calls[::3], _CAPTURE_AHEAD_NS)))
        log.write_text("".join(f"{json.dumps(line)}\n" for line in _log(calls[1::3], _LOG_AHEAD_NS)), encoding="ascii")
        for kind, file, host in (("pcap", capture, "tap1"), ("zeek", log, "mon2")):
            (made,) = import_files(store, kind, [file], host=host)
            if made.problems:
                raise RuntimeError(f"{file} was not taken in whole: {made.problems}")
        store.commit()


def _packets(calls: list[Any], ahead_ns: int) -> Iterator[tuple[int, Ends, int, int, int, int]]:
    """Whole connections; of every seventh the opening is missing, and every fifth comes once more from a stranger."""
    for number, (first_ns, last_ns, *ends) in enumerate(calls):
        begin_ns, end_ns = first_ns + ahead_ns, last_ns + ahead_ns
        callers = [ends, *([[f"192.0.2.{number % 200 + 1}", *ends[1:]]] if number % 5 == 0 else [])]
        for addr, port, to_addr, to_port in callers:
            there, back = (addr, port, to_addr, to_port), (to_addr, to_port, addr, port)
            sent = 10 + number % 900
            opening = [(begin_ns, there, _SYN, 0, 0, 0), (begin_ns, back, _SYN | _ACK, 0, 1, 0)]
            yield from opening if number % 7 else ()
            yield begin_ns, there, _ACK, 1, 1, sent
            yield end_ns, back, _RST | _ACK if number % 11 == 0 else _FIN | _ACK, 1, 1 + sent, 0
            yield end_ns, there, _FIN | _ACK, 1 + sent, 2, 0


def _capture(packets: Iterable[tuple[int, Ends, int, int, int, int]]) -> bytes:
    made = bytearray(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, _RAW_IP))
    for time_ns, (addr, port, to_addr, to_port), flags, sequence, acknowledged, size in sorted(packets):
        body = struct.pack("!HHIIBBHHH", port, to_port, sequence, acknowledged, 80, flags, 65535, 0, 0) + bytes(size)
        ends = ipaddress.IPv4Address(addr).packed + ipaddress.IPv4Address(to_addr).packed
        packet = struct.pack("!BBHHHBBH", 69, 0, 20 + len(body), 0, 0, 64, 6, 0) + ends + body
        made += struct.pack("<IIII", time_ns // _S, time_ns % _S, len(packet), len(packet)) + packet
    return bytes(made)


def _log(calls: list[Any], ahead_ns: int) -> Iterator[dict[str, Any]]:
    for number, (first_ns, last_ns, addr, port, to_addr, to_port) in enumerate(calls):
        yield {
            "ts": (first_ns + ahead_ns) / 1e9, "uid": f"C{number}", "id.orig_h": addr, "id.orig_p": port,
            "id.resp_h": to_addr, "id.resp_p": to_port, "proto": "tcp", "duration": (last_ns - first_ns) / 1e9,
            "orig_bytes": number % 5000, "resp_bytes": number % 90_000, "missed_bytes": 0, "orig_pkts": 9,
            "resp_pkts": 8, "orig_ip_bytes": 900, "resp_ip_bytes": 9000,
            "conn_state": ("SF", "S1", "RSTO")[number % 3], "history": ("ShADadFf", "ShADad", "ShADadR")[number % 3],
        }  # fmt: skip
