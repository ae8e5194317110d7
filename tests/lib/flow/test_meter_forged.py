# SPDX-License-Identifier: GPL-3.0-or-later
"""The meter against its oracle, on forged captures of every kind."""

import struct

import pytest
from scapy.layers.dot11 import Dot11, RadioTap
from scapy.layers.l2 import LLC, SNAP
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, PcapWriter

from tests.lib.flow.forge import (
    BEGIN_NS,
    FRAMES,
    MS,
    S,
    Talk,
    block,
    datagram,
    enhanced,
    ethernet,
    interface,
    on_wire,
    pcap,
    pcapng,
    section,
    spaced,
)
from tests.lib.flow.forged_cases import CASES
from tests.lib.flow.side_by_side import SMALL, by_meter, by_oracle, difference, of_rows
from whoneeds.flow import meter_capture


def assert_agree(content):
    """Meter and oracle say the same of a capture, and something."""
    told = by_meter([content])
    assert difference(told, by_oracle(content)) == []
    return told


@pytest.mark.parametrize("name", CASES)
def test_every_conversation(name):
    """The meter's flows of a forged conversation are the oracle's."""
    assert_agree(pcap(on_wire(CASES[name])))


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame(name):
    """A conversation is the same in whatever frames it travels, but for the VLANs, over both versions of IP."""
    link_type, frame = FRAMES[name]
    told = []
    for ends in ({}, {"client": "2001:db8::1", "server": "2001:db8::2"}):
        talk = Talk(**ends)
        timed = spaced([*talk.opening(), talk.say("c", "PA", bytes(9)), *talk.closing()])
        (flow,) = assert_agree(pcap(on_wire(timed, frame), link_type))
        told.append((flow["packets"], flow["bytes"], flow["vlans"]))
    vlans = {"VLAN": (7, None), "QinQ": (100, 7)}.get(name, (None, None))
    assert told == [((5, 3), (9, 0), vlans)] * 2


def _talk():
    talk = Talk()
    return [*talk.opening(), talk.say("c", "PA", bytes(500)), talk.say("s", "PA", bytes(1400)), *talk.closing()]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [True, False])
def test_every_pcap(order, nano):
    """Both byte orders and both resolutions of pcap are read to the nanosecond that they hold."""
    sent = [each._replace(time_ns=each.time_ns + 1234) for each in on_wire(spaced(_talk()), ethernet)]
    (flow,) = assert_agree(pcap(sent, 1, order, nano))
    assert flow["first_ns"] == BEGIN_NS + (1234 if nano else 1000)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("resolution", [None, 3, 6, 9, 10, 0x80 | 10, 0x80 | 30])
def test_every_resolution_of_pcapng(order, resolution):
    """Every resolution of pcapng, decimal or binary, is read in both byte orders."""
    sent = on_wire(spaced(_talk(), step_ms=125))
    assert_agree(pcapng(sent, order=order, resolution=resolution))


def test_pcapng_with_several_interfaces_and_sections():
    """Interfaces, blocks of other kinds and a section of the other byte order are each read as what they are."""
    raw, framed = on_wire(spaced(_talk()[:4])), on_wire(spaced(_talk()[4:], 4), ethernet)
    made = section("<") + interface(101, "<", 6) + interface(1, "<", 9) + block(0x0BAD, b"whatever", "<")
    for number, sent, per_s in [(0, raw, 10**6), (1, framed[:2], 10**9)]:
        for each in sent:
            made += enhanced(number, each.time_ns * per_s // S, each, "<", struct.pack("<HHIHH", 2, 4, 1, 0, 0))
    made += block(5, struct.pack("<III", 0, 0, 0), "<") + section(">") + interface(1, ">", None)
    for each in framed[2:]:
        made += enhanced(0, each.time_ns // 1000, each, ">")
    (flow,) = by_meter([made])  # scapy reads one section only
    (expected,) = by_oracle(pcap(on_wire(spaced(_talk()))))
    assert flow == expected


def test_pcapng_with_an_offset_of_time():
    """The offset of an interface's times is added."""
    made = section() + interface(101, resolution=9, offset_s=1_700_000_000)
    for each in on_wire(spaced(_talk())):
        made += enhanced(0, each.time_ns - BEGIN_NS, each)
    (flow,) = by_meter([made])
    assert (flow["first_ns"], flow["last_ns"]) == (BEGIN_NS, BEGIN_NS + 7 * MS)


def test_files_that_scapy_writes(tmp_path):
    """Files by scapy's own writers are read as what they are."""
    packets = [Raw(bytes(packet)) for packet in _talk()]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number
    with PcapWriter(str(tmp_path / "a.pcap"), linktype=101) as writer:
        writer.write(packets)
    frames = [Raw(ethernet(packet)) for packet in _talk()]
    for number, packet in enumerate(frames):
        packet.time = 1_700_000_000 + number
    with PcapNgWriter(str(tmp_path / "b.pcapng")) as writer:
        writer.linktype = 1
        writer.write(frames)
    for name in ("a.pcap", "b.pcapng"):
        (flow,) = assert_agree((tmp_path / name).read_bytes())
        assert (flow["packets"], flow["bytes"]) == ((5, 4), (500, 1400))


def test_odd_frames_go_through_scapy():
    """Frames of a radio, which the meter does not know itself, give their flows all the same."""

    def radio(packet):
        head = RadioTap() / Dot11(type=2, subtype=0, FCfield=1, addr1="02:00:00:00:00:01", addr2="02:00:00:00:00:02")
        return bytes(head / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=0x0800) / Raw(bytes(packet)))

    (flow,) = assert_agree(pcap(on_wire(spaced(_talk()), radio), 127))
    assert flow["packets"] == (5, 4)


@pytest.mark.parametrize("snap", [68, 96, 200])
def test_frames_cut_short(snap):
    """Of frames whose end was not captured the headers tell how much was sent, and the rest is missed."""
    (flow,) = assert_agree(pcap(on_wire(spaced(_talk()), ethernet, snap), 1))
    assert (flow["bytes"], flow["missed"]) == ((500, 1400), 1900)


def test_frames_too_short_to_say_anything():
    """Frames that end within their headers count as skipped, and the others are metered."""
    good = on_wire(spaced(_talk()), ethernet)
    bad = [each._replace(data=each.data[:count]) for each in good[:1] for count in (0, 5, 13, 14, 20, 33, 34, 40, 53)]
    metered = meter_capture([pcap([*bad, *good], 1)], SMALL)
    (flow,) = of_rows(list(metered))
    assert (flow["packets"], metered.packets, metered.skipped) == ((5, 4), 18, 9)


def test_a_capture_in_any_pieces():
    """Where a capture is cut into pieces changes nothing, down to single bytes."""
    content = pcapng(on_wire([each for name in list(CASES)[:30] for each in CASES[name]]))
    whole = list(meter_capture([content], SMALL))
    assert list(meter_capture((content[at : at + 1] for at in range(len(content))), SMALL)) == whole
    assert list(meter_capture([b"", content[:7], b"", content[7:1000], content[1000:]], SMALL)) == whole


def test_many_flows_at_once():
    """Hundreds of conversations that overlap are each told apart."""
    timed = []
    for number in range(200):
        talk = Talk(client=f"10.1.{number // 50}.{number % 50}", client_port=40000 + number % 7)
        packets = [*talk.opening(), talk.say("c", "PA", bytes(number % 50 + 1)), *talk.closing()]
        timed += spaced(packets, number * 0.3)
        timed.append((number, datagram(f"10.2.{number // 50}.{number % 50}", 41000, "10.0.0.2", 53)))
    assert len(assert_agree(pcap(on_wire(sorted(timed, key=lambda each: each[0]))))) == 400
