# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows as text: what is compiled writes what Python's own writers would."""

import csv
import io
import ipaddress
import random

import numpy as np
import pytest

from tests.lib.flow.oracle import community_id
from whoneeds.flow.compiled.endings import OUTCOME
from whoneeds.flow.rows import WORDS, make_columns, make_lines

_NUMBERS = (0, 1, 9, 10, 99, 100, 10**9, 10**18, (1 << 63) - 1, -1, -10, -(1 << 63))
_PORTED = (1, 6, 17, 58, 132)


def _rows(count: int) -> np.ndarray:
    """Flows with every word, addresses with runs of zeros at every place, and numbers at their limits."""
    chance, rows = random.Random(5), np.zeros(count, OUTCOME)
    for row in rows:
        is_4 = chance.random() < 0.3
        for side in ("orig", "resp"):
            groups = [chance.choice((0, 0, 1, 0xAB, 0xFFFF, chance.randrange(1 << 16))) for _ in range(8)]
            if is_4:
                groups[:6] = [0, 0, 0, 0, 0, 0xFFFF]
            elif not any(groups[:5]):
                groups[5] = 0  # not by chance one of version 4
            whole = int.from_bytes(b"".join(group.to_bytes(2, "big") for group in groups), "big")
            row[f"{side}_high"], row[f"{side}_low"] = whole >> 64, whole & (1 << 64) - 1
            row[f"{side}_port"] = chance.choice((0, 9, 443, 65535))
        if chance.random() < 0.2:
            row["resp_high"], row["resp_low"] = row["orig_high"], row["orig_low"]
        for name in ("first_ns", "last_ns", "orig_packets", "resp_packets", "orig_bytes", "resp_bytes"):
            row[name] = chance.choice(_NUMBERS)
        for name in ("orig_ip_bytes", "resp_ip_bytes", "missed_bytes", "number"):
            row[name] = chance.choice(_NUMBERS[:9])
        row["outer"] = chance.choice((-1, 0, 7, 10**12))
        row["vlan"], row["inner_vlan"] = chance.choice((-1, 0, 4095)), chance.choice((-1, 1))
        row["protocol"], row["one_way"] = chance.choice((*_PORTED, 47, 255)), chance.random() < 0.2
        for name in ("direction", "end", "handshake", "closed_by", "tunnel"):
            row[name] = chance.randrange(len(WORDS[name]))
    return rows


@pytest.mark.parametrize(
    ("host", "label"),
    [("capture", "monday.pcap"), ('a "b", c', 'x,"y"\n#z'), ("größe", "日本\udc80"), ("", "")],
    ids=["plain", "quoted", "beyond-ascii", "empty"],
)
def test_lines_are_what_a_csv_writer_writes(host, label):
    """Compiled lines of CSV hold the columns, quoted where they must be."""
    rows = _rows(400)
    columns = make_columns(rows, host, label)
    lists = [column if isinstance(column, list) else column.tolist() for column in columns.values()]
    text = io.StringIO()
    csv.writer(text).writerows(zip(*lists, strict=True))
    assert make_lines(rows, host, label) == text.getvalue().encode("utf-8", errors="backslashreplace")


def test_addresses_and_names_are_those_of_the_standards():
    """Addresses read as Python's own, and names as the oracle has them."""
    rows = _rows(2000)
    columns = make_columns(rows, "capture", "")
    for row, orig, resp, name in zip(
        rows, columns["orig_addr"], columns["resp_addr"], columns["community_id"], strict=True
    ):
        ends = [_address(int(row[f"{side}_high"]), int(row[f"{side}_low"])) for side in ("orig", "resp")]
        assert [orig, resp] == [str(end) for end in ends]
        protocol = int(row["protocol"])
        ports = (int(row["orig_port"]), int(row["resp_port"])) if protocol in _PORTED else None
        assert name == community_id(protocol, ends[0], ends[1], ports, bool(row["one_way"]))


def _address(high: int, low: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if not high and low >> 32 == 0xFFFF:
        return ipaddress.IPv4Address(low & 0xFFFFFFFF)
    return ipaddress.IPv6Address(high << 64 | low)
