# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from hosts, made so that it can neither hide nor act.

Whoever starts a process chooses its name. Such a name may hold a template that Ansible would run on the
controller, control characters that rewrite a terminal, or direction marks that make it read as another one.
Here each of these becomes a visible escape, so that a reader sees what was there.
"""

import hashlib
import re
import unicodedata

#: What begins a Jinja template, statement or comment.
_TEMPLATE = re.compile(r"\{(?=[{%#])")

#: At the head of a text this line would let Ansible take any other characters for a template's begin.
_OVERRIDE = re.compile(r"\A(\s*)#(?=\s*jinja2\s*:)", re.IGNORECASE)

#: Controls, format characters (direction, joiners, tags), lone surrogates, unassigned, line and paragraph ends.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})

_DIGEST_LENGTH = 8


def make_inert(text: str, max_length: int) -> str:
    r"""Return the text with everything that acts or hides turned into visible escapes.

    Parameters
    ----------
    text : str
        Anything, lone surrogates included.
    max_length : int
        Longest result in characters, at least 16. A longer text is cut and ends in ``~`` and eight hex digits
        of the SHA-256 of the original, so that two long texts stay two.

    Returns
    -------
    str
        In normal form C, without control, format or surrogate characters, without ``{{``, ``{%``, ``{#`` and
        without a leading ``#jinja2:``. Applying it again changes nothing.

    Examples
    --------
    >>> make_inert("nginx", 64)
    'nginx'
    >>> print(make_inert("{{ 7*7 }}\x1b[2J", 64))
    \x7b{ 7*7 }}\x1b[2J
    """
    shown = "".join(map(_show, unicodedata.normalize("NFC", text)))
    shown = _TEMPLATE.sub(r"\\x7b", shown)
    shown = _OVERRIDE.sub(r"\1\\x23", shown)
    shown = unicodedata.normalize("NFC", shown)
    if len(shown) <= max_length:
        return shown
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{shown[: max_length - _DIGEST_LENGTH - 1]}~{digest}"


def _show(letter: str) -> str:
    if " " <= letter <= "~" or unicodedata.category(letter) not in _HIDDEN:
        return letter
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
