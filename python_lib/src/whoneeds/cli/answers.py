# SPDX-License-Identifier: GPL-3.0-or-later
"""How verbs that ask give their answer: rows in the form that was asked for, and under a table what it rests on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from whoneeds.cli.outcome import (
    DONE,
    DONE_IN_PART,
    Format,
    GraphFormat,
    answer,
    is_styled,
    say,
    say_paragraph,
    terminal_width,
)

if TYPE_CHECKING:
    from whoneeds.analysis.filters import Filters
    from whoneeds.cli.evidence import Observation
    from whoneeds.cli.narrowing import Rows
    from whoneeds.render.table import Shown
    from whoneeds.store.session import Store


def observe(store: "Store") -> "Observation":
    """What the store's answers rest on."""
    from whoneeds.cli.evidence import describe

    return describe(store)


def tell_narrowing(store: "Store", filters: "Filters", shown: "Rows") -> list[str]:
    """Sentences about what was narrowed, and how much of the observation is left."""
    from whoneeds.analysis.filters import measure_observation
    from whoneeds.cli.evidence import require_segments
    from whoneeds.model.evidence import SegmentHeader
    from whoneeds.render.narrowing import tell_filters, tell_rows

    said = tell_rows(shown.apps, shown.services)
    if not filters.changes_population:
        return said
    hosts = require_segments(store)
    span = min(row["first_ns"] for row in hosts), max(row["last_ns"] for row in hosts)
    (left,) = store.read(measure_observation(store.table(SegmentHeader), filters)).to_pylist()
    return [*tell_filters(filters, left, span), *said]


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    shown: "Sequence[Shown]",
    form: Format | GraphFormat,
    sentences: Sequence[str],
) -> None:
    """Print rows in the form that was asked for; under a table stands what it rests on.

    Parameters
    ----------
    rows : sequence of mapping
    names : sequence of str
        Columns of CSV.
    shown : sequence of Shown
        Columns of the table.
    form : Format or GraphFormat
    sentences : sequence of str
    """
    if form == Format.JSON:
        from whoneeds.render.json_rows import format_json

        answer(format_json(rows))
    elif form == Format.CSV:
        from whoneeds.render.csv_rows import format_csv

        answer(format_csv(rows, names))
    elif form != Format.TABLE:
        from whoneeds.render.graphs import format_dot, format_graphml, format_mermaid

        draw = {"dot": format_dot, "graphml": format_graphml, "mermaid": format_mermaid}
        answer(draw[form.value](rows))
    else:
        from whoneeds.render.table import format_table

        if rows:
            answer(format_table(rows, shown, width=terminal_width(), styled=is_styled()))
        else:
            say("nothing to show")
        say("")
        for sentence in sentences:
            say_paragraph(sentence)


def finish(store: "Store") -> None:
    """End: in part, if files of the store had to be left out."""
    from whoneeds.cli.store import name_problems

    name_problems(store.problems)
    raise typer.Exit(DONE_IN_PART if store.problems else DONE)
