# SPDX-License-Identifier: GPL-3.0-or-later
"""Services by who uses them, against a loop over all uses."""

import ibis
import pytest
from hypothesis import HealthCheck, given, settings
from uses import USES, instances_of

from whoneeds.analysis.consumers import count_consumers
from whoneeds.model.conclusions import Dependency, ServiceUse
from whoneeds.store.columns import to_arrow


def known(values):
    """The one value that all known ones are, or None."""
    found = set(values) - {None}
    return found.pop() if len(found) == 1 else None


def total(values):
    """The sum of what is known, or None."""
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def loop(uses, kinds, level):
    """The same by loops."""
    groups = {}
    for use in uses:
        place = (use.resp_host, use.resp_host or use.resp_addr)
        key = {"service": (use.protocol, use.port), "place": (use.protocol, use.port, *place), None: ()}[level]
        groups.setdefault(key, []).append(use)
    for key, rows in groups.items():
        yield (
            *key, known(row.resp_app for row in rows), len({row.app for row in rows}),
            len({row.app for row in rows if kinds[row.app, row.protocol, row.port] == "static"}),
            len({row.host for row in rows}), len({row.user for row in rows} - {None}) or None,
            len({(row.app, row.host, row.pid, row.address) for row in rows}), sum(row.flows for row in rows),
            total(row.orig_bytes for row in rows), total(row.resp_bytes for row in rows),
            min(row.first_ns for row in rows), max(row.last_ns for row in rows),
        )  # fmt: skip


@pytest.mark.parametrize("level", ["service", "place", None])
def test_equals_the_loop(extract, level):
    """On any uses each service has the counts that a loop finds."""

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(uses=USES)
    def check(uses):
        needs = extract(uses, instances_of(uses))
        kinds = {(row["app"], row["protocol"], row["port"]): row["kind"] for row in needs if row["level"] == 1}
        tables = (
            ibis.memtable(to_arrow(record, rows))
            for record, rows in ((ServiceUse, uses), (Dependency, [Dependency(**row) for row in needs]))
        )
        found = ibis.duckdb.connect().to_pyarrow(count_consumers(*tables, level)).to_pylist()
        assert sorted(map(repr, (tuple(row.values()) for row in found))) == sorted(map(repr, loop(uses, kinds, level)))

    check()
