# SPDX-License-Identifier: GPL-3.0-or-later
"""Sum UDP packets up: what one local end and one remote end sent each other.

A packet shows up at every interface that it passes (a container's at its veth, at the bridge, at the card); the
interface that saw most of them counts. An end is local if its address is one of the namespace's; where neither is,
the host only passed the packets on, and they are nobody's here.

Who sent the first packet is told only where it is known to be the first: nothing of the kind had been seen for a
while, in a capture that had run for a while.

Pure: packets, times and addresses are arguments.
"""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from whoneeds.tracer.sock_diag import IPV4, IPV6, address_text

#: A conversation that was silent for so long is a new one: another process may have its port by now.
IDLE_NS = 10_000_000_000
#: A first packet counts as one after so much silence.
QUIET_NS = 2_000_000_000
#: How long a conversation is remembered after its last packet, so that a later packet is no first one.
_REMEMBERED_NS = 180_000_000_000
_LOOPBACK4, _LOOPBACK6 = b"\x7f", bytes(15) + b"\1"

#: One end, as it is on the wire: address and port.
End = Tuple[bytes, int]


class Exchange(NamedTuple):
    """UDP packets between a local and a remote end.

    Attributes
    ----------
    local_addr, local_port, remote_addr, remote_port
    sent_packets, received_packets, sent_bytes, received_bytes : int
        Of the local end; bytes of data.
    first_ns, last_ns : int
        UTC.
    initiated : bool or None
        Whether the local end sent the first packet; None where it is not known which one was the first.
    """

    local_addr: str
    local_port: int
    remote_addr: str
    remote_port: int
    sent_packets: int
    received_packets: int
    sent_bytes: int
    received_bytes: int
    first_ns: int
    last_ns: int
    initiated: Optional[bool]


class Exchanges:
    """UDP conversations of one network namespace.

    Parameters
    ----------
    since_ns : int
        When its capture began, UTC.
    most : int
        Most counters that are held in one segment, and most conversations that are remembered beyond it.

    Attributes
    ----------
    left_out : int
        Packets that were not counted because of that.
    """

    def __init__(self, since_ns: int, most: int = 1 << 15) -> None:
        self._since_ns, self._most = since_ns, most
        self.left_out = 0
        #: By both ends as on the wire, and interface: packets, bytes, first and last time.
        self._open: Dict[Tuple[bytes, int], List[int]] = {}
        self._ended: List[Tuple[bytes, int, List[int]]] = []
        self._senders: Set[bytes] = set()
        self._remembered: Dict[bytes, int] = {}

    def add(self, ends: bytes, interface: int, at_ns: int, size: int) -> bool:
        """Count a packet.

        Parameters
        ----------
        ends : bytes
            Sender's address, receiver's address, sender's port, receiver's port, as they follow each other on the wire.
        interface : int
        at_ns : int
            UTC.
        size : int
            Bytes of data.

        Returns
        -------
        bool
            Whether it was counted.
        """
        key = (ends, interface)
        entry = self._open.get(key)
        if entry is not None and at_ns - entry[3] <= IDLE_NS:
            entry[0] += 1
            entry[1] += size
            if at_ns > entry[3]:
                entry[3] = at_ns
            return True
        if self.rows >= self._most:
            self.left_out += 1
            return False
        if entry is not None:
            self._ended.append((ends, interface, entry))
        self._open[key] = [1, size, at_ns, at_ns]
        self._senders.add(ends)
        return True

    def asked(self, ends: bytes) -> bool:
        """Whether a packet was seen in this segment that went the other way than `ends`."""
        return swap_ends(ends) in self._senders

    def note_loss(self, at_ns: int) -> None:
        """Packets were lost until then: whether a packet is a first one is not known for a while."""
        self._since_ns = max(self._since_ns, at_ns)

    @property
    def rows(self) -> int:
        """Rows that this would give now, at most."""
        return len(self._open) + len(self._ended)

    def take(self, addresses: Optional[Set[str]]) -> List[Exchange]:
        """Everything that was counted since the last time.

        Parameters
        ----------
        addresses : set of str or None
            Those of the namespace; None if they are not known, and then only loopback ones are local.
        """
        pieces: Dict[bytes, List[Tuple[int, int, bytes, int, List[int]]]] = {}
        for ends, interface, entry in [*self._ended, *((*key, entry) for key, entry in self._open.items())]:
            both = min(ends, swap_ends(ends))
            pieces.setdefault(both, []).append((entry[2], entry[3], ends, interface, entry))
        self._open, self._ended, self._senders = {}, [], set()
        made: List[Exchange] = []
        last_ns = 0
        for both, parts in pieces.items():
            parts.sort(key=lambda part: part[:4])
            for conversation in _split_at_silence(parts):
                made += self._tell(both, conversation, addresses or set())
            last_ns = max(last_ns, self._remembered.get(both, 0))
        oldest_ns = last_ns - _REMEMBERED_NS
        kept = {both: at_ns for both, at_ns in self._remembered.items() if at_ns >= oldest_ns}
        self._remembered = dict(sorted(kept.items(), key=lambda item: item[1])[-self._most :])
        return made

    def _tell(self, both: bytes, parts: List[Any], addresses: Set[str]) -> Iterator[Exchange]:
        first_ns, last_ns = parts[0][0], max(part[1] for part in parts)
        seen_ns = self._remembered.get(both)
        self._remembered[both] = max(last_ns, seen_ns or 0)
        is_first = seen_ns is None and first_ns - self._since_ns >= QUIET_NS
        sums: Dict[bytes, Dict[int, List[int]]] = {}
        for _first, _last, ends, interface, entry in parts:
            total = sums.setdefault(ends, {}).setdefault(interface, [0, 0])
            total[0] += entry[0]
            total[1] += entry[1]
        there, back = parts[0][2], swap_ends(parts[0][2])
        sent = max(sums[there].values())
        received = max(sums.get(back, {0: [0, 0]}).values()) if back != there else sent
        a, b = split_ends(there)
        a_text, b_text = _text(a[0]), _text(b[0])
        if a_text in addresses or _is_loopback(a[0]):
            yield Exchange(
                a_text, a[1], b_text, b[1], sent[0], received[0], sent[1], received[1], first_ns, last_ns,
                True if is_first else None,
            )  # fmt: skip
        if back != there and (b_text in addresses or _is_loopback(b[0])):
            yield Exchange(
                b_text, b[1], a_text, a[1], received[0], sent[0], received[1], sent[1], first_ns, last_ns,
                False if is_first else None,
            )  # fmt: skip


def _split_at_silence(parts: List[Any]) -> Iterator[List[Any]]:
    """Parts of a conversation, in order of their begins, cut where both sides were silent for long."""
    held: List[Any] = []
    until_ns = 0
    for part in parts:
        if held and part[0] - until_ns > IDLE_NS:
            yield held
            held = []
        held.append(part)
        until_ns = max(until_ns, part[1])
    if held:
        yield held


def split_ends(ends: bytes) -> Tuple[End, End]:
    """Sender and receiver out of what stands on the wire."""
    half = (len(ends) - 4) // 2
    port = 2 * half
    return (
        (ends[:half], int.from_bytes(ends[port : port + 2], "big")),
        (ends[half:port], int.from_bytes(ends[port + 2 :], "big")),
    )


def swap_ends(ends: bytes) -> bytes:
    """The same with sender and receiver exchanged."""
    half = (len(ends) - 4) // 2
    port = 2 * half
    return ends[half:port] + ends[:half] + ends[port + 2 :] + ends[port : port + 2]


def _text(address: bytes) -> str:
    return address_text(IPV4 if len(address) == 4 else IPV6, address)


def _is_loopback(address: bytes) -> bool:
    return address[:1] == _LOOPBACK4 if len(address) == 4 else address == _LOOPBACK6
