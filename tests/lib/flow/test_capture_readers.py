# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures that are damaged or no captures: what was readable is metered, and what was not is said with its offset."""

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lib.flow.forge import block, enhanced, ethernet, interface, on_wire, pcap, pcapng, section, spaced
from tests.lib.flow.forged_cases import CASES
from tests.lib.flow.side_by_side import SMALL
from whoneeds.flow import meter_capture

SENT = on_wire(spaced(packet for _at, packet in CASES["full, closed by the client"]), ethernet)
FILES = {"pcap": pcap(SENT, 1), "pcap, big-endian": pcap(SENT, 1, ">"), "pcapng": pcapng(SENT, 1)}
HEADS = {"pcap": 24, "pcap, big-endian": 24, "pcapng": len(section() + interface(1, resolution=9))}


def record_ends(name):
    """Where the records of a file end."""
    ends = [HEADS[name]]
    for each in SENT:
        ends.append(ends[-1] + len(each.data) + (16 if name != "pcapng" else 32 + -len(each.data) % 4))
    assert ends[-1] == len(FILES[name])
    return ends


def said_offsets(metered):
    """Offsets that the problems name."""
    assert all(re.search(r"byte \d+", text) for text in metered.problems), metered.problems
    return [int(re.search(r"byte (\d+)", text)[1]) for text in metered.problems]


@pytest.mark.parametrize("name", FILES)
def test_a_capture_that_ends_anywhere(name):
    """Wherever a capture is cut off, whole records are metered, and the one that is not is told by its offset."""
    ends = record_ends(name)
    for length in sorted({*range(HEADS[name], len(FILES[name]), 7), *ends, *(end + 1 for end in ends[:-1])}):
        metered = meter_capture([FILES[name][:length]], SMALL)
        list(metered)
        whole = [end for end in ends if end <= length]
        assert metered.packets == len(whole) - 1
        assert said_offsets(metered) == ([] if whole[-1] == length else [whole[-1]])


@pytest.mark.parametrize("name", FILES)
def test_a_length_that_cannot_be(name):
    """A record that claims two billion bytes is told by its offset, and what came before is kept."""
    content, at = bytearray(FILES[name]), record_ends(name)[5]
    place = at + (20 if name == "pcapng" else 8)
    content[place : place + 4] = b"\x7f\xff\xff\xff" if "big" in name else b"\xff\xff\xff\x7f"
    metered = meter_capture([bytes(content)], SMALL)
    rows = list(metered)
    assert said_offsets(metered)[0] == at
    assert metered.packets >= 5
    assert rows[0].orig_packets + rows[0].resp_packets >= 5


def test_a_block_that_is_not_whole_in_itself():
    """A block of pcapng whose two lengths differ is told by its offset."""
    content, at = bytearray(FILES["pcapng"]), record_ends("pcapng")[4]
    content[record_ends("pcapng")[5] - 4] ^= 0x40
    metered = meter_capture([bytes(content)], SMALL)
    list(metered)
    assert said_offsets(metered)[0] == at


def test_an_interface_that_was_not_described():
    """A packet of an interface that no block describes is told by its offset, and what came before is metered."""
    content = FILES["pcapng"] + enhanced(3, 0, SENT[0])
    metered = meter_capture([content], SMALL)
    (row,) = metered
    assert (said_offsets(metered), row.orig_packets + row.resp_packets) == ([len(FILES["pcapng"])], len(SENT))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\3\4 not a capture at all", block(0x0A0D0D0A, b"short")])
def test_what_is_no_capture(content):
    """What is no capture gives no flow, and one problem within its first bytes."""
    metered = meter_capture([content], SMALL)
    assert list(metered) == []
    (offset,) = said_offsets(metered)
    assert offset <= 8


@settings(max_examples=150)
@given(st.sampled_from(sorted(FILES)), st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_behind_a_good_head(name, tail, cut):
    """Whatever bytes follow, in whatever pieces, the meter comes to an end and keeps what was whole."""
    ends = record_ends(name)
    content = FILES[name][: ends[6]] + tail
    metered = meter_capture([content[:cut], content[cut:]], SMALL)
    rows = list(metered)
    assert sum(row.orig_packets + row.resp_packets for row in rows) >= 6
    assert metered.packets >= 6
    assert all(offset >= ends[6] for offset in said_offsets(metered))


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([1, 0, 9, 50, 101, 108, 113, 276]))
def test_any_bytes_in_a_frame(data, link_type):
    """Whatever bytes a frame holds, it is one packet, metered or skipped."""
    content = struct.pack("<IHHIiII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link_type)
    content += struct.pack("<IIII", 1_700_000_000, 0, len(data), len(data)) + data
    metered = meter_capture([content], SMALL)
    list(metered)
    assert (metered.packets, metered.problems) == (1, [])
