# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from hosts as it may be shown on a terminal: nothing in it moves the cursor, hides, or turns direction."""

import unicodedata

#: Controls, format characters (direction marks, joiners), surrogates, private and unassigned ones, line ends.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def make_visible(text: str) -> str:
    r"""Return the text with every character that a reader cannot see turned into its escape.

    Parameters
    ----------
    text : str
        Anything, lone surrogates included.

    Examples
    --------
    >>> make_visible("nginx")
    'nginx'
    >>> print(make_visible("a\x1b[2Jb\u202ec"))
    a\x1b[2Jb\u202ec
    """
    return "".join(map(_show, text))


def _show(letter: str) -> str:
    if unicodedata.category(letter) not in _HIDDEN:
        return letter
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
