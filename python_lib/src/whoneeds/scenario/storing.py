# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of an observed population as the content of a store, as if it had been collected."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whoneeds.model.evidence import NameRecord, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.scenario.observe import Observed
from whoneeds.store.session import Store, TakenSegment

_DAY_NS = 86400 * 10**9


def write_evidence(store: Store, observed: Observed) -> int:
    """Write what was observed into a store: segments, processes, sockets and names, a batch for each host and day.

    Conclusions are not written: the line makes them of this, as of any other evidence.

    Parameters
    ----------
    store : Store
        Opened for writing. What it holds already stays.
    observed : Observed

    Returns
    -------
    int
        Segments written.
    """
    headers = observed.tables[SegmentHeader]
    if not headers.num_rows:
        return 0
    hosts = headers["host"].combine_chunks().dictionary_encode()
    day = headers["opened_ns"].to_numpy() // _DAY_NS
    keys, batch_of = np.unique(hosts.indices.to_numpy() * 10**6 + day, return_inverse=True)
    parts = {
        record: _split(observed.tables[record], headers["segment_id"], batch_of, len(keys))
        for record in (SegmentHeader, ProcessRecord, SocketRecord, NameRecord)
    }
    for number, key in enumerate(keys):
        first = parts[SegmentHeader][number].slice(0, 1)
        tables = {record: of_batch[number] for record, of_batch in parts.items()}
        identity = hashlib.sha256("\n".join(tables[SegmentHeader]["segment_id"].to_pylist()).encode()).hexdigest()
        boot, sequence = first["boot_id"][0].as_py(), first["sequence"][0].as_py()
        date = str(np.datetime64(int(key) % 10**6, "D"))
        store.add_batch(first["host"][0].as_py(), date, [TakenSegment(identity, boot, sequence, tables)])
    store.commit()
    return int(headers.num_rows)


def _split(table: pa.Table, segment_ids: pa.ChunkedArray, batch_of: np.ndarray, many: int) -> list[pa.Table]:
    """The rows of each batch, by the segments that carried them."""
    segment = pc.index_in(table["segment_id"], value_set=segment_ids.combine_chunks()).to_numpy()
    batch = batch_of[segment]
    order = np.argsort(batch, kind="stable")
    ends = np.searchsorted(batch[order], np.arange(many + 1), side="left")
    rows = table.take(pa.array(order))
    return [rows.slice(int(ends[number]), int(ends[number + 1] - ends[number])) for number in range(many)]
