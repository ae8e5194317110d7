# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows, as JSON lines: Sysmon's event 3 (network connection) and the Security log's 5156 (connection permitted).

Shippers lay an event out in their own ways: fields at the top, or in ``Event.EventData``, or in ``winlog.event_data``,
as an object or as a list of names and values. All of these are looked through; other events are passed over.

Who began stands in both, but where the host's process was called, which of both ends is the host's differs by version.
So it is taken from the addresses from which the host's own processes were seen to begin connections. Where these do not
tell, 5156 is taken as it is documented (the source began), and event 3, whose fields nobody documents so far, is left
out and said.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from whoneeds.intake.rows import TRANSPORTS, HostConnection, Row
from whoneeds.intake.values import BadLine, as_address, as_instant_ns, as_port, as_text, as_whole, read_object

_SYSMON, _PERMITTED = 3, 5156
_INBOUND, _OUTBOUND = ("%%14592", "inbound"), ("%%14593", "outbound")
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,8}\Z")
_PROCESS_GUID = re.compile(r"\{?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\}?\Z")
_MOST_WAITING = 100_000
_MOST_ADDRESSES = 100_000


class WindowsParser:
    """Reads one file of events.

    Attributes
    ----------
    untold : int
        Events of which it cannot be told which end is the host's.
    """

    expects = "JSON lines of Windows events with an event number, as of winlogbeat, NXLog or EvtxECmd"

    def __init__(self) -> None:
        self.recognised = 0
        self.untold = 0
        self._own: defaultdict[str | None, set[str]] = defaultdict(set)
        self._waiting: list[tuple[dict[str, Any], bool]] = []

    def read(self, line: bytes) -> Iterable[Row]:
        """Rows of a line."""
        event = _Event(read_object(line))
        number = event.number()
        if number is None:
            raise BadLine("line", expected=self.expects, found=ascii(sorted(event.top)[:6])[:80])
        rows: Iterable[Row] = ()
        if number == _SYSMON and event.has("SourceIp"):
            rows = self._read_sysmon(event)
        elif number == _PERMITTED:
            rows = self._read_permitted(event)
        self.recognised += 1
        return rows

    def finish(self) -> Iterator[Row]:
        """Connections that others began, once it is known which addresses are the host's."""
        for held, documented in self._waiting:
            ends = (held["orig_addr"], held["orig_port"]), (held["resp_addr"], held["resp_port"])
            here = [address in self._own[held["host"]] for (address, _port) in ends]
            if here[0] == here[1] and not documented:
                self.untold += 1
                continue
            caller, called = reversed(ends) if here == [True, False] else ends
            turned = {
                "orig_addr": caller[0], "orig_port": caller[1], "resp_addr": called[0], "resp_port": called[1],
            }  # fmt: skip
            yield HostConnection(**{**held, **turned})
        self._waiting.clear()

    def _put_in(self, held: dict[str, Any], *, documented: bool) -> Iterable[Row]:
        """A connection that the host's process began, or none yet."""
        if held["initiated"]:
            own = self._own[held["host"]]
            if len(own) < _MOST_ADDRESSES:
                own.add(held["orig_addr"])
            return (HostConnection(**held),)
        if len(self._waiting) >= _MOST_WAITING:
            self.untold += 1
        else:
            self._waiting.append((held, documented))
        return ()

    def _read_sysmon(self, event: "_Event") -> Iterable[Row]:
        protocol = str(event.need("Protocol")).lower()
        if protocol not in ("tcp", "udp"):
            raise BadLine("Protocol", expected="tcp or udp", found=ascii(protocol)[:20])
        began = str(event.need("Initiated")).lower()
        if began not in ("true", "false"):
            raise BadLine("Initiated", expected="true or false", found=ascii(began)[:20])
        guid = _PROCESS_GUID.match(str(event.get("ProcessGuid")))
        image = as_text(event.get("Image"), 4096)
        pid = _number(event.need("ProcessId"), "ProcessId")
        held: dict[str, Any] = {
            "host": event.host(),
            "protocol": protocol,
            "orig_addr": as_address(event.need("SourceIp"), "SourceIp"),
            "orig_port": as_port(event.need("SourcePort"), "SourcePort"),
            "resp_addr": as_address(event.need("DestinationIp"), "DestinationIp"),
            "resp_port": as_port(event.need("DestinationPort"), "DestinationPort"),
            "initiated": began == "true",
            "at_ns": as_instant_ns(event.time("UtcTime"), "UtcTime"),
            "pid": pid,
            "process_key": f"guid {guid[1].lower()}" if guid else f"image {image}",
            "name": _program(event.get("Image")),
            "exe": image,
            "user": as_text(event.get("User"), 64),
        }
        return self._put_in(held, documented=False)

    def _read_permitted(self, event: "_Event") -> Iterable[Row]:
        protocol = TRANSPORTS.get(as_whole(event.need("Protocol"), "Protocol", 255), "other")
        if protocol not in ("tcp", "udp"):
            return ()
        way = str(event.need("Direction")).strip().lower()
        if way not in (*_INBOUND, *_OUTBOUND):
            raise BadLine("Direction", expected="%%14592 or %%14593", found=ascii(way)[:40])
        image = as_text(event.get("Application"), 4096)
        held: dict[str, Any] = {
            "host": event.host(),
            "protocol": protocol,
            "orig_addr": as_address(event.need("SourceAddress"), "SourceAddress"),
            "orig_port": as_port(event.need("SourcePort"), "SourcePort"),
            "resp_addr": as_address(event.need("DestAddress", "DestinationAddress"), "DestAddress"),
            "resp_port": as_port(event.need("DestPort", "DestinationPort"), "DestPort"),
            "initiated": way in _OUTBOUND,
            "at_ns": as_instant_ns(event.time(), "time"),
            "pid": _number(event.need("ProcessID", "ProcessId"), "ProcessID"),
            "process_key": f"image {image}",
            "name": _program(event.get("Application")),
            "exe": image,
            "user": None,
        }
        return self._put_in(held, documented=True)


class _Event:
    """One event, wherever a shipper put its fields."""

    def __init__(self, top: dict[str, Any]) -> None:
        self.top = top
        event = _object(top.get("Event"))
        winlog = _object(top.get("winlog"))
        self.system = _object(event.get("System")) or _object(top.get("System"))
        self._winlog = winlog
        self._places: list[dict[str, Any]] = [
            _fields(event.get("EventData")),
            _fields(winlog.get("event_data")),
            _fields(top.get("EventData")),
            _fields(top.get("event_data")),
            _fields(_inner(top.get("Payload")).get("EventData")),
            top,
        ]

    def get(self, *names: str) -> Any:
        """The first of these fields that is there; None if none is."""
        for place in self._places:
            for name in names:
                if (value := place.get(name)) is not None:
                    return value
        return None

    def need(self, *names: str) -> Any:
        """The first of these fields that is there.

        Raises
        ------
        BadLine
        """
        value = self.get(*names)
        if value is None:
            raise BadLine("event", expected=f"a field {names[0]}", found="none")
        return value

    def has(self, name: str) -> bool:
        """Whether a field is there."""
        return self.get(name) is not None

    def number(self) -> int | None:
        """The event's number; None if this is no event."""
        found = _first(
            _text(self.system.get("EventID")),
            self._winlog.get("event_id"),
            self.top.get("EventID"),
            self.top.get("EventId"),
            self.top.get("event_id"),
            _object(self.top.get("event")).get("code"),
        )
        try:
            return None if found is None else as_whole(found, "event number", 65_535)
        except BadLine:
            return None

    def host(self) -> str | None:
        """What the event calls its host."""
        found = _first(
            self.system.get("Computer"),
            self._winlog.get("computer_name"),
            self.top.get("Computer"),
            self.top.get("Hostname"),
            self.top.get("computer_name"),
            _object(self.top.get("host")).get("name"),
        )
        return found if isinstance(found, str) else None

    def time(self, own: str | None = None) -> Any:
        """When it happened: by the event's own field, else by its record's.

        Raises
        ------
        BadLine
        """
        created = self.system.get("TimeCreated")
        found = _first(
            None if own is None else self.get(own),
            _object(_object(created).get("#attributes")).get("SystemTime"),
            _first(_object(created).get("SystemTime"), _object(created).get("@SystemTime")),
            self.top.get("TimeCreated"),
            self.top.get("EventTime"),
            self.top.get("@timestamp"),
        )
        if found is None:
            raise BadLine("event", expected="a time", found="none")
        return found


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> Any:
    """A value that XML may have given attributes."""
    return value.get("#text", value.get("Value")) if isinstance(value, dict) else value


def _inner(value: Any) -> dict[str, Any]:
    """JSON inside a text, as EvtxECmd writes an event's payload."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return _object(json.loads(value, parse_float=str))
        except (ValueError, RecursionError):
            return {}
    return _object(value)


def _fields(value: Any) -> dict[str, Any]:
    """Fields of an event: an object, or below ``Data`` a list of names and texts."""
    held = _object(value)
    listed = held.get("Data")
    if not isinstance(listed, list):
        return held
    named = (one for one in listed if isinstance(one, dict))
    return {str(one.get("@Name", one.get("Name"))): one.get("#text", one.get("Value")) for one in named}


def _number(value: Any, what: str) -> int:
    """A process number, which some logs write with 16 digits a place."""
    if isinstance(value, str) and _HEX.match(value):
        value = int(value, 16)
    return as_whole(value, what, 2**32 - 1)


def _program(path: Any) -> str:
    """Name of the program at a path; what Windows itself does has no path."""
    name = path.replace("/", "\\").rpartition("\\")[2] if isinstance(path, str) else ""
    return as_text(name, 64) or "unknown"
