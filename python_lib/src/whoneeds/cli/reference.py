# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the reference page of the command line from the commands themselves: ``python -m whoneeds.cli.reference``."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from whoneeds.cli.main import GROUPS
from whoneeds.cli.outcome import DONE, DONE_IN_PART, FAILED, INTERRUPTED, USAGE

_HEAD = f"""\
<!-- Written by `python -m whoneeds.cli.reference` from the program; change it there. -->
# The command line

Answers go to standard output, everything else to standard error, so that answers can be piped. `--debug`, anywhere,
prints where in the program an error arose. `NO_COLOR` is respected; a pipe gets neither terminal codes nor cut text.

| exit code | means |
|---|---|
| {DONE} | done |
| {FAILED} | failed; what was expected, what was found and what to do stands on standard error |
| {USAGE} | wrong use: an option or a setting |
| {DONE_IN_PART} | done in part: segments in quarantine, folders refused, files of the store left out; each is named |
| {INTERRUPTED} | interrupted |
"""


def render() -> str:
    """The page, as Markdown."""
    verbs = [
        (" ".join(("whoneeds", *name, verb.__name__.replace("_", "-"))), verb, examples)
        for group in GROUPS
        for name in [[group.NAME] if hasattr(group, "NAME") else []]
        for verb, examples in group.EXAMPLES.items()
    ]
    return "\n".join([_HEAD, *(line for told in verbs for line in _describe(*told))])


def _describe(command: str, verb: Callable[..., None], examples: Sequence[str]) -> Iterator[str]:
    yield f"## {command}\n"
    yield inspect.cleandoc(verb.__doc__ or "") + "\n"
    yield "```console"
    yield from (f"$ {line}" for line in examples)
    yield "```\n"
    options = list(_options(verb))
    if options:
        yield "| option | meaning | default |"
        yield "|---|---|---|"
        yield from options
        yield ""


def _options(verb: Callable[..., None]) -> Iterator[str]:
    """One row for each parameter, from the annotations that make the command itself."""
    hints = get_type_hints(verb, include_extras=True)
    for name, parameter in inspect.signature(verb).parameters.items():
        if get_origin(hints[name]) is not Annotated:
            continue
        kind, info = get_args(hints[name])[:2]
        told = _default(parameter.default, info)
        yield f"| `{_names(info, kind)}` | {info.help} | {told} |".replace("|  |", "| |")


def _names(info: Any, kind: Any) -> str:
    types = [one for one in (get_args(kind) or (kind,)) if one is not type(None)]
    words = [str(member.value) for one in types if isinstance(one, type) and issubclass(one, Enum) for member in one]
    value = info.metavar or "\\|".join(words)
    # an annotation's first word is kept as if it were a default
    names = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
    if get_origin(kind) is list and not names:
        value += "..."  # as the usage line has it
    return " ".join([*names, *([value] if value else [])])


def _default(default: Any, info: Any) -> str:
    if default is inspect.Parameter.empty:
        return "must be given"
    if default is None or default is False:
        return ""
    variable = f", or `{info.envvar}`" if info.envvar else ""
    return f"`{default.value if isinstance(default, Enum) else default}`{variable}"


if __name__ == "__main__":
    sys.stdout.write(render())
