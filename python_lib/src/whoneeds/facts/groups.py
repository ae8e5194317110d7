# SPDX-License-Identifier: GPL-3.0-or-later
"""Which inventory groups a host belongs to, and how a group gets its name.

Names that are group-safe already are used as they are: ``whoneeds_needs_db1``. Where making one safe changes
it, eight hex digits of its SHA-256 follow, so that ``db-1`` and ``db_1`` stay two groups. A name that looks as
if it carried such digits gets its own as well; otherwise a process could name itself into another's group.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

PREFIX = "whoneeds"

#: What any group of ours looks like; the inventory plugin refuses others.
GROUP_NAME = re.compile(r"whoneeds_(needs|runs)_[A-Za-z0-9_]{1,57}|whoneeds_provides_(tcp|udp)_[0-9]{1,5}")

#: Linux hands out ports from here on by itself; what listens there gets a group only if somebody relies on it.
FIRST_EPHEMERAL_PORT = 32768

_SLUG_LENGTH = 48
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")
_LOOKS_SUFFIXED = re.compile(r"_[0-9a-f]{8}\Z")


def slug(name: str) -> str:
    """A part of a group name that stands for this name and no other.

    Parameters
    ----------
    name : str
        Name of a host or an application; lone surrogates are allowed.

    Returns
    -------
    str
        1 to 57 characters of ``[A-Za-z0-9_]``.

    Examples
    --------
    >>> slug("db1"), slug("db-1")
    ('db1', 'db_1_68150cfc')
    """
    safe = _UNSAFE.sub("_", name)[:_SLUG_LENGTH]
    if safe == name and name and not _LOOKS_SUFFIXED.search(name):
        return name
    return f"{safe}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def group_names(host: str, facts: Mapping[str, Any]) -> list[str]:
    """Names of the groups that a host belongs to by its facts, sorted.

    Parameters
    ----------
    host : str
        The host's own inventory name.
    facts : mapping
        ``needs``, ``provides`` and ``runs`` of one host, as in the facts document.

    Returns
    -------
    list of str
        ``whoneeds_needs_<host>`` for each *other* host that something here has a static need for,
        ``whoneeds_provides_<protocol>_<port>`` for each service offered here (ephemeral ports only where
        somebody has a static need for them), ``whoneeds_runs_<app>`` for each application.
    """
    names = {
        f"{PREFIX}_needs_{slug(need['host'])}"
        for need in facts["needs"]
        if need["kind"] == "static" and need["host"] is not None and need["host"] != host
    }
    names |= {
        f"{PREFIX}_provides_{provision['protocol']}_{provision['port']}"
        for provision in facts["provides"]
        if provision["port"] < FIRST_EPHEMERAL_PORT or provision["needed_by_hosts"]
    }
    names |= {f"{PREFIX}_runs_{slug(app)}" for app in facts["runs"]}
    return sorted(names)
