# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of the lab: it says what was expected, what was found, and what to do."""


class LabError(Exception):
    """The lab cannot do what it was asked to do."""
