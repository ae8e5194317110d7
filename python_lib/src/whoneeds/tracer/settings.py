# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be set, out of a file and options; nothing wrong is repaired in silence."""

import json
import os
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from whoneeds.model.errors import InvalidRecord, SettingsError
from whoneeds.model.identity import check_host_name
from whoneeds.model.schema import is_whole_number
from whoneeds.tracer.capture_filter import WORDS
from whoneeds.tracer.filter_expression import check_expression
from whoneeds.tracer.location import LocationRule, parse_rule
from whoneeds.tracer.pcap import LEAST_FILE_BYTES

SETTINGS_SCHEMA = 1
SYSTEM_DIR = "/var/lib/whoneeds"
#: Where sockets can come from. Events are told beside the table, which knows what was open before they began; they are
#: those of the kernel's programs where these can be had, else those of tracefs, or of the latter alone.
#: Packets are taken in beside any of them but psutil.
SOURCES = ("events", "tracefs", "table", "packets", "psutil")
DEFAULT_SOURCES = ("events", "packets", "table")
_TOGETHER = (("events", "table"), ("table", "tracefs"), ("table",), ("psutil",))
_PACKETS_LENGTH = 1024
_CONFIG_BYTES = 1 << 20


class Settings(NamedTuple):
    """Settings of a tracer, checked.

    Attributes
    ----------
    host : str
        What the host calls itself in its segments; the controller replaces it.
    dir : str
        Where segments and state lie.
    period_s : float
        Time between two samples; 0.1 to 3600.
    rotate_s : float
        Age at which a segment is closed; 1 to 86400.
    rotate_bytes : int
        Size at which a segment is closed, as estimated before it is written.
    budget_bytes : int
        All segments together never take more.
    location_rules : tuple of LocationRule
    sources : tuple of str
        Of `SOURCES`.
    packets : str
        Which packets are taken in, where they are among the sources: 'headers', 'all', 'off', or an expression.
    packets_per_s : int
        Most packets that are taken in a second.
    packets_bytes : int
        Largest capture file of a segment.
    cpu_share : float
        Most of one core that the tracer takes over half a minute; 0.001 to 1. Beyond it, it does less.
    memory_bytes : int
        Most memory that it holds. Beyond it, the segment is closed early, and then less is done.
    for_s : float or None
        How long to trace; None is until it is stopped.
    """

    host: str
    dir: str
    period_s: float = 5.0
    rotate_s: float = 60.0
    rotate_bytes: int = 4 << 20
    budget_bytes: int = 1 << 30
    location_rules: Tuple[LocationRule, ...] = ()
    sources: Tuple[str, ...] = DEFAULT_SOURCES
    packets: str = "headers"
    packets_per_s: int = 2000
    packets_bytes: int = 256 << 10
    cpu_share: float = 0.05
    memory_bytes: int = 192 << 20
    for_s: Optional[float] = None


def _number(low: float, high: float, unit: str) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise SettingsError(
                name,
                expected=f"a number of {unit} from {low:g} to {high:g}",
                found=ascii(value)[:60],
                remedy=f"set {name} within that range",
            )
        return float(value)

    return check


def _size(low: int, high: int, unit: str = "bytes") -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if not is_whole_number(value) or not low <= value <= high:
            raise SettingsError(
                name,
                expected=f"a whole number of {unit} from {low} to {high}",
                found=ascii(value)[:60],
                remedy=f"set {name} within that range",
            )
        return value

    return check


def _host(name: str, value: Any) -> str:
    try:
        return check_host_name(value)
    except InvalidRecord as error:
        remedy = "set 'host' in the configuration file"
        raise SettingsError(name, expected=error.expected, found=error.found, remedy=remedy) from error


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise SettingsError(name, expected="an absolute path", found=ascii(value)[:60])
    return value


def _rules(name: str, value: Any) -> Tuple[LocationRule, ...]:
    if not isinstance(value, list) or not all(
        isinstance(rule, dict) and set(rule) == {"location", "networks"} for rule in value
    ):
        raise SettingsError(name, expected="a list of objects with location and networks", found=ascii(value)[:60])
    return tuple(parse_rule(rule["location"], rule["networks"]) for rule in value)


def _sources(name: str, value: Any) -> Tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    told = set(map(str, words)) if isinstance(words, list) else set()
    sockets = tuple(sorted(told - {"packets"}))
    if sockets not in _TOGETHER or ("packets" in told and "psutil" in told):
        raise SettingsError(
            name,
            expected=" or ".join(",".join(together) for together in _TOGETHER) + "; packets beside all but the last",
            found=ascii(value)[:60],
            remedy="events tell of short connections, the table of long ones; psutil stands in for both",
        )
    return tuple(sorted(told))


def _packets(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _PACKETS_LENGTH or not value.isascii() or "\0" in value:
        raise SettingsError(
            name,
            expected=f"headers, all, off, or an expression of at most {_PACKETS_LENGTH} ASCII characters",
            found=ascii(value)[:60],
        )
    if value not in WORDS:
        check_expression(value)
    return value


_CHECKS: Dict[str, Callable[[str, Any], Any]] = {
    "host": _host,
    "dir": _path,
    "period_s": _number(0.1, 3600, "seconds"),
    "rotate_s": _number(1, 86400, "seconds"),
    "rotate_bytes": _size(1 << 10, 32 << 20),
    "budget_bytes": _size(1 << 16, 1 << 50),
    "location_rules": _rules,
    "sources": _sources,
    "packets": _packets,
    "packets_per_s": _size(1, 1_000_000, "packets"),
    "packets_bytes": _size(LEAST_FILE_BYTES, 32 << 20),
    "cpu_share": _number(0.001, 1, "cores"),
    "memory_bytes": _size(32 << 20, 1 << 40),
}
#: What settings are called on the command line.
_OPTIONS = {"period_s": "--period", "for_s": "--for", "sources": "--sources", "packets": "--packets", "dir": "--dir"}
_FOR_S = _number(0.1, 366 * 86400, "seconds")


def read_config(path: str) -> Dict[str, Any]:
    """Read and check a configuration file.

    Raises
    ------
    SettingsError
        If it cannot be read, is no JSON object, or holds an unknown or wrong setting.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_CONFIG_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"configuration file {path}",
            expected="a readable file",
            found=str(error.strerror),
            remedy="check the path and its permissions",
        ) from error
    try:
        if len(text) > _CONFIG_BYTES:
            raise ValueError(f"more than {_CONFIG_BYTES} bytes")
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"configuration file {path}", expected="a JSON object", found=str(error)[:120], remedy="correct the file"
        ) from error
    return check_config(values, path)


def check_config(values: Any, path: str) -> Dict[str, Any]:
    """Check the content of a configuration file.

    Raises
    ------
    SettingsError
    """
    if not isinstance(values, dict):
        raise SettingsError(f"configuration file {path}", expected="a JSON object", found=type(values).__name__)
    if values.get("schema") != SETTINGS_SCHEMA or not is_whole_number(values.get("schema")):
        raise SettingsError(
            f"schema of {path}",
            expected=str(SETTINGS_SCHEMA),
            found=ascii(values.get("schema"))[:60],
            remedy="use the file of this version of whoneeds",
        )
    made = {}
    for name, value in values.items():
        if name == "schema":
            continue
        if name not in _CHECKS:
            raise SettingsError(
                f"unknown setting in {path}",
                expected="some of " + ", ".join(sorted(_CHECKS)),
                found=ascii(name)[:60],
                remedy="remove or correct it",
            )
        made[name] = _CHECKS[name](name, value)
    return made


def make_settings(config: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
    """Settings out of a checked file and options; an option that is not None goes before the file.

    Raises
    ------
    SettingsError
    """
    values = dict(config)
    for name, value in options.items():
        if value is None:
            continue
        if name in _CHECKS:
            values[name] = _CHECKS[name](_OPTIONS.get(name, name), value)
        elif name == "for_s":
            values[name] = _FOR_S(_OPTIONS[name], value)
        else:
            expected = "some of " + ", ".join(sorted((*_CHECKS, "for_s")))
            raise SettingsError("unknown setting", expected=expected, found=ascii(name)[:60])
    values.setdefault("dir", default_dir())
    if "host" not in values:
        values["host"] = _host("the host's own name", os.uname().nodename)
    return Settings(**values)


def default_dir() -> str:
    """Where segments lie unless a directory is set: the system's place, or the user's own."""
    if os.geteuid() == 0:
        return SYSTEM_DIR
    state = os.environ.get("XDG_STATE_HOME", "")
    return os.path.join(state if os.path.isabs(state) else os.path.expanduser("~/.local/state"), "whoneeds")
