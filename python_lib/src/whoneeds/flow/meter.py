# SPDX-License-Identifier: GPL-3.0-or-later
"""The meter: from a capture file to flows, in one pass and bounded memory."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from whoneeds.flow.captures import CaptureReader, Records, Source
from whoneeds.flow.compiled.endings import MOST_PORTS
from whoneeds.flow.compiled.frames import KNOWN
from whoneeds.flow.compiled.loop import ALL_READ, HAS_FRAGMENT, IS_FULL, PORT, STATE, make_state, run, sweep
from whoneeds.flow.compiled.native import Handed
from whoneeds.flow.compiled.scan import RECORD
from whoneeds.flow.compiled.table import (
    COUNT,
    DONE_COUNT,
    GIVEN_UP,
    HOLES_LOST,
    PACKETS,
    SKIPPED_PACKETS,
    TOO_DEEP,
    WAITING,
    WHY,
)
from whoneeds.flow.fragments import Fragments
from whoneeds.flow.listeners import Listeners
from whoneeds.flow.odd_links import find_packets
from whoneeds.flow.rows import make_columns, make_lines, make_rows
from whoneeds.flow.settings import MeterSettings
from whoneeds.model.evidence import WireFlow

_ALL = np.int64((1 << 63) - 1)
_NOBODY = np.int64(-(1 << 63))


class Metered:
    """The flows of a capture; made by `meter_capture`. It can be gone through once, by rows or by columns.

    Attributes
    ----------
    problems : list of str
        What could not be read, with the place in the file; complete when all was gone through.
    """

    def __init__(self, source: Source | Iterable[bytes], settings: MeterSettings, host: str, label: str) -> None:
        self._reader = CaptureReader(source)
        self._settings, self._host, self._label = settings, host, label
        self._seed = settings.seed & (1 << 64) - 1
        self._state = make_state(settings.most_flows, _port_table(settings), _limits(settings))
        self._handed = Handed(self._state, STATE)
        self._fragments = Fragments()
        self._listeners = Listeners()
        self._skipped = 0
        self.problems = self._reader.problems

    @property
    def packets(self) -> int:
        """Packets that were read so far."""
        return int(self._state.numbers[PACKETS])

    @property
    def skipped(self) -> int:
        """Packets that belong to no flow: without IP, damaged, or cut within their headers."""
        return int(self._state.numbers[SKIPPED_PACKETS]) + self._skipped

    def __iter__(self) -> Iterator[WireFlow]:
        """Flows as records, in the order in which it was clear that they are over."""
        for columns in self.columns():
            yield from make_rows(columns)

    def columns(self) -> Iterator[dict[str, Any]]:
        """Flows in batches of columns, which have the names and the order of the record's fields."""
        for done in self._batches():
            yield make_columns(done, self._host, self._label)

    def lines(self) -> Iterator[bytes]:
        """Flows in batches of lines of CSV; a line of names is not among them."""
        for done in self._batches():
            yield make_lines(done, self._host, self._label)

    def _batches(self) -> Iterator[Any]:
        for records in self._reader:
            yield from self._take(records)
        self._listeners.hold()
        yield from self._sweep(_ALL)
        yield from self._listeners.release()
        self._tell_what_is_missing()

    def _take(self, records: Records) -> Iterator[Any]:
        links = records.found["link"]
        if links[0] in KNOWN and (links == links[0]).all():
            yield from self._run(records)
            return
        odd = ~np.isin(links, KNOWN)
        begins = [0, *(np.flatnonzero(np.diff(links)) + 1).tolist(), len(links)]
        for begin, end in pairwise(begins):
            some = records.found[begin:end]
            if not odd[begin]:
                yield from self._run(Records(records.data, some))
                continue
            data, found, left_out = find_packets(records.data, some)
            self._skipped += left_out
            self._state.numbers[PACKETS] += left_out
            yield from self._run(Records(data, found))

    def _run(self, records: Records) -> Iterator[Any]:
        state, at = self._state, 0
        while at < len(records.found):
            at, why = self._run_from(at, records)
            if why == HAS_FRAGMENT:
                packet = state.packets[int(state.numbers[WAITING])].copy()
                whole = self._fragments.add(records.data, packet)
                if whole is not None:
                    self._run_whole(whole, packet)
            elif why == IS_FULL:
                yield from self._make_room()
            elif why != ALL_READ:
                yield from self._hand_over()

    def _run_from(self, at: int, records: Records, *, is_whole: bool = False) -> tuple[int, int]:
        """Run the loop from one of some records on; which is the next, and why it came back."""
        settings = self._settings
        at = run(
            records.data, records.found, at, len(records.found), self._handed,
            is_whole, settings.check_checksums, settings.tunnel_depth, self._seed,
        )  # fmt: skip
        return at, int(self._state.numbers[WHY])

    def _run_whole(self, body: bytes, packet: Any) -> None:
        """Take in a packet that came in fragments."""
        found = np.zeros(1, RECORD)
        found["kept"], packet["body"], packet["body_end"] = len(body), 0, len(body)
        self._state.packets[0] = packet
        self._run_from(0, Records(np.frombuffer(body or b"\0", np.uint8), found), is_whole=True)

    def _hand_over(self) -> Iterator[Any]:
        """Rows that are done, which must be used before the next are asked for."""
        count = int(self._state.numbers[DONE_COUNT])
        if count:
            done = self._listeners.settle(self._state.done[:count])
            if len(done):
                yield done
            self._state.numbers[DONE_COUNT] = 0

    def _sweep(self, silent_since_ns: Any) -> Iterator[Any]:
        at = 0
        while at >= 0:
            at = sweep(at, self._handed, silent_since_ns, self._seed)
            yield from self._hand_over()

    def _make_room(self) -> Iterator[Any]:
        """Hand out what is over; if that is little, what was silent longest is given up."""
        yield from self._sweep(_NOBODY)
        numbers, most = self._state.numbers, self._settings.most_flows
        if numbers[COUNT] > most - most // 8:
            held = self._state.flows["last_ns"][self._state.flows["is_used"] != 0]
            before = int(numbers[COUNT])
            yield from self._sweep(np.partition(held, len(held) // 4)[len(held) // 4])
            numbers[GIVEN_UP] += before - int(numbers[COUNT])

    def _tell_what_is_missing(self) -> None:
        numbers = self._state.numbers
        for count, what in (
            (numbers[GIVEN_UP], "flows were ended early, since more than the table holds were open at once"),
            (numbers[HOLES_LOST], "pieces of TCP streams that came early had no room; missed bytes are too many"),
            (numbers[TOO_DEEP], "packets were in more tunnels than are opened"),
            (self._fragments.left, "packets came in fragments of which not all are there"),
        ):
            if count:
                self.problems.append(f"{int(count)} {what}")


def meter_capture(
    source: Source | Iterable[bytes], settings: MeterSettings | None = None, *, host: str = "capture", label: str = ""
) -> Metered:
    """Meter a capture file.

    Parameters
    ----------
    source : file or iterable of bytes
        The capture, pcap or pcapng: a file that is open for reading, or its pieces, of any size.
    settings : MeterSettings, optional
    host : str
        Who watched.
    label : str
        What the identities of the flows begin with.

    Returns
    -------
    Metered
        Nothing is read before it is gone through.

    Examples
    --------
    >>> flows = meter_capture([b"no capture"])
    >>> list(flows), flows.problems
    ([], ['at byte 0: expected pcap or pcapng, found a file that begins with 6e 6f 20 63'])
    """
    return Metered(source, settings or MeterSettings(), host, label)


def _port_table(settings: MeterSettings) -> Any:
    table = np.zeros((2, MOST_PORTS), PORT)
    for row, protocol in enumerate(("tcp", "udp")):
        table[row, list(settings.server_ports.get(protocol, ()))] = True
    return table.reshape(-1)


def _limits(settings: MeterSettings) -> Any:
    """Timeouts by place; see `whoneeds.flow.compiled.table`."""
    named = (
        settings.tcp_timeout_s, settings.opening_timeout_s, settings.udp_timeout_s, settings.icmp_timeout_s,
        settings.attempt_timeout_s, settings.close_delay_s,
    )  # fmt: skip
    return np.array([int(seconds * 1e9) for seconds in named], np.int64)
