# SPDX-License-Identifier: GPL-3.0-or-later
"""Show one sample: the table and the document of ``whoneeds trace once``."""

import unicodedata
from typing import Any, Dict, List, Optional, Sequence, Type

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.model.schema import columns, to_row
from whoneeds.tracer.text import shown_text

LISTING_SCHEMA = 1
#: Columns that go first when a terminal is narrow, then those that are made narrower.
_DISPENSABLE = (7, 6, 5)
_HEADINGS = ("PROTO", "LOCAL", "REMOTE", "STATE", "PROGRAM", "PID", "USER", "UNIT")
#: Narrower than this no column becomes.
_LEAST = 4
#: So wide a column is readable.
_READABLE = 18


def make_document(host: str, at_ns: int, privileged: bool, tables: Dict[Type[Any], List[Any]]) -> Dict[str, Any]:
    """The sample as a JSON document."""

    def rows(record: Type[Any]) -> List[Dict[str, Any]]:
        names = [column.name for column in columns(record)]
        return [dict(zip(names, to_row(row))) for row in tables[record]]

    return {
        "schema": LISTING_SCHEMA,
        "host": host,
        "at_ns": at_ns,
        "privileged": privileged,
        "sockets": rows(SocketRecord),
        "processes": rows(ProcessRecord),
        "gaps": rows(Gap),
    }


def make_lines(tables: Dict[Type[Any], List[Any]], width: Optional[int]) -> List[str]:
    """The sample as a table.

    Parameters
    ----------
    tables : dict of record class to list of records
    width : int or None
        Columns of the terminal that it must fit; None does not cut.
    """
    processes = {process.process_id: process for process in tables[ProcessRecord]}
    cells = []
    for found in tables[SocketRecord]:
        if found.source == "tuple_only":
            continue
        process = processes.get(found.process_id)
        cells.append(
            (
                found.protocol,
                _end(found.local_addr, found.local_port),
                _end(found.remote_addr, found.remote_port),
                found.state,
                "-" if process is None else process.name,
                "-" if process is None else str(process.pid),
                (str(found.uid) if found.uid is not None else "-")
                if process is None
                else process.user or str(process.uid),
                "-" if process is None else process.container or process.unit or "-",
            )
        )
    cells.sort(key=lambda row: (row[3] != "listen", row[4], row[0], row[1], row[2], row[5]))
    shown = [_HEADINGS, *(tuple(shown_text(cell) for cell in row) for row in cells)]
    kept = list(range(len(_HEADINGS)))
    widths = [max(_width(row[at]) for row in shown) for at in kept]
    for at in _DISPENSABLE:
        if width is not None and sum(min(widths[at], _READABLE) + 2 for at in kept) - 2 > width:
            kept.remove(at)
    fitted = _fit([widths[at] for at in kept], width)
    lines = ["  ".join(_cut(row[at], wide) for at, wide in zip(kept, fitted)).rstrip() for row in shown]
    closed = len(tables[SocketRecord]) - len(cells)
    if closed:
        lines.append(f"({closed} closed connections, not listed)")
    return lines


def _end(address: Optional[str], port: Optional[int]) -> str:
    if address is None:
        return "*"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _fit(widths: List[int], width: Optional[int]) -> List[int]:
    """Take from the widest column until the line fits."""
    widths = list(widths)
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _cut(text: str, width: int) -> str:
    """The text in exactly so many columns; what is cut off is marked."""
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "~"
    return text + " " * (width - _width(text))


def make_notes(gaps: Sequence[Gap]) -> List[str]:
    """What could not be seen, a line each."""
    lines = []
    for gap in gaps:
        count = "" if gap.lost is None else f" ({gap.lost})"
        lines.append(shown_text(f"not seen: {gap.source}, {gap.reason}: {gap.detail}{count}"))
    return lines
