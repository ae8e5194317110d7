# SPDX-License-Identifier: GPL-3.0-or-later
"""Community ID, version 1: a name that other tools give the same flow, so that records can be joined.

It is the SHA-1 of the ends and the protocol, in base 64. What is hashed fits into one block of that.
"""

import numpy as np

from whoneeds.flow.compiled import part, rare
from whoneeds.flow.compiled.packet import ICMP, ICMP6, SCTP, TCP, UDP

#: Numbers that the hash needs room for.
ROUNDS = 80
COMMUNITY_BYTES = 30
_HAS_PORTS = (TCP, UDP, SCTP, ICMP, ICMP6)
_ALPHABET = tuple(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_H0, _H1, _H2, _H3, _H4 = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
_K0, _K1, _K2, _K3 = 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6
_32_BITS = 0xFFFFFFFF


@rare
def put_community(out, at, row, rounds):
    """Write a flow's name; where it ends.

    Parameters
    ----------
    out : uint8 array
    at : int
    row : OUTCOME
    rounds : int64 array of ROUNDS
    """
    for number in range(16):
        rounds[number] = 0
    size = _put_what_is_hashed(rounds, row)
    _put_byte(rounds, size, 0x80)
    rounds[15] = 8 * size
    h0, h1, h2, h3, h4 = _sha1(rounds)
    rounds[0], rounds[1], rounds[2], rounds[3], rounds[4], rounds[5] = h0, h1, h2, h3, h4, 0
    out[at], out[at + 1] = ord("1"), ord(":")
    at += 2
    for group in range(7):
        three = 0
        for place in range(3 * group, 3 * group + 3):
            three = (three << 8) | ((rounds[place >> 2] >> (24 - 8 * (place & 3))) & 0xFF)
        for digit in range(4):
            out[at + digit] = _ALPHABET[(three >> (18 - 6 * digit)) & 63]
        at += 4
    out[at - 1] = ord("=")  # 20 bytes are one short of seven groups
    return at


@part
def _put_what_is_hashed(block, row):
    """Write a seed of 0, the ends in order, the protocol and the ports into the block; how many bytes that is."""
    is_swapped = False
    if not row["one_way"]:
        if row["orig_high"] != row["resp_high"]:
            is_swapped = row["orig_high"] > row["resp_high"]
        elif row["orig_low"] != row["resp_low"]:
            is_swapped = row["orig_low"] > row["resp_low"]
        else:
            is_swapped = row["orig_port"] > row["resp_port"]
    size = np.int64(2)
    for which in range(2):
        if (which == 0) != is_swapped:
            size = _put_address(block, size, row["orig_high"], row["orig_low"])
        else:
            size = _put_address(block, size, row["resp_high"], row["resp_low"])
    _put_byte(block, size, np.int64(row["protocol"]))
    size += 2
    if row["protocol"] in _HAS_PORTS:
        first, second = np.int64(row["orig_port"]), np.int64(row["resp_port"])
        if is_swapped:
            first, second = second, first
        for number in (first, second):
            _put_byte(block, size, number >> 8)
            _put_byte(block, size + 1, number & 0xFF)
            size += 2
    return size


@part
def is_version_4(high, low):
    """Whether an address of 16 bytes stands for one of 4."""
    return not high and low >> np.uint64(32) == np.uint64(0xFFFF)


@part
def _put_address(block, size, high, low):
    if not is_version_4(high, low):
        for place in range(8):
            _put_byte(block, size + place, np.int64((high >> np.uint64(56 - 8 * place)) & np.uint64(0xFF)))
            _put_byte(block, size + 8 + place, np.int64((low >> np.uint64(56 - 8 * place)) & np.uint64(0xFF)))
        return size + 16
    for place in range(4):
        _put_byte(block, size + place, np.int64((low >> np.uint64(24 - 8 * place)) & np.uint64(0xFF)))
    return size + 4


@part
def _put_byte(block, at, value):
    block[at >> 2] |= value << (24 - 8 * (at & 3))


@part
def _turn(value, by):
    """Turn 32 bits left."""
    return ((value << by) | (value >> (32 - by))) & _32_BITS


@part
def _sha1(words):
    """The hash of one block; its words are the first sixteen, and the rest is written."""
    for number in range(16, ROUNDS):
        words[number] = _turn(words[number - 3] ^ words[number - 8] ^ words[number - 14] ^ words[number - 16], 1)
    a, b, c, d, e = _H0, _H1, _H2, _H3, _H4
    for quarter in range(4):
        for number in range(20 * quarter, 20 * quarter + 20):
            if quarter == 0:
                mixed, constant = (b & c) | (~b & d), _K0
            elif quarter == 1:
                mixed, constant = b ^ c ^ d, _K1
            elif quarter == 2:
                mixed, constant = (b & c) | (b & d) | (c & d), _K2
            else:
                mixed, constant = b ^ c ^ d, _K3
            turned = (_turn(a, 5) + mixed + e + constant + words[number]) & _32_BITS
            a, b, c, d, e = turned, a, _turn(b, 30), c, d
    return (
        (_H0 + a) & _32_BITS,
        (_H1 + b) & _32_BITS,
        (_H2 + c) & _32_BITS,
        (_H3 + d) & _32_BITS,
        (_H4 + e) & _32_BITS,
    )
