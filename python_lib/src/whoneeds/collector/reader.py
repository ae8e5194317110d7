# SPDX-License-Identifier: GPL-3.0-or-later
"""The parent's side of reading segments in a child process: ask, wait, and survive whatever happens to the child."""

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from whoneeds.model.schema import table_name
from whoneeds.model.vocabulary import EVIDENCE
from whoneeds.store.columns import arrow_schema
from whoneeds.store.session import TakenSegment

_RECORDS = {table_name(record): record for record in EVIDENCE}
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class ReaderLimits:
    """What one segment may cost.

    Attributes
    ----------
    memory_bytes : int
        Address space of the child.
    cpu_s : int
        Processor time.
    wall_s : float
        Time by the clock.
    """

    memory_bytes: int = 4 << 30
    cpu_s: int = 120
    wall_s: float = 300.0


@dataclass(frozen=True)
class Refusal:
    """Why a segment was not taken.

    Attributes
    ----------
    reason : str
        One word.
    message, expected, found, remedy : str or None
    """

    reason: str
    message: str
    expected: str | None = None
    found: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class ReadSegment:
    """A good segment and the time that decides its day.

    Attributes
    ----------
    segment : TakenSegment
    opened_ns : int
    rows : int
    capture : (str, int) or None
        SHA-256 and size of the capture file that the segment says is beside it.
    """

    segment: TakenSegment
    opened_ns: int
    rows: int
    capture: tuple[str, int] | None = None


class _ChildGone(Exception):
    """The child ended or did not answer in time."""


class SegmentReader:
    """Reads segments one after another in a child process, which is started again when a segment kills it."""

    def __init__(self, limits: ReaderLimits | None = None) -> None:
        self._limits = limits or ReaderLimits()
        self._child: subprocess.Popen[bytes] | None = None
        self._pending = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def read(self, path: Path, host: str, now_ns: int) -> ReadSegment | Refusal:
        """Read, check and rename one segment.

        Parameters
        ----------
        path : Path
        host : str
            The controller's name for the host.
        now_ns : int
            The controller's time.
        """
        try:
            reply = self._ask({"path": str(path), "host": host, "now_ns": now_ns})
            if not reply["ok"]:
                return _refusal(reply)
            tables = {_RECORDS[name]: self._receive_table(name, length) for name, length in reply["tables"]}
        except _ChildGone as error:
            return Refusal("crashed", "reading the segment ended its reader", found=str(error))
        rows = sum(table.num_rows for table in tables.values())
        taken = TakenSegment(reply["digest"], reply["boot_id"], reply["sequence"], tables)
        capture = reply["capture"]
        return ReadSegment(taken, reply["opened_ns"], rows, None if capture is None else (capture[0], capture[1]))

    def claimed_host(self, path: Path, now_ns: int) -> str | Refusal:
        """What a segment calls the host that it is from, if it is good otherwise."""
        try:
            reply = self._ask({"path": str(path), "host": None, "now_ns": now_ns})
        except _ChildGone as error:
            return Refusal("crashed", "reading the segment ended its reader", found=str(error))
        return str(reply["host"]) if reply["ok"] else _refusal(reply)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._start()
        self._deadline = time.monotonic() + self._limits.wall_s
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            child.stdin.flush()
        except OSError:
            self._give_up()
        while (end := self._pending.find(b"\n")) < 0:
            if len(self._pending) > _LONGEST_LINE:
                self._give_up()
            self._receive_piece()
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _receive_table(self, name: str, length: int) -> pa.Table:
        while len(self._pending) < length:
            self._receive_piece()
        stream = bytes(self._pending[:length])
        del self._pending[:length]
        table = pa.ipc.open_stream(stream).read_all()
        return table.cast(arrow_schema(_RECORDS[name]))

    def _receive_piece(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        left = self._deadline - time.monotonic()
        ready = select.select([descriptor], [], [], left)[0] if left > 0 else []
        piece = os.read(descriptor, 1 << 20) if ready else b""
        if not piece:
            self._give_up(late=not ready)
        self._pending += piece

    def _give_up(self, *, late: bool = False) -> None:
        assert self._child is not None
        if late:
            self._child.kill()
        code = self._child.wait()
        self._stop()
        raise _ChildGone(f"no answer within {self._limits.wall_s} s" if late else f"exit code {code}")

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            command = [sys.executable, "-m", "whoneeds.collector.worker"]
            command += [str(self._limits.memory_bytes), str(self._limits.cpu_s)]
            # one thread and the C library's own memory: address space is bounded, and arenas would take it all
            environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, close_fds=True
            )
            self._pending.clear()
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # what was still to be sent to a dead child
                        continue
            if self._child.poll() is None:
                self._child.kill()
            self._child.wait()
            self._child = None


def _refusal(reply: dict[str, Any]) -> Refusal:
    return Refusal(reply["reason"], reply["message"], reply.get("expected"), reply.get("found"), reply.get("remedy"))
