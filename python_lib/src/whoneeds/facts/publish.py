# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish a facts document in all its forms: plan everything, refuse before anything is touched, then write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from whoneeds.facts import local as local_facts
from whoneeds.facts import overlay as overlay_files
from whoneeds.facts import store
from whoneeds.facts.document import Document
from whoneeds.facts.files import FileChange, apply_change, summarize
from whoneeds.facts.place import check_places


def publish(
    document: Document,
    *,
    out: Path,
    overlay: Path | None = None,
    local: Path | None = None,
    check: bool = False,
    diff: bool = False,
    prune: bool = False,
) -> dict[str, Any]:
    """Write the document, and the overlay and local facts where a folder for them is given.

    Parameters
    ----------
    document : dict
        As `build_document` makes it.
    out : Path
        The JSON document.
    overlay, local : Path, optional
        Folders of the overlay and of the local facts (``<host>.fact``).
    check : bool, default False
        Write nothing and tell the same.
    diff : bool, default False
        Tell contents before and after.
    prune : bool, default False
        Remove overlay files of hosts that are no longer in the document.

    Returns
    -------
    dict
        ``{"changed": bool, "hosts": int, "files": [{"path", "changed"}]}``, with ``diff`` also ``"diff":
        [{"before", "after", "before_header", "after_header"}]``.

    Raises
    ------
    FactsError
        If something that is there is not ours, does not fit, or cannot be written. Nothing has been written then,
        unless writing itself failed.
    """
    check_places(out=out, overlay=overlay, local=local)
    changes: list[FileChange] = []
    if overlay is not None:
        changes += overlay_files.plan(document, overlay, prune=prune)
    if local is not None:
        changes += local_facts.plan(document, local)
    changes.append(store.plan(document, out))
    if not check:
        for change in changes:
            apply_change(change, _verification(change, document, overlay))
    return summarize(changes, len(document["hosts"]), diff=diff)


def _verification(change: FileChange, document: Document, overlay: Path | None) -> Callable[[Path], None] | None:
    """How a file of the overlay is read back before it takes its place."""
    if overlay is None or change.after is None or overlay not in change.path.parents:
        return None
    text = change.after
    if change.path.parent.name == "host_vars":
        facts = document["hosts"][change.path.name.removesuffix(".yml")]
        return lambda path: overlay_files.verify_host(path, facts)
    return lambda path: overlay_files.verify(path, text)
