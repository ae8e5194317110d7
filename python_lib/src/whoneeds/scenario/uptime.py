# SPDX-License-Identifier: GPL-3.0-or-later
"""When hosts are on, under which boot, and at which address.

A *boot* is one run of a kernel. A *stretch* is a time in which a host is on, without a pause, at one address; a boot
has one or several. Laptops are on in working hours, mostly; they are closed for a while now and then, and put to
sleep or shut down in the evening. Each day they have another address, which is why the paper takes an address for
part of an instance. Servers are on all the time; now and then one is made anew with another boot and address.

All times are whole microseconds since the population's begin: nanoseconds of many hosts and days would not fit into
one sortable number.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whoneeds.scenario.settings import PopulationSettings

US = 1_000_000
DAY_US = 86400 * US
#: Shortest stretch: what is shorter is no use to anybody.
_LEAST_US = 120 * US


@dataclass(frozen=True)
class Uptime:
    """Hosts' boots and stretches, in order of host and time.

    Attributes
    ----------
    hosts : tuple of str
    boot_host, boot_begin, boot_end : numpy.ndarray
    stretch_boot, stretch_host, stretch_begin, stretch_end, stretch_address : numpy.ndarray
        Addresses are indices into `addresses`.
    boot_first, boot_past : numpy.ndarray
        The boot's stretches are those from the one number to below the other.
    addresses : tuple of str
    span : int
        Time in all.
    """

    hosts: tuple[str, ...]
    boot_host: Any
    boot_begin: Any
    boot_end: Any
    stretch_boot: Any
    stretch_host: Any
    stretch_begin: Any
    stretch_end: Any
    stretch_address: Any
    boot_first: Any
    boot_past: Any
    addresses: tuple[str, ...]
    span: int

    def stretch_at(self, host: Any, at: Any) -> Any:
        """Numbers of the stretches in which hosts are on at given times; -1 where they are off."""
        keys = self.stretch_host * self.span + self.stretch_begin
        found = np.searchsorted(keys, host * self.span + at, side="right") - 1
        there = np.maximum(found, 0)
        on = (found >= 0) & (self.stretch_host[there] == host) & (self.stretch_end[there] > at)
        return np.where(on, found, -1)


def lay_out_uptime(settings: PopulationSettings, rng: np.random.Generator) -> Uptime:
    """Draw when the hosts are on.

    Parameters
    ----------
    settings : PopulationSettings
    rng : numpy.random.Generator
    """
    laptops = settings.kind == "laptops"
    made = [(_laptop if laptops else _server)(settings, rng) for _host in range(settings.hosts)]
    held_out = settings.variant == "held_out"
    words = {("laptops", False): "lap", ("laptops", True): "note", ("servers", False): "srv", ("servers", True): "node"}
    names = tuple(f"{words[settings.kind, held_out]}{number:03d}" for number in range(settings.hosts))
    boots = [(host, begin, end) for host, (of_host, _stretches) in enumerate(made) for begin, end in of_host]
    bases = np.cumsum([0] + [len(of_host) for of_host, _stretches in made])
    stretches = [
        (int(bases[host]) + boot, host, begin, end, place)
        for host, (_boots, of_host) in enumerate(made)
        for boot, begin, end, place in of_host
    ]
    addresses = _Addresses(settings, rng)
    columns = np.array(stretches, dtype=np.int64).reshape(-1, 5)
    at = np.array([addresses.of(host, place) for _b, host, _f, _l, place in stretches], dtype=np.int64)
    boot = np.array(boots, dtype=np.int64).reshape(-1, 3)
    numbers = np.arange(len(boot))
    return Uptime(
        hosts=names,
        boot_host=boot[:, 0], boot_begin=boot[:, 1], boot_end=boot[:, 2],
        stretch_boot=columns[:, 0], stretch_host=columns[:, 1], stretch_begin=columns[:, 2], stretch_end=columns[:, 3],
        stretch_address=at,
        boot_first=np.searchsorted(columns[:, 0], numbers, side="left"),
        boot_past=np.searchsorted(columns[:, 0], numbers, side="right"),
        addresses=tuple(addresses.known),
        span=(settings.days + 1) * DAY_US,
    )  # fmt: skip


class _Addresses:
    """Addresses by host and place: another one for each, none given twice at a time."""

    def __init__(self, settings: PopulationSettings, rng: np.random.Generator) -> None:
        self.known: list[str] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self._settings = settings
        self._free = rng.permutation(250 * 64)
        self._held_out = settings.variant == "held_out"

    def of(self, host: int, place: int) -> int:
        """Number of the address of a host at a place."""
        if (host, place) not in self._numbers:
            number = len(self.known)
            if self._settings.kind == "laptops":
                # a pool for each day: on the next day the same address is somebody else's
                free = int(self._free[(host + place * 977) % len(self._free)])
            else:
                free = int(self._free[number % len(self._free)])
            net = "172.20" if self._held_out else "10.20" if self._settings.kind == "laptops" else "10.40"
            self.known.append(f"{net}.{free // 250}.{free % 250 + 2}")
            self._numbers[host, place] = number
        return self._numbers[host, place]


_Host = tuple[list[tuple[int, int]], list[tuple[int, int, int, int]]]


def _laptop(settings: PopulationSettings, rng: np.random.Generator) -> _Host:
    """Boots and stretches of one laptop; each day is another place."""
    boots: list[list[int]] = []
    stretches: list[tuple[int, int, int, int]] = []
    early = rng.normal(0.0, 0.6)
    running = False
    for day in range(settings.days):
        weekend = (day + settings.begin_s // 86400 + 3) % 7 >= 5
        if rng.random() >= (settings.weekend_share if weekend else settings.present_share):
            continue
        begin = settings.begin_hour + early + rng.normal(0.0, 0.5)
        end = settings.end_hour + early + rng.normal(0.0, 0.8)
        begin, end = float(np.clip(begin, 0.0, 23.0)), float(np.clip(end, 0.5, 23.9))
        begin_us = day * DAY_US + int(begin * 3600 * US)
        end_us = day * DAY_US + int(max(end, begin + 0.5) * 3600 * US)
        end_us = min(end_us, (day + 1) * DAY_US - US)
        pauses = np.sort(rng.integers(begin_us, end_us, int(rng.poisson(settings.pauses_per_day))))
        if not running:
            boots.append([begin_us, end_us])
        at = begin_us
        for pause in [int(each) for each in pauses] + [end_us]:
            if pause - at >= _LEAST_US:
                stretches.append((len(boots) - 1, at, pause, day))
                boots[-1][1] = pause
            at = max(at, pause + int(rng.exponential(1500.0) * US) + 60 * US)
            # some pauses are a restart
            if pause != end_us and at < end_us - _LEAST_US and rng.random() < 0.1:
                boots.append([at, end_us])
        running = rng.random() >= settings.shutdown_share
    used = sorted({boot for boot, _begin, _end, _place in stretches})
    number = {boot: place for place, boot in enumerate(used)}
    spans = {boot: [s for s in stretches if s[0] == boot] for boot in used}
    return (
        [(spans[boot][0][1], spans[boot][-1][2]) for boot in used],
        [(number[boot], begin, end, place) for boot, begin, end, place in stretches],
    )


def _server(settings: PopulationSettings, rng: np.random.Generator) -> _Host:
    """Boots and stretches of one server: another place with each boot."""
    whole = settings.days * DAY_US
    times = int(rng.poisson(settings.moves_per_week * settings.days / 7.0))
    moves = np.sort(rng.integers(DAY_US // 24, max(whole, DAY_US // 24 + 1), times))
    begins = [0]
    for move in moves:
        if int(move) - begins[-1] > 3600 * US and whole - int(move) > 3600 * US:
            begins.append(int(move))
    ends = [begin - int(rng.uniform(20, 300) * US) for begin in begins[1:]] + [whole]
    boots = list(zip(begins, ends, strict=True))
    return boots, [(number, begin, end, number) for number, (begin, end) in enumerate(boots)]
