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
def has_right_checksum(data, packet):
    """Whether a transport header's checksum fits, with the packet's addresses, as its sender summed them up."""
    body, end = packet["body"], packet["body_end"]
    length = end - body
    # what stands before an IPv4 address is a sum of 0xFFFF, which is none
    total = _sum_of(packet["a_high"]) + _sum_of(packet["a_low"]) + _sum_of(packet["b_high"]) + _sum_of(packet["b_low"])
    total += packet["protocol"] + (length >> 16) + (length & 0xFFFF)
    return is_right(total + sum_words(data, body, end))


@part
def _sum_of(eight_bytes):
    """Sum of the four words of an address's half."""
    high, low = np.int64(eight_bytes >> np.uint64(32)), np.int64(eight_bytes & np.uint64(0xFFFFFFFF))
    return (high >> 16) + (high & 0xFFFF) + (low >> 16) + (low & 0xFFFF)
