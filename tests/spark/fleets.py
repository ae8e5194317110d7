# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fleet that the collector's tests are about, the random ones included, put into one store side by side.

Hosts and addresses get a number in their names, so that each fleet stays by itself as far as its own tests mean it to.
"""

import importlib
import inspect
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings

from whoneeds.model.evidence import SegmentHeader
from whoneeds.store import open_store
from whoneeds.store.columns import to_arrow
from whoneeds.store.session import TakenSegment

_TESTS = Path(__file__).parents[1] / "lib" / "collector"
_MODULES = ("test_line", "test_holders", "test_translation", "test_udp_flows", "test_flows_oracle")
#: Random fleets beside those that the tests make.
_MORE = 150
_V4 = re.compile(r"(?<![\d.])(?!127\.|0\.0\.0\.0|169\.254\.)(\d+)\.(\d+)\.(\d+)\.(\d+)(?![\d.])")


def gather_fleets() -> list[list[Any]]:
    """The fleets that the collector's tests hand to the line; the random ones are the same each time."""
    settings.register_profile(
        "fixed", derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck
    )
    settings.load_profile("fixed")
    sys.path.insert(0, str(_TESTS))
    line = importlib.import_module("line")
    run_line, found = line.run_line, []

    def gather(hosts: Any, *given: Any, **named: Any) -> Any:
        hosts = list(hosts)
        found.append(hosts)
        return run_line(hosts, *given, **named)

    line.run_line = gather
    more = importlib.import_module("test_flows_oracle").fleets()
    settings(max_examples=_MORE)(given(more)(lambda hosts: found.append(hosts)))()
    for name in _MODULES:
        module = importlib.import_module(name)
        for word, test in vars(module).items():
            if word.startswith("test_") and (hasattr(test, "hypothesis") or not inspect.signature(test).parameters):
                test()
    return found


def write_fleets(path: Path, fleets: list[list[Any]]) -> int:
    """Write fleets into a new store; the number of segments."""
    number = 0
    with open_store(path, create=True, write=True) as store:
        for fleet, hosts in enumerate(fleets):
            for host in hosts:
                taken = []
                for header, tables in host.segments:
                    number += 1
                    header = _rename(header, fleet)
                    made = {
                        record: to_arrow(record, [_rename(row, fleet) for row in rows], header.segment_id)
                        for record, rows in tables.items()
                        if rows
                    }
                    made[SegmentHeader] = to_arrow(SegmentHeader, [header])
                    taken.append(TakenSegment(f"{number:064x}", header.boot_id, header.sequence, made))
                if taken:
                    store.add_batch(f"f{fleet}-{host.name}", "2024-01-01", taken)
        store.commit()
    return number


def _rename(record: Any, fleet: int) -> Any:
    """The record with the fleet's number in hosts, identities and addresses."""
    changes: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str) and (field.name == "host" or field.name.endswith("_id")) and field.name != "boot_id":
            value = f"f{fleet}-{value}"
        elif isinstance(value, str) and field.name.endswith("_addr"):
            value = _move(value, fleet)
        elif field.name == "addresses":
            value = tuple(_move(one, fleet) for one in value)
        changes[field.name] = value
    return replace(record, **changes)


def _move(address: str, fleet: int) -> str:
    if address.startswith("fd00::"):
        return address.replace("fd00::", f"fd00:{fleet:x}::", 1)
    return _V4.sub(
        lambda found: (
            f"{found[1]}.{fleet % 256}.{(int(found[2]) * 16 + int(found[3]) + fleet // 256) % 256}.{found[4]}"
        ),
        address,
    )


def same_rows(one: pa.Table, other: pa.Table) -> list[str]:
    """What differs between two tables, in words; the first rows only."""
    # whether a column could be without a value, engines know or do not know; what counts is whether it is
    one, other = (rows.cast(pa.schema([field.with_nullable(True) for field in rows.schema])) for rows in (one, other))
    if one.schema != other.schema:
        return [f"columns: {one.schema} and {other.schema}"]
    if one.num_rows != other.num_rows:
        return [f"{one.num_rows} and {other.num_rows} rows", *_only_in(one, other)]
    return [] if one.equals(other) else _only_in(one, other)


def _only_in(one: pa.Table, other: pa.Table) -> list[str]:
    rows = [[repr(sorted(row.items())) for row in table.to_pylist()] for table in (one, other)]
    missing = [sorted(set(rows[0]) - set(rows[1]))[:3], sorted(set(rows[1]) - set(rows[0]))[:3]]
    return [f"{word}: {row}" for word, part in zip(("only DuckDB", "only Spark"), missing, strict=True) for row in part]
