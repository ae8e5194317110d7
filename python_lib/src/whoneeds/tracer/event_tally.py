# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source of events has come to since it was opened."""

from typing import NamedTuple


class EventTally(NamedTuple):
    """What was read since the source was opened.

    Attributes
    ----------
    kind : str
        'programs' (the kernel's own small machine) or 'tracefs'.
    ends : int
        Ends of connections.
    processes : int
        Words about processes.
    lost : int
        Messages that the kernel could not keep; streams that do not count theirs add one a loss.
    """

    kind: str
    ends: int
    processes: int
    lost: int
