# SPDX-License-Identifier: GPL-3.0-or-later
"""Where facts may lie: not where Ansible would take them for inventory sources, and not among other people's files."""

from pathlib import Path

from whoneeds.model.errors import FactsError

#: What tells an inventory folder: its variables, or a configuration of our own inventory plugin.
_VARIABLES = ("host_vars", "group_vars")
_CONFIGURATIONS = ("*dependencies.yml", "*dependencies.yaml")


def check_places(*, out: Path, overlay: Path | None, local: Path | None) -> None:
    """Refuse places in which the written files would disturb an inventory.

    Ansible reads every file of an inventory folder, and of its subfolders, as a source of hosts; only names that begin
    with a dot are left out. Of an overlay in a subfolder it reads the groups, but not the variables.

    Parameters
    ----------
    out : Path
        The facts document.
    overlay, local : Path, optional
        The folders of the overlay and of the local facts.

    Raises
    ------
    FactsError
    """
    _check_outside_inventory("facts document", out)
    for what, folder in (("overlay", overlay), ("folder of local facts", local)):
        if folder is not None:
            _check_outside_inventory(what, folder)
    for what, path in (("facts document", out), ("folder of local facts", local)):
        if overlay is not None and path is not None and overlay.resolve() in (path.resolve(), *path.resolve().parents):
            raise FactsError(
                f"{what} {path}", expected="a place outside the overlay, which is an inventory folder",
                found="one within it", remedy="put it beside the overlay",
            )  # fmt: skip


def _check_outside_inventory(what: str, path: Path) -> None:
    folder = path.parent.resolve()
    if path.name.startswith(".") or folder.name.startswith("."):
        return
    found = [name for name in _VARIABLES if (folder / name).is_dir()]
    found += [there.name for pattern in _CONFIGURATIONS for there in folder.glob(pattern)]
    if found:
        raise FactsError(
            f"{what} {path}",
            expected="a place outside inventory folders, where Ansible reads every file as a source of hosts",
            found=f"{found[0]} beside it", remedy=f"put it elsewhere, for example into {folder / '.whoneeds'}",
        )  # fmt: skip
