# SPDX-License-Identifier: GPL-3.0-or-later
"""Small populations, drawn once."""

import pytest

from whoneeds.scenario import make_population, preset

#: Enough of each kind to have all that there is: reboots, moves, restarts, addresses that are another's the next day.
SMALL = {
    "laptops": preset("laptops", hosts=3, days=4, applications=50),
    "laptops, held out": preset("laptops", variant="held_out", hosts=3, days=3, applications=40),
    "servers": preset("few-servers", hosts=10, activity=0.3, moves_per_week=5.0, restarts_per_week=6.0),
    "servers, held out": preset("few-servers", variant="held_out", hosts=10, activity=0.3, moves_per_week=7.0),
}


@pytest.fixture(scope="session")
def populations():
    """One population of each kind."""
    return {name: make_population(settings, 7) for name, settings in SMALL.items()}


@pytest.fixture(scope="session", params=SMALL)
def population(request, populations):
    """Each of them in turn."""
    return populations[request.param]
