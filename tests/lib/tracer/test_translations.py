# SPDX-License-Identifier: GPL-3.0-or-later
"""Translated conversations are read from the kernel's own table and events, by real sockets across real rules."""

import socket
import struct

import pytest
from crossing import CALL, CLIENT, DNAT, INSIDE, MASQUERADE, OUTSIDE, PORT, PUBLISHED, SERVE, SERVER, call, crossing
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.evidence import Gap, TranslationRecord
from whoneeds.tracer import clocks, conntrack
from whoneeds.tracer.namespaces import open_in_namespaces
from whoneeds.tracer.netlink import HEADER, split_messages
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.translations import Translations, open_to_hand_over


def forget_all(crossed):
    """Have the kernel forget everything that the router's namespace tracks."""
    ways = {crossed.inode("router"): [crossed.ways["router"]]}
    ((channel, _tracked),) = open_in_namespaces(ways, conntrack.open_channel)[0].values()
    with channel:
        channel.send(HEADER.pack(HEADER.size + 4, conntrack.DELETE, 0x5, 1, 0) + bytes(4))
        channel.recv(4096)


@pytest.fixture
def published():
    """A crossing whose router publishes the server's port and masquerades, with a client and a server that run."""
    with (
        crossing(DNAT, MASQUERADE) as made,
        made.running("server", SERVE) as server,
        made.running("client", CALL) as client,
    ):
        server.stdout.readline()
        yield made, client


def observe(translations, crossed):
    """Take one part in a sample; the rows so far."""
    at = clocks.now()
    observation = Observation("h", clocks.read_boot_id(), at)
    translations.look(observation, at, {crossed.inode(role): [crossed.ways[role]] for role in crossed.ways})
    return observation


def rows(observation):
    """What an observation would write of translations."""
    tables = observation.records(clocks.now())
    assert not [gap for gap in tables[Gap] if gap.source == "translation"]
    return tables[TranslationRecord]


@pytest.mark.root
def test_a_published_port_is_told_with_both_ends_as_they_are(published):
    """The table of the router's namespace gives the called address and the one that the call went on to."""
    crossed, client = published
    port = call(client, OUTSIDE, PUBLISHED)
    translations = Translations()
    (row,) = rows(observe(translations, crossed))
    translations.close()
    assert row.netns == str(crossed.inode("router"))
    assert (row.protocol, row.orig_addr, row.orig_port) == ("tcp", CLIENT, port)
    assert (row.resp_addr, row.resp_port) == (OUTSIDE, PUBLISHED)
    assert (row.new_orig_addr, row.new_orig_port) == (INSIDE, port)
    assert (row.new_resp_addr, row.new_resp_port) == (SERVER, PORT)
    assert row.source == "table"


@pytest.mark.root
def test_short_ones_are_told_by_events_once_a_namespace_is_known_to_translate(published):
    """After a look that found one, a conversation between two looks is told with its begin and its end."""
    crossed, client = published
    call(client, OUTSIDE, PUBLISHED)
    translations = Translations(every=1000)
    observation = observe(translations, crossed)
    port = call(client, OUTSIDE, PUBLISHED, "short")
    translations.read(observation, clocks.now())
    begun = [row for row in rows(observation) if row.orig_port == port]
    forget_all(crossed)
    translations.read(observation, clocks.now())
    ended = [row for row in rows(observation) if row.orig_port == port]
    translations.close()
    assert [row.source for row in begun + ended] == ["event", "event"]
    assert begun[0].first_ns == ended[0].first_ns
    assert begun[0].last_ns < ended[0].last_ns


@pytest.mark.root
def test_a_channel_that_was_handed_over_tells_without_any_look(published):
    """A tracer that may not read the table is told by a channel that somebody else opened for it."""
    crossed, client = published
    call(client, OUTSIDE, PUBLISHED)
    ways = {crossed.inode("router"): [crossed.ways["router"]]}
    ((_name, handed),) = open_in_namespaces(ways, open_to_hand_over)[0][crossed.inode("router")]
    translations = Translations(handed=[handed])
    at = clocks.now()
    observation = Observation("h", clocks.read_boot_id(), at)
    port = call(client, OUTSIDE, PUBLISHED, "short")
    translations.read(observation, clocks.now())
    translations.close()
    assert [(row.orig_port, row.new_resp_addr, row.source) for row in rows(observation)] == [(port, SERVER, "event")]


@pytest.mark.root
def test_nothing_is_opened_where_nothing_is_tracked(published):
    """No socket is opened in namespaces in which the kernel tracks nothing, and none of them is watched."""
    crossed, _client = published
    ways = {crossed.inode(role): [crossed.ways[role]] for role in crossed.ways}
    opened, refused = open_in_namespaces(ways, conntrack.open_channel)
    assert (opened, len(refused)) == ({}, 3)
    translations = Translations()
    assert not rows(observe(translations, crossed))
    assert not translations.is_watching_others


@pytest.mark.root
def test_what_goes_through_as_it_came_is_not_told():
    """A conversation that is tracked and not translated is in no row, and its namespace is not watched."""
    with crossing(DNAT) as crossed, crossed.running("server", SERVE) as server:
        server.stdout.readline()
        with crossed.running("client", CALL) as client:
            call(client, SERVER, PORT)
            translations = Translations()
            assert not rows(observe(translations, crossed))
            ways = {crossed.inode("router"): [crossed.ways["router"]]}
            ((channel, tracked),) = open_in_namespaces(ways, conntrack.open_channel)[0].values()
            channel.close()
            assert (tracked, translations.is_watching_others) == (1, False)


@pytest.mark.root
def test_a_large_table_is_picked_from_by_the_kernel(published):
    """Asked for translated entries alone, the kernel gives the same as a whole table does."""
    crossed, client = published
    call(client, OUTSIDE, PUBLISHED)
    call(client, SERVER, PORT)
    ways = {crossed.inode("router"): [crossed.ways["router"]]}
    ((channel, tracked),) = open_in_namespaces(ways, conntrack.open_channel)[0].values()
    with channel:
        whole = set(conntrack.list_translations(channel, tracked)[0])
        picked = conntrack.list_translations(channel, 10**6)[0]
    assert len(whole) == 2
    assert sorted(picked) == sorted(whole)


@pytest.mark.root
def test_a_watched_namespace_is_not_kept_alive(published):
    """A namespace that cannot be entered any more is no longer watched after the next sample."""
    crossed, client = published
    call(client, OUTSIDE, PUBLISHED)
    translations = Translations()
    observation = observe(translations, crossed)
    assert translations.is_watching_others
    translations.look(observation, clocks.now(), {})
    assert not translations.is_watching_others


def attribute(kind, value):
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def entry(family, src, dst, sport, dport):
    """A tuple as the kernel nests it."""
    kinds = (1, 2) if family == socket.AF_INET else (3, 4)
    ends = attribute(kinds[0], src) + attribute(kinds[1], dst)
    ports = attribute(1, b"\x06") + attribute(2, struct.pack(">H", sport)) + attribute(3, struct.pack(">H", dport))
    return attribute(0x8001, ends) + attribute(0x8002, ports)


def message(*parts):
    """A buffer with one message of the table."""
    body = bytes(4) + b"".join(parts)
    return HEADER.pack(HEADER.size + len(body), conntrack.NEW, 2, 1, 0) + body


def parse(buffer):
    """What is found in a buffer, decoded."""
    found = conntrack.parse_translations(buffer, split_messages(buffer).runs)
    return [conntrack.decode_translation(made) for _kind, made in found]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_both_families_are_read_in_either_form(family):
    """An entry is read the same in the usual form and with attributes in between, in both families."""
    texts = ("10.0.0.1", "10.0.0.2", "10.0.0.3") if family == socket.AF_INET else ("fd00::1", "fd00::2", "fd00::3")
    caller, called, pod = (socket.inet_pton(family, text) for text in texts)
    there = attribute(0x8001, entry(family, caller, called, 40000, 8080))
    back = attribute(0x8002, entry(family, pod, caller, 80, 40000))
    wanted = [("tcp", texts[0], 40000, texts[1], 8080, texts[0], 40000, texts[2], 80)]
    assert (
        parse(message(there, back)) == parse(message(attribute(3, bytes(4)), there, attribute(9, b"x"), back)) == wanted
    )
    mirror = attribute(0x8002, entry(family, called, caller, 8080, 40000))
    assert parse(message(there, mirror)) == []
    assert parse(message(there)) == []


@given(st.binary(max_size=200), st.integers(0, 120), st.integers(0, 255))
def test_no_message_can_harm_the_reader(noise, at, value):
    """Whatever bytes come, the reader returns entries that can be decoded, or none."""
    v4 = [socket.inet_aton(f"10.0.0.{last}") for last in (1, 2, 3)]
    there = attribute(0x8001, entry(socket.AF_INET, v4[0], v4[1], 40000, 8080))
    back = attribute(0x8002, entry(socket.AF_INET, v4[2], v4[0], 80, 40000))
    body = bytearray(bytes(4) + there + back + noise)
    body[at % len(body)] = value
    for buffer in (bytes(body), noise):
        for row in parse(HEADER.pack(HEADER.size + len(buffer), conntrack.NEW, 2, 1, 0) + buffer):
            assert row[0] in ("tcp", "udp")
