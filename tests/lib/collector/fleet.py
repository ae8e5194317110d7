# SPDX-License-Identifier: GPL-3.0-or-later
"""A small fleet in words: hosts, their processes and sockets, as evidence records with sensible defaults."""

from dataclasses import dataclass, field
from typing import Any

from whoneeds.model.evidence import (
    CaptureRecord,
    ExchangeRecord,
    Gap,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
)
from whoneeds.model.identity import process_id, segment_id, socket_id

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"
#: Begin of all tests' time: 2024-01-01 00:00 UTC, in seconds and nanoseconds.
DAY_S = 1_704_067_200
DAY_NS = DAY_S * 10**9
#: Any address of the host: what most services wait on.
ANY = "0.0.0.0"


def at(second: float) -> int:
    """Nanoseconds UTC of a second of the tests' time."""
    return DAY_NS + int(second * 1e9)


@dataclass
class Host:
    """One host and the segments it made; every call adds a record to its current segment."""

    name: str
    addresses: tuple[str, ...] = ()
    location: str | None = None
    period_s: float = 5.0
    boot_id: str = BOOT
    netns: str = "4026531840"
    bound: dict[tuple[int, str], tuple[str, int]] = field(default_factory=dict)
    segments: list[tuple[SegmentHeader, dict[type[Any], list[Any]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sequence = 0
        self._cookie = 0

    def segment(self, first: float = 0, last: float = 60, **changes: Any) -> "Host":
        """Begin another segment."""
        self._sequence += 1
        values: dict[str, Any] = {
            "segment_id": segment_id(self.name, self.boot_id, self._sequence),
            "host": self.name, "boot_id": self.boot_id, "sequence": self._sequence, "schema": 1,
            "tracer_version": "0.1.0", "opened_ns": at(first), "opened_mono_ns": int(first * 1e9) + 10**9,
            "closed_ns": at(last), "closed_mono_ns": int(last * 1e9) + 10**9, "period_s": self.period_s,
            "samples": max(1, int((last - first) / self.period_s)), "sources": ("table",), "privileged": True,
            "addresses": self.addresses, "location": self.location, "dropped_segments": 0,
        }  # fmt: skip
        tables: dict[type[Any], list[Any]] = {
            record: [] for record in (ProcessRecord, SocketRecord, CaptureRecord, ExchangeRecord, Gap)
        }
        self.segments.append((SegmentHeader(**(values | changes)), tables))
        return self

    def process(self, name: str, pid: int, ticks: int = 100, uid: int | None = 0) -> str:
        """Tell of a process in the current segment; its identity."""
        identity = process_id(self.name, self.boot_id, pid, ticks)
        header, tables = self.segments[-1]
        tables[ProcessRecord].append(
            ProcessRecord(
                identity, self.name, pid, ticks, 1, name, f"/usr/bin/{name}", uid, None, None, None,
                header.opened_ns, header.closed_ns,
            )
        )  # fmt: skip
        return identity

    def translation(
        self,
        seen: tuple[tuple[str, int], tuple[str, int]],
        after: tuple[tuple[str, int], tuple[str, int]],
        span: tuple[float, float] = (0, 60),
        *,
        protocol: str = "tcp",
        netns: str | None = None,
    ) -> "Host":
        """Tell that the host translated: who called whom as it came, and as it went on."""
        self.segments[-1][1].setdefault(TranslationRecord, []).append(
            TranslationRecord(
                self.name, netns or self.netns, protocol, *seen[0], *seen[1], *after[0], *after[1], at(span[0]),
                at(span[1]), "table",
            )
        )  # fmt: skip
        return self

    def socket(
        self,
        local: tuple[str, int],
        remote: tuple[str, int] | None = None,
        span: tuple[float, float] = (0, 60),
        by: str | tuple[str, ...] = (),
        *,
        protocol: str = "tcp",
        state: str | None = None,
        cookie: int | None = None,
        netns: str | None = None,
        sent: int | None = None,
        received: int | None = None,
        samples: int | None = None,
        source: str = "table",
        owners: int | None = None,
        initiated: bool | None = None,
        end: str | None = None,
    ) -> str:
        """Tell of a socket in the current segment, one row for each holder; its identity."""
        if cookie is None:
            self._cookie += 1
            cookie = self._cookie
        space = netns or self.netns
        identity = socket_id(self.name, self.boot_id, space, cookie)
        holders: tuple[str | None, ...] = (by,) if isinstance(by, str) else by or (None,)
        waits = "listen" if protocol == "tcp" else "bound"
        count = int((span[1] - span[0]) / self.period_s) + 1 if samples is None else samples
        known = None if holders == (None,) else len(holders)
        for holder in holders:
            self.segments[-1][1][SocketRecord].append(
                SocketRecord(
                    identity, self.name, space, protocol, local[0], local[1], remote[0] if remote else None,
                    remote[1] if remote else None, state or ("established" if remote else waits), 4711, 0, holder,
                    known if owners is None else owners, sent, received, at(span[0]), at(span[1]), count, source,
                    initiated, end,
                )
            )  # fmt: skip
        return identity

    def capture(
        self, span: tuple[float, float] = (0, 60), *, lost: int = 0, words: str = "headers", netns: str | None = None
    ) -> "Host":
        """Tell that packets were taken in in the current segment."""
        self.segments[-1][1][CaptureRecord].append(
            CaptureRecord(self.name, netns or self.netns, words, at(span[0]), at(span[1]), lost + 1, 1, lost, 0)
        )
        return self

    def exchange(
        self,
        local: tuple[str, int],
        remote: tuple[str, int],
        span: tuple[float, float] = (1, 2),
        packets: tuple[int, int] = (1, 1),
        *,
        first: bool | None = None,
        netns: str | None = None,
    ) -> "Host":
        """Tell of UDP packets in the current segment: sent and received, 100 bytes each."""
        self.segments[-1][1][ExchangeRecord].append(
            ExchangeRecord(
                self.name, netns or self.netns, "udp", *local, *remote, *packets, 100 * packets[0], 100 * packets[1],
                at(span[0]), at(span[1]), first,
            )
        )  # fmt: skip
        return self
