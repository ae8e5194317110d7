# SPDX-License-Identifier: GPL-3.0-or-later
"""Families of ordinary applications: what most programs on a laptop are like, beside those that the paper names.

From the paper: most applications have one static dependency; a few services are needed by many applications and most
by a single one (Fig. 6); which services those are, and how often (Table 5: enterprise proxy, Web, HTTPS, proxy
discovery, EPMAP, LDAP, Active Directory, SSH, a database, FTP); two in five services belong to one program; and about
one application in seven makes transient connections. Everything else is our choice.
"""

from dataclasses import dataclass, replace

import numpy as np

from whoneeds.scenario.habits import Action, Application, Ports, Step

#: Ways of being transient: an FTP client's data ports, programs that talk to each other, ports negotiated with a
#: mapper, and ports of people's choice.
_TRANSIENT = ("passive", "peers", "negotiated", "chosen")


@dataclass(frozen=True)
class World:
    """What the programs of a house have in common.

    Attributes
    ----------
    common : tuple of (Step, float)
        Services that many programs need, with weights.
    private_low, private_high : int
        Range in which the port of a program's own service lies.
    private_share : float
        Share of programs that have a service of their own.
    single_share : float
        Share of programs with one service; others have two and, each with `more_share`, one more.
    more_share : float
    ephemeral_low, ephemeral_high : int
        Range of ports given to who asks for any.
    resolves : Step
        A question to the name service, asked by whom it is asked by.
    stem : str
        How programs are called.
    suffix : str
    lasting_share : float
        Share of programs that run as long as the machine does.
    """

    common: tuple[tuple[Step, float], ...]
    private_low: int
    private_high: int
    private_share: float
    single_share: float
    more_share: float
    ephemeral_low: int
    ephemeral_high: int
    resolves: Step
    stem: str
    suffix: str
    lasting_share: float


def draw_applications(
    world: World, number: int, transient_share: float, recurring_share: float, rng: np.random.Generator
) -> tuple[Application, ...]:
    """Draw so many applications.

    Parameters
    ----------
    world : World
    number : int
    transient_share : float
        Share of them that make transient connections.
    recurring_share : float
        See `PopulationSettings`.
    rng : numpy.random.Generator
    """
    return tuple(
        _draw(world, f"{world.stem}{each:03d}{world.suffix}", transient_share, recurring_share, rng)
        for each in range(number)
    )


def _draw(
    world: World, name: str, transient_share: float, recurring_share: float, rng: np.random.Generator
) -> Application:
    count = 1
    if rng.random() >= world.single_share:
        count = 2
        while rng.random() < world.more_share and count < len(world.common):
            count += 1
    weights = np.array([weight for _step, weight in world.common])
    chosen = rng.choice(len(weights), min(count, len(weights)), replace=False, p=weights / weights.sum())
    # what is needed by most goes first in a chain: discovery before proxy, mapper before the mapped
    steps = [world.common[int(each)][0] for each in sorted(chosen)]
    if rng.random() < world.private_share:
        port = int(rng.integers(world.private_low, world.private_high))
        median_s = float(rng.lognormal(1.0, 1.2))
        steps[int(rng.integers(len(steps)))] = Step("tcp", port, f"own-{name}", median_s=median_s)
    # a service is part of the start, of what people do, or of what a timer does; some are rarely needed
    steps = [replace(step, share=float(rng.uniform(0.25, 1.0))) for step in steps]
    if len(steps) > 2 and rng.random() < 0.3:
        steps[-1] = replace(steps[-1], instances_share=float(rng.uniform(0.01, 0.2)))
    lasting = rng.random() < world.lasting_share
    actions = []
    begun = [step for step in steps if rng.random() < 0.6]
    if begun:
        actions.append(Action("start", (replace(world.resolves, share=0.3), *begun)))
    rest = [step for step in steps if step not in begun] or steps
    timing = "periodic" if lasting else "random"
    every_s = float(rng.lognormal(np.log(16000.0 if lasting else 2400.0), 0.7))
    actions.append(Action(timing, (world.resolves, *rest), every_s=every_s, jitter_s=20.0))
    if rng.random() < transient_share:
        actions.append(_transient(world, _TRANSIENT[int(rng.integers(len(_TRANSIENT)))], recurring_share, rng))
    # few programs are on every machine, many on a few only
    on_share = 0.95 if rng.random() < 0.2 else float(np.clip(rng.beta(0.6, 3.0), 0.02, 1.0))
    if lasting:
        return Application(name, tuple(actions), lifetime="boot", on_share=on_share, uid=18)
    kept = rng.random() < 0.2
    return Application(
        name,
        tuple(actions),
        lifetime="kept" if kept else "run",
        on_share=on_share,
        delay_s=1800.0,
        every_s=float(rng.lognormal(np.log(20000.0), 0.6)),
        median_s=float(rng.lognormal(np.log(900.0), 0.8)),
    )


def _transient(world: World, way: str, recurring_share: float, rng: np.random.Generator) -> Action:
    low, high = world.ephemeral_low, world.ephemeral_high
    every_s = float(rng.lognormal(np.log(900.0), 0.6))
    if way == "passive":
        step = Step("tcp", Ports(low, high), "files", median_s=6.0, sigma=1.3)
    elif way == "negotiated":
        ports = Ports(low, min(low + 400, high), recurring=3, recurring_share=recurring_share, whose="server")
        step = Step("tcp", ports, "servers", median_s=15.0, sigma=1.3)
    elif way == "peers":
        ports = Ports(1025, 65000, recurring=12, recurring_share=recurring_share, whose="host")
        step = Step("tcp", ports, "peers", median_s=60.0, sigma=1.5, failing_share=0.1)
    else:
        odd = tuple(int(port) for port in rng.choice(np.arange(2000, 10000, 10), 24, replace=False))
        step = Step("tcp", Ports(chosen=odd, skew=0.6), "peers", median_s=5.0)
    return Action("random", (step,), every_s=every_s)
