# SPDX-License-Identifier: GPL-3.0-or-later
"""From the meter's numbers to columns and to wire flows."""

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from whoneeds.flow.community import community_id
from whoneeds.flow.compiled.packet import ICMP, ICMP6, SCTP, TCP, UDP
from whoneeds.model.evidence import CLOSED_BY, ENDS, HANDSHAKES, TUNNELS, WIRE_DIRECTIONS, WIRE_PROTOCOLS, WireFlow

_PROTOCOLS = np.full(256, WIRE_PROTOCOLS.index("other"), np.int8)
for _number, _word in ((TCP, "tcp"), (UDP, "udp"), (ICMP, "icmp"), (ICMP6, "icmp"), (SCTP, "sctp")):
    _PROTOCOLS[_number] = WIRE_PROTOCOLS.index(_word)
_MAPPED_HIGH = 0x0000FFFF
_COUNTS = (
    "first_ns", "last_ns", "orig_packets", "resp_packets", "orig_bytes", "resp_bytes", "orig_ip_bytes",
    "resp_ip_bytes", "missed_bytes",
)  # fmt: skip
#: Columns whose numbers stand for words, and the words.
WORDS = {
    "protocol": WIRE_PROTOCOLS, "direction": WIRE_DIRECTIONS, "end": ENDS, "handshake": HANDSHAKES,
    "closed_by": CLOSED_BY, "tunnel": ("", *TUNNELS),
}  # fmt: skip


@lru_cache(1 << 14)
def address_of(high: int, low: int) -> tuple[str, bytes]:
    """An address as text and as bytes."""
    if high == 0 and low >> 32 == _MAPPED_HIGH:
        packed = (low & 0xFFFFFFFF).to_bytes(4, "big")
        return ".".join(map(str, packed)), packed
    packed = high.to_bytes(8, "big") + low.to_bytes(8, "big")
    return str(ipaddress.IPv6Address(packed)), packed


def make_columns(done: Any, host: str, label: str) -> dict[str, Any]:
    """Columns of `WireFlow`, in its order; texts as lists, None where absent.

    Parameters
    ----------
    done : array of OUTCOME
    host, label : str

    Returns
    -------
    dict of str to list or array
    """
    ends = [
        [
            address_of(high, low)
            for high, low in zip(done[f"{side}_high"].tolist(), done[f"{side}_low"].tolist(), strict=True)
        ]
        for side in ("orig", "resp")
    ]
    protocols, one_way = done["protocol"].tolist(), done["one_way"].tolist()
    orig_ports, resp_ports = done["orig_port"].astype(np.int64), done["resp_port"].astype(np.int64)
    names = [
        community_id(protocol, orig[1], orig_port, resp[1], resp_port, bool(way))
        for protocol, orig, orig_port, resp, resp_port, way in zip(
            protocols, ends[0], orig_ports.tolist(), ends[1], resp_ports.tolist(), one_way, strict=True
        )
    ]
    made: dict[str, Any] = {
        "flow_id": [f"{label}#{number}" for number in done["number"].tolist()],
        "host": [host] * len(done),
        "source": ["pcap"] * len(done),
        "protocol": _words(_PROTOCOLS[done["protocol"]], "protocol"),
        "orig_addr": [end[0] for end in ends[0]],
        "orig_port": orig_ports,
        "resp_addr": [end[0] for end in ends[1]],
        "resp_port": resp_ports,
        "direction": _words(done["direction"], "direction"),
    }
    made |= {name: done[name] for name in _COUNTS}
    made |= {name: _words(done[name], name) for name in ("end", "handshake", "closed_by")}
    made["community_id"] = names
    made["vlan"] = _known(done["vlan"])
    made["inner_vlan"] = _known(done["inner_vlan"])
    made["tunnel"] = [word or None for word in _words(done["tunnel"], "tunnel")]
    made["outer_flow_id"] = [None if number < 0 else f"{label}#{number}" for number in done["outer"].tolist()]
    return made


def _words(numbers: Any, name: str) -> list[str]:
    words = WORDS[name]
    return [words[number] for number in numbers.tolist()]


def _known(numbers: Any) -> list[int | None]:
    return [None if number < 0 else number for number in numbers.tolist()]


def make_rows(columns: dict[str, Any]) -> Iterator[WireFlow]:
    """The same as records."""
    lists = {name: column if isinstance(column, list) else column.tolist() for name, column in columns.items()}
    names = list(lists)
    for values in zip(*lists.values(), strict=True):
        yield WireFlow(**dict(zip(names, values, strict=True)))
