# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames that few networks carry: tags of switches, and what access points send on."""

import struct

import pytest

from tests.lib.flow.frames_by_hand import ETHERNET, MACS, PPP_SERIAL, TYPE_IPV4, ipv4, meter, udp

QUESTION = ipv4(17, udp(4))
WLAN = b"\x08\x02" + bytes(22) + b"\xaa\xaa\x03\0\0\0" + TYPE_IPV4 + QUESTION


@pytest.mark.parametrize(
    ("frame", "link"),
    [
        pytest.param(MACS + b"\x88\xe7" + bytes(4) + MACS + TYPE_IPV4 + QUESTION, ETHERNET, id="provider backbone"),
        pytest.param(
            MACS + b"\x89\x26" + bytes(4) + b"\x81\x00\x00\x05" + TYPE_IPV4 + QUESTION, ETHERNET, id="VN-Tag and VLAN"
        ),
        pytest.param(b"\xff\x03\x02\x81" + b"\x00\x01\x01\x40" + QUESTION, PPP_SERIAL, id="MPLS over PPP"),
    ],
)
def test_a_packet_behind_a_rare_tag_is_metered(frame: bytes, link: int) -> None:
    """A packet behind a rare tag makes the flow that it makes without one."""
    (flow,) = meter([frame], link)
    assert (flow.protocol, flow.orig_addr, flow.orig_port, flow.resp_port) == ("udp", "10.0.0.1", 40000, 53)
    assert (flow.orig_packets, flow.orig_bytes, flow.tunnel) == (1, 4, None)


@pytest.mark.parametrize(
    "frame",
    [
        MACS + b"\x88\xe7" + bytes(4) + MACS + TYPE_IPV4 + QUESTION,
        MACS + b"\x89\x26" + bytes(4) + b"\x81\x00\x00\x05" + TYPE_IPV4 + QUESTION,
    ],
    ids=["provider backbone", "VN-Tag"],
)
def test_a_rare_tag_that_is_cut_short_makes_no_flow(frame: bytes) -> None:
    """A frame that was cut anywhere before the end of its ports makes no flow, and no error."""
    for kept in range(len(frame) - len(udp(4)) + 8):
        assert meter([frame], kept=kept) == []


@pytest.mark.parametrize("kind", [0x8200, 0x8310, 0x8370, 0x9000])
def test_frames_of_access_points_are_found_in_gre(kind: int) -> None:
    """A wireless frame that an access point sends on in GRE is opened."""
    (flow,) = meter([MACS + TYPE_IPV4 + ipv4(47, struct.pack(">HH", 0, kind) + WLAN)])
    assert (flow.protocol, flow.resp_port, flow.tunnel) == ("udp", 53, "gre")


def test_what_gre_carries_is_looked_at_where_its_type_is_not_known() -> None:
    """Of an unknown type in GRE, what is a whole IP packet is metered, and nothing else."""
    head = struct.pack(">HH", 0, 0x1234)
    (flow,) = meter([MACS + TYPE_IPV4 + ipv4(47, head + QUESTION)])
    assert (flow.protocol, flow.tunnel) == ("udp", "gre")
    assert meter([MACS + TYPE_IPV4 + ipv4(47, head + b"\x45\0\xff\xff" + QUESTION[4:])]) == []
    assert meter([MACS + TYPE_IPV4 + ipv4(47, head + bytes(40))]) == []
