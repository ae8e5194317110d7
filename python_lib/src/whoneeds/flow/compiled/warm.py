# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking ahead: what the next packets will need of the flow table is fetched into the processor's cache.

On a busy link each packet belongs to another flow than the one before, and waiting for memory is most of what a packet
costs. The waits of packets that are looked at together overlap. Nothing is decided here: a packet that is not of the
most common form, or whose flow is not known yet, is left to the meter as it is.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.frames import ETHERNET, long_word, word
from whoneeds.flow.compiled.packet import TCP, UDP
from whoneeds.flow.compiled.table import MAPPED, place_of

#: Packets that are looked at together.
AHEAD = 32
_SHORTEST = 14 + 20 + 4


@part
def warm(data, records, begin, end, state, seed, places):
    """Touch what the table holds for some packets; a number without a meaning, so that the touching is not left out."""
    touched = np.int64(0)
    for number in range(begin, end):
        record = records[number]
        at = record["at"] + 14
        place = -1
        is_usual = record["link"] == ETHERNET and record["kept"] >= _SHORTEST
        if is_usual and data[at] == 0x45 and data[at - 2] == 8 and data[at + 9] in (TCP, UDP):
            place = _place(data, at, state.key, seed, state.heads)
        places[number - begin] = place
        if place >= 0:
            touched ^= state.heads[place]
    for number in range(end - begin):
        flow = state.heads[places[number]] if places[number] >= 0 else -1
        if flow >= 0:
            touched ^= state.flows[flow]["last_ns"] ^ state.flows[flow]["a_low"]
            touched ^= state.ends[2 * flow]["packets"] ^ state.ends[2 * flow]["start"]
            touched ^= state.ends[2 * flow + 1]["start"]
    return touched


@part
def _place(data, at, key, seed, heads):
    source, target = np.uint64(long_word(data, at + 12)), np.uint64(long_word(data, at + 16))
    source_port, target_port = word(data, at + 20), word(data, at + 22)
    if source > target or (source == target and source_port > target_port):
        source, target, source_port, target_port = target, source, target_port, source_port
    key[0], key[1], key[2], key[3] = np.uint64(0), MAPPED | source, np.uint64(0), MAPPED | target
    key[4] = np.uint64((np.int64(data[at + 9]) << 33) | (source_port << 16) | target_port)
    return place_of(key, seed, heads)
