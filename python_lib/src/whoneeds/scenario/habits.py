# SPDX-License-Identifier: GPL-3.0-or-later
"""Habits: what a program's code and configuration make it do on the network, as data.

An application has *actions* (it starts, a user does something, a timer fires, a connection is held). An action is a
chain of *steps* in causal order, each of which is one connection to one service. A step whose port is fixed is a
static dependency of who makes the connection; one whose port is drawn from `Ports` is transient (Macroscope, section
2.1: only what can be predicted from program and configuration is static).
"""

from dataclasses import dataclass

from whoneeds.model.errors import SettingsError

#: How the begin of an action is found: with the process or its new address, at random, every so often since the
#: process began, at fixed times of the clock, or held open all the time.
TIMINGS = ("start", "random", "periodic", "clock", "held")
#: What a process lives as long as: its host's boot, from some time in a boot on, a moment at each login, or as
#: often and as long as it is used; or it is begun by the clock.
LIFETIMES = ("boot", "kept", "login", "run", "clock")


@dataclass(frozen=True)
class Ports:
    """A port that cannot be known beforehand: negotiated, random, a peer's, or of a user's choice.

    Attributes
    ----------
    low, high : int
        Drawn evenly from here to below there.
    recurring : int
        So many ports of the range come again and again (a busy server's ports, a favourite peer's).
    recurring_share : float
        Share of connections that go to one of these.
    whose : str
        Who has these: ``server``, each machine that is called (it gives its services ports when it starts); ``host``,
        each calling host (its user's peers); ``all``, one set for everybody.
    skew : float
        How much the first of the recurring ports are preferred; 0 is not at all.
    chosen : tuple of int
        Instead of the range: ports that people run things on.
    """

    low: int = 1025
    high: int = 5000
    recurring: int = 0
    recurring_share: float = 0.0
    whose: str = "all"
    skew: float = 1.0
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """One connection of an action.

    Attributes
    ----------
    protocol : str
    port : int or Ports
    to : str
        Name of the place that is called; ``local`` is the host itself, where `at` answers.
    share : float
        How often the step happens when the action does.
    instances_share, users_share : float
        Share of instances, and of hosts, that ever take the step.
    delay_s : float
        Mean wait after the step before.
    median_s, sigma : float
        Log-normal duration of the connection.
    failing_share : float
        Share that is rejected or not answered.
    sent_bytes, received_bytes : float
        Medians.
    by : str
        The application that makes the connection on this one's behalf; empty for itself.
    at : str
        The application that answers, of a step to ``local`` or to a port that this application chose when it began.
    """

    protocol: str
    port: int | Ports
    to: str
    share: float = 1.0
    instances_share: float = 1.0
    users_share: float = 1.0
    delay_s: float = 0.2
    median_s: float = 1.0
    sigma: float = 1.0
    failing_share: float = 0.004
    sent_bytes: float = 800.0
    received_bytes: float = 4000.0
    by: str = ""
    at: str = ""


@dataclass(frozen=True)
class Action:
    """Something that an instance does, with all that follows from it.

    Attributes
    ----------
    timing : str
        One of `TIMINGS`.
    steps : tuple of Step
        In causal order.
    every_s : float
        Mean time between two; of ``held`` the mean life of a connection before it is made anew.
    at_s : float
        Of ``clock``: seconds after each full period.
    jitter_s : float
        Spread of the begin.
    pool : int
        Of ``held``: connections held at a time.
    share : float
        Of ``start``: share of the beginnings that it happens at.
    """

    timing: str
    steps: tuple[Step, ...]
    every_s: float = 3600.0
    at_s: float = 0.0
    jitter_s: float = 1.0
    pool: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        _check_word("timing of an action", self.timing, TIMINGS)


@dataclass(frozen=True)
class Application:
    """A program with its habits.

    Attributes
    ----------
    name : str
    actions : tuple of Action
    lifetime : str
        One of `LIFETIMES`.
    on_share : float
        Share of the hosts that have it, if `on` is empty.
    on : tuple of int
        The very hosts that have it.
    delay_s : float
        Mean time from the boot to its begin.
    every_s, median_s : float
        Of ``run`` and ``clock``: mean time (of being on) between two runs, and the median of their lengths.
    at_s : float
        Of ``clock``: seconds after each full period.
    restarts_per_day : float
        Of ``boot`` and ``kept``: how often it is begun anew.
    uid : int
        User number; -1 for that of the host's user.
    listens : tuple of (str, int)
        Services that it offers; port 0 is one that each of its processes chooses anew when it begins.
    """

    name: str
    actions: tuple[Action, ...]
    lifetime: str = "run"
    on_share: float = 1.0
    on: tuple[int, ...] = ()
    delay_s: float = 30.0
    every_s: float = 14400.0
    median_s: float = 900.0
    at_s: float = 0.0
    restarts_per_day: float = 0.0
    uid: int = -1
    listens: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        _check_word("lifetime of an application", self.lifetime, LIFETIMES)


@dataclass(frozen=True)
class Place:
    """Where connections go: one service's addresses, or all that somebody may want to reach.

    Attributes
    ----------
    name : str
    addresses : tuple of str
        Addresses of machines that are not traced; empty if `hosts` are given.
    hosts : tuple of int
        Traced hosts, each at whatever address it has at the time.
    domains : tuple of str
        Names that name service gives for the addresses, one each, or one for all; empty for none.
    choice : str
        ``sticky``: each host mostly has its own; ``balanced``: any; ``popular``: the first ones more often;
        ``rotating``: all, one after the other.
    """

    name: str
    addresses: tuple[str, ...] = ()
    hosts: tuple[int, ...] = ()
    domains: tuple[str, ...] = ()
    choice: str = "balanced"


def _check_word(what: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise SettingsError(
            what, expected="one of " + ", ".join(words), found=ascii(word)[:80], remedy="see whoneeds.scenario.habits"
        )


def static_services(applications: tuple[Application, ...]) -> frozenset[tuple[str, str, int]]:
    """All (application, protocol, port) that follow from the habits alone.

    Parameters
    ----------
    applications : tuple of Application
    """
    return frozenset(
        (step.by or application.name, step.protocol, step.port)
        for application in applications
        for action in application.actions
        for step in action.steps
        if isinstance(step.port, int)
    )
