# SPDX-License-Identifier: GPL-3.0-or-later
"""A population: hosts, programs with their habits, all connections that follow, and the truth about them.

What is in it does not depend on who looks: observation is `whoneeds.scenario.observe`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from whoneeds.scenario.connections import ENDED, LEAST_US, REJECTED, RST, UNANSWERED, Draft, Drawing
from whoneeds.scenario.habits import Application, Place, static_services
from whoneeds.scenario.laptops import lay_out_laptops
from whoneeds.scenario.processes import Lives, draw_lives
from whoneeds.scenario.servers import lay_out_servers
from whoneeds.scenario.settings import PopulationSettings
from whoneeds.scenario.uptime import Uptime, lay_out_uptime

_LOOPBACK = "127.0.0.1"
#: Above all services of a host, by protocol and port or by who chose the port.
_KEYS = 4 * 65536


@dataclass(frozen=True)
class Population:
    """Everything that happened, and what is true of it.

    Attributes
    ----------
    settings : PopulationSettings
    seed : int
    applications : tuple of Application
    places : tuple of Place
    uptime : Uptime
    truth : frozenset of (str, str, int)
        (application, protocol, port): all static dependencies, by program and configuration, whether used or not.
    process : dict of str to numpy.ndarray
        Processes of all: app (number), boot, begin, end, pid, ticks, uid, and the port that it chose (0: none).
    piece : dict of str to numpy.ndarray
        Pieces of their lives: process, stretch, first, last.
    made : dict of str to numpy.ndarray
        Connections in order of their begin, as numbers: process, stretch, protocol (1 is UDP), port, place,
        orig_addr, orig_port, resp_addr, resp_host and resp_process (-1: not traced), resp_stretch, member,
        first, last, ended, sent, got. Times are microseconds since the begin.
    addresses : tuple of str
        What numbers of addresses stand for.
    """

    settings: PopulationSettings
    seed: int
    applications: tuple[Application, ...]
    places: tuple[Place, ...]
    uptime: Uptime
    truth: frozenset[tuple[str, str, int]]
    process: dict[str, Any]
    piece: dict[str, Any]
    made: dict[str, Any]
    addresses: tuple[str, ...]

    @property
    def connections(self) -> pa.Table:
        """All connections in words, in order of their begin: what really happened, seen or not.

        The columns are app, host, pid, protocol, orig_addr, orig_port, resp_addr, resp_port, resp_host, first_ns,
        last_ns, end, and ``static``: whether the use is of a static dependency.
        """
        made = self.made
        app = self.process["app"][made["process"]]
        host = self.uptime.stretch_host[made["stretch"]]
        base = self.settings.begin_s * 10**9
        return pa.table({
            "app": words([each.name for each in self.applications], app),
            "host": words(self.uptime.hosts, host),
            "pid": self.process["pid"][made["process"]],
            "protocol": words(("tcp", "udp"), made["protocol"]),
            "orig_addr": words(self.addresses, made["orig_addr"]), "orig_port": made["orig_port"],
            "resp_addr": words(self.addresses, made["resp_addr"]), "resp_port": made["port"],
            "resp_host": words(self.uptime.hosts, made["resp_host"]),
            "first_ns": base + made["first"] * 1000, "last_ns": base + made["last"] * 1000,
            "end": words(ENDED, made["ended"]),
            "static": is_static(self, app, made["protocol"], made["port"]),
        })  # fmt: skip


def words(of: Any, numbers: Any) -> Any:
    """Numbers as the words that they stand for, one copy of each; -1 is not known."""
    indices = pa.array(numbers, mask=numbers < 0, type=pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(of), type=pa.string()))


def is_static(population: Population, app: Any, protocol: Any, port: Any) -> Any:
    """Whether (application, protocol, port), as numbers, are in the truth."""
    numbers = {application.name: number for number, application in enumerate(population.applications)}
    keys = [(numbers[name] * 2 + (word == "udp")) * 65536 + port_number for name, word, port_number in population.truth]
    return np.isin((app * 2 + protocol) * 65536 + port, np.array(keys, dtype=np.int64))


def make_population(settings: PopulationSettings, seed: int) -> Population:
    """Draw a population; the same settings and seed give the same one, byte by byte.

    Parameters
    ----------
    settings : PopulationSettings
    seed : int
        Not negative.
    """
    uptime = lay_out_uptime(settings, np.random.default_rng((seed, 0)))
    lay_out = lay_out_laptops if settings.kind == "laptops" else lay_out_servers
    applications, places = lay_out(settings, np.random.default_rng((seed, 1)))
    lives = {
        number: draw_lives(
            application,
            _hosts_of(application, settings, np.random.default_rng((seed, 2, number))),
            uptime,
            np.random.default_rng((seed, 3, number)),
        )
        for number, application in enumerate(applications)
    }
    draft = Draft()
    by_name = {place.name: (number, place) for number, place in enumerate(places)}
    drawing = Drawing(settings, uptime, applications, by_name, lives, draft)
    for number in range(len(applications)):
        drawing.draw(number, np.random.default_rng((seed, 4, number)))
    process, bases = _number_processes(settings, applications, lives, uptime, np.random.default_rng((seed, 5)))
    piece = {
        "process": np.concatenate([bases[number] + lives[number].process for number in lives]),
        "stretch": np.concatenate([lives[number].stretch for number in lives]),
        "first": np.concatenate([lives[number].first for number in lives]),
        "last": np.concatenate([lives[number].last for number in lives]),
    }
    drawn = draft.join()
    drawn["process"] = drawn["process"] + bases[drawn.pop("owner")]
    made, addresses = _lay_ends(settings, drawn, places, uptime, applications, process)
    return Population(
        settings, seed, applications, places, uptime, static_services(applications), process, piece, made, addresses
    )


def _hosts_of(application: Application, settings: PopulationSettings, rng: np.random.Generator) -> Any:
    """The hosts that have an application: those named, or a share of all, at least one."""
    if application.on:
        return np.array([host for host in application.on if host < settings.hosts], dtype=np.int64)
    chosen = np.flatnonzero(rng.random(settings.hosts) < application.on_share)
    return chosen if len(chosen) else rng.integers(0, settings.hosts, 1)


def _number_processes(
    settings: PopulationSettings,
    applications: tuple[Application, ...],
    lives: dict[int, Lives],
    uptime: Uptime,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], Any]:
    """All processes in one table, each with its number in its boot; and where each application's begin in it."""
    bases = np.cumsum([0] + [len(lives[number].boot) for number in range(len(applications))])
    app = np.repeat(np.arange(len(applications)), np.diff(bases))
    boot = np.concatenate([lives[number].boot for number in range(len(applications))])
    begin = np.concatenate([lives[number].begin for number in range(len(applications))])
    end = np.concatenate([lives[number].end for number in range(len(applications))])
    order = np.lexsort((begin, boot))
    pid = np.zeros(len(boot), dtype=np.int64)
    ranks = np.arange(len(boot)) - np.searchsorted(boot[order], boot[order], side="left")
    # numbers are given in order; between those that we know of, others got some
    steps = np.cumsum(rng.integers(1, 9, len(boot)))
    firsts = np.searchsorted(boot[order], boot[order], side="left")
    step = 4 if settings.kind == "laptops" else 1
    pid[order] = (200 + ranks + steps - steps[firsts]) * step
    ticks = (begin - uptime.boot_begin[boot]) // 10000 + 500
    uids = np.array([application.uid for application in applications], dtype=np.int64)[app]
    uid = np.where(uids < 0, 1000 + uptime.boot_host[boot], uids)
    chooses = np.array([any(not port for _protocol, port in each.listens) for each in applications], dtype=bool)[app]
    fixed = [port for application in applications for _protocol, port in application.listens]
    free = np.setdiff1d(np.arange(32768, 61000), np.array(fixed, dtype=np.int64))
    chosen = np.where(chooses, free[rng.integers(0, len(free), len(app))], 0)
    made = {"app": app, "boot": boot, "begin": begin, "end": end, "pid": pid, "ticks": ticks, "uid": uid}
    return made | {"chosen": chosen}, bases[:-1]


def _lay_ends(
    settings: PopulationSettings,
    drawn: dict[str, Any],
    places: tuple[Place, ...],
    uptime: Uptime,
    applications: tuple[Application, ...],
    process: dict[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give both ends of each connection their address, port, host and process, and drop what cannot have been."""
    order = np.lexsort((drawn["port"], drawn["process"], drawn["first"]))
    made = {name: drawn.pop(name)[order] for name in tuple(drawn)}
    addresses = [*uptime.addresses, _LOOPBACK]
    loopback = len(uptime.addresses)
    offsets, of_hosts = [], []
    for place in places:
        offsets.append(len(addresses))
        addresses.extend(place.addresses)
        of_hosts.append(bool(place.hosts))
    place, member = made["place"], made["member"]
    host = uptime.stretch_host[made["stretch"]]
    local = member < 0
    traced = np.array(of_hosts)[place] & ~local
    members = np.zeros((len(places), max([len(each.hosts) for each in places] + [1])), dtype=np.int64)
    for number, each in enumerate(places):
        members[number, : len(each.hosts)] = each.hosts
    resp_host = np.where(local, host, np.where(traced, members[place, np.where(traced, member, 0)], -1))
    resp_stretch = np.where(
        local, made["stretch"], np.where(resp_host >= 0, uptime.stretch_at(np.maximum(resp_host, 0), made["first"]), -1)
    )
    there = (resp_host < 0) | (resp_stretch >= 0)
    resp_addr = np.where(local, loopback, np.where(resp_host >= 0, uptime.stretch_address[resp_stretch], 0))
    resp_addr = np.where(resp_host < 0, np.array(offsets)[place] + member, resp_addr)
    made |= {"resp_host": resp_host, "resp_stretch": resp_stretch, "resp_addr": resp_addr}
    made["orig_addr"] = np.where(local, loopback, uptime.stretch_address[made["stretch"]])
    made["resp_process"] = _find_listeners(made, applications, process, uptime)
    chosen = (made.pop("answers") >= 0) & (made["resp_process"] >= 0)
    made["port"] = np.where(chosen, process["chosen"][made["resp_process"]], made["port"])
    made = {name: made.pop(name)[there] for name in tuple(made)}
    _cut_at_far_end(made, process, uptime)
    made["orig_port"] = _give_ports(settings, applications, process, made, uptime)
    # the same address may be given again, and then it is the same
    known = {address: number for number, address in enumerate(dict.fromkeys(addresses))}
    numbers = np.array([known[address] for address in addresses])
    for end in ("orig_addr", "resp_addr"):
        made[end] = numbers[made[end]]
    return made, tuple(known)


def _find_listeners(
    made: dict[str, Any], applications: tuple[Application, ...], process: dict[str, Any], uptime: Uptime
) -> Any:
    """The process that waits at the called port of a traced host at the time; -1 where there is none."""
    # a port that somebody chose is found by who chose it
    what = np.where(made["answers"] >= 0, 2 * 65536 + made["answers"], made["protocol"] * 65536 + made["port"])
    rows: list[tuple[Any, Any]] = []
    for number, application in enumerate(applications):
        own = np.flatnonzero(process["app"] == number)
        host = uptime.boot_host[process["boot"][own]]
        for protocol, port in application.listens:
            offered = (protocol == "udp") * 65536 + port if port else 2 * 65536 + number
            rows.append((host * _KEYS + offered, own))
    found = np.full(len(what), -1, dtype=np.int64)
    traced = np.flatnonzero(made["resp_host"] >= 0)
    if not rows or not len(traced):
        return found
    asked = made["resp_host"][traced] * _KEYS + what[traced]
    owns = np.concatenate([own for _key, own in rows])
    names, place = np.unique(np.concatenate([key for key, _own in rows]), return_inverse=True)
    if not len(names):
        return found
    begins = place * uptime.span + process["begin"][owns]
    order = np.argsort(begins, kind="stable")
    at = np.searchsorted(names, asked).clip(0, len(names) - 1)
    first = made["first"][traced]
    hit = np.maximum(np.searchsorted(begins[order], at * uptime.span + first, side="right") - 1, 0)
    own = owns[order][hit]
    fits = (names[at] == asked) & (place[order][hit] == at)
    fits &= (process["begin"][own] <= first) & (process["end"][own] > first)
    found[traced] = np.where(fits, own, -1)
    return found


def _cut_at_far_end(made: dict[str, Any], process: dict[str, Any], uptime: Uptime) -> None:
    """What is called on a traced host ends with who answers there, and is refused where nobody does."""
    traced = made["resp_host"] >= 0
    nobody = traced & (made["resp_process"] < 0)
    made["ended"] = np.where(nobody, np.where(made["protocol"] == 1, UNANSWERED, REJECTED), made["ended"])
    made["last"] = np.where(nobody & (made["protocol"] == 0), made["first"] + LEAST_US, made["last"])
    for name in ("sent", "got"):
        made[name] = np.where(nobody, 0, made[name])
    held = np.flatnonzero(traced & (made["resp_process"] >= 0))
    until = np.minimum(process["end"][made["resp_process"][held]], uptime.stretch_end[made["resp_stretch"][held]])
    cut = until <= made["last"][held]
    made["last"][held] = np.where(cut, np.maximum(until - 1, made["first"][held] + 1), made["last"][held])
    made["ended"][held] = np.where(cut & (made["ended"][held] < REJECTED), RST, made["ended"][held])


def _give_ports(
    settings: PopulationSettings,
    applications: tuple[Application, ...],
    process: dict[str, Any],
    made: dict[str, Any],
    uptime: Uptime,
) -> Any:
    """Ports that the kernels give to who calls: Windows XP one after the other from 1025 on, Linux all over its range.

    None is given twice on a host before the whole range was, and none that somebody waits on.
    """
    if settings.kind == "laptops":
        low, past, stride = (49152, 65536, 1) if settings.variant == "held_out" else (1025, 5000, 1)
    else:
        low, past, stride = 32768, 61000, 7919
    waiting = [port for application in applications for _protocol, port in application.listens]
    free = np.setdiff1d(np.arange(low, past), np.append(process["chosen"], np.array(waiting, dtype=np.int64)))
    host = uptime.stretch_host[made["stretch"]]
    order = np.argsort(host, kind="stable")
    rank = np.empty(len(host), dtype=np.int64)
    rank[order] = np.arange(len(host)) - np.searchsorted(host[order], host[order], side="left")
    return free[(host * 131 + rank * stride) % len(free)]
