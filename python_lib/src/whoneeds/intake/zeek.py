# SPDX-License-Identifier: GPL-3.0-or-later
"""Zeek's conn.log and dns.log, with tabs and header lines or as JSON lines.

Zeek says of a conversation who began it, what it counted and how it ended; its history tells which parts of the opening
were seen. Only what stands in the line is taken: a count that Zeek leaves out is not known.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from whoneeds.intake.rows import Label, Row, SeenName, require
from whoneeds.intake.values import (
    BadLine,
    as_address,
    as_count,
    as_domain_name,
    as_duration_ns,
    as_instant_ns,
    as_known_address,
    as_port,
    as_text,
    as_whole,
    is_absent,
    read_object,
)
from whoneeds.model.evidence import WireFlow

_PROTOCOLS = {"tcp": "tcp", "udp": "udp", "icmp": "icmp", "icmp6": "icmp", "sctp": "sctp"}
_ENDS = {
    "SF": "fin", "S0": "unanswered", "REJ": "rejected",
    "RSTO": "rst", "RSTR": "rst", "RSTOS0": "rst", "RSTRH": "rst",
}  # fmt: skip
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_MOST_FIELDS = 256
_MOST_ANSWERS = 1000


class ZeekParser:
    """Reads one file of Zeek; which log it is, its lines say.

    Parameters
    ----------
    label : Label
    """

    expects = "Zeek's conn.log or dns.log: lines of tabs below '#separator' and '#fields', or JSON lines with 'ts'"

    def __init__(self, label: Label) -> None:
        self.recognised = 0
        self._label = label
        self._flows = 0
        self._separator, self._set_separator = "\t", ","
        self._unset, self._empty = "-", "(empty)"
        self._fields: list[str] | None = None

    def read(self, line: bytes) -> Iterable[Row]:
        """Rows of a line."""
        if line.startswith(b"#"):
            self._read_header(line)
            return ()
        held = read_object(line) if line.lstrip().startswith(b"{") else self._split(line)
        if "id.orig_h" in held and ("conn_state" in held or ("proto" in held and "query" not in held)):
            row: Sequence[Row] = (self._read_flow(held),)
        elif "query" in held or "answers" in held or "qtype_name" in held:
            row = self._read_answers(held)
        else:
            raise BadLine("line", expected="fields of conn.log or dns.log", found=ascii(sorted(held)[:6])[:80])
        self.recognised += 1
        return row

    def finish(self) -> Iterable[Row]:
        """Nothing waits."""
        return ()

    def _read_header(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if text.startswith("#separator "):
            made = _unescape(text.removeprefix("#separator "))
            if len(made) != 1:
                raise BadLine("#separator", expected="one character", found=ascii(made)[:20])
            self._separator = made
            self.recognised += 1
            return
        name, _blank, rest = text.partition(self._separator)
        if name == "#fields":
            fields = rest.split(self._separator)
            if len(fields) > _MOST_FIELDS or len(set(fields)) != len(fields):
                raise BadLine("#fields", expected=f"at most {_MOST_FIELDS} different names", found=f"{len(fields)}")
            self._fields = fields
        elif name == "#set_separator" and len(_unescape(rest)) == 1:
            self._set_separator = _unescape(rest)
        elif name == "#unset_field":
            self._unset = rest
        elif name == "#empty_field":
            self._empty = rest

    def _split(self, line: bytes) -> dict[str, Any]:
        if self._fields is None:
            raise BadLine("line", expected=self.expects, found=ascii(line[:60])[2:-1])
        values = line.decode("utf-8", "backslashreplace").split(self._separator)
        if len(values) != len(self._fields):
            raise BadLine("line", expected=f"{len(self._fields)} fields", found=f"{len(values)}")
        unset = (self._unset, self._empty)
        return {
            name: None if value in unset else _unescape(value) for name, value in zip(self._fields, values, strict=True)
        }

    def _read_flow(self, held: dict[str, Any]) -> WireFlow:
        known = require(held, "proto")
        protocol = _PROTOCOLS.get(known, "other") if isinstance(known, str) else "other"
        state, history = held.get("conn_state"), held.get("history")
        letters = history if isinstance(history, str) else ""
        first_ns = as_instant_ns(require(held, "ts"), "ts")
        spent = held.get("duration")
        tcp = protocol == "tcp"
        opened = {(True, True): "full", (True, False): "orig", (False, True): "resp"}
        closed = {(True, True): "both", (True, False): "orig", (False, True): "resp"}
        self._flows += 1
        return WireFlow(
            flow_id=f"{self._label.prefix}/{self._flows}",
            host=self._label.host,
            source="zeek",
            protocol=protocol,
            orig_addr=as_address(require(held, "id.orig_h"), "id.orig_h"),
            orig_port=as_port(require(held, "id.orig_p"), "id.orig_p"),
            resp_addr=as_address(require(held, "id.resp_h"), "id.resp_h"),
            resp_port=as_port(require(held, "id.resp_p"), "id.resp_p"),
            direction="told",
            first_ns=first_ns,
            last_ns=first_ns + (0 if is_absent(spent) else as_duration_ns(spent, "duration")),
            orig_packets=as_count(held.get("orig_pkts"), "orig_pkts"),
            resp_packets=as_count(held.get("resp_pkts"), "resp_pkts"),
            orig_bytes=as_count(held.get("orig_bytes"), "orig_bytes"),
            resp_bytes=as_count(held.get("resp_bytes"), "resp_bytes"),
            orig_ip_bytes=as_count(held.get("orig_ip_bytes"), "orig_ip_bytes"),
            resp_ip_bytes=as_count(held.get("resp_ip_bytes"), "resp_ip_bytes"),
            missed_bytes=as_count(held.get("missed_bytes"), "missed_bytes"),
            # a state of UDP says only which ends spoke; silence is how such a conversation ends
            end=_ENDS.get(state, "idle") if tcp and isinstance(state, str) else "idle",
            handshake=opened.get(("S" in letters, "h" in letters), "none") if tcp else "none",
            closed_by=closed.get((bool({"F", "R"} & {*letters}), bool({"f", "r"} & {*letters})), "none")
            if tcp
            else "none",
            community_id=as_text(held.get("community_id"), 40),
            vlan=None if is_absent(held.get("vlan")) else as_whole(held["vlan"], "vlan", 4095),
            inner_vlan=None if is_absent(held.get("inner_vlan")) else as_whole(held["inner_vlan"], "inner_vlan", 4095),
            tunnel="other" if held.get("tunnel_parents") else None,
            outer_flow_id=None,
        )

    def _read_answers(self, held: dict[str, Any]) -> list[SeenName]:
        at_ns = as_instant_ns(require(held, "ts"), "ts")
        answers, name = held.get("answers"), as_domain_name(held.get("query"))
        if isinstance(answers, str):
            answers = answers.split(self._set_separator)
        if name is None or not isinstance(answers, list):
            return []
        found = (as_known_address(answer) for answer in answers[:_MOST_ANSWERS])
        return [SeenName(name, address, "dns", at_ns) for address in found if address is not None]


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "\\x" in text else text
