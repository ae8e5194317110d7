# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows as packets alone tell of them: who spoke to which service when, and nothing about programs.

What the published methods that watch networks work on (Orion, Sherlock, NSDMiner).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whoneeds.model.errors import SettingsError

_COLUMNS = ("first_ns", "last_ns", "orig", "resp", "service")


@dataclass(frozen=True)
class FlowTrace:
    """Flows in order of their begin, as columns.

    Attributes
    ----------
    first_ns, last_ns : numpy.ndarray
        First and last packet; int64.
    orig, resp : numpy.ndarray
        Numbers of the two ends' addresses, any that are equal for equal addresses; int64.
    service : numpy.ndarray
        Index into `services`; int64.
    services : tuple of (str, int)
        (protocol, port).

    Raises
    ------
    SettingsError
        If the columns do not fit together.
    """

    first_ns: Any
    last_ns: Any
    orig: Any
    resp: Any
    service: Any
    services: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        for name in _COLUMNS:
            column = getattr(self, name)
            if not isinstance(column, np.ndarray) or column.dtype != np.int64 or column.shape != self.first_ns.shape:
                raise SettingsError(
                    f"column {name} of a trace",
                    expected=f"int64 numbers, as many as first_ns has: {np.shape(self.first_ns)}",
                    found=f"{getattr(column, 'dtype', type(column).__name__)} of shape {np.shape(column)}",
                    remedy="make one number a flow",
                )
        if self.first_ns.ndim != 1:
            raise SettingsError(
                "columns of a trace", expected="one dimension", found=f"{self.first_ns.ndim}",
                remedy="make one number a flow",
            )  # fmt: skip
        for name, wrong, expected in (
            ("first_ns", self.first_ns[1:] < self.first_ns[:-1], "flows in order of their begin"),
            ("last_ns", self.last_ns < self.first_ns, "no end before the begin"),
            ("service", (self.service < 0) | (self.service >= len(self.services)), f"below {len(self.services)}"),
        ):
            if wrong.any():
                raise SettingsError(
                    f"column {name} of a trace",
                    expected=expected,
                    found=f"{int(wrong.sum())} that are not, the first at {int(wrong.argmax())}",
                    remedy="sort the flows, and look at where they come from",
                )
