# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the lab: they say what was expected, what was found, and what to do."""


class LabError(Exception):
    """The lab cannot do what it was asked to do."""


class MirrorError(LabError):
    """The hosts' tree cannot be built, because no Debian mirror answers."""
