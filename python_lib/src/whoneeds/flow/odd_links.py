# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames of link types that the meter does not read by itself: scapy knows some two hundred more.

Slow, a frame at a time; for captures that are rare.
"""

from typing import Any

import numpy as np

from whoneeds.flow.compiled.frames import RAW
from whoneeds.flow.compiled.scan import RECORD


def find_packets(data: Any, found: Any) -> tuple[Any, Any, int]:
    """The IP packets within frames, as records of the raw link type.

    Parameters
    ----------
    data : uint8 array
    found : array of RECORD
        All of one link type.

    Returns
    -------
    data : uint8 array
    found : array of RECORD
    left_out : int
        Frames in which scapy found no IP packet, or whose link type it does not know either.
    """
    from scapy.config import conf
    from scapy.layers import all as _layers  # noqa: F401 - registers what it knows of link types
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    made, records = bytearray(), np.zeros(len(found), RECORD)
    count = 0
    for record in found:
        link = conf.l2types.num2layer.get(int(record["link"]))
        if link is None:
            continue
        begin, kept = int(record["at"]), int(record["kept"])
        try:
            frame = link(bytes(data[begin : begin + kept]))
            inner = frame.getlayer(IP) or frame.getlayer(IPv6)
        except Exception:  # noqa: S112 - a dissector of scapy may raise anything on a hostile frame
            continue
        if inner is None or not inner.original:
            continue
        content = inner.original
        records[count]["at"], records[count]["kept"] = len(made), len(content)
        records[count]["wire"] = len(content) + int(record["wire"]) - kept
        records[count]["time_ns"], records[count]["link"] = record["time_ns"], RAW
        made += content
        count += 1
    return np.frombuffer(bytes(made) or b"\0", np.uint8), records[:count], len(found) - count
