# SPDX-License-Identifier: GPL-3.0-or-later
"""A ring laid out as the kernel lays its own out: read whole, in order, and never beyond what was written."""

import mmap
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.tracer.bpf.ring import HEAD_BYTES, KernelRing

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Ring:
    """What the kernel does with a ring, done to a file in memory: both halves hold the same data."""

    def __init__(self, begin=0):
        self.file = os.memfd_create("ring")
        os.ftruncate(self.file, 2 * PAGE + 2 * SIZE)
        self.position = begin
        os.pwrite(self.file, struct.pack("=Q", begin), 0)
        self.tell(begin)
        self.reader = KernelRing(self.file, SIZE)

    def tell(self, position):
        """Say how far the writer has come."""
        os.pwrite(self.file, struct.pack("=Q", position), PAGE)

    def put(self, at, data):
        """Write bytes at a position, into both halves."""
        for number, byte in enumerate(data):
            for half in range(2):
                os.pwrite(self.file, bytes([byte]), 2 * PAGE + (at + number) % SIZE + half * SIZE)

    def add(self, content, flags=0):
        """Write a record behind the last one; where it begins."""
        at = self.position
        self.put(at, struct.pack("=II", len(content) | flags, 0) + content)
        self.position += HEAD_BYTES + (len(content) + 7 & ~7)
        self.tell(self.position)
        return at

    def head(self, at, word):
        """Change what is said of a record."""
        self.put(at, struct.pack("=I", word))

    @property
    def read(self):
        """How far the reader says that it has come."""
        return struct.unpack("=Q", os.pread(self.file, 8, 0))[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        os.close(self.file)


def record(number, length=24):
    """A record that no other is equal to."""
    return struct.pack("=I", number) * (length // 4)


@given(st.lists(st.lists(st.integers(0, 300), max_size=6), max_size=8), st.integers(0, 2**40))
def test_what_was_written_is_read_whole_and_in_order(rounds, begin):
    """Records of any length come back as they were, round after round, over the ring's end and far positions too."""
    with Ring(begin * 8) as ring:
        number = 0
        for lengths in rounds:
            wanted = [bytes([(number + index) % 256]) * length for index, length in enumerate(lengths)]
            number += len(lengths)
            for content in wanted:
                ring.add(content)
            assert ring.reader.take() == wanted
            assert ring.read == ring.position
        assert ring.reader.take() == []


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 1000), st.integers(1, 9))
def test_records_of_one_length_come_with_their_heads(rounds, begin, most):
    """Records that are all of one length come out as they lie, no more than asked for, over the ring's end too."""
    with Ring(begin * 32) as ring:
        number = 0
        for count in rounds:
            wanted = [record(number + index) for index in range(count)]
            number += count
            for content in wanted:
                ring.add(content)
            found = b""
            while True:
                piece = ring.reader.take_alike(24, most)
                assert len(piece) <= most * 32
                found += piece
                if not piece:
                    break
            assert [found[at + HEAD_BYTES : at + 32] for at in range(0, len(found), 32)] == wanted
            assert ring.read == ring.position


@pytest.mark.parametrize("busy", range(5))
def test_what_is_being_written_is_left_with_all_behind_it(busy):
    """A record that is not complete stops the reading before it, and is read with the rest once it is."""
    with Ring(8 * 500) as ring:
        places = [ring.add(record(number), BUSY if number == busy else 0) for number in range(5)]
        assert ring.reader.take() == [record(number) for number in range(busy)]
        assert ring.read == places[busy]
        assert ring.reader.take() == []
        assert ring.reader.take_alike(24, 100) == b""
        assert ring.read == places[busy]
        ring.head(places[busy], 24)
        assert ring.reader.take() == [record(number) for number in range(busy, 5)]


def without_heads(found):
    """What `take_alike` gave, as records one behind the other."""
    return b"".join(found[at + HEAD_BYTES : at + 32] for at in range(0, len(found), 32))


@pytest.mark.parametrize("busy", range(5))
def test_alike_records_before_one_that_is_being_written_are_taken(busy):
    """Of records of one length, those before the first that is not complete come at once, the others later."""
    with Ring(8 * 510) as ring:
        places = [ring.add(record(number), BUSY if number in (busy, 4) else 0) for number in range(5)]
        found = without_heads(ring.reader.take_alike(24, 100))
        assert found == b"".join(record(number) for number in range(busy))
        ring.head(places[busy], 24)
        ring.head(places[4], 24)
        found = without_heads(ring.reader.take_alike(24, 100))
        assert found == b"".join(record(number) for number in range(busy, 5))


def test_what_was_thrown_away_is_passed_over():
    """Records that the writer took back are no records, and what is behind them is read."""
    with Ring() as ring:
        for number in range(6):
            ring.add(record(number), DISCARDED if number % 2 else 0)
        assert ring.reader.take() == [record(number) for number in (0, 2, 4)]
        assert ring.read == ring.position


def test_a_ring_that_is_full_is_read_whole():
    """With every byte of the ring written, all of it is read, wherever it begins."""
    for begin in (0, 8, SIZE - 8, SIZE // 2):
        with Ring(begin) as ring:
            wanted = [record(number) for number in range(SIZE // 32)]
            for content in wanted:
                ring.add(content)
            assert ring.position - begin == SIZE
            assert without_heads(ring.reader.take_alike(24, 10**6)) == b"".join(wanted)
        with Ring(begin) as ring:
            for content in wanted:
                ring.add(content)
            assert ring.reader.take() == wanted


@pytest.mark.parametrize("lie", [0, 8, 31, SIZE, SIZE + 8, 10 * SIZE, 2**63, 2**64 - 1])
def test_a_writer_that_lies_about_its_place_leads_nobody_out_of_the_ring(lie):
    """However far the writer says that it is, before the reader too, no more than the ring is read."""
    for begin in (0, SIZE - 16, 3 * SIZE):
        with Ring(begin) as ring:
            ring.add(record(1))
            ring.tell(lie)
            found = ring.reader.take_alike(24, 10**6)
            assert len(found) <= SIZE
            assert ring.read <= begin + SIZE
        with Ring(begin) as ring:
            ring.add(record(1))
            ring.tell(lie)
            assert sum(map(len, ring.reader.take())) <= SIZE
            assert begin <= ring.read <= begin + SIZE


@pytest.mark.parametrize("length", [25, 32, 40, SIZE - 8, SIZE, 2**29, 2**30 - 1])
def test_a_record_that_lies_about_its_length_is_not_read(length):
    """A record that would reach beyond what was written stops the reading before it, and no byte beyond is given."""
    with Ring(SIZE - 40) as ring:
        ring.add(record(1))
        at = ring.add(record(2))
        ring.head(at, length)
        assert ring.reader.take() == [record(1)]
        assert ring.reader.take() == []
        assert ring.read == at
        assert ring.reader.take_alike(24, 10) == b""


@pytest.mark.parametrize("length", [0, 8, 16])
def test_a_record_that_says_to_be_shorter_is_no_alike_one(length):
    """Where all are of one length, a record of another stops the reading before it."""
    with Ring() as ring:
        ring.add(record(1))
        at = ring.add(record(2))
        ring.head(at, length)
        assert without_heads(ring.reader.take_alike(24, 10)) == record(1)
        assert ring.read == at


@given(st.binary(min_size=64, max_size=512), st.integers(0, 2 * SIZE // 8), st.integers(0, 600))
def test_any_bytes_end_the_reading_within_what_was_written(noise, begin, told):
    """Whatever lies in the ring, the reading ends, and gives nothing from beyond what was written."""
    for take in (lambda reader: reader.take(), lambda reader: [reader.take_alike(24, 10**6)]):
        with Ring(8 * begin) as ring:
            ring.put(8 * begin, noise)
            ring.put(8 * begin + told, b"\xee" * 64)  # beyond: must not show up
            ring.tell(8 * begin + told)
            found = take(ring.reader)
            assert sum(map(len, found)) <= told
            assert 8 * begin <= ring.read <= 8 * begin + told


def test_the_writer_s_pages_cannot_be_written_to():
    """The reader maps what is the kernel's so that no mistake can write there."""
    with Ring() as ring, pytest.raises(TypeError):
        ring.reader._writer[0] = 1


def test_a_map_that_is_too_small_is_an_error_and_leaves_nothing(tmp_path):
    """Where the kernel's map is shorter than said, opening the ring fails before anything is read."""
    file = os.memfd_create("ring")
    try:
        os.ftruncate(file, 3 * PAGE)
        with pytest.raises(ValueError, match="mmap"):
            KernelRing(file, SIZE)
    finally:
        os.close(file)
