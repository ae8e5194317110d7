# SPDX-License-Identifier: GPL-3.0-or-later
"""Take collected segments into the store: each good one once, each bad one into quarantine, none silently dropped.

The result depends on which segments were given, not on their order or on how often. Nothing is deleted from the
folders they lie in.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from whoneeds.collector.captures import find_capture_problem
from whoneeds.collector.reader import ReaderLimits, ReadSegment, Refusal, SegmentReader
from whoneeds.collector.worker import REASONS
from whoneeds.model.errors import CorruptSegment, EvidenceError, SettingsError
from whoneeds.model.identity import check_host_name
from whoneeds.segment.layout import SUFFIX
from whoneeds.segment.read import ReadLimits, verify_digest
from whoneeds.store.compaction import DEFAULT_ABOVE, Compaction
from whoneeds.store.quarantine import Quarantine, Quarantined
from whoneeds.store.session import Store, TakenSegment

#: How much is held in memory before it is written: segments and rows of one host and day.
_BATCH_SEGMENTS = 512
_BATCH_ROWS = 400_000

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Taken:
    """A segment that was taken in now.

    Attributes
    ----------
    host : str
    digest : str
    rows : int
    """

    host: str
    digest: str
    rows: int


@dataclass
class IngestResult:
    """What became of each file that was given.

    Attributes
    ----------
    taken : list of Taken
    known : list of str
        Digests of segments that the store held already, or that were given more than once.
    quarantined : list of Quarantined
    refused : list of (str, str)
        Folders that were not looked into, and why.
    restored : list of str
        Batches that were damaged in the store and are made anew.
    captures : list of (str, str, str)
        Host, segment file and reason of each capture file that is missing or damaged; the segment was taken.
    before_horizon : list of (str, str)
        Host and file of each good segment of a day before the store's horizon: such evidence was pruned, and is not
        taken in again.
    compacted : Compaction or None
        What was joined afterwards, since a day of a host had come in too many pieces.
    """

    taken: list[Taken] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    captures: list[tuple[str, str, str]] = field(default_factory=list)
    before_horizon: list[tuple[str, str]] = field(default_factory=list)
    compacted: Compaction | None = None

    @property
    def complete(self) -> bool:
        """Whether everything that was given, and that the store still wants, is in it."""
        return not self.quarantined and not self.refused


@dataclass(frozen=True)
class _Offered:
    host: str
    path: Path
    digest: str


def ingest(
    store: Store,
    directories: Iterable[str | Path],
    *,
    host: str | None = None,
    now_ns: int | None = None,
    progress: Progress | None = None,
    limits: ReaderLimits | None = None,
    compact_above: int = DEFAULT_ABOVE,
) -> IngestResult:
    """Take segments in.

    Parameters
    ----------
    store : Store
        Opened for writing.
    directories : iterable of path
        Each either holds one folder a host, named as in the inventory, with that host's segments; or it holds
        the segments of one host itself (a tracer's own folder is one of these).
    host : str, optional
        Name of the host for folders of the second kind. Without it, the segments' own word is taken if they agree.
    now_ns : int, optional
        The controller's time, UTC nanoseconds; now by default.
    progress : callable, optional
        Called with files done, files in all, and the host.
    limits : ReaderLimits, optional
    compact_above : int, optional
        Batches of one host, one day and like size above which they are joined; 0 for never.

    Returns
    -------
    IngestResult

    Raises
    ------
    SettingsError
        If a directory is missing, or the segments of a folder do not agree on their host and none is given.
    """
    now = time.time_ns() if now_ns is None else now_ns
    result = IngestResult()
    with SegmentReader(limits) as reader:
        quarantine = Quarantine(store.path)
        files = [one for each in directories for one in _find_files(Path(each), host, reader, now, result)]
        offered = list(_weigh_files(files, quarantine, result))
        _forget_damaged(store, offered, result)
        _take_all(store, offered, reader, quarantine, now, progress, result)
    if compact_above and (done := store.compact(above=compact_above)).batches_before:
        result.compacted = done
    return result


def _find_files(
    directory: Path, host: str | None, reader: SegmentReader, now_ns: int, result: IngestResult
) -> list[tuple[str, Path]]:
    """The files in a directory that may be segments, and the host that each belongs to."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise SettingsError(
            "segments cannot be read", expected="a folder of segments", found=f"{directory}: {error.strerror}"
        ) from error
    own = [path for path in entries if path.name.endswith(SUFFIX)]
    folders = [path for path in entries if path.is_dir() and path not in own]
    if not own and [path.name for path in folders] == ["segments"]:
        return _find_files(folders[0], host, reader, now_ns, result)
    found = [(_agree_on_host(directory, own, host, reader, now_ns), path) for path in own] if own else []
    for folder in folders:
        try:
            name = check_host_name(folder.name)
            if folder.is_symlink():
                raise EvidenceError("the folder is a link", expected="a folder", found="a link")
            found += [(name, path) for path in sorted(folder.iterdir()) if path.name.endswith(SUFFIX)]
        except (EvidenceError, OSError) as error:
            result.refused.append((ascii(str(folder))[1:-1], str(error)))
    return found


def _agree_on_host(directory: Path, paths: list[Path], host: str | None, reader: SegmentReader, now_ns: int) -> str:
    if host is not None:
        return check_host_name(host)
    claims = {claim for path in paths if isinstance(claim := _ask_host(path, reader, now_ns), str)}
    if len(claims) > 1:
        raise SettingsError(
            "whose segments are these?",
            expected=f"segments of one host in {directory}",
            found=", ".join(sorted(claims)[:5]),
            remedy="give the host's name, or one folder a host",
        )
    # where none can be read, all go into quarantine, and that needs some name
    return claims.pop() if claims else "unknown"


def _ask_host(path: Path, reader: SegmentReader, now_ns: int) -> str | Refusal:
    try:
        _verify(path)
    except EvidenceError as error:
        return Refusal(REASONS.get(type(error), "invalid"), error.message)
    return reader.claimed_host(path, now_ns)


def _weigh_files(files: list[tuple[str, Path]], quarantine: Quarantine, result: IngestResult) -> Iterator[_Offered]:
    """Check each file's digest; what does not pass goes into quarantine here."""
    for host, path in files:
        try:
            yield _Offered(host, path, _verify(path))
        except EvidenceError as error:
            refusal = Refusal(
                REASONS.get(type(error), "invalid"), error.message, error.expected, error.found, error.remedy
            )
            result.quarantined.append(_put_away(quarantine, host, path, refusal))


def _verify(path: Path) -> str:
    """Digest of a segment file; the content is hashed, not parsed.

    Raises
    ------
    EvidenceError
    """
    try:
        # not blocking: a pipe under this name must not hold up everything
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CorruptSegment("not a file", expected="a regular file", found="something else")
            return verify_digest(file, ReadLimits())[0]
    except OSError as error:
        raise CorruptSegment(
            "the file cannot be read", expected="a regular file", found=error.strerror or str(error)
        ) from error


def _forget_damaged(store: Store, offered: list[_Offered], result: IngestResult) -> None:
    """Let batches whose files are damaged be made anew, if all their segments are here again."""
    here = {one.digest for one in offered}
    for name, digests in store.damaged_batches().items():
        if digests <= here:
            store.forget_batch(name)
            result.restored.append(name)


def _take_all(
    store: Store,
    offered: list[_Offered],
    reader: SegmentReader,
    quarantine: Quarantine,
    now_ns: int,
    progress: Progress | None,
    result: IngestResult,
) -> None:
    owner = store.segment_hosts()
    # by digest within a host: which of two rival segments is taken must not depend on how their files are named
    ordered = sorted(offered, key=lambda one: (one.host, one.digest))
    hosts = sorted({one.host for one in ordered})
    done = 0
    for host in hosts:
        places = {place: digest for digest, place in store.segments(host).items()}
        batches = _Batches(store, host)
        for one in (each for each in ordered if each.host == host):
            if owner.get(one.digest) == host:
                result.known.append(one.digest)
            else:
                refusal = _take_one(one, owner, places, reader, now_ns, batches, store.manifest.horizon, result)
                if refusal is not None:
                    result.quarantined.append(_put_away(quarantine, host, one.path, refusal))
            done += 1
            if progress is not None:
                progress(done, len(ordered), host)
        batches.write()
        store.commit()
    if not hosts and result.restored:
        store.commit()


def _take_one(
    one: _Offered,
    owner: dict[str, str],
    places: dict[tuple[str, int], str],
    reader: SegmentReader,
    now_ns: int,
    batches: "_Batches",
    horizon: str | None,
    result: IngestResult,
) -> Refusal | None:
    """Take one segment into the batches, or say why not."""
    if one.digest in owner:
        return Refusal(
            "copied",
            "this very segment came from another host before",
            expected=f"segments of {one.host}",
            found=f"a segment of {owner[one.digest]}",
            remedy="find out why a host hands out another one's segments, or why one machine has two names",
        )
    read = reader.read(one.path, one.host, now_ns)
    if isinstance(read, Refusal):
        return read
    place = (read.segment.boot_id, read.segment.sequence)
    if read.segment.digest != one.digest:
        return Refusal("corrupt", "the file changed while it was being read", one.digest, read.segment.digest)
    if place in places:
        return Refusal(
            "conflict",
            "another segment with the same identity is in the store",
            expected=f"digest {places[place][:16]}...",
            found=f"{one.digest[:16]}...",
            remedy="find out who changed it on its way; the one that came first is kept",
        )
    if horizon is not None and _day_of(read) < horizon:
        result.before_horizon.append((one.host, one.path.name))
        return None
    problem = None if read.capture is None else find_capture_problem(one.path, *read.capture)
    if problem is not None:
        result.captures.append((one.host, one.path.name, problem))
    places[place] = owner_digest = one.digest
    owner[owner_digest] = one.host
    batches.add(read)
    result.taken.append(Taken(one.host, one.digest, read.rows))
    return None


class _Batches:
    """Segments of one host that wait to be written, by the day on which they were opened."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host
        self._waiting: dict[str, list[TakenSegment]] = {}
        self._rows = 0

    def add(self, read: ReadSegment) -> None:
        self._waiting.setdefault(_day_of(read), []).append(read.segment)
        self._rows += read.rows
        if self._rows >= _BATCH_ROWS or sum(map(len, self._waiting.values())) >= _BATCH_SEGMENTS:
            self.write()
            self._store.commit()

    def write(self) -> None:
        for date, segments in sorted(self._waiting.items()):
            self._store.add_batch(self._host, date, segments)
        self._waiting.clear()
        self._rows = 0


def _day_of(read: ReadSegment) -> str:
    """The day (UTC) on which a segment was opened, as ISO date."""
    return datetime.fromtimestamp(read.opened_ns // 10**9, UTC).date().isoformat()


def _put_away(quarantine: Quarantine, host: str, path: Path, refusal: Refusal) -> Quarantined:
    return quarantine.put(
        host,
        path,
        reason=refusal.reason,
        message=refusal.message,
        expected=refusal.expected,
        found=refusal.found,
        remedy=refusal.remedy,
    )
