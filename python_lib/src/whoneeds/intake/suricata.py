# SPDX-License-Identifier: GPL-3.0-or-later
"""Suricata's EVE log: events of the types flow, dns and tls; others are passed over."""

from collections.abc import Iterable
from typing import Any

from whoneeds.intake.rows import Label, Row, SeenName, require
from whoneeds.intake.values import (
    BadLine,
    as_address,
    as_count,
    as_domain_name,
    as_instant_ns,
    as_known_address,
    as_port,
    as_text,
    as_whole,
    read_object,
)
from whoneeds.model.evidence import WireFlow

_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "ICMP": "icmp", "IPV6-ICMP": "icmp", "SCTP": "sctp"}
_MOST_ANSWERS = 1000


class SuricataParser:
    """Reads one EVE file.

    Parameters
    ----------
    label : Label
    """

    expects = "Suricata's eve.json: JSON lines with 'timestamp' and 'event_type'"

    def __init__(self, label: Label) -> None:
        self.recognised = 0
        self._label = label
        self._flows = 0

    def read(self, line: bytes) -> Iterable[Row]:
        """Rows of a line."""
        held = read_object(line)
        if not isinstance(held.get("event_type"), str) or "timestamp" not in held:
            raise BadLine("line", expected=self.expects, found=ascii(sorted(held)[:6])[:80])
        kind = held["event_type"]
        rows: Iterable[Row] = ()
        if kind == "flow":
            rows = (self._read_flow(held),)
        elif kind == "dns":
            rows = _read_answers(held)
        elif kind == "tls":
            rows = _read_hello(held)
        self.recognised += 1
        return rows

    def finish(self) -> Iterable[Row]:
        """Nothing waits."""
        return ()

    def _read_flow(self, held: dict[str, Any]) -> WireFlow:
        flow, tcp = require(held, "flow"), held.get("tcp")
        if not isinstance(flow, dict):
            raise BadLine("flow", expected="an object", found=ascii(flow)[:40])
        known = require(held, "proto")
        protocol = _PROTOCOLS.get(known.upper(), "other") if isinstance(known, str) else "other"
        ported = protocol in ("tcp", "udp", "sctp")
        tcp = tcp if protocol == "tcp" and isinstance(tcp, dict) else {}
        there, back = _flags(tcp.get("tcp_flags_ts")), _flags(tcp.get("tcp_flags_tc"))
        opened = {(True, True): "full", (True, False): "orig", (False, True): "resp"}
        closed = {(True, True): "both", (True, False): "orig", (False, True): "resp"}
        first_ns = as_instant_ns(require(flow, "start"), "flow.start")
        last_ns = as_instant_ns(require(flow, "end"), "flow.end")
        if last_ns < first_ns:
            raise BadLine("flow.end", expected="an end after the begin", found=ascii(flow["end"])[:40])
        vlan = held.get("vlan")
        vlans = vlan if isinstance(vlan, list) else []
        self._flows += 1
        return WireFlow(
            flow_id=f"{self._label.prefix}/{self._flows}",
            host=self._label.host,
            source="suricata",
            protocol=protocol,
            orig_addr=as_address(require(held, "src_ip"), "src_ip"),
            orig_port=as_port(require(held, "src_port"), "src_port") if ported else _icmp(held, "icmp_type"),
            resp_addr=as_address(require(held, "dest_ip"), "dest_ip"),
            resp_port=as_port(require(held, "dest_port"), "dest_port") if ported else _icmp(held, "icmp_code"),
            direction="told",
            first_ns=first_ns,
            last_ns=last_ns,
            orig_packets=as_count(flow.get("pkts_toserver"), "pkts_toserver"),
            resp_packets=as_count(flow.get("pkts_toclient"), "pkts_toclient"),
            # what Suricata counts is whole frames: neither the payload nor the bytes of IP
            orig_bytes=None,
            resp_bytes=None,
            orig_ip_bytes=None,
            resp_ip_bytes=None,
            missed_bytes=None,
            end=_end(protocol, flow, there, back),
            handshake=opened.get((there & _SYN != 0, back & _SYN != 0), "none"),
            closed_by=closed.get((there & _CLOSE != 0, back & _CLOSE != 0), "none"),
            community_id=as_text(held.get("community_id"), 40),
            vlan=as_whole(vlans[0], "vlan", 4095) if vlans else None,
            inner_vlan=as_whole(vlans[1], "vlan", 4095) if len(vlans) > 1 else None,
            tunnel="other" if isinstance(held.get("tunnel"), dict) else None,
            outer_flow_id=None,
        )


_FIN, _SYN, _RST = 1, 2, 4
_CLOSE = _FIN | _RST


def _flags(value: Any) -> int:
    """TCP flags, which are written as two hexadecimal digits."""
    try:
        return int(value, 16) & 0xFF if isinstance(value, str) and len(value) <= 4 else 0
    except ValueError:
        return 0


def _icmp(held: dict[str, Any], name: str) -> int:
    return as_whole(held.get(name, 0), name, 255)


def _end(protocol: str, flow: dict[str, Any], there: int, back: int) -> str:
    if flow.get("reason") in ("shutdown", "forced"):
        return "active"
    if protocol != "tcp":
        return "idle"
    if back & _RST and not back & _SYN and there & _SYN:
        return "rejected"
    if (there | back) & _RST:
        return "rst"
    if there & _FIN and back & _FIN:
        return "fin"
    return "unanswered" if there & _SYN and not back else "idle"


def _read_answers(held: dict[str, Any]) -> list[SeenName]:
    at_ns, dns = as_instant_ns(held["timestamp"], "timestamp"), held.get("dns")
    if not isinstance(dns, dict) or dns.get("type") not in ("answer", "response"):
        return []
    asked = dns.get("rrname")
    queries = dns.get("queries")
    if asked is None and isinstance(queries, list) and len(queries) == 1 and isinstance(queries[0], dict):
        asked = queries[0].get("rrname")
    name, answers = as_domain_name(asked), dns.get("answers")
    if name is None or not isinstance(answers, list):
        return []
    told = (one.get("rdata") for one in answers[:_MOST_ANSWERS] if isinstance(one, dict))
    found = (as_known_address(value) for value in told)
    return [SeenName(name, address, "dns", at_ns) for address in found if address is not None]


def _read_hello(held: dict[str, Any]) -> list[SeenName]:
    tls = held.get("tls")
    name = as_domain_name(tls.get("sni")) if isinstance(tls, dict) else None
    address = as_known_address(held.get("dest_ip"))
    if name is None or address is None:
        return []
    return [SeenName(name, address, "sni", as_instant_ns(held["timestamp"], "timestamp"))]
