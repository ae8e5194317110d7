# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's evidence by the million rows, in the shape of Macroscope's traces, written straight into a store.

52 hosts, one in four of which serves the others; 159 applications, each with a few services of its own, most of them
on servers that are not traced. A host is up for eight hours a day under a boot of its own, sampled every five seconds,
with a segment a minute. A conversation has one row a segment that it lasted in and an end that events told of; of one
between two traced hosts both ends have rows. Everything follows from the seed.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whoneeds.model.evidence import ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.store import open_store
from whoneeds.store.columns import arrow_schema
from whoneeds.store.session import TakenSegment

HOSTS, DAYS, APPLICATIONS = 52, 77, 159
#: One host in so many serves the others.
SERVING = 4
UP_S, SEGMENT_S, PERIOD_S = 8 * 3600, 60, 5.0
_BEGIN_S = 1_704_067_200
_NS = 10**9
_NETNS = "4026531840"
#: Share of conversations with a traced host.
_INSIDE_SHARE = 0.25
_MEAN_S = 20.0


@dataclass(frozen=True)
class Counted:
    """Rows that were written.

    Attributes
    ----------
    flows : int
        Conversations, each once.
    segments, processes, sockets : int
    """

    flows: int
    segments: int
    processes: int
    sockets: int


def write_fleet(path: Path, flows: int, *, hosts: int = HOSTS, days: int = DAYS, seed: int = 0) -> Counted:
    """Write a store with the evidence of at least so many conversations.

    Parameters
    ----------
    path : Path
        Where no store is yet.
    flows : int
    hosts, days, seed : int
    """
    per_day = -(-flows // (hosts * days))
    sums = np.zeros(3, dtype=np.int64)
    with open_store(path, create=True, write=True) as store:
        for day in range(days):
            date = str(np.datetime64(_BEGIN_S + day * 86400, "s").astype("datetime64[D]"))
            for host, tables in day_of_fleet(day, per_day, hosts, np.random.default_rng((seed, day))):
                digest = f"{seed:08x}{day:028x}{host:028x}"
                store.add_batch(_name(host), date, [TakenSegment(digest, "", day, tables)])
                sums += [tables[record].num_rows for record in (SegmentHeader, ProcessRecord, SocketRecord)]
        store.commit()
    return Counted(per_day * hosts * days, *(int(each) for each in sums))


def day_of_fleet(
    day: int, per_host: int, hosts: int, rng: np.random.Generator
) -> Iterator[tuple[int, dict[type[Any], pa.Table]]]:
    """All rows of one day, host by host: the number of a host, and its tables."""
    servers = np.arange(0, hosts, SERVING)
    count = per_host * hosts
    caller = np.repeat(np.arange(hosts), per_host)
    # few applications make most conversations
    app = (APPLICATIONS * rng.random(count) ** 3).astype(np.int64)
    service = app % 7 + (rng.random(count) ** 2 * 5).astype(np.int64)
    inside = rng.random(count) < _INSIDE_SHARE
    called = servers[(app + service) % len(servers)]
    inside &= called != caller
    first = (rng.random(count) * (UP_S - 120) * _NS).astype(np.int64)
    length = (rng.exponential(_MEAN_S, count) * _NS).astype(np.int64)
    last = np.minimum(first + length, UP_S * _NS - 1)
    port = 32768 + rng.permutation(count) % 28000
    sent, received = (rng.integers(0, 1 << 20, count) for _way in range(2))
    for host in range(hosts):
        out = caller == host
        back = inside & (called == host)
        yield (
            host,
            _tables(
                host, day,
                calls={
                    "app": app[out], "service": service[out], "inside": inside[out], "other": called[out],
                    "first": first[out], "last": last[out], "port": port[out], "sent": sent[out],
                    "received": received[out],
                },
                answers={
                    "app": app[back], "service": service[back], "other": caller[back], "first": first[back],
                    "last": last[back], "port": port[back], "sent": received[back], "received": sent[back],
                },
            ),
        )  # fmt: skip


def _tables(host: int, day: int, calls: dict[str, Any], answers: dict[str, Any]) -> dict[type[Any], pa.Table]:
    boot = str(uuid.UUID(int=(host << 64) | day))
    base = (_BEGIN_S + day * 86400 + 9 * 3600) * _NS
    name, number = _name(host), UP_S // SEGMENT_S
    prefix = f"{name}/{boot}/"
    opened = base + np.arange(number) * SEGMENT_S * _NS
    segment_ids = _words(prefix, opened - base)
    headers = {
        "segment_id": segment_ids, "host": name, "boot_id": boot, "sequence": opened - base, "schema": 1,
        "tracer_version": "0.1.0", "opened_ns": opened, "opened_mono_ns": opened - base,
        "closed_ns": opened + SEGMENT_S * _NS, "closed_mono_ns": opened - base + SEGMENT_S * _NS,
        "period_s": PERIOD_S, "samples": int(SEGMENT_S / PERIOD_S), "sources": pa.scalar(["event", "table"]),
        "privileged": True, "addresses": pa.scalar([_address(host)]), "location": None, "dropped_segments": 0,
        "capture_digest": None, "capture_bytes": None,
    }  # fmt: skip
    serves = host % SERVING == 0
    waiting = np.arange(12) if serves else np.zeros(0, dtype=np.int64)
    parts = [_listeners(host, prefix, waiting, number, base)] if serves else []
    parts.append(_ends(host, prefix, calls, base, calling=True))
    parts.append(_ends(host, prefix, answers, base, calling=False))
    sockets = pa.concat_tables(parts)
    # a process is told of in every segment in which it held a socket
    pairs = sockets.select(["pid", "at"]).group_by(["pid", "at"]).aggregate([])
    pid, at = pairs["pid"].to_numpy(), pairs["at"].to_numpy()
    names = pa.array([_program(one) for one in range(1000 + APPLICATIONS + 12)])
    processes = {
        "process_id": _process_ids(prefix, pid), "host": name, "pid": pid, "start_ticks": pid, "ppid": 1,
        "name": names.take(pa.array(pid)), "exe": None, "uid": 1000 + host, "user": None, "unit": None,
        "container": None, "first_ns": opened[at], "last_ns": opened[at] + SEGMENT_S * _NS - 1,
        "container_name": None, "parent_id": None, "session": pid, "segment_id": segment_ids.take(pa.array(at)),
    }  # fmt: skip
    rows = {
        field.name: sockets[field.name] for field in arrow_schema(SocketRecord) if field.name in sockets.column_names
    }
    rows["segment_id"] = segment_ids.take(sockets["at"].combine_chunks())
    return {
        SegmentHeader: _fill(SegmentHeader, number, headers),
        ProcessRecord: _fill(ProcessRecord, len(pid), processes),
        SocketRecord: _fill(SocketRecord, sockets.num_rows, rows | {"host": name, "netns": _NETNS}),
    }


def _listeners(host: int, prefix: str, services: Any, number: int, base: int) -> pa.Table:
    service, at = np.repeat(services, number), np.tile(np.arange(number), len(services))
    first = base + at * SEGMENT_S * _NS
    rows = len(service)
    return pa.table({
        "socket_id": _words(f"{prefix}{_NETNS}/l", service), "protocol": _same("tcp", rows),
        "local_addr": _same("0.0.0.0", rows), "local_port": 8000 + service, "remote_addr": pa.nulls(rows, pa.string()),
        "remote_port": pa.nulls(rows, pa.int64()), "state": _same("listen", rows),
        "process_id": _process_ids(prefix, 1000 + APPLICATIONS + service), "first_ns": first,
        "last_ns": first + (SEGMENT_S - 1) * _NS, "samples": np.full(rows, 12), "source": _same("table", rows),
        "initiated": pa.nulls(rows, pa.bool_()), "end": pa.nulls(rows, pa.string()),
        "sent_bytes": pa.nulls(rows, pa.int64()), "received_bytes": pa.nulls(rows, pa.int64()),
        "pid": 1000 + APPLICATIONS + service, "at": at,
    } | _owned(rows))  # fmt: skip


def _ends(host: int, prefix: str, talks: dict[str, Any], base: int, *, calling: bool) -> pa.Table:
    """Rows of conversations at one end: one for each segment that they lasted in, the last one told of by events."""
    begin = talks["first"] // (SEGMENT_S * _NS)
    finish = talks["last"] // (SEGMENT_S * _NS)
    times = finish - begin + 1
    which = np.repeat(np.arange(len(times)), times)
    at = begin[which] + np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
    ends_here = at == finish[which]
    service, port = 8000 + talks["service"][which], talks["port"][which]
    other = talks["other"][which]
    addresses = pa.array([_address(one) for one in range(256)])
    theirs = addresses.take(pa.array(other))
    if calling:
        outside = _words("198.51.100.", talks["app"][which] % 200)
        theirs = pc.if_else(pa.array(talks["inside"][which]), theirs, outside)
        pid, local_port, remote_port = 1000 + talks["app"][which], port, service
    else:
        pid, local_port, remote_port = 1000 + APPLICATIONS + talks["service"][which], service, port
    rows = len(which)
    first = np.maximum(talks["first"][which], at * SEGMENT_S * _NS)
    last = np.minimum(talks["last"][which], (at + 1) * SEGMENT_S * _NS - 1)
    ended = pa.array(ends_here)
    return pa.table({
        "socket_id": _words(f"{prefix}{_NETNS}/{'c' if calling else 'a'}", which), "protocol": _same("tcp", rows),
        "local_addr": _same(_address(host), rows), "local_port": local_port, "remote_addr": theirs,
        "remote_port": remote_port, "state": pc.if_else(ended, "close", "established"),
        "process_id": _process_ids(prefix, pid), "first_ns": base + first, "last_ns": base + last,
        "samples": (last - first) // int(PERIOD_S * _NS), "source": pc.if_else(ended, "event", "table"),
        "initiated": pa.array(np.full(rows, calling)), "end": pc.if_else(ended, "fin", pa.scalar(None, pa.string())),
        "sent_bytes": talks["sent"][which], "received_bytes": talks["received"][which], "pid": pid, "at": at,
    } | _owned(rows))  # fmt: skip


def _owned(rows: int) -> dict[str, Any]:
    return {"inode": np.full(rows, 4711), "uid": np.full(rows, 1000), "owners": np.full(rows, 1)}


def _fill(record: type[Any], rows: int, values: dict[str, Any]) -> pa.Table:
    """A table of the record's schema; single values stand in every row."""
    made = []
    for field in arrow_schema(record):
        value = values[field.name]
        if value is None:
            value = pa.nulls(rows, field.type)
        elif not isinstance(value, (np.ndarray, pa.Array, pa.ChunkedArray)):
            value = pa.repeat(value if isinstance(value, pa.Scalar) else pa.scalar(value), rows)
        elif isinstance(value, np.ndarray):
            value = pa.array(value)
        made.append(value.cast(field.type))
    return pa.Table.from_arrays(made, schema=arrow_schema(record))


def _name(host: int) -> str:
    return f"host{host:03d}"


def _address(host: int) -> str:
    return f"10.0.{host // 250}.{host % 250 + 1}"


def _program(pid: int) -> str:
    return f"server{pid - 1000 - APPLICATIONS:02d}" if pid >= 1000 + APPLICATIONS else f"program{pid - 1000:03d}"


def _words(prefix: str, numbers: Any) -> Any:
    return pc.binary_join_element_wise(prefix, pc.cast(pa.array(numbers), pa.string()), "")


def _process_ids(prefix: str, pid: Any) -> Any:
    number = pc.cast(pa.array(pid), pa.string())
    return pc.binary_join_element_wise(prefix, number, "/", number, "")


def _same(value: str, rows: int) -> Any:
    return pa.repeat(pa.scalar(value), rows)
