# SPDX-License-Identifier: GPL-3.0-or-later
"""What the meter and its oracle say of one capture, in the same words, so that they can be compared."""

from collections.abc import Iterable

from tests.conformance.zeek_state import conn_state
from tests.lib.flow.oracle import Oracle, OracleFlow
from whoneeds.flow import MeterSettings, meter_capture
from whoneeds.model.evidence import WireFlow

#: Ports of servers among those that forged conversations use; all others of theirs are nobody's.
SERVER_PORTS = {"tcp": frozenset({80, 443}), "udp": frozenset({53, 2152, 3544, 4789, 5072, 6081})}
#: With a table that is quickly made, for captures of few flows.
SMALL = MeterSettings(most_flows=1 << 11)
_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp", 132: "sctp"}


def by_oracle(content: bytes) -> list[dict]:
    """What the oracle says."""
    return _ordered(_of_oracle(flow) for flow in Oracle(SERVER_PORTS).read(content))


def by_meter(pieces: Iterable[bytes], settings: MeterSettings = SMALL) -> list[dict]:
    """What the meter says; what could not be read is wrong here, and what could not be told is not."""
    metered = meter_capture(pieces, settings)
    rows = list(metered)
    assert all(text[0].isdigit() for text in metered.problems), metered.problems
    return of_rows(rows)


def difference(meter: list[dict], oracle: list[dict]) -> list[str]:
    """What the two say differently."""
    found = [] if len(meter) == len(oracle) else [f"the meter has {len(meter)} flows, the oracle {len(oracle)}"]
    for number, (one, other) in enumerate(zip(meter, oracle, strict=False)):
        found += [
            f"flow {number}: {name}: the meter says {one.get(name)}, the oracle {other.get(name)}"
            for name in sorted({*one, *other})
            if one.get(name) != other.get(name)
        ]
    return found


def of_rows(rows: list[WireFlow]) -> list[dict]:
    """Rows of wire flows in the words of the comparison."""
    by_id = {row.flow_id: row for row in rows}
    assert len(by_id) == len(rows)
    return _ordered(_of_row(row, by_id) for row in rows)


def _ordered(told: Iterable[dict]) -> list[dict]:
    return sorted(told, key=lambda row: (row["first_ns"], repr(sorted(row.items()))))


def _of_oracle(flow: OracleFlow) -> dict:
    name = _NAMES.get(flow.protocol, "other")
    told = {
        "protocol": name,
        "orig": (str(flow.orig[0]), flow.orig[1]),
        "direction": flow.direction,
        "resp": (str(flow.resp[0]), flow.resp[1]),
        "first_ns": flow.first_ns,
        "last_ns": flow.last_ns,
        "packets": (flow.packets[True], flow.packets[False]),
        "ip_bytes": (flow.ip_bytes[True], flow.ip_bytes[False]),
        "community_id": flow.community_id,
        "vlans": flow.vlans,
        "tunnel": flow.tunnel,
        "outer": None if flow.outer is None else (str(flow.outer.orig[0]), str(flow.outer.resp[0]), flow.outer.resp[1]),
    }
    if name in ("tcp", "udp", "icmp"):
        told["bytes"] = (flow.bytes[True], flow.bytes[False])
    if name in ("tcp", "udp"):
        told["state"] = flow.state
    if flow.tcp is not None:
        told["missed"] = flow.tcp.orig.missed + flow.tcp.resp.missed
    return told


def _of_row(row: WireFlow, by_id: dict[str, WireFlow]) -> dict:
    outer = by_id.get(row.outer_flow_id or "")
    told = {
        "protocol": row.protocol,
        "orig": (row.orig_addr, row.orig_port),
        "direction": row.direction,
        "resp": (row.resp_addr, row.resp_port),
        "first_ns": row.first_ns,
        "last_ns": row.last_ns,
        "packets": (row.orig_packets, row.resp_packets),
        "ip_bytes": (row.orig_ip_bytes, row.resp_ip_bytes),
        "community_id": row.community_id,
        "vlans": (row.vlan, row.inner_vlan),
        "tunnel": row.tunnel,
        "outer": None if outer is None else (outer.orig_addr, outer.resp_addr, outer.resp_port),
    }
    if row.protocol in ("tcp", "udp", "icmp"):
        told["bytes"] = (row.orig_bytes, row.resp_bytes)
    if row.protocol == "tcp":
        told["missed"] = row.missed_bytes
    if row.protocol in ("tcp", "udp"):
        told["state"] = conn_state(row)
    return told
