# SPDX-License-Identifier: GPL-3.0-or-later
"""The local fact: what a host may say of itself as ``ansible_local.whoneeds``.

One static JSON file for each host, made on the controller and copied to ``/etc/ansible/facts.d/whoneeds.fact``; it is
never read back. A host's root can change its copy, so nothing may be decided by it.
"""

import json
from pathlib import Path

from whoneeds.facts.document import Document
from whoneeds.facts.files import FileChange, read_bounded
from whoneeds.model.errors import FactsError
from whoneeds.model.identity import check_host_name

FILE_LIMIT_BYTES = 4 * 1024 * 1024

_FIRST_LINE = "{\n"
_KIND = "whoneeds-local-fact"


def render(document: Document, host: str) -> str:
    """Content of one host's local fact: its facts with schema and kind, as JSON in ASCII with sorted keys.

    Raises
    ------
    FactsError
        If the document does not know the host.
    """
    facts = document["hosts"].get(host)
    if facts is None:
        raise FactsError("local fact", expected="a host of the facts document", found=ascii(host)[:80])
    content = {"schema": document["schema"], "kind": _KIND, **facts}
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def plan(document: Document, folder: Path) -> list[FileChange]:
    """What writing ``<folder>/<host>.fact`` for every host would change.

    Raises
    ------
    FactsError
        If a file that is there is not a local fact of ours.
    """
    changes = []
    for host in sorted(document["hosts"]):
        path = folder / f"{check_host_name(host)}.fact"
        changes.append(FileChange(path, _ours(path), render(document, host)))
    return changes


def _ours(path: Path) -> str | None:
    content = read_bounded(path, FILE_LIMIT_BYTES)
    if content is None:
        return None
    text = content.decode("utf-8", "replace")
    if not text.startswith(_FIRST_LINE) or f'"kind": "{_KIND}"' not in text:
        raise FactsError(
            f"{path} is not ours to change", expected=f"a JSON file of kind {_KIND}", found=ascii(text[:40]),
            remedy="choose another folder for the local facts",
        )  # fmt: skip
    return text
