# SPDX-License-Identifier: GPL-3.0-or-later
"""From the meter's numbers to columns and to wire flows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from whoneeds.flow.compiled.community import ROUNDS
from whoneeds.flow.compiled.packet import ICMP, ICMP6, SCTP, TCP, UDP
from whoneeds.flow.compiled.table import NUMBER
from whoneeds.flow.compiled.texts import (
    ALL_WORDS,
    CLOSED_BY_WORDS,
    DIRECTION_WORDS,
    END_WORDS,
    HANDSHAKE_WORDS,
    MOST_LINE_BYTES,
    PROTOCOL_WORDS,
    TEXT_BYTES,
    TUNNEL_WORDS,
    WORD_BYTES,
    name_flows,
    write_lines,
)
from whoneeds.model.evidence import CLOSED_BY, ENDS, HANDSHAKES, TUNNELS, WIRE_DIRECTIONS, WIRE_PROTOCOLS, WireFlow

_PROTOCOLS = np.full(256, WIRE_PROTOCOLS.index("other"), np.int8)
for _number, _word in ((TCP, "tcp"), (UDP, "udp"), (ICMP, "icmp"), (ICMP6, "icmp"), (SCTP, "sctp")):
    _PROTOCOLS[_number] = WIRE_PROTOCOLS.index(_word)
_SOURCE = "pcap"
_COUNTS = (
    "first_ns", "last_ns", "orig_packets", "resp_packets", "orig_bytes", "resp_bytes", "orig_ip_bytes",
    "resp_ip_bytes", "missed_bytes",
)  # fmt: skip
#: Columns whose numbers stand for words, and the words.
WORDS = {
    "protocol": WIRE_PROTOCOLS, "direction": WIRE_DIRECTIONS, "end": ENDS, "handshake": HANDSHAKES,
    "closed_by": CLOSED_BY, "tunnel": ("", *TUNNELS),
}  # fmt: skip


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
    texts = np.zeros(3 * TEXT_BYTES * len(done), np.uint8)
    name_flows(done, len(done), texts, np.zeros(ROUNDS, NUMBER))
    orig, resp, names = (
        texts.view(f"S{TEXT_BYTES}").astype(str).reshape(-1, 3).T.tolist() if len(done) else ([], [], [])
    )
    made: dict[str, Any] = {
        "flow_id": [f"{label}#{number}" for number in done["number"].tolist()],
        "host": [host] * len(done),
        "source": [_SOURCE] * len(done),
        "protocol": _words(_PROTOCOLS[done["protocol"]], "protocol"),
        "orig_addr": orig,
        "orig_port": done["orig_port"].astype(np.int64),
        "resp_addr": resp,
        "resp_port": done["resp_port"].astype(np.int64),
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


def make_lines(done: Any, host: str, label: str) -> bytes:
    """The same as lines of CSV, without one of names."""
    marked = _cell(f"{label}#\0")
    prefix, suffix = marked.split(b"\0")
    same = b"".join((prefix, suffix, b",", _cell(host), b",", _cell(_SOURCE), b","))
    room = 2 * len(same) + MOST_LINE_BYTES
    out = np.empty(room * len(done), np.uint8)
    size = write_lines(
        done, len(done), np.frombuffer(same, np.uint8), len(prefix), len(prefix) + len(suffix),
        _WORD_TABLE, out, np.zeros(ROUNDS, NUMBER),
    )  # fmt: skip
    return out[:size].tobytes()


def _cell(text: str) -> bytes:
    """A cell of CSV, in quotes if it needs them."""
    if any(character in text for character in ',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode("utf-8", errors="backslashreplace")


def _make_word_table() -> Any:
    table = np.zeros(ALL_WORDS * WORD_BYTES, np.uint8)
    protocols = [WIRE_PROTOCOLS[number] for number in _PROTOCOLS.tolist()]
    for begin, words in (
        (PROTOCOL_WORDS, protocols), (DIRECTION_WORDS, WORDS["direction"]), (END_WORDS, WORDS["end"]),
        (HANDSHAKE_WORDS, WORDS["handshake"]), (CLOSED_BY_WORDS, WORDS["closed_by"]), (TUNNEL_WORDS, WORDS["tunnel"]),
    ):  # fmt: skip
        for number, word in enumerate(words, begin):
            table[number * WORD_BYTES : number * WORD_BYTES + 1 + len(word)] = [len(word), *word.encode("ascii")]
    return table


_WORD_TABLE = _make_word_table()


def make_rows(columns: dict[str, Any]) -> Iterator[WireFlow]:
    """The same as records."""
    lists = {name: column if isinstance(column, list) else column.tolist() for name, column in columns.items()}
    names = list(lists)
    for values in zip(*lists.values(), strict=True):
        yield WireFlow(**dict(zip(names, values, strict=True)))
