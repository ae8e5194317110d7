# SPDX-License-Identifier: GPL-3.0-or-later
"""Populations with truth: what hosts and programs did, known in full, and what tracers would have seen of it.

`make_population` draws one from settings and a seed, `observe` looks at it. Pure: everything follows from the
arguments.
"""

from whoneeds.scenario.observe import Observed, observe
from whoneeds.scenario.population import Population, make_population
from whoneeds.scenario.settings import PopulationSettings, preset
from whoneeds.scenario.twelve import TABLE_2

__all__ = ["TABLE_2", "Observed", "Population", "PopulationSettings", "make_population", "observe", "preset"]
