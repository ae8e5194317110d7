# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as YAML that every Ansible reads back equal, and runs nothing of (docs/decisions/facts.md).

Each string is double-quoted, printable ASCII, with everything that could act escaped. A string that YAML would
take for a string even without its quotes carries the tag ``!unsafe``, which tells Ansible never to template it. The
others (``yes``, ``null``, ``0x1f``, ``=`` and the like) must not carry it: newer Ansible versions forget the quotes of
a tagged scalar and read another type. They are words and numbers and hold no template. Mappings are written with
explicit keys (``? "key" : value``), so that no key is too long for a parser, and in flow style, so that
indentation means nothing.
"""

import math
import re
from typing import Any

import yaml

#: Plain text between the quotes: printable ASCII without what ends a string, escapes, or begins a template or comment.
_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) - frozenset('"\\{}%#')

_RESOLVER = yaml.resolver.Resolver()
_STRING_TAG = "tag:yaml.org,2002:str"

#: Deepest nesting that is written; the facts have four levels.
DEPTH_LIMIT = 64

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def write_value(value: Any, depth: int = 0) -> str:
    r"""Write a value as flow YAML.

    Parameters
    ----------
    value : dict, list, tuple, str, int, float, bool or None
        Keys of dicts are strings. A lone surrogate (a byte of a path that is no text) becomes the visible six
        characters ``\udcff``, since no file can hold it.
    depth : int
        Nesting so far; decides where lines break.

    Returns
    -------
    str
        ASCII. The two outermost levels have an entry a line.

    Raises
    ------
    ValueError
        For a value that YAML and JSON do not share: not a number, infinity, another type, more than 64 levels.

    Examples
    --------
    >>> write_value("nginx"), write_value("yes"), write_value("{{ 7 }}")
    ('!unsafe "nginx"', '"yes"', '!unsafe "\\x7b\\x7b 7 \\x7d\\x7d"')
    """
    if depth > DEPTH_LIMIT:
        raise ValueError(f"nested more than {DEPTH_LIMIT} levels deep")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _write_float(value)
    if isinstance(value, str):
        return _write_text(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key that is not a string")
        entries = [f"? {_write_text(key)} : {write_value(value[key], depth + 1)}" for key in sorted(value)]
        return _enclose("{", entries, "}", depth)
    if isinstance(value, (list, tuple)):
        return _enclose("[", [write_value(item, depth + 1) for item in value], "]", depth)
    raise ValueError(f"a {type(value).__name__}")


def show_surrogates(text: str) -> str:
    r"""The text with each lone surrogate as six visible characters.

    Examples
    --------
    >>> print(show_surrogates("caf\udce9"))
    caf\udce9
    """
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _write_text(text: str) -> str:
    text = show_surrogates(text)
    quoted = '"' + "".join(map(_escape, text)) + '"'
    resolved = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return f"!unsafe {quoted}" if resolved == _STRING_TAG else quoted


def _escape(letter: str) -> str:
    if letter in _PLAIN:
        return letter
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _write_float(value: float) -> str:
    """YAML 1.1 takes 1e-07 for a string: a float needs its point."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number")
    digits, exponent, power = repr(value).partition("e")
    if "." not in digits:
        digits += ".0"
    if exponent and power[0] not in "+-":
        power = "+" + power
    return digits + exponent + power


def _enclose(opening: str, entries: list[str], closing: str, depth: int) -> str:
    if not entries or depth > 1:
        return opening + ", ".join(entries) + closing
    margin = " " * (depth + 1)
    return opening + "\n" + ",\n".join(margin + entry for entry in entries) + "\n" + margin + closing
