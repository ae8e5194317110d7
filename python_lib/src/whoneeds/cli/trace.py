# SPDX-License-Identifier: GPL-3.0-or-later
"""``whoneeds trace``: the tracer's own command line, handed through word by word."""

import typer

from whoneeds.cli.verbs import Examples, add_verb


def register(app: typer.Typer) -> None:
    """Add the verb."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples, add_help_option=False, context_settings=settings)


def trace(context: typer.Context) -> None:
    """Watch this host's sockets and who owns them.

    Verbs of its own: once, run, start, stop, status. `whoneeds trace --help` prints them, and `whoneeds trace run
    --help` the options of one.
    """
    from whoneeds.tracer.command import main

    raise typer.Exit(main(["trace", *context.args]))


EXAMPLES: Examples = {
    trace: (
        "whoneeds trace once",
        "whoneeds trace run --for 60 --dir traced",
        "whoneeds trace start --dir traced --period 5",
        "whoneeds trace status --dir traced",
    ),
}
