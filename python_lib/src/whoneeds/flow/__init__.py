# SPDX-License-Identifier: GPL-3.0-or-later
"""From packets to flows: decode, meter, name; one implementation for every capture."""

from whoneeds.flow.meter import Metered, meter_capture
from whoneeds.flow.settings import MeterSettings

__all__ = ["MeterSettings", "Metered", "meter_capture"]
