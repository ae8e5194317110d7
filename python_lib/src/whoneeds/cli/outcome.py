# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command ends, and how it speaks: answers on standard output, everything else on standard error."""

import os
import sys
import textwrap
from enum import StrEnum

from whoneeds.model.errors import SettingsError, WhoneedsError

DONE = 0
FAILED = 1
USAGE = 2
DONE_IN_PART = 4
INTERRUPTED = 130


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class GraphFormat(StrEnum):
    """How rows are printed that are edges of a graph as well."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    DOT = "dot"
    GRAPHML = "graphml"
    MERMAID = "mermaid"


class SummaryFormat(StrEnum):
    """How a summary is printed."""

    TABLE = "table"
    JSON = "json"


def say(text: str) -> None:
    """Write a line for people to standard error."""
    print(text, file=sys.stderr, flush=True)


def say_paragraph(text: str) -> None:
    """Write a sentence to standard error, broken between words where that is a terminal."""
    width = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    say(textwrap.fill(text, width, subsequent_indent="  ") if width > 20 else text)


def answer(text: str) -> None:
    """Write an answer to standard output."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def terminal_width() -> int | None:
    """Columns of the terminal on standard output; None where the output is no terminal."""
    if not sys.stdout.isatty():
        return None
    return max(os.get_terminal_size(sys.stdout.fileno()).columns, 20)


def is_styled() -> bool:
    """Whether terminal codes are welcome on standard output."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def exit_code_of(error: WhoneedsError) -> int:
    """A wrong setting is a wrong use of the command; everything else is a failure of what it did."""
    return USAGE if isinstance(error, SettingsError) else FAILED


def explain(error: WhoneedsError) -> str:
    """An error as lines: what went wrong, what was expected, what was found, what to do."""
    # lazily: the error path is the only one of several verbs that needs it
    from whoneeds.render.visible import make_visible

    lines = [f"whoneeds: {make_visible(error.message)}"]
    for title, text in (("expected", error.expected), ("found", error.found), ("do", error.remedy)):
        if text is not None:
            lines.append(f"  {title + ':':<10}{make_visible(text)}")
    return "\n".join(lines)
