# SPDX-License-Identifier: GPL-3.0-or-later
"""Fragments that the capture cut, and captures that come in one piece."""

import struct
import tracemalloc

from tests.lib.flow.frames_by_hand import ETHERNET, MACS, TYPE_IPV4, ipv4, meter, udp
from whoneeds.flow.captures import CaptureReader


def test_the_first_of_fragments_that_were_cut_is_a_packet() -> None:
    """Where the capture cut fragments short, the first counts with the length that its UDP header tells."""
    body = udp(2000)
    first, second = ipv4(17, body[:1480], 0x2000), ipv4(17, body[1480:], 1480 // 8)
    frames = [MACS + TYPE_IPV4 + part for part in (first, second)]
    (flow,) = meter(frames, kept=96)
    assert (flow.orig_port, flow.resp_port, flow.orig_packets) == (40000, 53, 1)
    assert (flow.orig_bytes, flow.orig_ip_bytes) == (2000, 1500)
    (flow,) = meter(frames)
    assert (flow.orig_packets, flow.orig_bytes, flow.orig_ip_bytes) == (1, 2000, 2028)


def test_a_first_fragment_that_was_cut_within_its_ports_makes_no_flow() -> None:
    """A first fragment of which less than its UDP header was kept belongs to no flow."""
    frame = MACS + TYPE_IPV4 + ipv4(17, udp(2000)[:1480], 0x2000)
    for kept in range(34, 42):
        assert meter([frame], kept=kept) == []


def test_a_capture_that_comes_in_one_piece_is_not_copied_again() -> None:
    """A reader that is handed a whole capture at once takes no memory in proportion to it."""
    record = struct.pack("<IIII", 0, 0, 60_000, 60_000) + bytes(60_000)
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, ETHERNET) + record * 500
    tracemalloc.start()
    try:
        count = sum(len(records.found) for records in CaptureReader([capture]))
        _now, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 500
    assert most_bytes < len(capture) // 2
