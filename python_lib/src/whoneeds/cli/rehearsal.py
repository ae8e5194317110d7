# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode without a second implementation: the real thing is done to a copy of the store, which then goes away.

Files of a store are replaced, never changed in place, so that the copy consists of hard links: it takes no room.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whoneeds.store.session import hold_manifest

_LEFT_OUT = shutil.ignore_patterns("lock", "scratch")


@contextmanager
def rehearse(path: Path, *, check: bool) -> Iterator[Path]:
    """Give the store's own path, or, to check only, that of a copy which lives until the end.

    Parameters
    ----------
    path : Path
        The store; there may be none yet.
    check : bool

    Raises
    ------
    StoreError
        If there is something else than a store, or it is busy.
    """
    if not check:
        yield path
        return
    exists = path.exists()
    with tempfile.TemporaryDirectory(prefix=".whoneeds-check-", dir=path.parent if exists else None) as folder:
        copy = Path(folder) / "store"
        if exists:
            with hold_manifest(path):
                shutil.copytree(path, copy, ignore=_LEFT_OUT, copy_function=_link)
        yield copy


def fingerprint(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """What of a store can change: its manifest, which names every file by digest, and what is in quarantine."""
    manifest = path / "manifest.json"
    put_away = sorted(str(file.relative_to(path)) for file in (path / "quarantine").rglob("*.json"))
    return (manifest.read_bytes() if manifest.exists() else b"", tuple(put_away))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # a file system without hard links
        shutil.copy2(source, target)
