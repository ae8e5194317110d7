# SPDX-License-Identifier: GPL-3.0-or-later
"""Which source of events a host has: programs in the kernel, else the trace rings of tracefs, else none."""

import os
from typing import Union

from whoneeds.model.errors import HostError
from whoneeds.tracer.bpf.load import from_named, load, scope_here
from whoneeds.tracer.bpf.source import ProgramEvents, open_programs
from whoneeds.tracer.events import EventSource, open_events
from whoneeds.tracer.handover import handed_descriptors
from whoneeds.tracer.status import Identity

Events = Union[ProgramEvents, EventSource]


def open_any_events(owner: Identity) -> Events:
    """Open the best source of events that there is; what a loader handed over comes first.

    Parameters
    ----------
    owner : Identity
        The tracer's own process.

    Raises
    ------
    Denied, Unsupported, HostError
        Why there is none.
    """
    try:
        handed = from_named(handed_descriptors(os.environ))
        return open_programs(load(scope_here()) if handed is None else handed)
    except HostError as first:
        try:
            return open_events(owner)
        except HostError as second:
            raise type(second)(f"{first}; {second}") from second
