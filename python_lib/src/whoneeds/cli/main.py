# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``whoneeds``: its verbs in the order of the line, and how it ends."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from whoneeds import __version__
from whoneeds.cli import evaluate, facts, flows, graph, intake, line, profile, queries, store, trace
from whoneeds.cli.engine import as_limit
from whoneeds.cli.outcome import FAILED, INTERRUPTED, exit_code_of, explain, say
from whoneeds.cli.verbs import as_it_stands
from whoneeds.model.errors import WhoneedsError

app = typer.Typer(
    name="whoneeds",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"whoneeds {__version__}")
        raise typer.Exit


#: Modules of verbs, in the order of the line.
GROUPS = (trace, flows, intake, line, facts, queries, graph, profile, evaluate, store)
_EXAMPLES = [examples[0] for group in GROUPS for examples in group.EXAMPLES.values()]


@app.callback(epilog=as_it_stands("One example a verb; `whoneeds VERB --help` has more:", _EXAMPLES))
def whoneeds(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="On an error, print where in the program it arose.")] = False,
) -> None:
    """Find who needs whom in a fleet, from what processes really did on the wire."""


for _group in GROUPS:
    _group.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong use, 4 done in part, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # --debug may stand anywhere; the tracer's own options are its own
    debug = "--debug" in given and given[0] != "trace"
    if debug:
        given = [word for word in given if word != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a name that the terminal's encoding does not know must not end the program
            stream.reconfigure(errors="backslashreplace")
    try:
        app(given, prog_name="whoneeds")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except WhoneedsError as error:
        if debug:
            raise
        say(explain(error))
        return exit_code_of(error)
    except KeyboardInterrupt:
        say("whoneeds: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read the answer has enough; the interpreter must not stumble over it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
        if (limit := as_limit(error)) is not None:
            say(explain(limit))
            return FAILED
        say(f"whoneeds: unexpected error: {type(error).__name__}: {ascii(str(error))[1:-1][:400]}")
        say("  do:       run it again with --debug and report what it prints")
        return FAILED
    return 0
