# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn names that hosts choose into legal text, and legal text into something a terminal may show."""


def legal_text(text: str, max_length: int) -> str:
    r"""Text that any UTF-8 file can hold: undecodable bytes become visible, and it ends at the limit.

    Examples
    --------
    >>> legal_text("caf\udce9", 64)
    'caf\\udce9'
    """
    if not text.isascii():
        text = "".join(f"\\u{ord(letter):04x}" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text[:max_length]


def shown_text(text: str) -> str:
    r"""Text that cannot steer a terminal: control, bidirectional and other invisible characters become visible.

    Examples
    --------
    >>> shown_text("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
