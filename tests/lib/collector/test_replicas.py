# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of which an application needs any: what makes one, and above all what does not."""

import random
from collections import Counter
from itertools import pairwise
from math import sqrt

import ibis
import pyarrow as pa

from whoneeds.collector.destinations import sum_destinations
from whoneeds.collector.replicas import find_named_sets, find_replicas

NS = 10**9
USES = pa.schema(
    [(name, pa.string()) for name in ("flow_id", "app", "host", "protocol", "resp_addr", "resp_host", "resp_app")]
    + [("called_addr", pa.string())]
    + [(name, pa.int64()) for name in ("resp_port", "first_ns", "last_ns")]
    + [("period_s", pa.float64())]
)  # fmt: skip
NAMED = pa.schema([("flow_id", pa.string()), ("name", pa.string()), ("told_by", pa.string())])


def uses(calls, **changes):
    """Flows of one application: seconds and the number of the address."""
    return [
        {
            "flow_id": f"f{at:06d}", "app": "web", "host": "h1", "protocol": "tcp", "resp_addr": f"10.0.0.{place}",
            "resp_host": f"db{place}", "resp_app": "postgres", "called_addr": None, "resp_port": 5432,
            "first_ns": round(second * NS), "last_ns": round(second * NS) + 1, "period_s": 0.0, **changes,
        }
        for at, (second, place) in enumerate(calls)
    ]  # fmt: skip


def found(rows, named=()):
    """Sets: rule, name and the addresses in each."""
    flows = ibis.memtable(pa.Table.from_pylist(rows, USES))
    names = ibis.memtable(pa.Table.from_pylist([dict(zip(NAMED.names, one, strict=True)) for one in named], NAMED))
    made = ibis.duckdb.connect().to_pyarrow(find_replicas(flows, sum_destinations(flows, names))).to_pylist()
    sets = {}
    for row in made:
        sets.setdefault((row["set_id"], row["rule"]), []).append(row["resp_addr"])
        assert row["members"] == sum(other["set_id"] == row["set_id"] for other in made)
    return {key: sorted(addresses) for key, addresses in sets.items()}


def found_by_app(rows):
    """The applications that have sets, each with the rule of it."""
    rows = [{**row, "flow_id": f"f{at:06d}"} for at, row in enumerate(rows)]
    flows = ibis.memtable(pa.Table.from_pylist(rows, USES))
    destinations = sum_destinations(flows, ibis.memtable(NAMED.empty_table()))
    made = ibis.duckdb.connect().to_pyarrow(find_replicas(flows, destinations)).to_pylist()
    return {(row["app"], row["rule"]) for row in made}


def arrivals(chance, number, rate=1.0):
    """Times of calls that come by chance."""
    at, made = 0.0, []
    for _number in range(number):
        at += chance.expovariate(rate)
        made.append(at)
    return made


def in_turns(chance, number, places):
    """A client that goes round its replicas, whenever something is to be done."""
    return [(at, 1 + number % places) for number, at in enumerate(arrivals(chance, number))]


def independent(chance, number, places):
    """Needs that have nothing to do with each other."""
    return sorted((at, 1 + place) for place in range(places) for at in arrivals(chance, number // places))


def by_chance(chance, number, places):
    """A balancer that draws lots; nobody can tell it from independent needs."""
    return [(at, chance.randint(1, places)) for at in arrivals(chance, number)]


def two_steps(chance, number, places):
    """A work that asks each place in order, each a moment after the one before."""
    return [
        (at + step * chance.uniform(0.001, 0.05), 1 + step)
        for at in arrivals(chance, number // places, 0.05) for step in range(places)
    ]  # fmt: skip


def slow_steps(chance, number, places):
    """The same with steps that take half as long as the rest between two works."""
    at, made = 0.0, []
    for _work in range(number // places):
        at += chance.expovariate(1.0)
        for step in range(places):
            made.append((at, 1 + step))
            at += chance.expovariate(2.0)
    return made


def steady_tour(chance, number, places):
    """A scraper that goes round at a steady pace."""
    return [(second + chance.uniform(0, 0.05), 1 + second % places) for second in range(number)]


def one_apart(chance, number, places):
    """Two replicas in turns, and a third place that is needed by itself as often as each of them."""
    return sorted([*in_turns(chance, 2 * number // 3, 2), *((at, 9) for at in arrivals(chance, number // 3, 0.5))])


#: For each habit the least and the most of its clients that may be taken for ones that choose.
HABITS = {
    in_turns: (0.85, 1.0), independent: (0, 0), by_chance: (0, 0), two_steps: (0, 0), slow_steps: (0, 0.1),
    steady_tour: (0, 0), one_apart: (0, 0),
}  # fmt: skip


def test_turns_are_told_from_all_that_looks_like_them():
    """Who takes turns is found nearly always, and who needs each place, in whatever order and pace, hardly ever."""
    chance, rows, clients = random.Random(7), [], 60
    for habit in HABITS:
        for places in (2, 3):
            for client in range(clients):
                rows += uses(habit(chance, 240, places), app=f"{habit.__name__} {places} {client}")
    taken = Counter(app.rsplit(" ", 1)[0] for app in {app for app, _rule in found_by_app(rows)})
    names = [f"{habit.__name__} {places}" for habit in HABITS for places in (2, 3)]
    shares = {name: taken[name] / clients for name in names}
    beyond = {
        name: share for name, share in shares.items()
        if not HABITS[globals()[name[:-2]]][0] <= share <= HABITS[globals()[name[:-2]]][1]
    }  # fmt: skip
    assert beyond == {}


def judge(calls):
    """The rule again, by loops: whether the calls are in turns."""
    calls = sorted(calls)
    order, counts = [place for _at, place in calls], Counter(place for _at, place in calls)
    repeats = Counter(here for before, here in pairwise(order) if before == here)
    for place, number in counts.items():
        expected = number * (number - 1) / len(order)
        if expected - repeats[place] < 3 * sqrt(expected):
            return False
    pauses = [(round(here[0] * NS) - round(before[0] * NS), here[1]) for before, here in pairwise(calls)]
    lengths = sorted(length for length, _place in pauses)
    if sum(2 * length * len(lengths) < sum(lengths) for length in lengths) * 10 < len(lengths):
        return False
    ranks = {}
    for at, length in enumerate(lengths, 1):
        ranks.setdefault(length, []).append(at)
    means = {length: sum(places) / len(places) for length, places in ranks.items()}
    n, of_place = len(lengths), {}
    for length, place in pauses:
        of_place.setdefault(place, []).append(means[length])
    spread = 12 / (n * (n + 1)) * sum(sum(one) ** 2 / len(one) for one in of_place.values()) - 3 * (n + 1)
    spread /= 1 - sum(len(one) ** 3 - len(one) for one in ranks.values()) / (n**3 - n)
    limits = {1: 3.841, 2: 5.991, 3: 7.815}  # chi-square, 5 %
    return spread <= limits[len(counts) - 1] * 1.01


def test_the_verdict_is_that_of_the_loops():
    """On worlds between turns and chance, with equal pauses among them, the expressions judge as loops do."""
    chance, wanted, rows = random.Random(11), set(), []
    for world in range(60):
        slip = chance.choice([0, 0.02, 0.1, 0.3])
        calls, at, place = [], 0.0, 0
        places = chance.choice([2, 3, 4])
        for _call in range(chance.choice([30, 120, 400])):
            at += chance.choice([1, 1, 2, 5, 9]) if world % 2 else chance.expovariate(1)
            place = place if chance.random() < slip else (place + 1) % places
            calls.append((at, 1 + place))
        if judge(calls):
            wanted.add(f"app{world:02d}")
        rows += uses(calls, app=f"app{world:02d}")
    assert {app for app, _rule in found_by_app(rows)} == wanted
    assert 10 < len(wanted) < 50


TURNS = in_turns(random.Random(3), 240, 2)


def test_only_calls_whose_order_is_known_to_different_places():
    """Samples do not keep the order, and loopback and two addresses of one host are one place."""
    worlds = {
        "told": {}, "sampled": {"period_s": 5.0}, "loopback": {"resp_addr": "127.0.0.1"}, "one": {"resp_host": "db"},
        "untraced": {"resp_host": None, "resp_app": None},
    }  # fmt: skip
    rows = [row for app, changes in worlds.items() for row in uses(TURNS, app=app, **changes)]
    assert found_by_app(rows) == {("told", "turns"), ("untraced", "turns")}


def test_two_programs_are_no_replicas():
    """Places where different programs answer are never a set, however they are called."""
    rows = uses(TURNS)
    mixed = [{**row, "app": "mixed", "resp_app": row["resp_app"] if at else "mysqld"} for at, row in enumerate(rows)]
    assert found_by_app([*rows, *mixed]) == {("web", "turns")}


def test_one_name_is_a_set_and_one_port_is_none():
    """Addresses that one name stood for are a set, without those with another name, or none, on the same port."""
    rows = uses([(1, 1), (2, 2), (3, 3), (4, 4)])
    named = [("f000000", "db.example", "dns"), ("f000001", "db.example", "dns"), ("f000002", "other.example", "dns")]
    assert found(rows, named) == {("tcp/5432 db.example", "name"): ["10.0.0.1", "10.0.0.2"]}


def test_what_a_name_tells_is_not_asked_again():
    """Addresses of a named set are no set by turns as well."""
    rows = uses(TURNS)
    named = [(row["flow_id"], "db.example", "dns") for row in rows]
    assert found(rows, named) == {("tcp/5432 db.example", "name"): ["10.0.0.1", "10.0.0.2"]}


def test_no_flows_make_no_sets():
    """Of nothing comes nothing."""
    flows = ibis.memtable(USES.empty_table())
    destinations = sum_destinations(flows, ibis.memtable(NAMED.empty_table()))
    assert ibis.duckdb.connect().to_pyarrow(find_named_sets(destinations)).num_rows == 0
