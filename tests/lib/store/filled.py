# SPDX-License-Identifier: GPL-3.0-or-later
"""Small stores for tests: batches of one segment each, and what is in them."""

import hashlib
from pathlib import Path
from typing import Any

from fixtures.make import rows_of

from whoneeds.model.conclusions import ServiceUse
from whoneeds.model.evidence import FlowRecord, SegmentHeader
from whoneeds.segment.layout import TABLES
from whoneeds.store import Store, open_store
from whoneeds.store.columns import to_arrow
from whoneeds.store.session import TakenSegment

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"


def digest_of(host: str, number: int) -> str:
    """Digest of a host's segment."""
    return hashlib.sha256(f"{host}/{number}".encode()).hexdigest()


def add_segment(store: Store, host: str, day: str, number: int, rows: int = 3) -> None:
    """Take a segment in, as a batch of its own."""
    identity = f"{host}/{BOOT}/{number}"
    fixed = {"segment_id": identity, "host": host, "boot_id": BOOT, "sequence": number, "schema": 1}
    tables = {record: to_arrow(record, rows_of(record, rows, host=host), identity) for record in TABLES}
    tables[SegmentHeader] = to_arrow(SegmentHeader, rows_of(SegmentHeader, 1, **fixed))
    store.add_batch(host, day, [TakenSegment(digest_of(host, number), BOOT, number, tables)])


def fill_store(path: Path, places: dict[tuple[str, str], int], rows: int = 3) -> None:
    """A store with so many batches of each host and day, and two derived tables."""
    with open_store(path, create=True, write=True) as store:
        number = 0
        for (host, day), count in places.items():
            for _each in range(count):
                number += 1
                add_segment(store, host, day, number, rows)
        store.commit()
        store.write_table(FlowRecord, rows_of(FlowRecord, 2))
        store.write_table(ServiceUse, rows_of(ServiceUse, 2))


def read_evidence(store: Store) -> dict[str, list[str]]:
    """All evidence of a store in an order of its own."""
    return {record.__name__: sorted(map(repr, store.rows(record))) for record in (SegmentHeader, *TABLES)}


def list_evidence(path: Path) -> list[Path]:
    """The files of evidence on disk."""
    return sorted((path / "evidence").rglob("*.parquet"))


def spoil(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def snapshot(path: Path) -> dict[str, Any]:
    """Every file of a store with its content, but the lock."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
