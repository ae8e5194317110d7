# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the facts document with nothing but the standard library, and believe none of it before it is checked.

Private to this collection, controller only. What a document holds is written down in docs/facts.md; a test holds
the tables below equal to the library's records.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat

SCHEMA = 1
KIND = "whoneeds-facts"
SIZE_LIMIT_BYTES = 256 * 1024 * 1024
TEXT_LIMIT = 4096
LIST_LIMIT = 4096
#: A host may be in the group of every other one.
GROUPS_LIMIT = 65536

GROUP_NAME = re.compile(r"whoneeds_(needs|runs)_[A-Za-z0-9_]{1,57}|whoneeds_provides_(tcp|udp)_[0-9]{1,5}")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

#: Fields by section: text, int, float, bool or texts (a list); a question mark allows null.
NEED = {
    "app": "text",
    "kind": "text",
    "protocol": "text",
    "port": "int",
    "address": "text",
    "host": "text?",
    "provider": "text?",
    "usage_share": "float",
    "support": "int",
    "flows": "int",
    "orig_bytes": "int?",
    "resp_bytes": "int?",
    "first_ns": "int",
    "last_ns": "int",
    "probability": "float?",
    "grounds": "text?",
    "name": "text?",
    "any_of": "text?",
}
DEPENDENT = {
    "host": "text",
    "app": "text",
    "kind": "text",
    "protocol": "text",
    "port": "int",
    "provider": "text?",
    "support": "int",
    "flows": "int",
    "first_ns": "int",
    "last_ns": "int",
    "probability": "float?",
}
PROVISION = {
    "app": "text?",
    "protocol": "text",
    "port": "int",
    "loopback_only": "bool",
    "needed_by_hosts": "texts",
    "needed_by_apps": "texts",
}
COVERAGE = {
    "segments": "int",
    "samples": "int",
    "period_s": "float?",
    "privileged": "bool?",
    "first_ns": "int?",
    "last_ns": "int?",
    "ends": "int",
    "by_socket": "int",
    "by_listener": "int",
    "ambiguous": "int",
    "unknown": "int",
    "unpaired": "int",
    "gaps": "texts",
}
RECORDS = {"needs": NEED, "needed_by": DEPENDENT, "provides": PROVISION}
TEXTS = ("addresses", "runs", "groups")


class DamagedDocument(Exception):
    """The document is there and cannot be used; the text says what was expected, what was found and what to do."""

    def __init__(self, where, expected, found, remedy="publish the facts anew"):
        super().__init__("%s: expected %s, found %s; %s" % (where, expected, found, remedy))


def read_document(path):
    """Return the facts by host, or None if there is no document.

    Only fields that are known are taken over, each checked. The strings are as raw as they came, except that lone
    surrogates become visible escapes: Ansible cannot print or export a string that holds one.

    Raises
    ------
    DamagedDocument
        If it is not a plain file, too large, not JSON, of another schema, or holds a value of a wrong type.
    """
    content = _read_bounded(path)
    if content is None:
        return None
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedDocument(path, "JSON", ascii(str(error))[:120])
    _expect(isinstance(document, dict), path, "a JSON object", document)
    _expect(document.get("kind") == KIND, path + ": kind", KIND, document.get("kind"))
    schema = document.get("schema")
    if not _is_int(schema) or schema != SCHEMA:
        raise DamagedDocument(
            path + ": schema", str(SCHEMA), ascii(schema)[:80],
            "publish with the version of whoneeds that this collection belongs to",
        )  # fmt: skip
    hosts = document.get("hosts")
    _expect(isinstance(hosts, dict), path + ": hosts", "a JSON object", hosts)
    return {host: _check_facts(facts, "%s: %s" % (path, ascii(host)[:80])) for host, facts in hosts.items()}


def _read_bounded(path):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedDocument(path, "a readable file", error.strerror, "check its path and permissions")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "something else"
        raise DamagedDocument(path, "a plain file", found, "check the option store")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(SIZE_LIMIT_BYTES + 1) if status.st_size <= SIZE_LIMIT_BYTES else None
    if content is None or len(content) > SIZE_LIMIT_BYTES:
        raise DamagedDocument(path, "at most %d bytes" % SIZE_LIMIT_BYTES, "more", "publish fewer hosts in one document")
    return content


def _check_facts(facts, where):
    _expect(isinstance(facts, dict), where, "a JSON object", facts)
    made = {}
    for section in TEXTS:
        limit = GROUPS_LIMIT if section == "groups" else LIST_LIMIT
        made[section] = _checked(facts.get(section), "texts", "%s: %s" % (where, section), limit)
    for group in made["groups"]:
        _expect(GROUP_NAME.fullmatch(group) is not None, where + ": groups", "names that begin with whoneeds_", group)
    for section, fields in RECORDS.items():
        entries = facts.get(section)
        here = "%s: %s" % (where, section)
        _expect(isinstance(entries, list) and len(entries) <= LIST_LIMIT, here, "a list of objects", entries)
        made[section] = [_check_record(entry, fields, here) for entry in entries]
    made["coverage"] = _check_record(facts.get("coverage"), COVERAGE, where + ": coverage")
    return made


def _check_record(entry, fields, where):
    _expect(isinstance(entry, dict), where, "a JSON object", entry)
    return {name: _checked(entry.get(name), kind, "%s: %s" % (where, name)) for name, kind in fields.items()}


def _checked(value, kind, where, limit=LIST_LIMIT):
    if kind.endswith("?"):
        if value is None:
            return None
        kind = kind[:-1]
    if kind == "text":
        fits = _is_text(value)
    elif kind == "int":
        fits = _is_int(value) and abs(value) < 2**63
    elif kind == "float":
        fits = (_is_int(value) and abs(value) < 2**53) or (isinstance(value, float) and math.isfinite(value))
    elif kind == "bool":
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, list) and len(value) <= limit and all(_is_text(item) for item in value)
    _expect(fits, where, kind, value)
    if kind == "text":
        return _show_surrogates(value)
    return [_show_surrogates(item) for item in value] if kind == "texts" else value


def _show_surrogates(text):
    return _LONE_SURROGATE.sub(lambda found: "\\u%04x" % ord(found.group()), text)


def _is_text(value):
    return isinstance(value, str) and len(value) <= TEXT_LIMIT


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_constant(name):
    raise ValueError("%s is not a number" % name)


def _expect(fits, where, expected, found):
    if not fits:
        raise DamagedDocument(where, expected, ascii(found)[:80])
