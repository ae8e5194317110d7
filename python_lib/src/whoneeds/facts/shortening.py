# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of one host is told, so that no host, whatever it does, can make the document too large for all others.

A section keeps so many entries and so many bytes. What matters most stays: static before transient, relied upon before
not, much used before little used. How much was left out is said among the host's gaps.
"""

import json
from typing import Any

from whoneeds.facts.groups import FIRST_EPHEMERAL_PORT

#: Longest list of one section of one host.
SECTION_LIMIT = 1000
#: Most that one section of one host takes as compact JSON; a busy host's thousand needs fit.
SECTION_LIMIT_BYTES = 384 * 1024
#: Most names of applications within one `Provision`, of hosts `SECTION_LIMIT`; both repeat what ``needed_by`` says.
NAMES_LIMIT = 100

_KIND_ORDER = {"static": 0, "unclassified": 1, "transient": 2}


def shorten(entries: list[Any], what: str) -> tuple[list[Any], str | None]:
    """Sort a section and hold it to its limits.

    Parameters
    ----------
    entries : list
        Records as dicts, or strings.
    what : str
        What they are, in the plural.

    Returns
    -------
    tuple of list and str or None
        The entries that stay, and what was left out, in words.
    """
    kept, size = [], 0
    for entry in sorted(entries, key=_weight)[:SECTION_LIMIT]:
        size += len(json.dumps(entry))
        if size > SECTION_LIMIT_BYTES:
            break
        kept.append(entry)
    missing = len(entries) - len(kept)
    cut = f"facts: truncated: {missing} of {len(entries)} {what} left out of this document" if missing else None
    return sorted(kept, key=_order), cut


def _weight(entry: Any) -> Any:
    """What stays when a section is too long: static before others, much used before little used."""
    if isinstance(entry, str):
        return entry
    relied = bool(entry.get("needed_by_hosts"))
    return (
        _KIND_ORDER.get(entry.get("kind"), 0),
        not relied,
        entry["port"] >= FIRST_EPHEMERAL_PORT,
        -entry.get("flows", 0),
        _order(entry),
    )


def _order(entry: Any) -> Any:
    """Static entries first, then by name, so that a reader finds what matters at the top."""
    if isinstance(entry, str):
        return entry
    words = ("host", "app", "protocol", "address", "provider")
    return _KIND_ORDER.get(entry.get("kind"), 0), [entry.get(word) or "" for word in words], entry["port"]
