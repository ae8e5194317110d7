# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends of connections packed on the host come back as they were, inside a segment too, or not at all."""

import dataclasses
import hashlib
import json
import os
import struct
import sys
import tracemalloc
import zlib

import made_lives
import pytest
import segments
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.collector.checks import check_segment
from whoneeds.model.errors import CorruptSegment, EvidenceError, InvalidRecord, LimitExceeded
from whoneeds.model.evidence import Gap, SegmentHeader, SocketRecord
from whoneeds.model.schema import columns, to_row
from whoneeds.segment.layout import FIRST_LINE
from whoneeds.segment.lives import LIFE_BYTES, LIFE_FIELDS, MAX_BLOCK, OFFSETS, LifeBlock, pack_lives, unpack_lives
from whoneeds.segment.read import ReadLimits, read_segment
from whoneeds.segment.write import encode_segment

HEADER = segments.header(10**12)
#: So many after the segment's opening, as time since boot.
AFTER_NS = 10**12 + 10**9
NOW_NS = HEADER.closed_ns


def test_the_places_of_fields_are_those_of_the_record():
    """What the kernel's programs write to lies where the record's layout has it, and one of a kind beside the other."""
    names = (
        "cookie", "begun_ns", "ended_ns", "sent", "received", "netns", "uid", "local", "remote", "local_port",
        "remote_port", "protocol", "flags", "end", "actors", "pids", "pids", "pids", "state", "starts", "starts",
        "starts",
    )  # fmt: skip
    parts = LIFE_FIELDS.replace("16s", "s")
    assert len(parts) == len(names)
    at, seen = 0, {}
    for name, code in zip(names, parts, strict=True):
        seen.setdefault(name, at)
        at += struct.calcsize("=" + ("16s" if code == "s" else code))
    assert seen == OFFSETS._asdict()
    assert at == LIFE_BYTES
    assert LIFE_BYTES % 8 == 0
    eights = {"cookie", "begun_ns", "ended_ns", "sent", "received", "starts"}
    assert all(place % 8 == 0 for name, place in seen.items() if name in eights)


@given(st.lists(st.binary(min_size=LIFE_BYTES, max_size=LIFE_BYTES), max_size=40), st.integers(0, 24))
def test_what_was_packed_comes_back(records, before):
    """Any records, each behind other bytes, come back one behind the other, and the bytes between them do not."""
    between = b"\xee" * before
    made = pack_lives(b"".join(between + record for record in records), before + LIFE_BYTES, before)
    assert made.rows == len(records)
    assert unpack_lives(made) == b"".join(records)


RECORDS = b"".join(made_lives.life(cookie=number) for number in range(1, 6))
PLANES = zlib.decompress(pack_lives(RECORDS, LIFE_BYTES, 0).packed)


def raw(rows, planes, *, behind=b"", cut=None):
    """A block that says what it likes."""
    return LifeBlock(rows, (zlib.compress(planes, 1) + behind)[:cut])


@pytest.mark.parametrize(
    ("block", "word"),
    [
        (raw(4, PLANES), "4 records"),
        (raw(6, PLANES), "6 records"),
        (raw(5, PLANES + b"\0"), "5 records"),
        (raw(5, PLANES[:-1]), "5 records"),
        (raw(5, PLANES, behind=b"x"), "5 records"),
        (raw(5, PLANES, cut=-1), "more"),
        (raw(5, PLANES, cut=20), "more"),
        (LifeBlock(5, b""), "more"),
        (LifeBlock(5, b"no zlib at all"), "does not decompress"),
        (raw(0, PLANES), "0 records"),
        (raw(5, b""), "0 bytes"),
    ],
)
def test_a_block_that_is_not_what_it_says_is_refused(block, word):
    """Another number of records, a cut, bytes behind, or no compressed bytes at all are a damaged block."""
    with pytest.raises(CorruptSegment, match=word):
        unpack_lives(block)


def test_a_block_that_swells_is_not_held():
    """Of a block that would expand to a quarter of a gigabyte no more is made than its records are."""
    bomb = zlib.compressobj(1)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(256)) + bomb.flush()
    tracemalloc.start()
    try:
        with pytest.raises(CorruptSegment):
            unpack_lives(LifeBlock(MAX_BLOCK, packed))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def encode(*blocks, header=HEADER, tables=None):
    """A whole segment with blocks."""
    return b"".join(encode_segment(header, segments.tables() if tables is None else tables, blocks))


def lives(count, *, first=1):
    """A block of so many ends within the segment's time."""
    return made_lives.block(
        *(made_lives.life(cookie=first + number, begun_ns=AFTER_NS, ended_ns=AFTER_NS + number)
          for number in range(count))
    )  # fmt: skip


def test_a_segment_with_blocks_is_read_and_accepted(tmp_path):
    """Rows of the text and rows of all blocks come back in order, and pass the controller's checks."""
    (tmp_path / "s").write_bytes(encode(lives(3), lives(2, first=9), tables=tables_now()))
    segment = read_segment(str(tmp_path / "s"))
    cookies = [row.socket_id.rsplit("/", 1)[1] for row in segment.tables[SocketRecord]]
    assert cookies == ["0", "1", "1", "2", "3", "9", "a"]
    check_segment(segment, NOW_NS)


def tables_now():
    """The usual rows, at the segment's own time."""
    return {
        record: [dataclasses.replace(row, first_ns=HEADER.opened_ns, last_ns=HEADER.closed_ns) for row in rows]
        for record, rows in segments.tables().items()
    }


def test_blocks_need_no_table_of_sockets(tmp_path):
    """A segment whose text has no rows of sockets, or no such table, gets those of its blocks."""
    for tables in ({}, {Gap: []}, {SocketRecord: []}):
        (tmp_path / "s").write_bytes(encode(lives(2), tables=tables))
        segment = read_segment(str(tmp_path / "s"))
        assert [row.source for row in segment.tables[SocketRecord]] == ["event", "event"]
        check_segment(segment, NOW_NS)


def test_a_connection_may_have_begun_long_before_the_segment(tmp_path):
    """Begin and end of a connection before the segment's opening are no reason to refuse it."""
    old = made_lives.life(begun_ns=5, ended_ns=10**12 - 1)
    (tmp_path / "s").write_bytes(encode(made_lives.block(old), tables={}))
    segment = read_segment(str(tmp_path / "s"))
    check_segment(segment, NOW_NS)
    (row,) = segment.tables[SocketRecord]
    assert (row.first_ns, row.last_ns) == (HEADER.opened_ns - 10**12 + 5, HEADER.opened_ns - 1)


CONTENT = encode(lives(3), lives(1, first=9))


def refuse(path, content):
    """Read a file that must be refused, and return the error."""
    path.write_bytes(content)
    with pytest.raises(EvidenceError) as caught:
        read_segment(str(path))
    return caught.value


def test_every_flipped_bit_is_noticed(tmp_path):
    """Whichever single bit of a segment with blocks is flipped, it is refused."""
    for bit in range(8 * len(CONTENT)):
        damaged = bytearray(CONTENT)
        damaged[bit // 8] ^= 1 << bit % 8
        refuse(tmp_path / "s", damaged)


def test_every_truncation_is_noticed(tmp_path):
    """Wherever a segment with blocks is cut, it is refused as damaged."""
    for length in range(len(CONTENT)):
        assert isinstance(refuse(tmp_path / "s", CONTENT[:length]), CorruptSegment)


def forge(foot, behind=b"", *, rows=()):
    """A segment with this last line and these bytes behind its text, whose digest is right."""
    own = dict(zip((column.name for column in columns(SegmentHeader)), to_row(HEADER), strict=True))
    names = {"socket": [column.name for column in columns(SocketRecord)]}
    lines = [{"header": own, "columns": names}, *(["socket", *row] for row in rows), foot]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    body = FIRST_LINE + zlib.compress(text) + behind
    return body + hashlib.sha256(body).digest()


def foot(blocks, rows=0, **other):
    """A last line that describes blocks."""
    said = {"byte_order": sys.byteorder, "ticks_per_s": 100, "blocks": blocks, **other}
    return {"rows": {"socket": rows}, "lives": said}


BLOCK = lives(3)
LENGTH = len(BLOCK.packed)


def test_what_is_forged_here_is_read_otherwise(tmp_path):
    """The forger of these tests makes readable segments when it keeps to the rules."""
    (tmp_path / "s").write_bytes(forge(foot([[3, LENGTH]]), BLOCK.packed))
    assert len(read_segment(str(tmp_path / "s")).tables[SocketRecord]) == 3
    (tmp_path / "s").write_bytes(forge(foot([])))
    assert read_segment(str(tmp_path / "s")).tables[SocketRecord] == []


@pytest.mark.parametrize(
    "said",
    [
        None, [], 5, "x", {}, {"blocks": [[3, LENGTH]]},
        *(foot([[3, LENGTH]], **other)["lives"] for other in (
            {"more": 1}, {"byte_order": "middle"}, {"byte_order": None}, {"byte_order": ["little"]},
            {"ticks_per_s": 0}, {"ticks_per_s": -100}, {"ticks_per_s": 1_000_001}, {"ticks_per_s": 100.0},
            {"ticks_per_s": True}, {"ticks_per_s": "100"}, {"ticks_per_s": 10**30},
        )),
        *(foot(blocks)["lives"] for blocks in (
            [[3, LENGTH - 1]], [[3, LENGTH + 1]], [[3, LENGTH], [1, 1]], [[3]], [3, LENGTH], [[3, LENGTH, 0]],
            [[0, LENGTH]], [[-3, LENGTH]], [[MAX_BLOCK + 1, LENGTH]], [[3.0, LENGTH]], [["3", LENGTH]],
            [[True, LENGTH]], [[3, LENGTH + 5], [3, -5]], [[3, 0], [3, LENGTH]], None, {}, "x", [], [[3, 10**40]],
            [None],
        )),
    ],
)  # fmt: skip
def test_a_last_line_that_lies_about_its_blocks_is_refused(tmp_path, said):
    """A description of the blocks that does not fit the bytes behind the text makes the segment a damaged one."""
    error = refuse(tmp_path / "s", forge({"rows": {"socket": 0}, "lives": said}, BLOCK.packed))
    assert isinstance(error, CorruptSegment)
    assert "blocks of connections" in error.message


@pytest.mark.parametrize(
    ("last", "behind"),
    [
        ({"rows": {"socket": 0}}, BLOCK.packed),
        ({"rows": {"socket": 0}, "more": 1}, b""),
        (foot([[3, LENGTH]], rows=3), BLOCK.packed),
        (foot([[2, LENGTH]]), BLOCK.packed),
        (foot([[4, LENGTH]]), BLOCK.packed),
        (foot([[3, LENGTH]]), bytes(LENGTH)),
        (foot([[1, 10], [2, LENGTH - 10]]), BLOCK.packed),
    ],
)
def test_bytes_that_are_not_the_blocks_described_are_refused(tmp_path, last, behind):
    """Bytes that no last line speaks of, other counts, and blocks cut elsewhere make the segment a damaged one."""
    assert isinstance(refuse(tmp_path / "s", forge(last, behind)), CorruptSegment)


def test_blocks_do_not_get_around_the_limits(tmp_path):
    """The limits of rows and of expansion hold for what is in blocks as for what is in the text."""
    path = tmp_path / "s"
    same = made_lives.block(*(made_lives.life(begun_ns=AFTER_NS, ended_ns=AFTER_NS),) * 40_000)
    said = forge(foot([[40_000, len(same.packed)]]), same.packed)
    assert len(same.packed) < 40_000 * LIFE_BYTES // 200
    assert "expands" in str(refuse(path, said))
    wide = ReadLimits(ratio=10_000)
    assert len(read_segment(str(path), wide).tables[SocketRecord]) == 40_000
    for limits, word in (
        (ReadLimits(ratio=10_000, rows=39_999), "rows"),
        (ReadLimits(ratio=10_000, text_bytes=40_000 * LIFE_BYTES - 1), "expands"),
    ):
        with pytest.raises(LimitExceeded, match=word):
            read_segment(str(path), limits)
    owners = made_lives.life(pids=(1, 2, 3), starts=(1, 2, 3), begun_ns=AFTER_NS, ended_ns=AFTER_NS)
    path.write_bytes(encode(made_lives.block(owners, owners), made_lives.block(owners), tables={}))
    assert len(read_segment(str(path), ReadLimits(rows=9)).tables[SocketRecord]) == 9
    for most in range(9):
        with pytest.raises(LimitExceeded, match="rows"):
            read_segment(str(path), ReadLimits(rows=most))


def test_a_bomb_in_a_block_does_not_go_off(tmp_path):
    """A block that says little and expands to much is refused, and so is one that says as much as it expands to."""
    planes = bytes(MAX_BLOCK * LIFE_BYTES)
    packed = zlib.compress(planes, 9)
    assert isinstance(refuse(tmp_path / "s", forge(foot([[1, len(packed)]]), packed)), CorruptSegment)
    assert isinstance(refuse(tmp_path / "s", forge(foot([[MAX_BLOCK, len(packed)]]), packed)), LimitExceeded)


def test_impossible_records_behind_a_right_digest_are_refused(tmp_path):
    """One record that the tracer cannot have written makes the segment unusable."""
    block = made_lives.block(made_lives.life(), made_lives.life(end=9))
    assert isinstance(refuse(tmp_path / "s", forge(foot([[2, len(block.packed)]]), block.packed)), InvalidRecord)


def test_the_writer_says_what_the_reader_needs(tmp_path):
    """The last line names the machine's byte order and clock, and rows of processes stay beside the blocks."""
    content = encode(lives(2))
    inflate = zlib.decompressobj()
    last = json.loads(inflate.decompress(content[len(FIRST_LINE) :]).splitlines()[-1])
    assert inflate.unused_data[:-32] == lives(2).packed
    assert last["lives"] == {
        "byte_order": sys.byteorder, "ticks_per_s": os.sysconf("SC_CLK_TCK"), "blocks": [[2, len(lives(2).packed)]],
    }  # fmt: skip
    assert last["rows"] == {"process": 1, "socket": 2, "gap": 1}


@given(st.binary(max_size=400), st.integers(1, 5))
def test_noise_in_a_block_is_refused(tmp_path_factory, noise, rows):
    """Any bytes in the place of a block, rightly described and under a right digest, are refused."""
    path = tmp_path_factory.getbasetemp() / "noise"
    refuse(path, forge(foot([[rows, len(noise)]]), noise))
