# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows that are over as text: addresses, names, and whole lines of CSV.

Text is written into room that is handed in and large enough for the longest. In Python, the rows of a large capture
would take as long as all its packets.
"""

import numpy as np

from whoneeds.flow.compiled import entry, part, rare
from whoneeds.flow.compiled.community import COMMUNITY_BYTES, is_version_4, put_community
from whoneeds.flow.compiled.endings import OUTCOME
from whoneeds.flow.compiled.scan import DATA
from whoneeds.flow.compiled.table import NUMBER

#: Room for the text of one address, or of a name.
TEXT_BYTES = 40
#: Room for a word: its length, and its letters.
WORD_BYTES = 16
#: Where the words of a column begin in the table of words: those of a protocol by its number in IP, others by theirs in
#: the vocabulary.
PROTOCOL_WORDS, DIRECTION_WORDS, END_WORDS, HANDSHAKE_WORDS, CLOSED_BY_WORDS, TUNNEL_WORDS, ALL_WORDS = (
    0, 256, 272, 288, 304, 320, 336,
)  # fmt: skip
#: Longest line, without what is the same in each.
MOST_LINE_BYTES = 16 * 22 + 2 * TEXT_BYTES + COMMUNITY_BYTES + 6 * WORD_BYTES + 32
_COMMA, _RETURN, _NEWLINE, _ZERO, _MINUS = (np.uint8(ord(one)) for one in ",\r\n0-")
_DOT, _COLON, _A = (np.uint8(ord(one)) for one in ".:a")


@entry(OUTCOME, int, DATA, NUMBER)
def name_flows(done, count, texts, rounds):
    """Write the originator's and the responder's address and the name of each flow, each filled up with zeros."""
    for number in range(count):
        row, at = done[number], 3 * TEXT_BYTES * number
        put_address(texts, at, row["orig_high"], row["orig_low"])
        put_address(texts, at + TEXT_BYTES, row["resp_high"], row["resp_low"])
        put_community(texts, at + 2 * TEXT_BYTES, row, rounds)
    return 0


@entry(OUTCOME, int, DATA, int, int, DATA, DATA, NUMBER)
def write_lines(done, count, same, prefix_end, suffix_end, words, out, rounds):
    """Write flows as lines of CSV; how many bytes that is.

    Parameters
    ----------
    done : array of OUTCOME
    count : int
    same : uint8 array
        What stands before a flow's number in its identity, what stands behind it, and the columns that follow, as they
        are in every line.
    prefix_end, suffix_end : int
        Where the first two of them end.
    words : uint8 array
        Of WORD_BYTES each.
    out : uint8 array
    rounds : int64 array
        Room for a hash.
    """
    at = np.int64(0)
    for number in range(count):
        row = done[number]
        at = _put_identity(out, at, row["number"], same, prefix_end, suffix_end)
        at = _put(out, at, same, suffix_end, len(same))
        at = _put_word(out, at, words, PROTOCOL_WORDS + np.int64(row["protocol"]))
        at = put_address(out, at, row["orig_high"], row["orig_low"])
        at = put_number(out, _comma(out, at), np.int64(row["orig_port"]))
        at = put_address(out, _comma(out, at), row["resp_high"], row["resp_low"])
        at = put_number(out, _comma(out, at), np.int64(row["resp_port"]))
        at = _put_word(out, _comma(out, at), words, DIRECTION_WORDS + row["direction"])
        for value in (
            row["first_ns"], row["last_ns"], row["orig_packets"], row["resp_packets"], row["orig_bytes"],
            row["resp_bytes"], row["orig_ip_bytes"], row["resp_ip_bytes"], row["missed_bytes"],
        ):  # fmt: skip
            at = _comma(out, put_number(out, at, value))
        at = _put_word(out, at, words, END_WORDS + row["end"])
        at = _put_word(out, at, words, HANDSHAKE_WORDS + row["handshake"])
        at = _put_word(out, at, words, CLOSED_BY_WORDS + row["closed_by"])
        at = _comma(out, put_community(out, at, row, rounds))
        for vlan in (row["vlan"], row["inner_vlan"]):
            at = _comma(out, put_number(out, at, np.int64(vlan)) if vlan >= 0 else at)
        at = _put_word(out, at, words, TUNNEL_WORDS + row["tunnel"])
        if row["outer"] >= 0:
            at = _put_identity(out, at, row["outer"], same, prefix_end, suffix_end)
        out[at], out[at + 1] = _RETURN, _NEWLINE
        at += 2
    return at


@part
def _comma(out, at):
    out[at] = _COMMA
    return at + 1


@part
def _put(out, at, text, begin, end):
    for place in range(begin, end):
        out[at] = text[place]
        at += 1
    return at


@part
def _put_identity(out, at, number, same, prefix_end, suffix_end):
    at = put_number(out, _put(out, at, same, 0, prefix_end), number)
    return _put(out, at, same, prefix_end, suffix_end)


@part
def _put_word(out, at, words, number):
    """Write a word and a comma."""
    begin = WORD_BYTES * number + 1
    return _comma(out, _put(out, at, words, begin, begin + np.int64(words[begin - 1])))


@rare
def put_number(out, at, value):
    """Write a whole number; where it ends."""
    rest = np.uint64(value)
    if value < 0:
        out[at] = _MINUS
        at += 1
        rest = np.uint64(0) - rest
    digits, above = 1, rest // np.uint64(10)
    while above:
        digits += 1
        above //= np.uint64(10)
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = _ZERO + np.uint8(rest % np.uint64(10))
        rest //= np.uint64(10)
    return at + digits


@rare
def put_address(out, at, high, low):
    """Write an address as RFC 5952 has it: without the longest run of zeros, the first of equals; where it ends."""
    if is_version_4(high, low):
        for place in range(4):
            if place:
                out[at] = _DOT
                at += 1
            at = put_number(out, at, np.int64((low >> np.uint64(24 - 8 * place)) & np.uint64(0xFF)))
        return at
    begin, longest = _longest_zeros(high, low)
    place = 0
    while place < 8:
        if place == begin:
            out[at], out[at + 1] = _COLON, _COLON
            at += 2
            place += longest
            continue
        if place and place != begin + longest:
            out[at] = _COLON
            at += 1
        at = _put_hex(out, at, _group(high, low, place))
        place += 1
    return at


@part
def _group(high, low, place):
    half = high if place < 4 else low
    return np.int64((half >> np.uint64(48 - 16 * (place & 3))) & np.uint64(0xFFFF))


@part
def _longest_zeros(high, low):
    """Where the longest run of two or more groups of zeros begins, and how long it is; -1 and 0 if there is none."""
    found, longest, run = -1, 1, 0
    for place in range(8):
        run = 0 if _group(high, low, place) else run + 1
        if run > longest:
            found, longest = place - run + 1, run
    return found, (longest if found >= 0 else 0)


@part
def _put_hex(out, at, value):
    is_begun = False
    for shift in (12, 8, 4, 0):
        digit = np.uint8((value >> shift) & 15)
        if digit or is_begun or not shift:
            out[at] = _ZERO + digit if digit < 10 else _A + digit - 10
            at += 1
            is_begun = True
    return at
