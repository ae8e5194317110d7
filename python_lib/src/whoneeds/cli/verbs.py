# SPDX-License-Identifier: GPL-3.0-or-later
"""How a verb becomes a command: its docstring is its help, and examples that can be typed as they stand follow it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

#: Verbs with their examples, in the order in which help lists them.
Examples = Mapping[Callable[..., None], Sequence[str]]

#: A line of its own that holds this character keeps click from filling the paragraph.
_AS_IT_STANDS = "\b"


def add_verb(app: typer.Typer, verb: Callable[..., None], examples: Sequence[str], **settings: Any) -> None:
    """Add a verb with its examples.

    Parameters
    ----------
    app : typer.Typer
    verb : callable
        Its name is the verb, with hyphens; the first line of its docstring stands in the list of verbs.
    examples : sequence of str
        Command lines.
    **settings
        Passed on to `typer.Typer.command`.
    """
    text = inspect.cleandoc(verb.__doc__ or "")
    app.command(
        verb.__name__.replace("_", "-"),
        help=f"{text}\n\n{as_it_stands('Examples:', examples)}",
        short_help=text.splitlines()[0].rstrip("."),
        **settings,
    )(verb)


def as_it_stands(title: str, lines: Sequence[str]) -> str:
    """A paragraph of help whose lines are kept."""
    return "\n".join([_AS_IT_STANDS, title, *(f"  {line}" for line in lines)])
