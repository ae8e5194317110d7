# SPDX-License-Identifier: GPL-3.0-or-later
"""Take files of others into the store: each once, whole lines only, and everything that is left out is said.

A file is read as a stream, packed by gzip or not. Lines that are not what the format says are counted, and the first
few are named; a file in which nothing is of the format is refused whole.
"""

import gzip
import os
import secrets
import stat
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from whoneeds.intake.lines import LONGEST_BYTES, read_lines, unpack
from whoneeds.intake.netflow import NetflowParser
from whoneeds.intake.parts import Parts, held_parts
from whoneeds.intake.rows import HostConnection, Label, Parser, Row, SeenName
from whoneeds.intake.suricata import SuricataParser
from whoneeds.intake.values import BadLine
from whoneeds.intake.windows import WindowsParser
from whoneeds.intake.zeek import ZeekParser
from whoneeds.model.errors import EvidenceError, InvalidRecord, SettingsError
from whoneeds.model.identity import check_host_name
from whoneeds.store.durable import hash_file
from whoneeds.store.session import Store

#: What can be imported; all but the last are of who watched a network.
KINDS = ("pcap", "zeek", "suricata", "netflow-csv", "sysmon")
_OF_HOSTS = "sysmon"
_PARSERS: dict[str, Callable[[Label], Parser]] = {
    "zeek": ZeekParser,
    "suricata": SuricataParser,
    "netflow-csv": NetflowParser,
    "sysmon": lambda _label: WindowsParser(),
}
#: How many bad lines of a file are named, and after how many without a good one its reading ends.
_MOST_NAMED = 5
_MOST_STRANGE = 100
#: How far a clock may run ahead of the controller's.
_AHEAD_NS = 86_400 * 10**9


@dataclass
class ImportedFile:
    """What became of one file.

    Attributes
    ----------
    file : str
    state : {"taken", "known", "refused"}
    hosts : list of str
        Who watched, or whose log it is.
    rows : dict of str to int
        By table.
    bad_lines : int
        Lines, or places of a capture, that could not be read.
    problems : list of str
        The first few of them, with file and line; or why the file was refused.
    untold : int
        Connections that were left out, since it is not known which end is the host's.
    before_horizon : int
        Rows of days that the store has pruned; they are not taken in again.
    restored : bool
        Whether it was taken anew, since what the store held of it was damaged.
    """

    file: str
    state: str = "taken"
    hosts: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    bad_lines: int = 0
    problems: list[str] = field(default_factory=list)
    untold: int = 0
    before_horizon: int = 0
    restored: bool = False

    @property
    def complete(self) -> bool:
        """Whether all that stands in it is in the store."""
        return self.state != "refused" and not self.problems and not self.untold


class _Refused(EvidenceError):
    """The file as a whole is not what it should be."""


def import_files(
    store: Store, kind: str, paths: Iterable[Path], *, host: str | None = None, now_ns: int | None = None
) -> list[ImportedFile]:
    """Take files in.

    Parameters
    ----------
    store : Store
        Opened for writing.
    kind : str
        One of `KINDS`.
    paths : iterable of Path
    host : str, optional
        Who watched: a monitor, or the host on which packets were taken in. Of logs of hosts, whose they are; without
        it, each event says.
    now_ns : int, optional
        The controller's time, UTC nanoseconds; now by default.

    Returns
    -------
    list of ImportedFile

    Raises
    ------
    SettingsError
        If the kind is none, or it is not said who watched.
    """
    if kind not in KINDS:
        raise SettingsError("kind of import", expected=f"one of {', '.join(KINDS)}", found=ascii(kind)[:40])
    if host is not None:
        try:
            check_host_name(host)
        except InvalidRecord as error:
            raise SettingsError("--host", expected=error.expected, found=error.found) from error
    elif kind != _OF_HOSTS:
        raise SettingsError(
            "who watched?",
            expected=f"a name for who wrote the {kind} files",
            found="none",
            remedy="give --host NAME: the monitor's name, or the host's on which packets were taken in",
        )
    now = time.time_ns() if now_ns is None else now_ns
    return [_import_file(store, kind, path, host, now + _AHEAD_NS) for path in paths]


def _import_file(store: Store, kind: str, path: Path, host: str | None, latest_ns: int) -> ImportedFile:
    made = ImportedFile(ascii(str(path))[1:-1])
    parts: Parts | None = None
    try:
        with _open(path) as file:
            before = os.fstat(file.fileno())
            digest = hash_file(path)
            known = held_parts(store.segment_hosts(), kind, digest, host)
            damaged = [name for name, digests in store.damaged_batches().items() if digests <= known] if known else []
            if known and not damaged:
                made.state = "known"
                return made
            for name in damaged:
                store.forget_batch(name)
            parts = Parts(store, kind, digest, host)
            reader = _Reader(made, parts, host, latest_ns)
            label = Label(host or "", digest[:32])
            if kind == "pcap":
                reader.read_capture(file, label)
            else:
                reader.read_log(file, _PARSERS[kind](label))
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise _Refused(
                    "the file changed while it was read", expected="a file that nobody writes any more",
                    found="one that is being written", remedy="import it when it is complete, or a copy of it",
                )  # fmt: skip
    except (EvidenceError, OSError) as error:
        if parts is not None:
            parts.take_back()
        made.state = "refused"
        told = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        made.problems = [f"{made.file}: {told}"]
        return made
    store.commit()
    made.rows, made.hosts, made.restored = dict(parts.rows), sorted(parts.hosts), bool(damaged)
    made.before_horizon = parts.before_horizon
    return made


def _open(path: Path) -> BinaryIO:
    """Open a file to read; a pipe under this name must not hold up everything.

    Raises
    ------
    EvidenceError, OSError
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _Refused("this cannot be imported", expected="a regular file", found="something else")
    return os.fdopen(descriptor, "rb")


class _Reader:
    """Reads one file into its parts, and keeps account of what could not be read."""

    def __init__(self, made: ImportedFile, parts: Parts, host: str | None, latest_ns: int) -> None:
        self._made, self._parts, self._host, self._latest_ns = made, parts, host, latest_ns
        self._strange: str | None = None

    def read_capture(self, file: BinaryIO, label: Label) -> None:
        """Meter a capture file.

        Raises
        ------
        EvidenceError
            If it is none.
        """
        # compiled code, which no log needs
        from whoneeds.flow import MeterSettings, meter_capture

        settings = MeterSettings(seed=secrets.randbits(63))
        metered = meter_capture(unpack(file), settings, host=label.host, label=label.prefix)
        odd = 0
        try:
            for columns in metered.columns():
                odd += self._parts.add_columns(columns, self._latest_ns)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._note(f"{self._made.file}: its packing is damaged, and what comes behind is lost: {error}")
        for problem in metered.problems:
            self._note(f"{self._made.file}: {problem}")
        if not metered.packets:
            raise _Refused(
                "not a file of this kind", expected="a capture with packets (pcap or pcapng)",
                found=self._made.problems[0] if self._made.problems else "no packet",
                remedy="check which file this is",
            )  # fmt: skip
        if odd:
            self._note(f"{self._made.file}: {odd} left out: times of flows are before 2000, to come, or run backwards")
        self._parts.finish()

    def read_log(self, file: BinaryIO, parser: Parser) -> None:
        """Read a file of lines.

        Raises
        ------
        EvidenceError
            If nothing in it is of the format.
        """
        try:
            for number, line in read_lines(unpack(file)):
                self._read_line(parser, number, line)
                if not parser.recognised and self._made.bad_lines >= _MOST_STRANGE:
                    break
        except (OSError, EOFError, zlib.error) as error:
            if not isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
                raise
            self._note(f"{self._made.file}: its packing is damaged, and what comes behind is lost: {error}")
        if not parser.recognised:
            raise _Refused(
                "not a file of this kind", expected=parser.expects, found=self._strange or "an empty file",
                remedy="check which log this is",
            )  # fmt: skip
        self._put_all(parser.finish(), self._made.file)
        untold = getattr(parser, "untold", 0)
        self._made.untold = untold if isinstance(untold, int) else 0
        self._parts.finish(unread=self._made.bad_lines, untold=self._made.untold)

    def _read_line(self, parser: Parser, number: int, line: bytes | None) -> None:
        where = f"{self._made.file}:{number}"
        try:
            if line is None:
                raise BadLine("line", expected=f"at most {LONGEST_BYTES} bytes", found="more")
            self._put_all(parser.read(line), where)
        except InvalidRecord as error:
            self._strange = self._strange or error.found
            self._note(f"{where}: {error}")

    def _put_all(self, rows: Iterable[Row], where: str) -> None:
        for row in rows:
            try:
                self._put(row)
            except InvalidRecord as error:
                self._note(f"{where}: {error}")

    def _put(self, row: Row) -> None:
        at_ns = row.at_ns if isinstance(row, (HostConnection, SeenName)) else row.last_ns
        if at_ns > self._latest_ns:
            raise BadLine("time", expected="at most a day from now", found=str(at_ns), remedy="set the host's clock")
        host = self._host
        if host is None:
            host = check_host_name(row.host or "") if isinstance(row, HostConnection) else ""
        self._parts.add(row, host)

    def _note(self, problem: str) -> None:
        self._made.bad_lines += 1
        if len(self._made.problems) < _MOST_NAMED:
            self._made.problems.append(problem)
