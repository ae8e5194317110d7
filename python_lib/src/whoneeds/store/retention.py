# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention: evidence of days before a date goes, and does not come again.

The date stays in the manifest as the store's horizon. That is all there is to remember: segments of older days are
refused by it, however many there were.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from whoneeds.model.errors import SettingsError
from whoneeds.store.manifest import Manifest, check_date, evidence_path


@dataclass(frozen=True)
class Pruned:
    """What a pruning did, or would do.

    Attributes
    ----------
    before : str
        ISO date: evidence of days before it goes.
    horizon : str
        The store's horizon then; later than `before` if it was later already.
    days, hosts, segments, files, rows : int
        How much goes.
    bytes : int
        Room on disk that this frees.
    stale : list of str
        Derived tables that rest on evidence that is gone, until they are made again.
    """

    before: str
    horizon: str
    days: int
    hosts: int
    segments: int
    files: int
    rows: int
    bytes: int
    stale: list[str]


def find_limit(before: str | None, keep_days: int | None, today: date) -> str:
    """The first day that is kept.

    Parameters
    ----------
    before : str, optional
        ISO date.
    keep_days : int, optional
        How many days are kept, today among them.
    today : date
        In UTC.

    Raises
    ------
    SettingsError
        If not exactly one is given, or it is out of range.
    """
    if (before is None) == (keep_days is None):
        raise SettingsError(
            "what is to be kept?", expected="--keep-days or --before", found="none" if before is None else "both"
        )
    if keep_days is not None:
        if not 1 <= keep_days <= 36_500:
            raise SettingsError("--keep-days", expected="1 to 36500", found=str(keep_days))
        return (today - timedelta(days=keep_days - 1)).isoformat()
    try:
        limit = check_date(before)
    except ValueError as error:
        raise SettingsError("--before", expected="a day as 2026-01-31", found=ascii(before)[:40]) from error
    if limit > today.isoformat():
        # the horizon would refuse all that is collected until then
        raise SettingsError("--before", expected=f"{today.isoformat()} (today, UTC) or earlier", found=limit)
    return limit


def plan_pruning(root: Path, manifest: Manifest, before: str) -> tuple[Pruned, Manifest]:
    """What would go, and the manifest without it.

    Parameters
    ----------
    root : Path
        The store.
    manifest : Manifest
    before : str
        ISO date.
    """
    gone = {name: batch for name, batch in manifest.batches.items() if batch.date < before}
    paths = [root / evidence_path(table, name, batch) for name, batch in gone.items() for table in batch.files]
    stale = manifest.stale | set(manifest.derived) if gone else manifest.stale
    horizon = max(before, manifest.horizon or before)
    kept = {name: batch for name, batch in manifest.batches.items() if name not in gone}
    pruned = Pruned(
        before,
        horizon,
        len({batch.date for batch in gone.values()}),
        len({batch.host for batch in gone.values()}),
        sum(len(batch.segments) for batch in gone.values()),
        len(paths),
        sum(entry.rows for batch in gone.values() for entry in batch.files.values()),
        sum(path.lstat().st_size for path in paths if path.exists()),
        sorted(stale),
    )
    return pruned, replace(manifest, batches=kept, horizon=horizon, stale=set(stale))
