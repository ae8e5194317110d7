# SPDX-License-Identifier: GPL-3.0-or-later
"""What a population is made of, in numbers."""

import math
from dataclasses import dataclass, fields
from typing import Any

from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import documented, is_whole_number

KINDS = ("laptops", "servers")
VARIANTS = ("default", "held_out")

#: Least and largest legal value of each number.
_RANGES: dict[str, tuple[float, float]] = {
    "hosts": (1, 1000), "days": (1, 400), "applications": (1, 2000), "begin_s": (0, 4_000_000_000),
    "activity": (0.001, 1000.0), "peers": (1, 60000), "replicas": (1, 32), "instances": (1, 32),
    "begin_hour": (0.0, 23.0), "end_hour": (1.0, 24.0),
    "pauses_per_day": (0.0, 20.0), "moves_per_week": (0.0, 50.0), "restarts_per_week": (0.0, 200.0),
    "failing_factor": (0.0, 100.0), "rare_factor": (0.0, 20.0),
}  # fmt: skip


@dataclass(frozen=True)
class PopulationSettings:
    """Sizes, mixes and rates of a population. The defaults are the laptops of Macroscope's evaluation (section 4).

    Raises
    ------
    SettingsError
        If a number lies outside its range or a word is none of those that there are.

    Examples
    --------
    >>> PopulationSettings().hosts, PopulationSettings().applications
    (52, 159)
    """

    kind: str = documented("What the hosts are.", choices=KINDS, default="laptops")
    variant: str = documented(
        "Whose habits they have; 'held_out' has other programs, ports, distributions and addresses.",
        choices=VARIANTS,
        default="default",
    )
    hosts: int = documented("Traced hosts.", default=52)
    days: int = documented("Days that are looked at.", unit="days", default=77)
    begin_s: int = documented("When the first day begins, UTC.", unit="s", default=1_704_067_200)
    applications: int = documented(
        "Applications in all; of laptops those of the paper's tables come first.", default=159
    )
    activity: float = documented(
        "How often users and programs act while they run, as a factor: what scales the number of connections.",
        default=1.0,
    )
    begin_hour: float = documented("Hour at which people begin to work, on average.", unit="h", default=8.5)
    end_hour: float = documented("Hour at which they stop, on average.", unit="h", default=17.5)
    present_share: float = documented("Share of working days on which a laptop is there.", unit="share", default=0.9)
    weekend_share: float = documented("The same of Saturdays and Sundays.", unit="share", default=0.06)
    shutdown_share: float = documented("Share of evenings on which a laptop is shut down.", unit="share", default=0.4)
    pauses_per_day: float = documented("How often a laptop is closed for a while in a day, on average.", default=1.2)
    moves_per_week: float = documented(
        "How often a server is made anew, with another boot and another address.", default=0.15
    )
    restarts_per_week: float = documented("How often a server's programs are begun anew, each.", default=0.6)
    instances: int = documented("Most hosts that one of a fleet's own applications runs on.", default=3)
    peers: int = documented("Machines that people's programs talk to directly.", default=1500)
    replicas: int = documented("Machines that a service of the house is spread over, at most.", default=6)
    transient_share: float = documented(
        "Share of applications beyond those of the paper's tables that make transient connections.",
        unit="share",
        default=0.09,
    )
    recurring_share: float = documented(
        "Share of transient connections to ports that come again, where a program has such.", unit="share", default=0.5
    )
    rare_factor: float = documented("How often rarely used static services are used, as a factor.", default=1.0)
    failing_factor: float = documented("How often connections fail, as a factor.", default=1.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            choices = field.metadata["choices"]
            if choices is not None:
                legal, expected = isinstance(value, str) and value in choices, "one of " + ", ".join(choices)
            else:
                legal, expected = _fits(field.name, value, whole=isinstance(field.default, int))
            if not legal:
                raise SettingsError(
                    f"population setting {field.name}",
                    expected=expected,
                    found=ascii(value)[:80],
                    remedy=f"leave it out for {field.default}",
                )
        if self.begin_hour >= self.end_hour:
            raise SettingsError(
                "population setting end_hour",
                expected=f"an hour after begin_hour, {self.begin_hour}",
                found=ascii(self.end_hour),
                remedy="let people stop later than they begin",
            )


def _fits(name: str, value: Any, *, whole: bool) -> tuple[bool, str]:
    low, high = _RANGES.get(name, (0.0, 1.0))
    if whole:
        return is_whole_number(value) and low <= value <= high, f"a whole number between {low:.0f} and {high:.0f}"
    number = isinstance(value, float) or is_whole_number(value)
    return number and math.isfinite(value) and low <= value <= high, f"a number between {low:g} and {high:g}"


def preset(name: str, **changes: Any) -> PopulationSettings:
    """Settings under a name, with changes.

    Parameters
    ----------
    name : {"laptops", "servers", "few-laptops", "few-servers"}
        The two populations, and what there is to go by after one day on one laptop, or on a few servers.
    **changes
        Settings that are to be others.

    Raises
    ------
    SettingsError
        If there is no such preset, or a setting is wrong.

    Examples
    --------
    >>> preset("servers").hosts
    60
    """
    known: dict[str, dict[str, Any]] = {
        "laptops": {},
        "servers": {"kind": "servers", "hosts": 60, "days": 14, "applications": 80},
        "few-laptops": {"hosts": 1, "days": 1, "present_share": 1.0},
        "few-servers": {"kind": "servers", "hosts": 12, "days": 1, "applications": 50},
    }
    if name not in known:
        raise SettingsError("preset", expected="one of " + ", ".join(known), found=ascii(name)[:80])
    unknown = sorted(set(changes) - {field.name for field in fields(PopulationSettings)})
    if unknown:
        raise SettingsError(
            "population settings", expected="names of settings", found=ascii(unknown)[:80],
            remedy="see the fields of PopulationSettings",
        )  # fmt: skip
    return PopulationSettings(**(known[name] | changes))
