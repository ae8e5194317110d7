# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows as CSV with a line of names above: nfdump's ``-o csv``, old and new, and names that exporters use.

A router exports each direction by itself, and does not say who began. So a row is turned to the end that is likelier to
have been called, by its port; the row of the other direction is put to it if it comes within the same few minutes; and
``direction`` says that this is all that is known.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace

from whoneeds.intake.rows import TRANSPORTS, Label, Row
from whoneeds.intake.values import (
    BadLine,
    as_address,
    as_count,
    as_duration_ns,
    as_instant_ns,
    as_port,
    as_whole,
    is_absent,
)
from whoneeds.model.evidence import WireFlow

#: What columns are called, in small letters; the first name that is there counts.
_NAMES = {
    "first": ("ts", "firstseen", "first", "start", "stime", "flow_start", "start_time", "flowstart"),
    "last": ("te", "lastseen", "last", "end", "ltime", "flow_end", "end_time", "flowend"),
    "duration": ("td", "duration", "dur"),
    "protocol": ("pr", "proto", "prot", "protocol", "protocolidentifier"),
    "source": ("sa", "srcaddr", "src_ip", "srcip", "src_addr", "ip_src", "sourceipv4address"),
    "target": ("da", "dstaddr", "dst_ip", "dstip", "dst_addr", "ip_dst", "destinationipv4address"),
    "source_port": ("sp", "srcport", "src_port", "sport", "port_src", "sourcetransportport"),
    "target_port": ("dp", "dstport", "dst_port", "dport", "port_dst", "destinationtransportport"),
    "packets": ("ipkt", "packets", "pkts", "in_pkts", "inpackets", "packetdeltacount", "dpkts"),
    "bytes": ("ibyt", "bytes", "byt", "in_bytes", "inbytes", "octetdeltacount", "doctets"),
    "back_packets": ("opkt", "out_pkts", "outpackets"),
    "back_bytes": ("obyt", "out_bytes", "outbytes"),
    "flags": ("flg", "flags", "tcp_flags", "tcpflags"),
}
_NEEDED = ("first", "protocol", "source", "target", "source_port", "target_port")
_PROTOCOLS = {"tcp": "tcp", "udp": "udp", "icmp": "icmp", "icmp6": "icmp", "ipv6-icmp": "icmp", "sctp": "sctp"}
_WELL_KNOWN = 1024
#: How long a row waits for the one of the other direction, and how many wait.
_APART_NS = 300 * 10**9
_MOST_WAITING = 100_000
_MOST_FIELDS = 256


@dataclass(frozen=True, slots=True)
class _Waiting:
    flow: WireFlow
    turned: bool


class NetflowParser:
    """Reads one CSV file.

    Parameters
    ----------
    label : Label
    """

    expects = "CSV with a line of names above that has a begin, protocol, addresses and ports, as of nfdump -o csv"

    def __init__(self, label: Label) -> None:
        self.recognised = 0
        self._label = label
        self._flows = 0
        self._columns: dict[str, int] | None = None
        self._width = 0
        self._over = False
        self._waiting: dict[tuple[str, str, int, str, int], _Waiting] = {}

    def read(self, line: bytes) -> Iterable[Row]:
        """Rows of a line."""
        if self._over:
            return ()
        try:
            values = [value.strip() for value in next(csv.reader([line.decode("utf-8", "backslashreplace")]))]
        except (csv.Error, StopIteration) as error:
            raise BadLine("line", expected="values with commas between them", found=str(error)[:60]) from error
        if self._columns is None:
            self._read_names(values)
            return ()
        if values == ["Summary"]:
            # nfdump adds up below this line
            self._over = True
            return ()
        if len(values) < self._width:
            raise BadLine("line", expected=f"{self._width} values", found=f"{len(values)}")
        made = self._read_flow({name: values[at] for name, at in self._columns.items()})
        self.recognised += 1
        return self._join(made)

    def finish(self) -> Iterable[Row]:
        """Rows whose other direction did not come."""
        rest = [one.flow for one in self._waiting.values()]
        self._waiting.clear()
        return rest

    def _read_names(self, values: list[str]) -> None:
        known = {name.lower().removeprefix("#").strip().replace(" ", "_"): at for at, name in enumerate(values)}
        found = {
            what: next(known[name] for name in names if name in known)
            for what, names in _NAMES.items()
            if any(name in known for name in names)
        }
        missing = [name for name in _NEEDED if name not in found]
        if missing or len(values) > _MOST_FIELDS or not found.keys() & {"last", "duration"}:
            told = ", ".join(values)[:80]
            raise BadLine("first line", expected=self.expects, found=ascii(told)[1:-1])
        self._columns, self._width = found, max(found.values()) + 1
        self.recognised += 1

    def _read_flow(self, held: dict[str, str]) -> _Waiting:
        first_ns = as_instant_ns(held["first"], "begin")
        if "last" in held and not is_absent(held["last"]):
            last_ns = as_instant_ns(held["last"], "end")
        else:
            last_ns = first_ns + as_duration_ns(held.get("duration"), "duration")
        if last_ns < first_ns:
            raise BadLine("end", expected="an end after the begin", found=held["last"][:40])
        protocol = _transport(held["protocol"])
        ported = protocol in ("tcp", "udp", "sctp")
        near = (as_address(held["source"], "source"), _port(held["source_port"], ported))
        far = (as_address(held["target"], "target"), _port(held["target_port"], ported))
        there = (_counted(held, "packets"), _counted(held, "bytes"))
        # a router that exports one direction writes 0 for the other, which it did not count
        back = (_counted(held, "back_packets") or None, _counted(held, "back_bytes") or None)
        turned = ported and (near[1], near[0]) < (far[1], far[0])
        if turned:
            near, far, there, back = far, near, back, there
        by_port = ported and (near[1] < _WELL_KNOWN) != (far[1] < _WELL_KNOWN)
        flags = held.get("flags", "").upper() if protocol == "tcp" else ""
        self._flows += 1
        flow = WireFlow(
            flow_id=f"{self._label.prefix}/{self._flows}",
            host=self._label.host,
            source="netflow",
            protocol=protocol,
            orig_addr=near[0],
            orig_port=near[1],
            resp_addr=far[0],
            resp_port=far[1],
            direction="port" if by_port else "first",
            first_ns=first_ns,
            last_ns=last_ns,
            orig_packets=there[0],
            resp_packets=back[0],
            # NetFlow counts the bytes of IP, and of no payload
            orig_bytes=None,
            resp_bytes=None,
            orig_ip_bytes=there[1],
            resp_ip_bytes=back[1],
            missed_bytes=None,
            end=_end(flags),
            handshake="none",
            closed_by="none",
            community_id=None,
            vlan=None,
            inner_vlan=None,
            tunnel=None,
            outer_flow_id=None,
        )
        return _Waiting(flow, turned)

    def _join(self, made: _Waiting) -> list[Row]:
        """Put both directions of a conversation together; what need not wait any longer."""
        flow = made.flow
        key = (flow.protocol, flow.orig_addr, flow.orig_port, flow.resp_addr, flow.resp_port)
        other = self._waiting.pop(key, None)
        if other is not None:
            then = other.flow
            near = flow.first_ns <= then.last_ns + _APART_NS and then.first_ns <= flow.last_ns + _APART_NS
            one_way = then.resp_packets is None if not other.turned else then.orig_packets is None
            if other.turned != made.turned and near and one_way:
                return [_put_together(then, flow)]
        self._waiting[key] = made
        ready: list[Row] = [] if other is None else [other.flow]
        if len(self._waiting) > _MOST_WAITING:
            ready.append(self._waiting.pop(next(iter(self._waiting))).flow)
        return ready


def _put_together(one: WireFlow, other: WireFlow) -> WireFlow:
    """Both directions as one flow: each counted what the other did not."""
    counts = ("orig_packets", "resp_packets", "orig_ip_bytes", "resp_ip_bytes")
    both = {name: (getattr(one, name), getattr(other, name)) for name in counts}
    known = {name: b if a is None else a for name, (a, b) in both.items()}
    ends = (one.end, other.end)
    return replace(
        one,
        first_ns=min(one.first_ns, other.first_ns),
        last_ns=max(one.last_ns, other.last_ns),
        end="rst" if "rst" in ends else "fin" if "fin" in ends else "idle",
        **known,
    )


def _transport(value: str) -> str:
    if value.isascii() and value.isdigit():
        return TRANSPORTS.get(as_whole(value, "protocol", 255), "other")
    return _PROTOCOLS.get(value.lower(), "other")


def _port(value: str, ported: bool) -> int:
    # of ICMP nfdump writes type.code in the place of a port
    return as_port(value, "port") if ported else 0


def _counted(held: dict[str, str], name: str) -> int | None:
    return as_count(held.get(name), name)


def _end(flags: str) -> str:
    """How it ended, by the flags of all its packets: letters as nfdump writes them, or their sum."""
    if flags.isascii() and flags.isdigit():
        number = int(flags[:4])
    elif flags.startswith("0X"):
        try:
            number = int(flags[:6], 16)
        except ValueError:
            number = 0
    else:
        number = (4 if "R" in flags else 0) | (1 if "F" in flags else 0)
    return "rst" if number & 4 else "fin" if number & 1 else "idle"
