# SPDX-License-Identifier: GPL-3.0-or-later
"""What a segment tells beside sockets: translated conversations, and connections to daemons over AF_UNIX.

Each is told once a segment, with the time in which it was there. Pure: times and answers are arguments.
"""

from typing import Any, Collection, Dict, Iterator, List, NamedTuple, Set, Tuple, Type

from whoneeds.model.evidence import TranslationRecord, UnixConnectionRecord
from whoneeds.model.identity import process_id
from whoneeds.tracer.conntrack import Translation, decode_translation
from whoneeds.tracer.owners import Holder

#: Most of each kind in one segment; how many more there were is told.
MAX_TRANSLATIONS, MAX_UNIX_CONNECTIONS = 100_000, 20_000

#: Columns of TranslationRecord, as `decode_translation` gives them.
_ENDS = (
    "protocol", "orig_addr", "orig_port", "resp_addr", "resp_port", "new_orig_addr", "new_orig_port", "new_resp_addr",
    "new_resp_port",
)  # fmt: skip


class UnixConnection(NamedTuple):
    """A process and a daemon that it is connected to over AF_UNIX; columns of UnixConnectionRecord."""

    netns: str
    type: str
    path: str
    client: Holder
    server: Holder


class Relations:
    """Relations of one segment.

    Parameters
    ----------
    max_translations, max_unix_connections : int
    """

    def __init__(
        self, max_translations: int = MAX_TRANSLATIONS, max_unix_connections: int = MAX_UNIX_CONNECTIONS
    ) -> None:
        self._most = {TranslationRecord: max_translations, UnixConnectionRecord: max_unix_connections}
        self._translations: Dict[Tuple[str, Translation, int], List[Any]] = {}
        self._unix: Dict[UnixConnection, List[int]] = {}
        #: How many were left out, by kind.
        self.left_out: Dict[Type[Any], int] = {}

    def __len__(self) -> int:
        return len(self._translations) + len(self._unix)

    def add_translation(self, netns: str, entry: Translation, first_ns: int, last_ns: int, *, by_event: bool) -> None:
        """Take in a translated conversation; told again with the same begin, its time widens."""
        known = self._translations.get((netns, entry, first_ns))
        if known is not None:
            known[0], known[1] = max(known[0], last_ns), known[1] or by_event
        elif self._has_room(TranslationRecord, len(self._translations)):
            self._translations[netns, entry, first_ns] = [last_ns, by_event]

    def add_unix_connection(self, found: UnixConnection, now_ns: int) -> None:
        """Take in a connection that was seen now."""
        known = self._unix.get(found)
        if known is not None:
            known[1], known[2] = now_ns, known[2] + 1
        elif self._has_room(UnixConnectionRecord, len(self._unix)):
            self._unix[found] = [now_ns, now_ns, 1]

    def _has_room(self, record: Type[Any], held: int) -> bool:
        if held < self._most[record]:
            return True
        self.left_out[record] = self.left_out.get(record, 0) + 1
        return False

    def widen(self, spans: Dict[Holder, List[int]], named: Collection[Holder]) -> None:
        """Widen the times in which processes were seen by those of their connections, as far as they are named."""
        for found, (first_ns, last_ns, _looks) in self._unix.items():
            for holder in (found.client, found.server):
                if holder not in named:
                    continue
                span = spans.setdefault(holder, [first_ns, last_ns])
                span[0], span[1] = min(span[0], first_ns), max(span[1], last_ns)

    def holders(self) -> Set[Holder]:
        """Processes at the ends of connections."""
        return {holder for found in self._unix for holder in (found.client, found.server)}

    def translations(self, host: str) -> Iterator[TranslationRecord]:
        """Rows of translated conversations."""
        for (netns, entry, first_ns), (last_ns, by_event) in self._translations.items():
            source = "event" if by_event else "table"
            ends = dict(zip(_ENDS, decode_translation(entry)))
            last_ns = max(first_ns, last_ns)
            yield TranslationRecord(host=host, netns=netns, first_ns=first_ns, last_ns=last_ns, source=source, **ends)

    def unix_connections(self, host: str, boot_id: str, named: Collection[Holder]) -> Iterator[UnixConnectionRecord]:
        """Rows of connections whose processes could both be named."""
        for found, (first_ns, last_ns, looks) in self._unix.items():
            if found.client in named and found.server in named:
                client, server = (process_id(host, boot_id, *holder) for holder in (found.client, found.server))
                yield UnixConnectionRecord(
                    host, found.netns, found.type, found.path, client, server, first_ns, last_ns, looks
                )  # fmt: skip
