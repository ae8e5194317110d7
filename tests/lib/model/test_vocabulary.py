# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary keeps its promises: every column typed, documented and checked, and the page is not stale."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.model import errors
from whoneeds.model.errors import InvalidRecord, WhoneedsError
from whoneeds.model.evidence import Gap, SocketRecord
from whoneeds.model.schema import Column, check_value, columns, from_mapping, from_row, table_name, to_row
from whoneeds.model.vocabulary import CONCLUSIONS, EVIDENCE, render_page

RECORDS = EVIDENCE + CONCLUSIONS
PAGE = Path(__file__).parents[3] / "docs/vocabulary.md"

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def values_of(column: Column) -> st.SearchStrategy:
    """Legal values of a column."""
    free = TEXT.map(lambda text: text[: column.max_length])
    words = st.sampled_from(column.choices) if column.choices else free
    made = {
        "string": words,
        "int64": st.integers(-(2**63) + 1, 2**63 - 1),
        "float64": st.floats(allow_nan=False, allow_infinity=False),
        "bool": st.booleans(),
        "string[]": st.lists(words, max_size=4).map(tuple),
    }[column.type]
    return st.none() | made if column.nullable else made


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_is_a_documented_column(record):
    """Every field of every record is a column with a type, a sentence of documentation, and a unit where it has one."""
    found = columns(record)
    assert [column.name for column in found] == [field.name for field in dataclasses.fields(record)]
    for column in found:
        assert column.doc.endswith("."), column.name
        for suffix, unit in (("_ns", "ns"), ("_s", "s"), ("_bytes", "bytes"), ("_share", "share")):
            if column.name.endswith(suffix):
                assert column.unit == unit, column.name


def test_tables_are_told_apart_by_name():
    """No two records share a table name."""
    assert len({table_name(record) for record in RECORDS}) == len(RECORDS)


def test_the_page_is_what_the_records_say():
    """docs/vocabulary.md equals what the records render to (write it with: make vocabulary)."""
    assert PAGE.read_text(encoding="utf-8") == render_page()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_come_back_equal(record, data):
    """A record turned into a row and back is equal, whatever legal values it holds."""
    made = record(**{column.name: data.draw(values_of(column), label=column.name) for column in columns(record)})
    names = [column.name for column in columns(record)]
    assert from_row(record, names, to_row(made)) == made
    shuffled = data.draw(st.permutations(names))
    assert from_row(record, shuffled, [getattr(made, name) for name in shuffled]) == made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("protocol", "icmp"), ("protocol", None), ("local_port", "80"), ("local_port", True), ("local_port", 2**63),
        ("local_port", 1.0), ("netns", "n" * 33), ("state", "ESTABLISHED"), ("socket_id", "\ud800"),
        ("local_addr", b"127.0.0.1"),
    ],
)  # fmt: skip
def test_values_outside_their_column_are_refused(name, value):
    """A value of the wrong type, length, set or range is refused by the name of its column."""
    column = next(column for column in columns(SocketRecord) if column.name == name)
    with pytest.raises(InvalidRecord, match=name):
        check_value(column, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_floats_are_finite(value):
    """No number of the vocabulary is infinite or not a number."""
    with pytest.raises(InvalidRecord):
        check_value(Column("x", "float64", False, "X.", None, None, 0), value)


def test_missing_unknown_and_repeated_columns_are_refused():
    """A row has each of its columns exactly once."""
    whole = {"host": "h", "source": "s", "reason": "late", "detail": "", "first_ns": 0, "last_ns": 1, "lost": None}
    assert from_mapping(Gap, whole) == Gap(**whole)
    with pytest.raises(InvalidRecord, match="missing"):
        from_mapping(Gap, {name: value for name, value in whole.items() if name != "lost"})
    with pytest.raises(InvalidRecord, match="unknown"):
        from_mapping(Gap, {**whole, "more": 1})
    with pytest.raises(InvalidRecord):
        from_row(Gap, [*whole, "host"], [*whole.values(), "h"])


def test_an_undocumented_field_is_no_column():
    """A record class with a field that is not documented is refused when its columns are asked for."""
    bare = dataclasses.make_dataclass("Bare", [("count", int)], frozen=True)
    with pytest.raises(TypeError, match=r"Bare\.count"):
        columns(bare)


def test_errors_say_what_to_do():
    """An error carries what was expected, what was found and what to do as fields and in its text."""
    error = errors.SettingsError("period_s", expected="a number", found="'x'", remedy="correct it")
    assert (error.expected, error.found, error.remedy) == ("a number", "'x'", "correct it")
    assert str(error) == "period_s; expected a number; found 'x'; correct it"


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    """Every error class of the module stands in the drawing at its top, and hangs from the root."""
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert all(issubclass(item, WhoneedsError) for item in classes)
    assert all(item.__name__ in errors.__doc__ for item in classes)
