# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections out of habits: every action of every piece of a process's life, step by step, as numpy columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whoneeds.scenario.habits import Action, Application, Place, Ports, Step
from whoneeds.scenario.processes import Lives, expand
from whoneeds.scenario.settings import PopulationSettings
from whoneeds.scenario.uptime import US, Uptime

#: How connections end, as numbers: `ENDED` are their words.
FIN, RST, REJECTED, UNANSWERED = range(4)
ENDED = ("fin", "rst", "rejected", "unanswered")
#: How long somebody waits for an answer: three tries of TCP.
_WAIT_US = 21 * US
#: Shortest connection: one way there and one back.
LEAST_US = 400

#: Columns of a chunk of connections. ``owner`` is the number of the application that makes them, ``process`` the number
#: of its process in that application's lives, ``place`` the number of the place, ``member`` which of its addresses or
#: hosts is called (-1: the host itself), ``answers`` the application whose process chose the port (-1: none did).
COLUMNS = (
    "owner", "process", "stretch", "protocol", "port", "place", "member", "answers", "first", "last", "ended", "sent",
    "got",
)  # fmt: skip


@dataclass
class Draft:
    """Connections as they are drawn, before ends are laid to processes.

    Attributes
    ----------
    chunks : list of dict
        Columns of `COLUMNS`.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)

    def join(self) -> dict[str, Any]:
        """All chunks as one; they are given up for it, since the whole is large."""
        return {
            name: np.concatenate([chunk.pop(name) for chunk in self.chunks] or [np.zeros(0, dtype=np.int64)])
            for name in COLUMNS
        }


class Drawing:
    """Draws the connections of one population, application by application.

    Parameters
    ----------
    settings : PopulationSettings
    uptime : Uptime
    applications : tuple of Application
    places : mapping of str to (int, Place)
    lives : mapping of int to Lives
        Of each application; those that others have connections made by are looked up by boot.
    draft : Draft
    """

    def __init__(
        self,
        settings: PopulationSettings,
        uptime: Uptime,
        applications: tuple[Application, ...],
        places: Mapping[str, tuple[int, Place]],
        lives: Mapping[int, Lives],
        draft: Draft,
    ) -> None:
        self._settings, self._uptime, self._applications = settings, uptime, applications
        self._places, self._lives, self._draft = places, lives, draft
        self._numbers = {application.name: number for number, application in enumerate(applications)}
        self._by_boot: dict[int, Any] = {}
        self._recurring: dict[tuple[str, Ports], Any] = {}

    def draw(self, number: int, rng: np.random.Generator) -> None:
        """Draw all that one application does."""
        application, lives = self._applications[number], self._lives[number]
        if not len(lives.process):
            return
        for action in application.actions:
            piece, at, until = _occurrences(action, lives, self._settings.activity, rng)
            for step in action.steps:
                at = at + (rng.exponential(step.delay_s, len(at)) * US).astype(np.int64)
                taken = _who_takes(step, lives, self._uptime, self._settings.rare_factor, rng)
                chosen = np.flatnonzero(taken[piece] & (rng.random(len(piece)) < step.share))
                held = until[chosen] if action.timing == "held" else None
                self._connect(number, step, piece[chosen], at[chosen], held, rng)

    def _connect(
        self, number: int, step: Step, piece: Any, first: Any, until: Any | None, rng: np.random.Generator
    ) -> None:
        """One step of many occurrences."""
        lives = self._lives[number]
        if until is None:
            length = rng.lognormal(np.log(step.median_s), step.sigma, len(first))
            until = first + np.maximum((length * US).astype(np.int64), LEAST_US)
        last = np.minimum(until, lives.last[piece] - 1)
        ended = np.where(until >= lives.last[piece], RST, FIN)
        fails = rng.random(len(first)) < step.failing_share * self._settings.failing_factor
        refused = fails & (rng.random(len(first)) < 0.5)
        ended = np.where(refused, REJECTED, np.where(fails, UNANSWERED, ended))
        last = np.where(refused, first + LEAST_US, last)
        last = np.where(fails & ~refused, np.minimum(first + _WAIT_US, lives.last[piece] - 1), last)
        owner, process = number, lives.process[piece]
        good = last - first >= LEAST_US
        if step.by:
            owner = self._numbers[step.by]
            process = self._process_of(owner)[lives.boot[lives.process[piece]]]
            good &= process >= 0
            began = self._lives[owner].begin[np.maximum(process, 0)] if len(self._lives[owner].begin) else first
            good &= began <= first
        place, where = self._places[step.to]
        stretch = lives.stretch[piece]
        count = int(good.sum())
        failed = fails[good]
        # bytes go with the length of a talk as well as with chance
        sizes = [
            np.where(failed, 0, rng.lognormal(np.log(size), 1.2, count).astype(np.int64))
            for size in (step.sent_bytes, step.received_bytes)
        ]
        host = self._uptime.stretch_host[stretch[good]]
        members = self._members(where, host, rng)
        self._draft.chunks.append({
            "owner": np.full(count, owner), "process": process[good], "stretch": stretch[good],
            "protocol": np.full(count, step.protocol == "udp", dtype=np.int64),
            "port": self._ports(step, number, members, host, rng), "place": np.full(count, place),
            "answers": np.full(count, -1 if isinstance(step.port, int) or not step.at else self._numbers[step.at]),
            "member": members,
            "first": first[good], "last": last[good], "ended": ended[good], "sent": sizes[0], "got": sizes[1],
        })  # fmt: skip

    def _process_of(self, owner: int) -> Any:
        """The one process that an application has in each boot; -1 where there is none."""
        if owner not in self._by_boot:
            found = np.full(len(self._uptime.boot_host), -1, dtype=np.int64)
            lives = self._lives[owner]
            found[lives.boot[::-1]] = np.arange(len(lives.boot))[::-1]
            self._by_boot[owner] = found
        return self._by_boot[owner]

    def _ports(self, step: Step, number: int, members: Any, host: Any, rng: np.random.Generator) -> Any:
        count = len(members)
        if isinstance(step.port, int):
            return np.full(count, step.port, dtype=np.int64)
        ports = step.port
        if ports.chosen:
            return np.array(ports.chosen, dtype=np.int64)[_prefer_first(len(ports.chosen), count, ports.skew, rng)]
        drawn = rng.integers(ports.low, ports.high, count)
        if not ports.recurring:
            return drawn
        owners = {"server": members + 1, "host": host, "all": np.zeros(count, dtype=np.int64)}[ports.whose]
        key = (self._applications[number].name, ports)
        if key not in self._recurring:
            many = max(
                len(self._uptime.hosts), *(max(len(p.addresses), len(p.hosts)) + 1 for _n, p in self._places.values())
            )
            self._recurring[key] = rng.integers(ports.low, ports.high, (many, ports.recurring))
        again = self._recurring[key][owners, _prefer_first(ports.recurring, count, ports.skew, rng)]
        return np.where(rng.random(count) < ports.recurring_share, again, drawn)

    def _members(self, place: Place, host: Any, rng: np.random.Generator) -> Any:
        many = len(place.hosts) or len(place.addresses)
        if not many:
            return np.full(len(host), -1, dtype=np.int64)
        if place.choice == "popular":
            return _prefer_first(many, len(host), 1.0, rng)
        if place.choice == "rotating":
            return np.arange(len(host)) % many
        drawn = rng.integers(0, many, len(host))
        if place.choice == "sticky":
            own = (host * 2654435761 % 1000003) % many
            drawn = np.where(rng.random(len(host)) < 0.92, own, drawn)
        return drawn


def _prefer_first(many: int, count: int, skew: float, rng: np.random.Generator) -> Any:
    """Numbers below `many`, drawn by Zipf's law with the given exponent."""
    weights = 1.0 / np.arange(1, many + 1) ** skew
    return np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count)).clip(0, many - 1)


def _who_takes(step: Step, lives: Lives, uptime: Uptime, rare_factor: float, rng: np.random.Generator) -> Any:
    """Which pieces ever take a step: instances and hosts differ in that, by configuration and by what people do."""
    host_of = uptime.stretch_host[lives.stretch]
    hosts = rng.random(len(uptime.hosts)) < step.users_share
    share = step.instances_share * (rare_factor if step.instances_share < 0.25 else 1.0)
    processes = rng.random(len(lives.boot)) < share
    return hosts[host_of] & processes[lives.process]


def _occurrences(action: Action, lives: Lives, activity: float, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """When an action happens: the piece of each time, its begin, and until when it lasts if it is held."""
    first, last = lives.first, lives.last
    length = last - first
    every = action.every_s * US
    if action.timing == "start":
        piece = np.flatnonzero(rng.random(len(first)) < action.share)
        at = first[piece]
    elif action.timing == "random":
        piece, _number = expand(rng.poisson(activity * length / every))
        at = first[piece] + (rng.random(len(piece)) * length[piece]).astype(np.int64)
    elif action.timing == "periodic":
        phase = (rng.random(len(first)) * np.minimum(every, 3600 * US)).astype(np.int64)
        times = np.where(length > phase, (length - phase) // int(every) + 1, 0)
        piece, number = expand(times)
        at = first[piece] + phase[piece] + number * int(every)
    elif action.timing == "clock":
        period, offset = int(every), int(action.at_s * US)
        tick = -(-(first - offset) // period)
        piece, number = expand(np.maximum(-(-(last - offset) // period) - tick, 0))
        at = (tick[piece] + number) * period + offset
    else:
        return _hold(action, lives, rng)
    at = at + (rng.exponential(action.jitter_s, len(at)) * US).astype(np.int64)
    return piece, at, at


def _hold(action: Action, lives: Lives, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Connections that are held, each made anew when it ends."""
    pool, _number = expand(np.full(len(lives.first), action.pool))
    begin = lives.first[pool] + (rng.exponential(action.jitter_s, len(pool)) * US).astype(np.int64)
    length = np.maximum(lives.last[pool] - begin, 0)
    whose, number = expand(1 + rng.poisson(length / (action.every_s * US)))
    share = np.where(number == 0, 0.0, rng.random(len(whose)))
    order = np.lexsort((share, whose))
    at = begin[whose] + (share[order] * length[whose]).astype(np.int64)
    until = np.append(at[1:] - US // 10, 0)
    final = np.append(whose[1:] != whose[:-1], True)
    piece = pool[whose]
    return piece, at, np.where(final, lives.last[piece], until)
