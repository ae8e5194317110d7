# SPDX-License-Identifier: GPL-3.0-or-later
"""whoneeds: find out who needs whom in a fleet, from what processes really do on the wire."""

__version__ = "0.1.0"
