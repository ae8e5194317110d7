# SPDX-License-Identifier: GPL-3.0-or-later
"""The view by host: what it folds together, and what it keeps apart."""

from hypothesis import HealthCheck, given, settings
from uses import USES, instances_of, use

OF_SERVICE = (
    "kind", "method", "reason", "probability", "grounds", "population", "users", "usage_share", "adjusted_share",
)  # fmt: skip


def known(values):
    """The one value that all known ones are, or None."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def fold(rows):
    """The view again, by a loop over the method's rows."""
    groups, of_service = {}, {}
    for row in rows:
        service = (row["app"], row["protocol"], row["port"])
        if row["level"] == 1:
            of_service[service] = row
        if row["level"] == 4:
            place = row["resp_host"] or row["resp_addr"]
            groups.setdefault((*service, row["host"], row["resp_host"], place), []).append(row)
    for (app, protocol, port, host, resp_host, _), group in groups.items():
        service = of_service[(app, protocol, port)]
        sent, received = (
            [row[name] for row in group if row[name] is not None] for name in ("orig_bytes", "resp_bytes")
        )
        yield {
            **{name: service[name] for name in OF_SERVICE},
            "level": None, "pid": None, "app": app, "protocol": protocol, "port": port, "host": host,
            "resp_host": resp_host, "resp_app": known(row["resp_app"] for row in group),
            "resp_addr": known(row["resp_addr"] for row in group), "address": known(row["address"] for row in group),
            "support": len({(row["pid"], row["address"]) for row in group}),
            "flows": sum(row["flows"] for row in group),
            "orig_bytes": sum(sent) if sent else None, "resp_bytes": sum(received) if received else None,
            "first_ns": min(row["first_ns"] for row in group), "last_ns": max(row["last_ns"] for row in group),
        }  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(uses=USES)
def test_equals_the_loop(extract, uses):
    """On any uses the view equals the one that a loop over the method's rows makes."""
    everyone = instances_of(uses)
    wanted = [sorted(row.items()) for row in fold(extract(uses, everyone))]
    found = [sorted(row.items()) for row in extract(uses, everyone, by_host=True)]
    assert sorted(map(str, found)) == sorted(map(str, wanted))


def test_one_row_for_one_provider(extract):
    """Two instances on one host that reach a provider at two of its addresses are one row with no single address."""
    uses = [
        use(pid=1, resp_addr="10.0.0.5", resp_host="db1", resp_app="postgres"),
        use(pid=2, resp_addr="fd00::5", resp_host="db1", resp_app="postgres"),
    ]
    (row,) = extract(uses, instances_of(uses), by_host=True)
    assert (row["support"], row["flows"], row["resp_host"], row["resp_addr"]) == (2, 2, "db1", None)


def test_untraced_providers_stay_apart(extract):
    """Services at two addresses of which no traced host is known stay two rows."""
    uses = [use(resp_addr="203.0.113.1"), use(resp_addr="203.0.113.2")]
    rows = extract(uses, instances_of(uses), by_host=True)
    assert {(row["resp_addr"], row["resp_host"]) for row in rows} == {("203.0.113.1", None), ("203.0.113.2", None)}
