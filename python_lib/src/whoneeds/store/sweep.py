# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what no manifest names any more: what a killed writer left behind, and what was compacted or pruned.

Only files whose names the store itself gives are touched, and only within the store's own folders: a folder that is a
link is not entered, and whatever else somebody put there stays.
"""

import os
import re
from pathlib import Path

from whoneeds.model.errors import StoreError
from whoneeds.store.durable import TEMPORARY
from whoneeds.store.manifest import FILE_NAME, Manifest, derived_path, evidence_path

_EVIDENCE_FILE = re.compile(r"[0-9a-f]{64}(-[1-9]\d*)?\.parquet\Z")
_DERIVED_FILE = re.compile(r"[a-z_]+\.parquet\Z")
_HALF_WRITTEN = re.compile(rf"\..+\.\d+{re.escape(TEMPORARY)}\Z")


def named_paths(manifest: Manifest) -> set[Path]:
    """Paths, below the store, of all files that a manifest names."""
    named = {derived_path(table) for table in manifest.derived}
    for name, batch in manifest.batches.items():
        named |= {evidence_path(table, name, batch) for table in batch.files}
    return named


def sweep(root: Path, manifest: Manifest) -> int:
    """Remove files of the store that the manifest does not name, and folders that are empty then.

    Parameters
    ----------
    root : Path
        The store, held for writing.
    manifest : Manifest
        As it stands on disk.

    Returns
    -------
    int
        Bytes that were freed.

    Raises
    ------
    StoreError
        If a file cannot be removed.
    """
    named = named_paths(manifest)
    freed = 0
    try:
        for folder, ours in (("evidence", _EVIDENCE_FILE), ("conclusions", _DERIVED_FILE)):
            if (root / folder).is_symlink():
                continue
            for place, folders, files in os.walk(root / folder, topdown=False, followlinks=False):
                for name in files:
                    path = Path(place, name)
                    if path.relative_to(root) not in named and (ours.match(name) or _HALF_WRITTEN.match(name)):
                        freed += path.lstat().st_size
                        path.unlink()
                if folders or Path(place) != root / folder:
                    _remove_empty(Path(place), keep=root / folder)
        for path in root.glob(f".{FILE_NAME}.*"):
            if _HALF_WRITTEN.match(path.name):
                path.unlink()
    except OSError as error:
        raise StoreError(
            "what the store no longer needs cannot be removed",
            expected="files that can be removed",
            found=f"{error.filename}: {error.strerror}",
            remedy="run as the user who owns the store",
        ) from error
    return freed


def _remove_empty(path: Path, *, keep: Path) -> None:
    if path != keep and not any(path.iterdir()):
        path.rmdir()
