# SPDX-License-Identifier: GPL-3.0-or-later
"""Employees' laptops in a house with its own services: the population of Macroscope's evaluation (section 4).

Whatever is outside is reached through the house's proxy. The servers are not traced, and neither are most machines
that people's programs talk to directly. The held-out variant is another house: later Windows with other ephemeral
ports, name service asked by each program itself, no proxy but direct ways out, other services, other programs, and
another distribution of how many services a program has.
"""

from dataclasses import replace

import numpy as np

from whoneeds.scenario.families import World, draw_applications
from whoneeds.scenario.habits import Action, Application, Place, Ports, Step
from whoneeds.scenario.settings import PopulationSettings
from whoneeds.scenario.twelve import COMMON, resolve, table_4, the_twelve

#: Table 5 of the paper, in causal order: what goes first in a chain stands first.
_HOUSE = World(
    common=(
        (COMMON[9090], 30.0), (COMMON[911], 85.0), (COMMON[135], 20.0), (COMMON[389], 15.0), (COMMON[1025], 13.0),
        (COMMON[80], 60.0), (COMMON[443], 34.0), (Step("tcp", 22, "servers", median_s=600.0, sigma=1.6), 13.0),
        (Step("tcp", 3180, "databases", median_s=45.0, sigma=1.5), 8.0),
        (Step("tcp", 21, "files", median_s=30.0), 5.0), (COMMON[445], 5.0),
        (Step("tcp", 1433, "databases", median_s=45.0, sigma=1.5), 3.0), (Step("tcp", 25, "mail", median_s=2.0), 2.0),
        (Step("tcp", 3389, "servers", median_s=900.0), 2.0), (Step("tcp", 993, "mail", median_s=300.0), 1.0),
    ),
    private_low=1030, private_high=20000, private_share=0.36, single_share=0.5, more_share=0.45,
    ephemeral_low=1025, ephemeral_high=5000, resolves=resolve(), stem="program", suffix=".exe", lasting_share=0.3,
)  # fmt: skip

_OTHER_DNS = Step("udp", 53, "dns", share=0.4, delay_s=0.02, median_s=0.02, sigma=0.8, sent_bytes=50)
_OTHER_HOUSE = World(
    common=(
        (Step("tcp", 88, "dc", median_s=0.05, sigma=0.7), 12.0), (Step("tcp", 636, "dc", median_s=20.0), 12.0),
        (Step("tcp", 443, "outside", median_s=25.0, sigma=1.6, received_bytes=30000), 80.0),
        (Step("tcp", 8443, "intranet", median_s=10.0, sigma=1.4), 30.0),
        (Step("udp", 443, "outside", median_s=30.0, sigma=1.5), 25.0),
        (Step("tcp", 445, "files", median_s=120.0, sigma=1.5), 14.0),
        (Step("tcp", 49443, "intranet", median_s=8.0), 9.0), (Step("tcp", 5986, "servers", median_s=30.0), 6.0),
        (Step("tcp", 5432, "databases", median_s=300.0), 6.0), (Step("tcp", 22, "servers", median_s=1200.0), 6.0),
        (Step("tcp", 61617, "messaging", median_s=1800.0), 5.0), (Step("tcp", 80, "outside", median_s=2.0), 20.0),
    ),
    private_low=20000, private_high=64000, private_share=0.25, single_share=0.35, more_share=0.6,
    ephemeral_low=49152, ephemeral_high=65536, resolves=_OTHER_DNS, stem="tool", suffix="", lasting_share=0.45,
)  # fmt: skip


def lay_out_laptops(
    settings: PopulationSettings, rng: np.random.Generator
) -> tuple[tuple[Application, ...], tuple[Place, ...]]:
    """The applications of a fleet of laptops, and the places that they call.

    Parameters
    ----------
    settings : PopulationSettings
    rng : numpy.random.Generator
    """
    if settings.variant == "held_out":
        named: tuple[Application, ...] = _held_out_applications(settings.recurring_share)
        world = _OTHER_HOUSE
    else:
        named = (*the_twelve(settings.recurring_share), *table_4(settings.recurring_share))
        world = _HOUSE
    rest = draw_applications(
        world, max(settings.applications - len(named), 0), settings.transient_share, settings.recurring_share, rng
    )
    applications = _with_delegates((*named, *rest), settings.applications)
    return applications, _lay_out_places(applications, settings, rng)


def _with_delegates(applications: tuple[Application, ...], number: int) -> tuple[Application, ...]:
    """The first so many; whom others have connections made by is among them always."""
    kept = applications[:number]
    needed = {step.by for one in kept for action in one.actions for step in action.steps} - {""}
    missing = needed - {one.name for one in kept}
    return (*kept, *(one for one in applications if one.name in missing))


def _held_out_applications(recurring_share: float) -> tuple[Application, ...]:
    """Programs with habits that no program of the default variant has."""
    secure = Step("tcp", 443, "outside", median_s=25.0, sigma=1.6)
    contacts = Ports(1025, 65535, recurring=60, recurring_share=recurring_share * 0.6, whose="host", skew=0.9)
    mapped = Ports(49664, 49720, recurring=3, recurring_share=0.9, whose="server", skew=0.6)
    media = Ports(50000, 60000, recurring=8, recurring_share=recurring_share * 0.3, whose="host", skew=0.4)
    return (
        Application("collab", (
            Action("start", (_OTHER_DNS, secure, replace(secure, share=0.6))),
            Action("held", (replace(secure, median_s=3600.0),), every_s=5400, pool=2),
            Action("random", (
                Step("udp", 3478, "outside", median_s=2.0),
                Step("udp", media, "peers", median_s=900.0, sigma=1.0, failing_share=0.1),
                Step("udp", media, "peers", share=0.6, median_s=900.0, sigma=1.0),
            ), every_s=5400),
        ), lifetime="kept", on_share=0.95, delay_s=200),
        Application("syncd", (
            Action("start", (_OTHER_DNS, replace(secure, share=0.9), Step("tcp", 22067, "outside", share=0.3))),
            Action("random", (Step("tcp", contacts, "peers", median_s=400, sigma=1.5),), every_s=1200),
        ), lifetime="boot", on_share=0.5, listens=(("tcp", 22000),)),
        Application("agentd", (
            Action("periodic", (_OTHER_DNS, Step("tcp", 44300, "management", median_s=0.8)), every_s=300),
            Action("periodic", (Step("tcp", 49443, "intranet", share=0.1, median_s=5.0),), every_s=7200),
        ), lifetime="boot", uid=0, delay_s=10),
        Application("remoting", (
            Action("start", (Step("tcp", 135, "dc", median_s=1.0), Step("tcp", mapped, "dc", median_s=40.0))),
            Action("random", (Step("tcp", 5986, "servers", median_s=60.0),), every_s=900),
        ), on_share=0.3, every_s=20000, median_s=1200),
    )  # fmt: skip


#: Places of a house: most machines of each, how one is chosen, and what it is called (empty: by no name).
_PLACES: dict[str, tuple[int, str, str]] = {
    "dns": (3, "sticky", ""), "dc": (6, "sticky", "dc{}.corp.example"), "proxy": (4, "sticky", "proxy.corp.example"),
    "discovery": (2, "balanced", "wpad.corp.example"), "files": (8, "sticky", "files{}.corp.example"),
    "messaging": (3, "sticky", "im.corp.example"), "meetings": (4, "balanced", "meet{}.corp.example"),
    "antivirus": (4, "balanced", "epo.corp.example"), "relays": (8, "balanced", "relay{}.corp.example"),
    "management": (2, "sticky", "amt.corp.example"), "mail": (3, "sticky", "mail{}.corp.example"),
    "search": (2, "sticky", "search.corp.example"), "databases": (12, "popular", "db{}.corp.example"),
    "printers": (40, "sticky", "print{}.corp.example"), "servers": (60, "popular", "host{}.corp.example"),
}  # fmt: skip


def _lay_out_places(
    applications: tuple[Application, ...], settings: PopulationSettings, rng: np.random.Generator
) -> tuple[Place, ...]:
    wanted = list(dict.fromkeys(step.to for one in applications for action in one.actions for step in action.steps))
    net = "10.90" if settings.variant == "held_out" else "10.1"
    return tuple(_lay_out(name, number, net, settings, rng) for number, name in enumerate(wanted))


def _lay_out(name: str, number: int, net: str, settings: PopulationSettings, rng: np.random.Generator) -> Place:
    if name == "peers":
        addresses = tuple(
            f"10.{60 + each // 62500}.{each // 250 % 250}.{each % 250 + 2}" for each in range(settings.peers)
        )
        return Place(name, addresses, choice="popular")
    if name == "intranet":
        machines = tuple(f"{net}.200.{each + 2}" for each in range(150))
        return Place(name, machines, domains=tuple(f"web{each}.corp.example" for each in range(150)), choice="popular")
    if name == "outside":
        machines = tuple(f"198.18.{each // 250}.{each % 250 + 2}" for each in range(1200))
        domains = tuple(f"www.site{each // 3}.example" for each in range(1200))
        return Place(name, machines, domains=domains, choice="popular")
    if name.startswith("own-"):
        many, choice, called = int(rng.integers(1, 4)), "balanced", f"{name[4:].split('.')[0]}.corp.example"
    else:
        many, choice, called = _PLACES[name]
        many = many if name in ("printers", "servers", "databases") else min(many, settings.replicas)
    addresses = tuple(f"{net}.{number % 190}.{number // 190 * 64 + each + 2}" for each in range(many))
    domains = tuple(called.format(each) for each in range(many)) if called else ()
    return Place(name, addresses, domains=domains, choice=choice)
