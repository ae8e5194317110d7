# SPDX-License-Identifier: GPL-3.0-or-later
"""How often profiles are wrong: ``python -m whoneeds.evaluation.profiles``.

**Findings.** A population of laptops or servers, observed with events, into whose last days (two, or seven of servers)
things are planted: scans of three kinds, a service that is new on one host, a surge of what one application sends, and
one that begins to fail. What is found of them is recall; a finding at another application or host than a planted one
is false. The same population without plants tells how many findings ordinary days give.

**Causal order.** Applications whose orders are known since they are drawn here: chains of services each of which ends
before the next begins, services that are used in one burst in any order, and services that go by themselves, at the
same rate. A pair is in order if it is one of a chain's, at any distance. The window is a second.
"""

import argparse
import json
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from whoneeds.analysis.attempts import name_services
from whoneeds.analysis.causal import CausalSettings, count_orders, judge_orders, select_timed
from whoneeds.analysis.findings import Found, find, split_history
from whoneeds.analysis.macroscope import extract_dependencies
from whoneeds.collector.instances import find_uses, is_failed
from whoneeds.model.conclusions import ApplicationInstance, Attribution, ServiceUse
from whoneeds.model.evidence import FlowRecord, ProcessRecord, SocketRecord
from whoneeds.model.schema import table_name
from whoneeds.scenario import Observed, PopulationSettings, make_population, observe

SECOND, DAY = 10**9, 86400 * 10**9
_ATTEMPT = (
    "flow_id", "app", "host", "pid", "address", "user", "protocol", "resp_addr", "resp_port", "first_ns", "last_ns",
    "period_s", "end", "failed", "orig_bytes", "resp_bytes",
)  # fmt: skip
#: Daemons have one instance for weeks, so that a period of theirs needs days; people's programs have many a day.
_PERIOD_DAYS = {"laptops": 2, "servers": 7}
_SIZES = {
    "laptops": PopulationSettings(hosts=20, days=18, applications=60),
    "servers": PopulationSettings(kind="servers", hosts=8, days=28, applications=40),
}
#: Least days of an instance, in the period and before, of places where something is planted.
_LEAST_NOW, _LEAST_BEFORE = 6, 18
#: What is planted, and the findings that tell it.
_TOLD_BY = {
    "fast scan of ports": {"port_scan"}, "fast scan of addresses": {"port_scan"}, "slow scan": {"port_scan"},
    "new service": {"new_service"}, "surge": {"sends_more"}, "failing": {"fails_more"},
}  # fmt: skip


@dataclass(frozen=True)
class Plant:
    """Something that was planted.

    Attributes
    ----------
    what : str
        One of the kinds.
    app, host : str
        Where.
    """

    what: str
    app: str
    host: str


class _Held:
    """What was observed, held by an engine of its own."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._engine = ibis.duckdb.connect(threads=1, memory_limit="2GB")
        self._engine.con.execute("SET enable_progress_bar = false")
        self._made = 0

    def table(self, record: type[Any]) -> Any:
        self._engine.con.register(table_name(record), self._observed.tables[record])
        return self._engine.table(table_name(record))

    def keep(self, expression: Any, number: str | None = None) -> Any:
        self._made += 1
        numbered = expression if number is None else expression.mutate(**{number: ibis.row_number()})
        return self._engine.create_table(f"kept_{self._made}", numbered, temp=True)

    def read(self, expression: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._engine.to_pyarrow(expression).to_pylist()
        return rows

    def close(self) -> None:
        self._engine.disconnect()


def evaluate_findings(kind: str, seed: int) -> dict[str, Any]:
    """Plant in a population, and count what is found.

    Parameters
    ----------
    kind : {"laptops", "servers"}
    seed : int
    """
    settings = _SIZES[kind]
    observed = observe(make_population(settings, seed), events=True)
    begin_ns = settings.begin_s * SECOND
    until_ns = begin_ns + settings.days * DAY
    since_ns = until_ns - _PERIOD_DAYS[kind] * DAY
    with closing(_Held(observed)) as seen:
        uses = find_uses(
            seen.table(FlowRecord), seen.table(Attribution), seen.table(SocketRecord), seen.table(ProcessRecord),
            "all", seen.keep, failed=True,
        )  # fmt: skip
        ordinary = seen.keep(uses.mutate(failed=is_failed(uses)).select(*_ATTEMPT))
        needs = seen.keep(extract_dependencies(seen.table(ServiceUse), seen.table(ApplicationInstance)))

        def look(attempts: Any) -> Found:
            named = seen.keep(name_services(attempts, needs))
            return find(named, *split_history(begin_ns, since_ns, until_ns, DAY), seen.read)

        quiet = look(ordinary)
        plants, changed = _plant(ordinary, seen, since_ns, np.random.default_rng(seed))
        loud = look(seen.keep(changed))
    at = {(plant.app, plant.host): plant for plant in plants}
    found = {
        plant.what
        for plant in plants
        for row in loud.findings
        if (row["app"], row["host"]) == (plant.app, plant.host) and row["what"] in _TOLD_BY[plant.what]
    }
    true = sum((row["app"], row["host"]) in at for row in loud.findings)
    return {
        "population": kind, "seed": seed, "asked": loud.asked, "planted": len(plants), "found": len(found),
        "missed": sorted({plant.what for plant in plants} - found), "findings": len(loud.findings), "true": true,
        "ordinary_findings": len(quiet.findings),
        "ordinary": sorted(f"{row['what']} {row['app']}@{row['host']}" for row in quiet.findings),
    }  # fmt: skip


def _plant(ordinary: Any, seen: _Held, since_ns: int, rng: np.random.Generator) -> tuple[list[Plant], Any]:
    """Choose places that were seen on enough days, and lay something into each."""
    day = (ordinary.first_ns - since_ns + 1000 * DAY) // DAY
    days = ordinary.filter(~ordinary.failed).select("app", "host", "pid", "address", day=day).distinct()
    now = (days["day"] >= 1000).cast("int64").sum()
    counted = days.group_by("app", "host").agg(now=now, before=days.count() - now)
    places = seen.read(
        counted.filter(counted.now >= _LEAST_NOW, counted.before >= _LEAST_BEFORE).order_by("app", "host")
    )
    kinds = list(_TOLD_BY)
    chosen = [places[at] for at in rng.choice(len(places), len(kinds), replace=False)]
    plants = [Plant(what, row["app"], row["host"]) for what, row in zip(kinds, chosen, strict=True)]
    rows: list[dict[str, Any]] = []
    for plant in plants:
        there = ordinary.filter(ordinary.app == plant.app, ordinary.host == plant.host, ordinary.first_ns >= since_ns)
        if plant.what == "surge":
            continue
        base = seen.read(there.filter(~there.failed).order_by("first_ns", "flow_id"))
        rows += _make(plant, base, rng)
    planted = seen.keep(ibis.memtable(pa.Table.from_pylist(rows, schema=_SCHEMA)))
    (surge,) = [plant for plant in plants if plant.what == "surge"]
    here = (ordinary.app == surge.app) & (ordinary.host == surge.host) & (ordinary.first_ns >= since_ns)
    swollen = ordinary.mutate(orig_bytes=ibis.ifelse(here, ordinary.orig_bytes * 100, ordinary.orig_bytes))
    nullable = {name: kind.copy(nullable=True) for name, kind in swollen.schema().items()}
    return plants, swollen.cast(nullable).union(planted.cast(nullable))


_SCHEMA = pa.schema(
    [
        (name, pa.float64() if name == "period_s" else pa.bool_() if name == "failed" else pa.int64()
         if name in ("pid", "resp_port", "first_ns", "last_ns", "orig_bytes", "resp_bytes") else pa.string())
        for name in _ATTEMPT
    ]
)  # fmt: skip


def _make(plant: Plant, base: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Connections of a plant: additions to what an application did there in the period."""

    def row(like: dict[str, Any], number: int, **changes: Any) -> dict[str, Any]:
        made = {**like, "flow_id": f"planted {plant.what} {number}", "period_s": 0.0, **changes}
        return {
            **made,
            "failed": made["end"] in ("rejected", "unanswered"),
            "last_ns": made["first_ns"] + SECOND // 100,
        }

    if plant.what == "new service":
        # once a day of each instance
        first: dict[Any, dict[str, Any]] = {}
        for one in base:
            first.setdefault((one["pid"], one["address"], one["first_ns"] // DAY), one)
        return [
            row(one, at, protocol="tcp", resp_port=6667, resp_addr="203.0.113.66", end="fin")
            for at, one in enumerate(first.values())
        ]
    if plant.what == "failing":
        return [
            row(one, at * 3 + again, end="rejected", orig_bytes=0, resp_bytes=0)
            for at, one in enumerate(base)
            for again in range(3)
        ]
    begin = base[int(rng.integers(len(base)))]
    spread_s = 3000 if plant.what == "slow scan" else 30
    made = []
    for at in range(60):
        single = plant.what == "fast scan of ports"
        made.append(
            row(
                begin, at, protocol="tcp", end="rejected" if single else "unanswered", orig_bytes=0, resp_bytes=0,
                resp_port=2000 + at if single else 22, resp_addr="10.99.0.1" if single else f"10.99.1.{at}",
                first_ns=begin["first_ns"] + at * spread_s * SECOND // 60,
            )
        )  # fmt: skip
    return made


def evaluate_orders(seed: int) -> dict[str, Any]:
    """Draw applications with known orders, and count which are found.

    Parameters
    ----------
    seed : int
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    truth = set()
    for number in range(20):
        app, chain = f"app{number}", list(range(1, 2 + int(rng.integers(1, 4))))
        truth |= {(app, chain[one], chain[two]) for one in range(len(chain)) for two in range(one + 1, len(chain))}
        for pid in range(int(rng.integers(1, 5))):
            life_s = 3600.0 * 8
            for begin_s in np.sort(rng.random(int(rng.integers(20, 80))) * life_s):
                _use_in_turn(rows, app, pid, chain, begin_s, rng)
                # a burst of two services in any order, at other times
                burst = rng.permutation([11, 12]).tolist()
                _use_in_turn(rows, app, pid, burst, rng.random() * life_s, rng)
                for alone in (21, 22):
                    _use_in_turn(rows, app, pid, [alone], rng.random() * life_s, rng)
    table = pa.Table.from_pylist(
        rows,
        schema=pa.schema([*_SCHEMA, ("port", pa.int64()), ("kind", pa.string())]),
    )
    settings = CausalSettings()
    engine = ibis.duckdb.connect(threads=1)
    try:
        counts = engine.to_pyarrow(count_orders(select_timed(ibis.memtable(table), settings), settings)).to_pylist()
    finally:
        engine.disconnect()
    judged = judge_orders(counts, settings)
    found = {(row["app"], row["before_port"], row["port"]) for row in judged if row["ordered"]}
    return {
        "seed": seed, "pairs": len(judged), "ordered": len(truth), "found": len(truth & found),
        "false": len(found - truth),
    }  # fmt: skip


def _use_in_turn(
    rows: list[dict[str, Any]], app: str, pid: int, ports: list[int], begin_s: float, rng: np.random.Generator
) -> None:
    """Uses of services, each of which begins a moment after the one before ended; now and then one is left out."""
    at_s = begin_s
    for port in ports:
        lasts_s = float(rng.exponential(0.05)) + 0.001
        if rng.random() < 0.9:
            first, last = (round(second * SECOND) for second in (at_s, at_s + lasts_s))
            rows.append(
                {
                    "flow_id": str(len(rows)), "app": app, "host": "h", "pid": pid, "address": "10.0.0.1",
                    "user": "h/0", "protocol": "tcp", "resp_addr": "10.0.0.2", "resp_port": port, "port": port,
                    "kind": "static",
                    "first_ns": first, "last_ns": last, "period_s": 0.0, "end": "fin", "failed": False,
                    "orig_bytes": 1, "resp_bytes": 1,
                }
            )  # fmt: skip
        at_s += lasts_s + float(rng.exponential(0.1))


def main() -> int:
    """Print one JSON row for each population, and a sum of each kind."""
    parser = argparse.ArgumentParser(prog="python -m whoneeds.evaluation.profiles", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed0", type=int, default=0)
    given = parser.parse_args()
    seeds = range(given.seed0, given.seed0 + given.seeds)
    orders = [evaluate_orders(seed) for seed in seeds]
    _print({"what": "causal order", "seeds": len(orders), **_rate(orders, "ordered", "found", "false")})
    for kind in _SIZES:
        rows = []
        for seed in seeds:
            rows.append(evaluate_findings(kind, seed))
            _print({"what": "findings", **rows[-1]})
        false = [{**row, "false": row["findings"] - row["true"]} for row in rows]
        shares = _rate(false, "planted", "found", "false", hits="true")
        ordinary = sum(row["ordinary_findings"] for row in rows)
        _print({"what": f"findings, {kind}", "seeds": len(rows), **shares, "ordinary_findings": ordinary})
    return 0


def _rate(rows: list[dict[str, Any]], wanted: str, found: str, false: str, hits: str | None = None) -> dict[str, Any]:
    sums = {name: sum(row[name] for row in rows) for name in (wanted, found, false, hits or found)}
    claims = sums[hits or found] + sums[false]
    return {
        wanted: sums[wanted], found: sums[found], false: sums[false],
        "recall": round(sums[found] / sums[wanted], 3) if sums[wanted] else None,
        "precision": round(sums[hits or found] / claims, 3) if claims else None,
    }  # fmt: skip


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
