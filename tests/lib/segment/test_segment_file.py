# SPDX-License-Identifier: GPL-3.0-or-later
"""A segment comes back as it was written, or not at all."""

import hashlib
import json
import zlib

import pytest
import segments
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whoneeds.model.errors import CorruptSegment, EvidenceError, InvalidRecord, LimitExceeded, UnknownSchema
from whoneeds.model.evidence import Gap, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.model.schema import columns, to_row
from whoneeds.segment.layout import FIRST_LINE
from whoneeds.segment.read import ReadLimits, read_segment
from whoneeds.segment.write import encode_segment, write_segment

CONTENT = b"".join(encode_segment(segments.header(), segments.tables()))
ONCE_PER_EXAMPLE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refuse(path, content):
    """Read a file that must be refused, and return the error."""
    path.write_bytes(content)
    with pytest.raises(EvidenceError) as caught:
        read_segment(str(path))
    return caught.value


def forge(*lines):
    """A segment of these lines whose digest is right: what a host with bad intentions can make."""
    body = FIRST_LINE + zlib.compress(b"".join(lines))
    return body + hashlib.sha256(body).digest()


def line(value):
    """A line of a segment's text."""
    return json.dumps(value).encode() + b"\n"


def head(**other):
    """The first line of a segment's text."""
    names = {
        "process": [column.name for column in columns(ProcessRecord)],
        "socket": [column.name for column in columns(SocketRecord)],
        "gap": [column.name for column in columns(Gap)],
    }
    own = dict(zip((column.name for column in columns(SegmentHeader)), to_row(segments.header()), strict=True))
    return {"header": own, "columns": names, **other}


def foot(process=0, socket=0, gap=0):
    """The last line of a segment's text."""
    return line({"rows": {"process": process, "socket": socket, "gap": gap}})


def test_what_was_written_is_read(tmp_path):
    """Header and rows come back equal, and the digest is that of the file."""
    path = write_segment(str(tmp_path), segments.header(), segments.tables(50))
    found = read_segment(path)
    assert found.header == segments.header()
    assert found.tables == segments.tables(50)
    content = (tmp_path / path).read_bytes()
    assert found.digest == content[-32:].hex() == hashlib.sha256(content[:-32]).hexdigest()


def test_the_same_rows_are_the_same_bytes():
    """A segment's bytes depend on nothing but its rows."""
    assert b"".join(encode_segment(segments.header(), segments.tables())) == CONTENT


def test_forged_segments_are_real_ones_otherwise(tmp_path):
    """The forger of these tests makes readable segments when it keeps to the rules."""
    (tmp_path / "s").write_bytes(forge(line(head()), foot()))
    assert read_segment(str(tmp_path / "s")).header == segments.header()


def test_every_flipped_bit_is_noticed(tmp_path):
    """Whichever single bit of a segment is flipped, it is refused."""
    path = tmp_path / "s"
    for bit in range(8 * len(CONTENT)):
        damaged = bytearray(CONTENT)
        damaged[bit // 8] ^= 1 << bit % 8
        refuse(path, damaged)


def test_every_truncation_is_noticed(tmp_path):
    """Wherever a segment is cut, it is refused as damaged."""
    path = tmp_path / "s"
    for length in range(len(CONTENT)):
        assert isinstance(refuse(path, CONTENT[:length]), CorruptSegment)


@ONCE_PER_EXAMPLE
@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 200), st.binary(max_size=200))
def test_every_splice_is_noticed(tmp_path, begin, length, other):
    """Whatever bytes take the place of others, a segment that is not the old one is refused."""
    spliced = CONTENT[:begin] + other + CONTENT[begin + length :]
    if spliced != CONTENT:
        refuse(tmp_path / "s", spliced)


@ONCE_PER_EXAMPLE
@given(st.binary(max_size=2000))
def test_noise_behind_a_right_digest_is_refused(tmp_path, noise):
    """A right digest over nonsense does not make a segment."""
    body = FIRST_LINE + noise
    refuse(tmp_path / "s", body + hashlib.sha256(body).digest())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@ONCE_PER_EXAMPLE
@given(st.lists(JSON, max_size=5), st.booleans())
def test_any_json_behind_a_right_digest_is_refused(tmp_path, values, with_head):
    """Lines of JSON that are no rows of the vocabulary are refused, with or without a right first line."""
    lines = [line(value) for value in values]
    refuse(tmp_path / "s", forge(line(head()), *lines) if with_head else forge(*lines))


def test_another_schema_is_named(tmp_path):
    """A segment of another schema number is refused by that number, in the first line or in the header."""
    error = refuse(tmp_path / "s", CONTENT.replace(b"segment 1\n", b"segment 2\n", 1))
    assert isinstance(error, UnknownSchema)
    assert "2" in error.found
    wrong = head()
    wrong["header"]["schema"] = 3
    assert isinstance(refuse(tmp_path / "s", forge(line(wrong), foot())), UnknownSchema)


def test_a_bomb_does_not_go_off(tmp_path):
    """A small file that would expand to a gigabyte is refused before it is held."""
    bomb = zlib.compressobj(9)
    squeezed = b"".join(bomb.compress(b"0" * (1 << 20)) for _ in range(1024)) + bomb.flush()
    body = FIRST_LINE + squeezed
    error = refuse(tmp_path / "s", body + hashlib.sha256(body).digest())
    assert isinstance(error, LimitExceeded)


def test_limits_hold(tmp_path):
    """A file, a text, a line or a number of rows beyond the reader's limits is refused by that limit."""
    path = tmp_path / "s"
    path.write_bytes(b"".join(encode_segment(segments.header(), segments.tables(3000))))
    for limits, word in (
        (ReadLimits(file_bytes=1000), "too large"),
        (ReadLimits(text_bytes=100_000), "expands"),
        (ReadLimits(rows=1000), "rows"),
        (ReadLimits(line_bytes=100), "long a line"),
    ):
        with pytest.raises(LimitExceeded, match=word):
            read_segment(str(path), limits)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("process_id", 5),
        ("local_port", "x"),
        ("state", "x"),
        ("host", "h" * 256),
        ("first_ns", 2**63),
        ("samples", None),
    ],
)
def test_values_outside_their_columns_are_refused(tmp_path, column, value):
    """One wrong value makes the segment unusable, however right its digest is."""
    row = list(to_row(segments.tables()[SocketRecord][0]))
    row[[found.name for found in columns(SocketRecord)].index(column)] = value
    error = refuse(tmp_path / "s", forge(line(head()), line(["socket", *row]), foot(socket=1)))
    assert isinstance(error, InvalidRecord)
    assert column in error.message


@pytest.mark.parametrize(
    "lines",
    [
        [], [line(head())], [foot()], [line(head()), foot(gap=1)], [line(head()), foot(), foot()],
        [line(head()), line(["flow"]), foot()], [line(head()), line([]), foot()],
        [line(head()), line([["gap"]]), foot()],
        [line(head(columns={"gap": ["host"]})), foot()], [line(head(columns={"x": []})), foot()],
        [line(head(more=1)), foot()], [line(head()), b"[NaN]\n", foot()], [line(head()), b"[" * 100_000, foot()],
        [line(head()), foot()[:-1]], [line(head()), b'{"rows":{"process":0,"socket":0,"gap":0}}'],
    ],
)  # fmt: skip
def test_texts_out_of_order_are_refused(tmp_path, lines):
    """A segment is one head, rows of its tables, and one foot that counts them."""
    refuse(tmp_path / "s", forge(*lines))


def test_conclusions_do_not_fit_into_a_segment():
    """A segment holds evidence only."""
    with pytest.raises(TypeError, match="SegmentHeader"):
        list(encode_segment(segments.header(), {SegmentHeader: [segments.header()]}))


def test_a_refusing_disk_leaves_nothing_behind(tmp_path):
    """If a segment cannot be written there is no part of it, and a segment that was there stays."""
    kept = write_segment(str(tmp_path), segments.header(1), segments.tables())
    with pytest.raises(TypeError):
        write_segment(str(tmp_path), segments.header(2), {Gap: ["not a gap"]})
    assert [str(path) for path in tmp_path.iterdir()] == [kept]
