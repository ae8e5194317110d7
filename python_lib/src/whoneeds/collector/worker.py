# SPDX-License-Identifier: GPL-3.0-or-later
"""The child process that opens segments: what a bad one breaks is this process and nothing else.

It bounds its own memory and, for each segment, its processor time; it can write no files. Requests come as lines of
JSON on standard input: ``{"path", "host", "now_ns"}``, where ``host`` null asks only what the segment calls its host.
Each is answered by one line of JSON on standard output and, after a segment that is good, its tables as Arrow streams,
whose lengths the line gives.
"""

import json
import os
import resource
import sys
from typing import Any, BinaryIO

import pyarrow as pa

from whoneeds.collector.checks import check_segment, rehost_segment
from whoneeds.model.errors import CorruptSegment, LimitExceeded, UnknownSchema, WhoneedsError
from whoneeds.model.schema import table_name
from whoneeds.segment.layout import TABLES
from whoneeds.segment.read import read_segment
from whoneeds.store.columns import to_arrow

#: Words for what may be wrong with a segment.
REASONS: dict[type[Exception], str] = {
    CorruptSegment: "corrupt",
    UnknownSchema: "schema",
    LimitExceeded: "limit",
    MemoryError: "limit",
}


def confine(memory_bytes: int) -> None:
    """Give up what reading segments does not need: memory beyond a bound, core dumps, writing files."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def allow_seconds(cpu_s: int) -> None:
    """Let this process use that much processor time from now on; the kernel ends it after that."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Read one segment.

    Returns
    -------
    reply : dict
        ``ok`` and what is known of the segment, or why it is refused.
    streams : list of bytes
        Its tables.
    """
    try:
        segment = read_segment(request["path"])
        header, host = segment.header, request["host"]
        check_segment(segment, request["now_ns"])
        if host is None:
            return {"ok": True, "host": header.host, "tables": []}, []
        tables = rehost_segment(segment, host)
        own_id = f"{host}/{header.boot_id}/{header.sequence}"
        arrow = {
            table_name(record): to_arrow(record, rows, own_id if record in TABLES else None)
            for record, rows in tables.items()
        }
        streams = [_as_stream(table) for table in arrow.values()]
    except MemoryError:
        return {"ok": False, "reason": "limit", "message": "segment needs too much memory"}, []
    except WhoneedsError as error:
        found = {"message": error.message, "expected": error.expected, "found": error.found, "remedy": error.remedy}
        return {"ok": False, "reason": REASONS.get(type(error), "invalid"), **found}, []
    reply = {
        "ok": True,
        "digest": segment.digest,
        "boot_id": header.boot_id,
        "sequence": header.sequence,
        "opened_ns": header.opened_ns,
        "capture": None if header.capture_digest is None else [header.capture_digest, header.capture_bytes],
        "tables": [[name, len(stream)] for name, stream in zip(arrow, streams, strict=True)],
    }
    return reply, streams


def _as_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def serve(requests: BinaryIO, replies: BinaryIO, cpu_s: int) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        allow_seconds(cpu_s)
        reply, streams = answer(json.loads(line))
        replies.write(json.dumps(reply).encode("ascii") + b"\n")
        for stream in streams:
            replies.write(stream)
        replies.flush()


if __name__ == "__main__":
    _replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may get between the replies
    confine(int(sys.argv[1]))
    serve(sys.stdin.buffer, _replies, int(sys.argv[2]))
