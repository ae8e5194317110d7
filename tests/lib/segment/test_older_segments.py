# SPDX-License-Identifier: GPL-3.0-or-later
"""Segments of older tracers are read: a fleet's hosts are not all updated in one minute."""

import json
from pathlib import Path

import pytest

from whoneeds.model.errors import InvalidRecord
from whoneeds.model.evidence import SocketRecord
from whoneeds.model.schema import columns, table_name
from whoneeds.segment import read
from whoneeds.segment.read import read_segment

OLDER = sorted((Path(__file__).parent / "older").glob("*.seg"))


def listed(value):
    """Lists where JSON cannot hold tuples."""
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_segments_of_older_tracers_are_read(path):
    """Each value is what that version said, and None in columns that it did not have."""
    said = json.loads(path.with_suffix(".json").read_text())
    segment = read_segment(str(path))
    found = {table_name(record): [vars(row) for row in rows] for record, rows in segment.tables.items()}
    for table, rows in [*said["tables"].items(), ("segment", [said["segment"]])]:
        given = [vars(segment.header)] if table == "segment" else found[table]
        assert len(given) == len(rows) == 1
        for name, value in given[0].items():
            assert listed(value) == rows[0].get(name), (table, name)
        assert set(rows[0]) <= set(given[0])


def test_older_segments_lack_something():
    """The oldest one was written before columns of sockets, processes and of the header itself."""
    said = json.loads(OLDER[0].with_name("before-events.json").read_text())
    assert "capture_digest" not in said["segment"]
    assert "parent_id" not in said["tables"]["process"][0]
    assert "end" not in said["tables"]["socket"][0]


def test_only_what_may_be_absent_may_be_missing():
    """A column that every row has must be there, one that is not known is refused, and so is one that comes twice."""
    every = [column.name for column in columns(SocketRecord)]
    for names in (["host", *[name for name in every if name != "local_port"]], [*every, "more"], [*every, every[-1]],
                  [name for name in every if name != "local_port"]):  # fmt: skip
        with pytest.raises(InvalidRecord, match="columns of socket"):
            read._read_head({"header": json.loads(OLDER[0].with_suffix(".json").read_text())["segment"],
                             "columns": {"socket": names}})  # fmt: skip
