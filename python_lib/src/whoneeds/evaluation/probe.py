# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask whether somebody still waits where applications called: one TCP connection each, opened and closed at once.

Macroscope's authors did that by hand to label their truth. It makes connections to machines of others, so it is done
only if asked for, says beforehand how many, and is bounded: in number for all and for each machine, in time, and in how
many are open at once. Nothing is sent, and nothing is read.

Asked are only addresses that mean the same here as where they were called: a loopback or link-local address names
another machine here, and a group or the unspecified address names none. UDP is not asked: no answer says nothing there.
"""

import ipaddress
import math
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number

Place = tuple[str, str, int]


@dataclass(frozen=True)
class ProbeSettings:
    """Bounds of a probe.

    Attributes
    ----------
    most : int
        Connections in all.
    most_each : int
        Connections to one machine.
    timeout_s : float
        How long one may take to come about.
    at_once : int
        How many may be open at a time.

    Raises
    ------
    SettingsError
        If a bound is out of its range.
    """

    most: int = 500
    most_each: int = 20
    timeout_s: float = 2.0
    at_once: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least, most = {
                "most": (1, 100_000), "most_each": (1, 1000), "timeout_s": (0.01, 60), "at_once": (1, 64),
            }[field.name]  # fmt: skip
            number = isinstance(value, float) and field.name == "timeout_s" and math.isfinite(value)
            if not (number or is_whole_number(value)) or not least <= value <= most:
                raise SettingsError(
                    f"probe setting {field.name}", expected=f"a number between {least} and {most}",
                    found=ascii(value)[:40], remedy=f"leave it out for {field.default}",
                )  # fmt: skip


@dataclass(frozen=True)
class ProbePlan:
    """What would be asked.

    Attributes
    ----------
    places : tuple of (str, str, int)
        In order.
    elsewhere : int
        Left out, since the address means another machine here, or none.
    datagrams : int
        Left out, since it is not TCP.
    beyond : int
        Left out by the bounds.
    """

    places: tuple[Place, ...]
    elsewhere: int
    datagrams: int
    beyond: int

    def describe(self, settings: ProbeSettings) -> str:
        """In a sentence."""
        machines = len({address for _protocol, address, _port in self.places})
        longest_s = math.ceil(len(self.places) / settings.at_once) * settings.timeout_s
        said = (
            f"the probe opens {len(self.places)} TCP connections to {machines} machines and closes each at once, "
            f"{settings.at_once} at a time, and takes {longest_s:.0f} s at most"
        )
        left = [
            f"{number} {why}"
            for number, why in (
                (self.elsewhere, "at addresses that mean another machine here"),
                (self.datagrams, "that are not TCP"),
                (self.beyond, "beyond its bounds"),
            )
            if number
        ]
        return said + (f"; not asked: {', '.join(left)}" if left else "")


def plan_probe(places: Iterable[Place], settings: ProbeSettings = ProbeSettings()) -> ProbePlan:
    """Choose what to ask.

    Parameters
    ----------
    places : iterable of (str, str, int)
        Protocol, address, port; those that matter most first.
    settings : ProbeSettings, optional
    """
    chosen: list[Place] = []
    each: Counter[str] = Counter()
    elsewhere = datagrams = beyond = 0
    for place in dict.fromkeys(places):
        protocol, address, port = place
        if protocol != "tcp":
            datagrams += 1
        elif not 0 < port < 65536 or not _means_the_same(address):
            elsewhere += 1
        elif len(chosen) >= settings.most or each[address] >= settings.most_each:
            beyond += 1
        else:
            each[address] += 1
            chosen.append(place)
    return ProbePlan(tuple(chosen), elsewhere, datagrams, beyond)


def probe(places: Sequence[Place], settings: ProbeSettings = ProbeSettings()) -> frozenset[Place]:
    """Ask, and tell where somebody answered.

    Parameters
    ----------
    places : sequence of (str, str, int)
        Those of a plan.
    settings : ProbeSettings, optional
    """

    def answers(place: Place) -> bool:
        _protocol, address, port = place
        try:
            with socket.create_connection((address, port), timeout=settings.timeout_s):
                return True
        except OSError:
            return False

    with ThreadPoolExecutor(max_workers=settings.at_once) as pool:
        return frozenset(place for place, answered in zip(places, pool.map(answers, places), strict=True) if answered)


def _means_the_same(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)
