# SPDX-License-Identifier: GPL-3.0-or-later
"""What came out of one file, on its way into the store: in parts, so that no file is too long for memory.

The digest of the file, together with the host that it is of, names what is stored. So a file counts once for a host,
and what was taken of it can be told from everything else.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from whoneeds import __version__
from whoneeds.intake.hosts import NETNS, HostRows, boot_of
from whoneeds.intake.rows import HostConnection, Row, SeenName
from whoneeds.intake.values import EARLIEST_NS
from whoneeds.model.evidence import (
    SEGMENT_SCHEMA,
    Gap,
    NameRecord,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    WireFlow,
)
from whoneeds.model.identity import segment_id
from whoneeds.model.schema import table_name
from whoneeds.store.columns import arrow_schema, to_arrow
from whoneeds.store.manifest import name_batch
from whoneeds.store.session import Store, TakenSegment

#: Rows that are held in memory before they are written.
_MOST_ROWS = 100_000
#: What stands for the time between two samples where there are none: the precision of the logs' times.
_PERIOD_S = 0.001


def name_part(kind: str, digest: str, host: str, number: int) -> str:
    """Digest that a part of a file has in the store."""
    return hashlib.sha256(f"import {kind}\n{host}\n{number}\n{digest}".encode()).hexdigest()


def held_parts(held: Mapping[str, str], kind: str, digest: str, host: str | None) -> set[str]:
    """Digests of the parts of a file that a store holds already.

    Parameters
    ----------
    held : mapping of str to str
        Host of each digest that the store holds.
    kind, digest : str
    host : str or None
        None for a file that says itself whose it is.
    """
    found = set()
    for name in {host} if host is not None else set(held.values()):
        number = 0
        while (part := name_part(kind, digest, name, number)) in held:
            found.add(part)
            number += 1
    return found


class Parts:
    """Collects rows and writes them; nothing is in the store before the caller commits.

    Parameters
    ----------
    store : Store
    kind : str
    digest : str
        SHA-256 of the file.
    host : str or None
        Who watched, or whose log it is; None where each row says that itself.

    Attributes
    ----------
    rows : dict of str to int
        Rows taken in, by table.
    hosts : set of str
        Whose they are.
    before_horizon : int
        Rows of days before the store's horizon: such evidence was pruned, and is not taken in again.
    """

    def __init__(self, store: Store, kind: str, digest: str, host: str | None) -> None:
        self.rows: defaultdict[str, int] = defaultdict(int)
        self.hosts: set[str] = set()
        self.before_horizon = 0
        self._store, self._kind, self._digest, self._host = store, kind, digest, host
        self._written: defaultdict[str, int] = defaultdict(int)
        self._flows: list[WireFlow] = []
        self._columns: list[pa.Table] = []
        self._names: dict[tuple[str, str, str], list[int]] = {}
        self._of_hosts: dict[str, HostRows] = {}
        self._held = 0
        self._lost: tuple[tuple[int, str, str], ...] = ()
        self._known = store.segment_hosts()
        self._added: list[str] = []

    def add(self, row: Row, host: str) -> None:
        """Take in a row of a host."""
        if isinstance(row, HostConnection):
            if host not in self._of_hosts:
                self._of_hosts[host] = HostRows(host)
            self._of_hosts[host].add(row)
        elif isinstance(row, SeenName):
            span = self._names.setdefault((row.name, row.address, row.source), [row.at_ns, row.at_ns])
            span[:] = min(span[0], row.at_ns), max(span[1], row.at_ns)
        else:
            self._flows.append(row)
        self._count(1)

    def add_columns(self, columns: Mapping[str, Any], latest_ns: int) -> int:
        """Take in flows column by column, as the meter gives them.

        Returns
        -------
        int
            Flows that were left out, since their times cannot be.
        """
        schema = arrow_schema(WireFlow)
        made = pa.Table.from_pydict({field.name: columns[field.name] for field in schema}, schema=schema)
        first, last = pc.field("first_ns"), pc.field("last_ns")
        possible = made.filter((first >= EARLIEST_NS) & (first <= last) & (last <= latest_ns))
        if possible.num_rows:
            self._columns.append(possible)
            self._count(possible.num_rows)
        return int(made.num_rows - possible.num_rows)

    def finish(self, *, unread: int = 0, untold: int = 0) -> None:
        """Write what is left; and of a host's log, what could not be used of it.

        Parameters
        ----------
        unread, untold : int
            Lines that are damaged, and connections of which it is not known which end is the host's.
        """
        self._lost = ((unread, "failed", "lines of an imported log could not be read"),
                      (untold, "ambiguous", "imported connections do not tell which end is the host's"))  # fmt: skip
        self._flush()

    def take_back(self) -> None:
        """Let nothing of what was added become part of the store."""
        for name in self._added:
            self._store.forget_batch(name)
        self._added.clear()

    def _count(self, rows: int) -> None:
        self._held += rows
        if self._held >= _MOST_ROWS:
            self._flush()

    def _flush(self) -> None:
        for name, rows in sorted(self._of_hosts.items()):
            self._write_host(name, rows)
        self._of_hosts.clear()
        if self._host is not None and (self._flows or self._columns or self._names):
            self._write_wire(self._host)
        self._held = 0

    def _write_host(self, host: str, rows: HostRows) -> None:
        first_ns = min(row.first_ns for row in rows.sockets)
        last_ns = max(row.last_ns for row in rows.sockets)
        header = self._header(host, first_ns, last_ns, ("event",), tuple(sorted(rows.addresses))[:4096])
        gaps = [
            Gap(host, f"import {self._kind}", reason, detail, first_ns, last_ns, count)
            for count, reason, detail in self._lost
            if count
        ]
        self._write(header, {SocketRecord: rows.sockets, ProcessRecord: rows.processes, Gap: gaps})

    def _write_wire(self, host: str) -> None:
        flows = [*self._columns, *([to_arrow(WireFlow, self._flows)] if self._flows else [])]
        table = pa.concat_tables(flows) if flows else None
        names = [
            NameRecord(host, NETNS, name, address, source, first, last)
            for (name, address, source), (first, last) in sorted(self._names.items())
        ]
        begins = [name.first_ns for name in names] + ([pc.min(table["first_ns"]).as_py()] if table else [])
        ends = [name.last_ns for name in names] + ([pc.max(table["last_ns"]).as_py()] if table else [])
        header = self._header(host, min(begins), max(ends), ("wire",), ())
        self._write(header, {NameRecord: names}, table)
        self._flows.clear()
        self._columns.clear()
        self._names.clear()

    def _header(
        self, host: str, first_ns: int, last_ns: int, sources: tuple[str, ...], addresses: tuple[str, ...]
    ) -> SegmentHeader:
        number = self._written[host]
        self._written[host] += 1
        digest = name_part(self._kind, self._digest, host, number)
        # what orders segments of one boot is their time; this only tells two of one time apart
        sequence = int(digest[:15], 16)
        values: dict[str, Any] = {
            "segment_id": segment_id(host, boot_of(host), sequence), "host": host, "boot_id": boot_of(host),
            "sequence": sequence, "schema": SEGMENT_SCHEMA, "tracer_version": f"{__version__} import {self._kind}",
            "opened_ns": first_ns, "opened_mono_ns": first_ns, "closed_ns": last_ns, "closed_mono_ns": last_ns,
            "period_s": _PERIOD_S, "samples": 0, "sources": sources, "privileged": True, "addresses": addresses,
            "location": None, "dropped_segments": 0,
        }  # fmt: skip
        return SegmentHeader(**values)

    def _write(self, header: SegmentHeader, rows: dict[type[Any], list[Any]], flows: pa.Table | None = None) -> None:
        tables = {record: to_arrow(record, held, header.segment_id) for record, held in rows.items() if held}
        if flows is not None:
            tables[WireFlow] = flows
        tables[SegmentHeader] = to_arrow(SegmentHeader, [header])
        digest = name_part(self._kind, self._digest, header.host, self._written[header.host] - 1)
        if digest in self._known:
            return
        date = datetime.fromtimestamp(header.opened_ns // 10**9, UTC).date().isoformat()
        horizon = self._store.manifest.horizon
        if horizon is not None and date < horizon:
            self.before_horizon += sum(table.num_rows for table in tables.values()) - 1
            return
        self._store.add_batch(header.host, date, [TakenSegment(digest, header.boot_id, header.sequence, tables)])
        self._added.append(name_batch([digest]))
        self.hosts.add(header.host)
        for record, table in tables.items():
            self.rows[table_name(record)] += table.num_rows
