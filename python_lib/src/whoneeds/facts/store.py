# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts document as one JSON file: the store of record that the inventory plugin reads.

It belongs outside inventory folders: Ansible would take a JSON file in one for an inventory source.
"""

import json
from pathlib import Path
from typing import Any

from whoneeds.facts.document import FACTS_KIND, FACTS_SCHEMA, Document
from whoneeds.facts.files import FileChange, read_bounded
from whoneeds.facts.groups import GROUP_NAME
from whoneeds.model.conclusions import METHODS, Dependent, HostCoverage, Need, Provision
from whoneeds.model.errors import FactsError, InvalidRecord
from whoneeds.model.identity import check_host_name
from whoneeds.model.schema import check_names, check_value, columns, is_whole_number

#: Largest document that is written or read.
STORE_LIMIT_BYTES = 256 * 1024 * 1024

#: Sections of a host that are lists of records.
RECORD_SECTIONS: dict[str, type[Any]] = {"needs": Need, "needed_by": Dependent, "provides": Provision}
#: Sections of a host that are lists of strings.
TEXT_SECTIONS = ("addresses", "runs", "groups")

_REMEDY = "move it away and publish anew"


def render(document: Document) -> str:
    """The document as JSON: keys sorted, ASCII only, one entry a line.

    Raises
    ------
    FactsError
        If it holds what JSON cannot (not a number, infinity) or is larger than `STORE_LIMIT_BYTES`.
    """
    try:
        text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    except ValueError as error:
        raise FactsError("the facts cannot be written as JSON", found=str(error)) from error
    if len(text) > STORE_LIMIT_BYTES:
        raise FactsError(
            "the facts document is too large", expected=f"at most {STORE_LIMIT_BYTES} bytes", found=f"{len(text)}",
            remedy="publish fewer hosts in one document",
        )  # fmt: skip
    return text


def plan(document: Document, path: Path) -> FileChange:
    """What writing the document to the path would change.

    Raises
    ------
    FactsError
        If the file that is there is not a facts document, or is one of a newer schema.
    """
    check_document(document, "the document to be written")
    return FileChange(path, _ours(path), render(document))


def read(path: Path) -> Document:
    """Read a facts document and check all of it.

    Raises
    ------
    FactsError
        If there is none, or it is too large, damaged, of another schema, or a value does not fit its field.
    """
    content = read_bounded(path, STORE_LIMIT_BYTES)
    if content is None:
        raise FactsError(f"{path}", expected="a facts document", found="no such file", remedy="run discover first")
    return check_document(_parse(content, path), str(path))


def check_document(document: Any, where: str) -> Document:
    """Return the document if it is one from top to bottom, refuse it otherwise.

    Raises
    ------
    FactsError
        Naming the place, what it should hold and what was found.
    """
    _expect(isinstance(document, dict), where, "a JSON object", document)
    _expect(document.get("kind") == FACTS_KIND, f"{where}: kind", FACTS_KIND, document.get("kind"))
    schema = document.get("schema")
    if not is_whole_number(schema) or schema != FACTS_SCHEMA:
        raise FactsError(
            f"{where}: schema", expected=str(FACTS_SCHEMA), found=ascii(schema)[:80],
            remedy="publish anew with this version of whoneeds, or read it with the version that wrote it",
        )  # fmt: skip
    _expect(document.get("method") in METHODS, f"{where}: method", " or ".join(METHODS), document.get("method"))
    hosts = document.get("hosts")
    _expect(isinstance(hosts, dict), f"{where}: hosts", "a JSON object", hosts)
    assert isinstance(hosts, dict)
    for host, facts in hosts.items():
        try:
            check_host_name(host)
            _check_facts(facts, f"{where}: {host}")
        except InvalidRecord as error:
            raise FactsError(
                f"{where}: {ascii(host)[:80]}: {error.message}",
                expected=error.expected, found=error.found, remedy=error.remedy or _REMEDY,
            ) from error  # fmt: skip
    return dict(document)


def _check_facts(facts: Any, where: str) -> None:
    wanted = {*RECORD_SECTIONS, *TEXT_SECTIONS, "coverage"}
    _expect(isinstance(facts, dict) and set(facts) == wanted, where, "the sections " + ", ".join(sorted(wanted)), facts)
    for section in TEXT_SECTIONS:
        entries = facts[section]
        _expect(isinstance(entries, list), f"{where}: {section}", "a list", entries)
        for entry in entries:
            _expect(isinstance(entry, str) and len(entry) <= 255, f"{where}: {section}", "short strings", entry)
    for group in facts["groups"]:
        _expect(GROUP_NAME.fullmatch(group) is not None, f"{where}: groups", "names that begin whoneeds_", group)
    for section, record in RECORD_SECTIONS.items():
        entries = facts[section]
        _expect(isinstance(entries, list), f"{where}: {section}", "a list", entries)
        for entry in entries:
            _check_record(record, entry, f"{where}: {section}")
    _check_record(HostCoverage, facts["coverage"], f"{where}: coverage")


def _check_record(record: type[Any], entry: Any, where: str) -> None:
    _expect(isinstance(entry, dict), where, "JSON objects", entry)
    check_names(record, tuple(entry))
    for column in columns(record):
        check_value(column, entry[column.name])


def _ours(path: Path) -> str | None:
    """Text of the file that is there, once it is known to be a facts document of ours."""
    content = read_bounded(path, STORE_LIMIT_BYTES)
    if content is None:
        return None
    document = _parse(content, path)
    kind = document.get("kind") if isinstance(document, dict) else None
    _expect(kind == FACTS_KIND, f"{path} is not ours to overwrite: kind", FACTS_KIND, kind)
    schema = document.get("schema")
    if not is_whole_number(schema) or schema > FACTS_SCHEMA:
        raise FactsError(
            f"{path} is not ours to overwrite: schema", expected=f"{FACTS_SCHEMA} or older",
            found=ascii(schema)[:80], remedy="publish with the newer version of whoneeds that wrote it",
        )  # fmt: skip
    return content.decode("utf-8")


def _parse(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FactsError(f"{path}", expected="JSON", found=ascii(str(error))[:120], remedy=_REMEDY) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _expect(holds: bool, where: str, expected: str, found: Any) -> None:
    if not holds:
        raise FactsError(where, expected=expected, found=ascii(found)[:80], remedy=_REMEDY)
