# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as a table that fits: one row a line, never wider than the terminal.

Where the terminal is too narrow, the columns of least worth are left out first, and only then is text cut. Both are
said below the table, for what is missing without a word is taken for not being there.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from whoneeds.render.visible import make_visible

_GAP = 2
_LEAST = 8
#: Text longer than this is cut before any column is left out for it.
_COMFORT = 36
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Shown:
    """A column of a table.

    Attributes
    ----------
    title : str
    tell : callable
        From a row to its text.
    worth : int
        Columns of the smallest worth go first where room is short; 0 never goes.
    right : bool
        Whether it is aligned to the right.
    """

    title: str
    tell: Callable[[Mapping[str, Any]], str]
    worth: int = 0
    right: bool = False


def format_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Shown], *, width: int | None = None, styled: bool = False
) -> str:
    """Rows as a table.

    Parameters
    ----------
    rows : sequence of mapping
    columns : sequence of Shown
    width : int, optional
        Columns of the terminal; as wide as it must be without one (a file, a pipe).
    styled : bool
        Whether the titles may be set off by terminal codes.

    Returns
    -------
    str
        Lines, the last one ended too; at the end what was left out or cut, if anything was.
    """
    cells = [[make_visible(column.tell(row)) for column in columns] for row in rows]
    widths = [
        max([cell_len(column.title), *(cell_len(line[at]) for line in cells)]) for at, column in enumerate(columns)
    ]
    comfortable = [size if column.right else min(size, _COMFORT) for column, size in zip(columns, widths, strict=True)]
    kept = _choose(columns, comfortable, width)
    fits = width is None or _total(widths, kept) <= width
    limits = widths if fits else _cut(columns, widths, kept, width or 0)
    titles = [column.title for column in columns]
    head, *body = (_line(columns, line, limits, kept) for line in (titles, *cells))
    text = "\n".join([_BOLD + head + _PLAIN if styled else head, *body, ""])
    notes = []
    if len(kept) < len(columns):
        left_out = ", ".join(column.title.lower() for at, column in enumerate(columns) if at not in kept)
        notes.append(f"left out to fit {width} columns: {left_out}")
    if not fits:
        notes.append("text that ends in … is cut")
    if notes:
        text += textwrap.fill(f"({'; '.join(notes)}; --format json or csv has everything)", width or 120) + "\n"
    return text


def _choose(columns: Sequence[Shown], widths: Sequence[int], width: int | None) -> list[int]:
    """Which columns stay: as many as fit, the dispensable ones of least worth going first."""
    kept = list(range(len(columns)))
    going = sorted((at for at in kept if columns[at].worth > 0), key=lambda at: (columns[at].worth, -at))
    while width is not None and going and _total(widths, kept) > width:
        kept.remove(going.pop(0))
    return kept


def _cut(columns: Sequence[Shown], widths: Sequence[int], kept: Sequence[int], width: int) -> list[int]:
    """Widths that fit: the widest text columns give until all fit or none has more to give."""
    limits = list(widths)
    flexible = [at for at in kept if not columns[at].right]
    while _total(limits, kept) > width:
        widest = max(flexible, key=lambda at: limits[at])
        if limits[widest] <= _LEAST:
            break
        limits[widest] -= 1
    return limits


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[at] for at in kept) + _GAP * (len(kept) - 1)


def _line(columns: Sequence[Shown], cells: Sequence[str], limits: Sequence[int], kept: Sequence[int]) -> str:
    made = []
    for at in kept:
        text, room = cells[at], limits[at]
        if cell_len(text) > room:
            text = set_cell_size(text, room - 1) + "…"
        blank = " " * (room - cell_len(text))
        made.append(blank + text if columns[at].right else text + blank)
    return (" " * _GAP).join(made).rstrip()
