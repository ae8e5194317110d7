# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlay: a folder of plain inventory files with what was discovered, as an export for any Ansible.

::

    overlay/hosts.yml             the hosts of the document and their groups
    overlay/host_vars/<host>.yml  the variable ``whoneeds`` of one host

It is given to Ansible as one more ``-i``, after the user's own inventory, which it never touches. Every file begins
with `MARKER`; a file without it is not overwritten, and every file is read back before it takes its place.
"""

from pathlib import Path
from typing import Any

import yaml

from whoneeds.facts.document import Document
from whoneeds.facts.files import FileChange, read_bounded
from whoneeds.facts.form_b import show_surrogates, write_value
from whoneeds.model.errors import FactsError, InvalidRecord
from whoneeds.model.identity import check_host_name

MARKER = "# Written by whoneeds; your changes would be lost. Put your own variables elsewhere."

#: Largest file that is written or read.
FILE_LIMIT_BYTES = 4 * 1024 * 1024

VARIABLE = "whoneeds"


def plan(document: Document, folder: Path, *, prune: bool = False) -> list[FileChange]:
    """What writing the overlay would change, without writing anything.

    Parameters
    ----------
    document : dict
        A checked facts document.
    folder : Path
        The overlay's folder; it belongs to whoneeds alone.
    prune : bool, default False
        Whether files of hosts that are no longer in the document are removed. Without it they stay, so that a host
        that could not be reached once keeps its facts.

    Raises
    ------
    FactsError
        If anything that is there is not ours, a host's facts exceed `FILE_LIMIT_BYTES`, or a host's name cannot be
        a file's.
    """
    _check_folder(folder)
    wanted = {folder / "hosts.yml": render_hosts(document)}
    for host, facts in document["hosts"].items():
        wanted[folder / "host_vars" / f"{_file_name(host)}.yml"] = render_host(facts)
    for path, text in wanted.items():
        if len(text) > FILE_LIMIT_BYTES:
            raise FactsError(
                f"{path} would be too large", expected=f"at most {FILE_LIMIT_BYTES} bytes", found=f"{len(text)}",
                remedy="use the inventory plugin with the JSON document instead of the overlay",
            )  # fmt: skip
    changes = [FileChange(path, _ours(path), text) for path, text in sorted(wanted.items())]
    if prune:
        there = sorted((folder / "host_vars").glob("*.yml"))
        changes += [FileChange(path, _ours(path), None) for path in there if path not in wanted]
    return changes


def render_host(facts: dict[str, Any]) -> str:
    """One host's variables: the single variable ``whoneeds``."""
    shown = {section: value for section, value in facts.items() if section != "groups"}
    try:
        return f"{MARKER}\n---\n{VARIABLE}: {write_value(shown)}\n"
    except ValueError as error:
        raise FactsError("a host's facts cannot be written as YAML", found=str(error)) from error


def render_hosts(document: Document) -> str:
    """The hosts and their groups.

    Raises
    ------
    FactsError
        If a group would be called like a host.
    """
    hosts = document["hosts"]
    members: dict[str, list[str]] = {}
    for host in sorted(hosts):
        for group in hosts[host]["groups"]:
            members.setdefault(group, []).append(host)
    for clash in sorted(set(members) & set(hosts)):
        raise FactsError(
            "group of the overlay", expected="a name that no host has", found=clash, remedy="rename the host"
        )
    lines = [MARKER, "---", "all:", " hosts:" if hosts else " hosts: {}"]
    lines += [f"  {_quote(host)}:" for host in sorted(hosts)]
    lines += [" children:" if members else " children: {}"]
    for group in sorted(members):
        lines += [f"  {group}:", "   hosts:", *(f"    {_quote(host)}:" for host in members[group])]
    return "\n".join(lines) + "\n"


def verify(path: Path, text: str) -> None:
    """Refuse a file that does not read back as what was meant to be written.

    Raises
    ------
    FactsError
    """
    content = read_bounded(path, FILE_LIMIT_BYTES)
    if content != text.encode("ascii"):
        raise FactsError(f"{path}", expected="the bytes that were written", found="others", remedy="check the disk")


def verify_host(path: Path, facts: dict[str, Any]) -> None:
    """Refuse a host's file that any YAML reader would read as something else than the facts.

    Raises
    ------
    FactsError
    """
    content = read_bounded(path, FILE_LIMIT_BYTES)
    loaded = load_tagged((content or b"").decode("utf-8"))
    expected = {VARIABLE: _as_written({name: value for name, value in facts.items() if name != "groups"})}
    if loaded != expected:
        raise FactsError(f"{path}", expected="the facts that were written", found="others when read back")


def load_tagged(text: str) -> Any:
    """Load YAML in which strings may be tagged ``!unsafe``, with nothing else beyond the safe types."""
    return yaml.load(text, Loader=_TaggedLoader)  # noqa: S506 - built on the safe loader


_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TaggedLoader(_Safe):  # type: ignore[misc]
    """The safe loader with one more tag."""


_TaggedLoader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def _as_written(value: Any) -> Any:
    if isinstance(value, str):
        return show_surrogates(value)
    if isinstance(value, dict):
        return {_as_written(key): _as_written(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_written(item) for item in value]
    return value


def _ours(path: Path) -> str | None:
    content = read_bounded(path, FILE_LIMIT_BYTES)
    if content is None:
        return None
    if not content.startswith(MARKER.encode("ascii")):
        raise FactsError(
            f"{path} is not ours to change", expected="a first line that says whoneeds wrote it",
            found=ascii(content[:40].decode("utf-8", "replace")), remedy="choose another folder for the overlay",
        )  # fmt: skip
    return content.decode("utf-8", "replace")


def _check_folder(folder: Path) -> None:
    """Refuse a folder with other files: next to ``web1.yml`` a folder ``web1``, say, is all that Ansible would read."""
    for within, ours in ((folder, ("hosts.yml", "host_vars")), (folder / "host_vars", None)):
        try:
            there = sorted(path.name for path in within.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise FactsError(
                f"{within}", expected="a folder", found=error.strerror or str(error),
                remedy="choose another folder for the overlay",
            ) from error  # fmt: skip
        for name in there:
            if not name.startswith(".") and (name not in ours if ours else not name.endswith(".yml")):
                raise FactsError(
                    f"{within} is not ours to change", expected="nothing in it but what whoneeds wrote",
                    found=ascii(name)[:80], remedy="choose another folder for the overlay",
                )  # fmt: skip


def _file_name(host: str) -> str:
    try:
        return check_host_name(host)
    except InvalidRecord as error:
        raise FactsError(error.message, expected=error.expected, found=error.found, remedy=error.remedy) from error


def _quote(host: str) -> str:
    """A host's name between quotes: unquoted, one called ``1e3`` or ``no`` would be a number or a word."""
    return f'"{_file_name(host)}"'
