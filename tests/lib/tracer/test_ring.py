# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of the kernel's trace ring come apart into what was put in, and no bytes in their place do harm."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.errors import HostError
from whoneeds.tracer.ring import split_page

BEGIN_NS = 10**15
RECORD = st.tuples(st.integers(0, 2**40), st.integers(1, 60))


def encode(records, *, begin_ns=BEGIN_NS, lost=None, padding=True):
    """A page as the kernel writes it, by its own description of the layout: (delta, words) a record."""
    body = b""
    for number, (delta, words) in enumerate(records):
        if delta >= 1 << 27:  # more than fits beside the length: an extension of the time goes before
            body += struct.pack("=II", 30 | (delta & (1 << 27) - 1) << 5, delta >> 27)
            delta = 0
        content = struct.pack("=I", number) * words
        if words <= 28:
            body += struct.pack("=I", words | delta << 5) + content
        else:
            body += struct.pack("=II", delta << 5, 4 + len(content)) + content
    if padding:
        body += struct.pack("=I", 29)
    flags = 0 if lost is None else 1 << 31 | (0 if lost == "some" else 1 << 30)
    page = struct.pack("=QQ", begin_ns, len(body) | flags) + body
    return page + (struct.pack("=Q", lost) if isinstance(lost, int) else b"") + bytes(64)


@given(st.lists(RECORD, max_size=20), st.sampled_from((None, "some", 7)), st.booleans())
def test_what_was_put_in_comes_out(records, lost, padding):
    """Every record comes back with its time and content, and losses with their number where the kernel knows it."""
    page = encode(records, lost=lost, padding=padding)
    split = split_page(page)
    now, wanted = BEGIN_NS, []
    for number, (delta, words) in enumerate(records):
        now += delta
        wanted.append((now, struct.pack("=I", number) * words))
    assert [(at_ns, page[begin:end]) for at_ns, begin, end in split.places] == wanted
    assert split.lost == {None: 0, "some": 1, 7: 7}[lost]


def test_absolute_times_take_the_place_of_the_page_s():
    """A time stamp of its own sets the clock, but for the uppermost bits that it has no room for."""
    at_ns = 5 << 40 | 12345
    body = struct.pack("=II", 31 | (at_ns & (1 << 27) - 1) << 5, at_ns >> 27) + struct.pack("=II", 1, 0)
    (place,) = split_page(struct.pack("=QQ", 1 << 60, len(body)) + body).places
    assert place[0] == 1 << 60 & 31 << 59 | at_ns


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_any_bytes_are_refused_or_read_within_their_bounds(body, committed):
    """Whatever a page holds, it is refused, or every record of it lies within it."""
    page = struct.pack("=QQ", 0, committed) + body
    try:
        split = split_page(page)
    except HostError:
        return
    assert all(16 <= begin <= end <= len(page) for _, begin, end in split.places)


@pytest.mark.parametrize("page", [b"", bytes(15), encode([(1, 3)], padding=False)[:24]])
def test_a_page_that_is_cut_is_refused(page):
    """A page shorter than it says is an error that says so."""
    with pytest.raises(HostError, match="trace page"):
        split_page(page)
