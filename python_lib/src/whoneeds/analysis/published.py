# SPDX-License-Identifier: GPL-3.0-or-later
"""What the published methods that watch packets have in common: their settings, and what they say of two services."""

import math
from dataclasses import dataclass, fields
from typing import Any

from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number


@dataclass(frozen=True)
class ServicePairs:
    """Scored pairs of services, as columns.

    Attributes
    ----------
    dependent, depends_on : numpy.ndarray
        Index into the services of the trace.
    kind : numpy.ndarray
        What the pair was found by, as words of the method.
    samples : numpy.ndarray
        What the score rests on: delays, uses or accesses; int64.
    score : numpy.ndarray
        The higher the surer, in the method's own unit; float64.
    """

    dependent: Any
    depends_on: Any
    kind: Any
    samples: Any
    score: Any


def related_to(pairs: ServicePairs, seed: int, above: float) -> frozenset[int]:
    """Services that an application needs if it is known to need one: the seed, and what is paired with it.

    So the methods are brought from services to applications, which packets do not show (Macroscope, section 4.2).

    Parameters
    ----------
    pairs : ServicePairs
    seed : int
        Index of the service that a human names.
    above : float
        A pair counts if its score is higher.

    Returns
    -------
    frozenset of int
        The seed itself included.
    """
    strong = pairs.score > above
    after = pairs.depends_on[strong & (pairs.dependent == seed)]
    before = pairs.dependent[strong & (pairs.depends_on == seed)]
    return frozenset({seed, *after.tolist(), *before.tolist()})


def require_positive(settings: Any, of: str) -> None:
    """Refuse settings that are not positive, finite numbers, whole where the default is.

    Raises
    ------
    SettingsError
    """
    for field in fields(settings):
        value, default = getattr(settings, field.name), field.default
        if isinstance(default, (str, bool)):
            continue
        whole = is_whole_number(default)
        legal = is_whole_number(value) if whole else isinstance(value, float) or is_whole_number(value)
        if not (legal and math.isfinite(value) and value > 0):
            raise SettingsError(
                f"{of} setting {field.name}",
                expected=f"a {'whole ' if whole else ''}number above 0",
                found=ascii(value)[:80],
                remedy=f"leave it out for {default}",
            )
