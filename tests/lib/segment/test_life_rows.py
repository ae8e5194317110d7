# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of connections become rows that say the same, or are refused."""

import ipaddress
import sys

import made_lives
import pytest
import segments
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.errors import InvalidRecord
from whoneeds.model.evidence import SocketRecord
from whoneeds.model.schema import check_value, columns
from whoneeds.segment.life_rows import LifeReader
from whoneeds.segment.lives import (
    ACCEPTED,
    INITIATED,
    LIFE_BYTES,
    MORE_ACTORS,
    TOLD,
    UNKNOWN_COUNT,
    pack_lives,
)

HEADER = segments.header(10**12)
BOOT = segments.BOOT
COLUMNS = {column.name: column for column in columns(SocketRecord)}


def read(*records, order=sys.byteorder, ticks_per_s=100, header=HEADER):
    """The rows of some records."""
    return list(LifeReader(header, order, ticks_per_s).read(made_lives.block(*records)))


def one(**fields):
    """The one row of one record."""
    (row,) = read(made_lives.life(**fields))
    return row


def test_a_record_becomes_the_row_that_it_says():
    """Every field of a record is in the row's column of its meaning."""
    assert one(begun_ns=10**12 + 5, ended_ns=10**12 + 9) == SocketRecord(
        socket_id=f"h1/{BOOT}/4026531840/7", host="h1", netns="4026531840", protocol="tcp", local_addr="192.0.2.1",
        local_port=40001, remote_addr="192.0.2.9", remote_port=443, state="close", inode=0, uid=33,
        process_id=f"h1/{BOOT}/812/4711", owners=1, sent_bytes=5, received_bytes=11, first_ns=HEADER.opened_ns + 5,
        last_ns=HEADER.opened_ns + 9, samples=0, source="event", initiated=True, end="fin",
    )  # fmt: skip


@pytest.mark.parametrize("order", ["little", "big"])
def test_either_byte_order_is_read(order):
    """Records of a host with the other byte order say the same."""
    record = made_lives.life(order="<" if order == "little" else ">")
    assert read(record, order=order) == [one()]


@pytest.mark.parametrize(
    ("code", "word"), [(0, None), (1, "fin"), (2, "rst"), (3, "rejected"), (4, "unanswered")]
)  # fmt: skip
def test_ends_have_their_words(code, word):
    """Each way in which a connection can end has its word, and an end that was not seen has none."""
    assert one(end=code).end == word


@pytest.mark.parametrize(
    ("flags", "initiated"),
    [(INITIATED, True), (ACCEPTED, False), (0, None), (ACCEPTED | TOLD, False), (TOLD, None)],
)
def test_who_began_is_said_where_the_begin_was_seen(flags, initiated):
    """The end that called and the end that was called are told apart, and neither is guessed."""
    assert one(flags=flags).initiated is initiated


@pytest.mark.parametrize("actors", range(4))
def test_there_is_a_row_for_each_process_that_acted(actors):
    """Several processes give several rows of one socket, and nobody gives one row without an owner."""
    pids, starts = (10, 11, 12)[:actors], (10**9, 2 * 10**9, 3 * 10**9)[:actors]
    for flags, more in ((INITIATED, 0), (INITIATED | MORE_ACTORS, 1)):
        rows = read(made_lives.life(pids=pids, starts=starts, flags=flags))
        assert [row.process_id for row in rows] == (
            [f"h1/{BOOT}/{pid}/{100 * (number + 1)}" for number, pid in enumerate(pids)] or [None]
        )
        assert {row.owners for row in rows} == {actors + more}
        assert len({row.socket_id for row in rows}) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"end": 5}, {"end": 255}, {"protocol": 0}, {"protocol": 1}, {"protocol": 132}, {"actors": 4}, {"actors": 255},
        {"cookie": 0}, {"begun_ns": 10, "ended_ns": 9}, {"begun_ns": 1, "ended_ns": 0},
        {"begun_ns": 2**64 - 1, "ended_ns": 5}, {"begun_ns": 1, "ended_ns": 2**64 - 1}, {"ended_ns": 2**63},
    ],
)  # fmt: skip
def test_values_that_no_tracer_writes_are_refused(fields):
    """An unknown end or protocol, too many actors, no cookie, an end before the begin, or a time beyond 64 bits."""
    with pytest.raises(InvalidRecord, match="connection"):
        read(made_lives.life(), made_lives.life(**fields))


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, 0), (1, 1), (2**63 - 1, 2**63 - 1), (2**63, None), (UNKNOWN_COUNT - 1, None), (UNKNOWN_COUNT, None)],
)
def test_counts_that_no_column_holds_are_not_known(count, told):
    """A count beyond 63 bits is not known, and costs no more than itself."""
    row = one(sent=count, received=count)
    assert (row.sent_bytes, row.received_bytes) == (told, told)


def test_a_user_that_is_none_is_absent():
    """The number that stands for no user is none, and every other one is a user."""
    assert one(uid=2**32 - 1).uid is None
    assert (one(uid=0).uid, one(uid=2**32 - 2).uid) == (0, 2**32 - 2)


def test_a_begin_that_was_not_seen_leaves_the_end():
    """Where the begin is not known, first and last time are the end's."""
    row = one(begun_ns=0, ended_ns=10**12 + 9)
    assert (row.first_ns, row.last_ns) == (HEADER.opened_ns + 9,) * 2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"state": 7}, "close"), ({"state": 1}, "established"), ({"state": 12}, "new_syn_recv"),
        ({"state": 0}, "close"), ({"state": 2**32 - 1}, "close"), ({"protocol": 17, "state": 1}, "established"),
        ({"protocol": 17, "state": 7, "remote": bytes(16), "remote_port": 0}, "bound"),
    ],
)  # fmt: skip
def test_states_have_their_words(fields, word):
    """The kernel's states have the vocabulary's words, and one that is not known is closed."""
    assert one(**fields).state == word


@given(
    st.binary(min_size=16, max_size=16) | st.binary(min_size=4, max_size=4).map(lambda v4: bytes(10) + b"\xff\xff" + v4)
)
def test_addresses_are_in_their_canonical_spelling(raw):
    """Any 16 bytes are the text that Python's own library has for them, IPv4 mapped into IPv6 as IPv4."""
    address = ipaddress.ip_address(raw)
    wanted = str(address.ipv4_mapped or address)
    row = one(local=raw, remote=raw)
    assert (row.local_addr, row.remote_addr) == (wanted, wanted)
    assert str(ipaddress.ip_address(wanted)) == wanted


@pytest.mark.parametrize("nowhere", ["::", "0.0.0.0"])
def test_a_socket_without_a_peer_has_neither_address_nor_port(nowhere):
    """No address with port 0 is no peer; no address with a port, or an address with port 0, is one."""
    row = one(remote=nowhere, remote_port=0)
    assert (row.remote_addr, row.remote_port) == (None, None)
    assert (one(remote=nowhere, remote_port=5).remote_addr, one(remote="192.0.2.9", remote_port=0).remote_port) == (
        nowhere, 0,
    )  # fmt: skip


@given(st.lists(st.binary(min_size=LIFE_BYTES, max_size=LIFE_BYTES), min_size=1, max_size=4),
       st.sampled_from((0, 1, 6, 17)), st.sampled_from(("little", "big")),
       st.integers(1, 1_000_000), st.integers(-(2**63), 2**63 - 1))  # fmt: skip
def test_whatever_is_read_fits_its_columns(records, protocol, order, ticks_per_s, opened_ns):
    """Any records are refused, or are rows whose every value fits its column, whatever the segment says of its time."""
    made = []
    for record in records:  # most noise is refused for its first wrong byte: some of it is let pass that
        record = bytearray(record)
        record[84], record[86], record[87] = protocol, record[86] % 6, record[87] % 5
        made.append(bytes(record))
    header = segments.header(10**12, opened_ns=opened_ns)
    try:
        rows = list(LifeReader(header, order, ticks_per_s).read(pack_lives(b"".join(made), LIFE_BYTES, 0)))
    except InvalidRecord:
        return
    for row in rows:
        for name, column in COLUMNS.items():
            check_value(column, getattr(row, name))
