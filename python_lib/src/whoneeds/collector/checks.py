# SPDX-License-Identifier: GPL-3.0-or-later
"""What a segment must be beyond its columns' types, and how it gets the name that the controller knows.

A segment is the word of a host that may be broken or hostile. Its reader has checked types and lengths; here the
values must make sense together. A segment with one bad value is refused whole: nobody knows what else is wrong in it.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from whoneeds.model.errors import InvalidRecord
from whoneeds.model.evidence import (
    CaptureRecord,
    ExchangeRecord,
    Gap,
    NameRecord,
    ProcessRecord,
    SegmentHeader,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
)
from whoneeds.model.identity import (
    BOOT_ID,
    DOMAIN_NAME,
    check_host_name,
    parse_process_id,
    rehost,
    segment_id,
)
from whoneeds.segment.read import Segment

#: 2000-01-01 in UTC nanoseconds: no host that runs this is older.
EARLIEST_NS = 946_684_800 * 10**9
#: How far a host's clock may run ahead of the controller's: a wrong time zone, and not what `clocks` cannot put right.
AHEAD_NS = 86_400 * 10**9
_LONGEST_PERIOD_S = 86_400.0
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def check_segment(segment: Segment, now_ns: int) -> None:
    """Refuse a segment whose values make no sense.

    Parameters
    ----------
    segment : Segment
    now_ns : int
        The controller's time, UTC nanoseconds.

    Raises
    ------
    InvalidRecord
    """
    header = segment.header
    check_host_name(header.host)
    if BOOT_ID.match(header.boot_id) is None:
        raise InvalidRecord("boot", expected="a boot identifier", found=ascii(header.boot_id)[:60])
    own = segment_id(header.host, header.boot_id, header.sequence)
    _require("segment identity", own, header.segment_id == own, header.segment_id)
    _check_times("segment", header.opened_ns, header.closed_ns, now_ns)
    _require(
        "segment's time since boot",
        "a begin before the end",
        0 <= header.opened_mono_ns <= header.closed_mono_ns,
        f"{header.opened_mono_ns} to {header.closed_mono_ns}",
    )
    _require(
        "sampling period", f"0 to {_LONGEST_PERIOD_S} s", 0 < header.period_s <= _LONGEST_PERIOD_S, header.period_s
    )
    for name in ("sequence", "samples", "dropped_segments"):
        _require(name, "no negative number", getattr(header, name) >= 0, getattr(header, name))
    digest = header.capture_digest
    _require(
        "capture file",
        "a SHA-256 and a size, or neither",
        (digest is None) == (header.capture_bytes is None)
        and (digest is None or _SHA256.match(digest) is not None)
        and (header.capture_bytes is None or header.capture_bytes > 0),
        f"{digest} and {header.capture_bytes}",
    )
    known: set[str] = set()
    for address in header.addresses:
        _check_address(address, known)
    checks: dict[type[Any], Callable[[Any], None]] = {
        ProcessRecord: lambda row: _check_process(row, header),
        SocketRecord: lambda row: _check_socket(row, header, known),
        TranslationRecord: lambda row: _check_translation(row, known),
        UnixConnectionRecord: lambda row: _check_unix_connection(row, header),
        CaptureRecord: _check_capture,
        ExchangeRecord: lambda row: _check_exchange(row, known),
        NameRecord: lambda row: _check_name(row, known),
        Gap: lambda row: _require("lost", "no negative number", row.lost is None or row.lost >= 0, row.lost),
    }
    for record, rows in segment.tables.items():
        for row in rows:
            _check_times(record.__name__, row.first_ns, row.last_ns, now_ns)
            checks[record](row)


def rehost_segment(segment: Segment, host: str) -> dict[type[Any], list[Any]]:
    """All records of a segment, with the controller's name for the host in every identity and host column.

    Parameters
    ----------
    segment : Segment
        A checked one.
    host : str
        The name that the controller collected it under.

    Returns
    -------
    dict of record class to list of records
        The header's table too.

    Raises
    ------
    InvalidRecord
        If an identity belongs to another host than the segment says it is from.
    """
    claimed = segment.header.host
    tables: dict[type[Any], list[Any]] = {
        record: [_rehost_record(row, claimed, host) for row in rows] for record, rows in segment.tables.items()
    }
    tables[SegmentHeader] = [_rehost_record(segment.header, claimed, host)]
    return tables


def _rehost_record(record: Any, claimed: str, host: str) -> Any:
    changes: dict[str, str] = {"host": host}
    for name in ("segment_id", "process_id", "parent_id", "server_process_id", "socket_id"):
        identity = getattr(record, name, None)
        if identity is not None:
            changes[name] = rehost(identity, claimed, host)
    return dataclasses.replace(record, **changes)


def _check_process(row: ProcessRecord, header: SegmentHeader) -> None:
    key = parse_process_id(row.process_id)
    _require("process's boot", header.boot_id, key.boot_id == header.boot_id, key.boot_id)
    _require(
        "process",
        f"pid {key.pid} as in its identity",
        (row.pid, row.start_ticks) == (key.pid, key.start_ticks),
        row.pid,
    )
    if row.parent_id is not None:
        _check_process_id("parent's boot", row.parent_id, header)


def _check_process_id(what: str, text: str, header: SegmentHeader) -> None:
    key = parse_process_id(text)
    _require(what, header.boot_id, key.boot_id == header.boot_id, key.boot_id)


def _check_translation(row: TranslationRecord, known: set[str]) -> None:
    for address in (row.orig_addr, row.resp_addr, row.new_orig_addr, row.new_resp_addr):
        _check_address(address, known)
    for port in (row.orig_port, row.resp_port, row.new_orig_port, row.new_resp_port):
        _check_port(port)


def _check_unix_connection(row: UnixConnectionRecord, header: SegmentHeader) -> None:
    _check_process_id("client's boot", row.process_id, header)
    _check_process_id("server's boot", row.server_process_id, header)
    _require("samples", "no negative number", row.samples >= 0, row.samples)


def _check_capture(row: CaptureRecord) -> None:
    legal = row.stored_packets >= 0 and row.lost_packets >= 0 and row.packets >= row.stored_packets
    found = f"{row.packets}, {row.stored_packets} and {row.lost_packets}"
    _require("packets", "no negative number, and no more stored than there were", legal, found)
    base = row.interface_base
    _require("interface base", "a number of 32 bits", base is None or 0 <= base < 1 << 32, base)


def _check_exchange(row: ExchangeRecord, known: set[str]) -> None:
    for address in (row.local_addr, row.remote_addr):
        _check_address(address, known)
    for port in (row.local_port, row.remote_port):
        _check_port(port)
    for name in ("sent_packets", "received_packets", "sent_bytes", "received_bytes"):
        _require(name, "no negative number", getattr(row, name) >= 0, getattr(row, name))
    _require("packets", "at least one", row.sent_packets + row.received_packets > 0, 0)


def _check_name(row: NameRecord, known: set[str]) -> None:
    _check_address(row.address, known)
    _require("name", "a domain name in lower case", DOMAIN_NAME.match(row.name) is not None, row.name)


def _check_socket(row: SocketRecord, header: SegmentHeader, known: set[str]) -> None:
    start = f"{header.host}/{header.boot_id}/{row.netns}/"
    _require("socket identity", f"one that begins with {start}", row.socket_id.startswith(start), row.socket_id)
    if row.process_id is not None:
        _check_process_id("owner's boot", row.process_id, header)
    _check_address(row.local_addr, known)
    _check_port(row.local_port)
    _require(
        "socket's peer",
        "an address and a port, or neither",
        (row.remote_addr is None) == (row.remote_port is None),
        f"{row.remote_addr} and {row.remote_port}",
    )
    if row.remote_addr is not None and row.remote_port is not None:
        _check_address(row.remote_addr, known)
        _check_port(row.remote_port)
    for name in ("samples", "inode", "uid", "owners", "sent_bytes", "received_bytes"):
        value = getattr(row, name)
        _require(name, "no negative number", value is None or value >= 0, value)


def _check_times(what: str, first_ns: int, last_ns: int, now_ns: int) -> None:
    legal = EARLIEST_NS <= first_ns <= last_ns <= now_ns + AHEAD_NS
    _require(
        f"times of {what}",
        f"{EARLIEST_NS} <= begin <= end <= {now_ns + AHEAD_NS} (now and a day)",
        legal,
        f"{first_ns} to {last_ns}",
        "set the host's clock",
    )


def _check_address(text: str, known: set[str]) -> None:
    """Refuse what is not an address in its one canonical spelling; ``known`` remembers what passed."""
    if text in known:
        return
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRecord("address", expected="an IPv4 or IPv6 address", found=ascii(text)[:60]) from error
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    _require("address", f"its canonical spelling {mapped or address}", mapped is None and str(address) == text, text)
    known.add(text)


def _check_port(port: int) -> None:
    _require("port", "0 to 65535", 0 <= port <= 65_535, port)


def _require(what: str, expected: str, legal: bool, found: Any, remedy: str | None = None) -> None:
    if not legal:
        raise InvalidRecord(what, expected=expected, found=ascii(found)[:80], remedy=remedy)
