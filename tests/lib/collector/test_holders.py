# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process was called while it held a socket."""

import duckdb
import ibis
import pyarrow as pa
import pytest

from whoneeds.collector.owners import find_holders

_PROCESSES = pa.schema(
    [("process_id", pa.string()), ("segment_id", pa.string()), ("name", pa.string()), ("uid", pa.int64()),
     ("last_ns", pa.int64()), ("pid", pa.int64()), ("start_ticks", pa.int64())]
)  # fmt: skip
_SOCKETS = pa.schema(
    [("socket_id", pa.string()), ("process_id", pa.string()), ("segment_id", pa.string()), ("last_ns", pa.int64()),
     ("remote_addr", pa.string()), ("remote_port", pa.int64())]
)  # fmt: skip
PROCESS = "h/b/7/9"


def name_at(names, held):
    """The application of a process that held a socket until some time, by its names and until when it had each."""
    processes = [
        {"process_id": PROCESS, "segment_id": segment, "name": name, "uid": 0, "last_ns": last_ns, "pid": 7,
         "start_ticks": 9}
        for segment, name, last_ns in names
    ]  # fmt: skip
    segment, last_ns = held
    sockets = [
        {"socket_id": "s", "process_id": PROCESS, "segment_id": segment, "last_ns": last_ns,
         "remote_addr": "10.0.0.1", "remote_port": 80}
    ]  # fmt: skip
    engine = duckdb.connect()
    tables = []
    for name, schema, rows in (("sockets", _SOCKETS, sockets), ("processes", _PROCESSES, processes)):
        engine.register(name, pa.Table.from_pylist(rows, schema=schema))
        tables.append(ibis.table(ibis.Schema.from_pyarrow(schema), name=name))
    sql = ibis.to_sql(find_holders(*tables), dialect="duckdb")
    (row,) = engine.sql(sql).to_arrow_table().to_pylist()
    return row["app"]


@pytest.mark.parametrize(
    ("held", "name"),
    [
        (("1", 50), "shell"),  # before it executed the first program
        (("1", 100), "shell"),
        (("1", 150), "one"),
        (("1", 250), "two"),
        (("1", 400), "two"),  # beyond the last that was told of it
        (("2", 500), "two"),
        (("3", 600), "two"),  # in a segment that tells nothing of it
    ],
)
def test_a_name_belongs_to_the_time_in_which_a_process_had_it(held, name):
    """Of several names in one segment that counts which the process had when the holding ended."""
    names = [("1", "shell", 100), ("1", "one", 200), ("1", "two", 300), ("2", "two", 550)]
    assert name_at(names, held) == name
