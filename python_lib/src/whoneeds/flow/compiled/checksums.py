# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksums of IP, TCP, UDP and ICMP."""

import numpy as np

from whoneeds.flow.compiled import part, rare
from whoneeds.flow.compiled.frames import word


@rare
def sum_words(data, at, end):
    """Sum of the 16-bit words from one place to another; an odd byte counts as the upper half of a word."""
    total = 0
    while at + 1 < end:
        total += word(data, at)
        at += 2
    if at < end:
        total += np.int64(data[at]) << 8
    return total


@part
def is_right(total):
    """Whether a sum over data and checksum says that all is right."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


@part
def has_right_checksum(data, body, end, protocol, family, header):
    """Whether a transport header's checksum fits; the addresses are read from the IP header again."""
    length = end - body
    first, last = (12, 20) if family == 4 else (8, 40)
    total = sum_words(data, header + first, header + last)
    return is_right(total + protocol + (length >> 16) + (length & 0xFFFF) + sum_words(data, body, end))
