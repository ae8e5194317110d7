# SPDX-License-Identifier: GPL-3.0-or-later
r"""Service instances that stand for each other: an application on a host needs any of them, and not each.

Two rules, and neither goes by the port alone.

**name**: one name stood for all of them when they were called. Which one is called is then the name service's choice.

**turns**: an application on a host calls one service at several places, and does so in turns. For each place, of which
:math:`n_p` of all :math:`n` calls went to it, :math:`E_p = n_p (n_p - 1) / n` calls would follow one to the same place
if the order were chance, as it is where two needs have nothing to do with each other. There must be fewer for *every*
place, by three times :math:`\sqrt{E_p}`, which is more than their spread by chance: one place that is needed by itself
spoils the set. Needing each of them *in an order* looks like turns as well, so three things more are asked for:

- The pause before a call does not tell which place is called (Kruskal and Wallis' rank test does not object at 5 %).
  Two steps of one work, and a tour that rests after its last stop, have short and long pauses at fixed places.
- Pauses are uneven: a tenth of them at least are shorter than half the mean. A tour at a steady pace has none.
- There are eight places at most: who goes round more looks at all.

Only calls whose begin events tell of are looked at, since samples do not keep the order. Balancing by chance or by load
is not found by this rule: it looks like independent needs, and is left as such.

A program that goes round a few hosts for ever, with pauses as uneven between rounds as within them, is taken for one
that chooses: nothing in the order of its calls tells the two apart.
"""

from collections.abc import Sequence
from typing import Any

import ibis

from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing
from whoneeds.model.destinations import ReplicaSet
from whoneeds.model.schema import columns

_CLIENT = ("app", "host", "protocol", "port")
_MOST_PLACES = 8
#: Upper 5 % of the normal distribution; with it Wilson and Hilferty's cube comes within 1 % of chi-square's.
_UPPER = 1.6448536269514722


def find_named_sets(destinations: ibis.Table) -> ibis.Table:
    """Addresses that one name stood for.

    Parameters
    ----------
    destinations : ibis.Table
        From `whoneeds.collector.destinations.sum_destinations`.

    Returns
    -------
    ibis.Table
        Rows of `ReplicaSet`.
    """
    named = destinations.filter(destinations.name.notnull())
    key = [*_CLIENT, "name"]
    several = named.group_by(*key).agg(members=named.resp_addr.nunique())
    several = several.filter(several.members > 1)
    members = named.group_by(*key, "resp_addr").agg(
        resp_host=_agreed(named.resp_host), flows=named.flows.sum().cast("int64")
    )
    found = _match(members, several, key)
    service = found.protocol + ibis.literal("/") + found.port.cast("string")
    return _as_records(found.mutate(set_id=service + ibis.literal(" ") + found.name, rule=ibis.literal("name")))


def find_turns(uses: ibis.Table, named_sets: ibis.Table, keep: Keep = keep_nothing) -> ibis.Table:
    """Addresses that are called in turns.

    Parameters
    ----------
    uses : ibis.Table
        From `whoneeds.collector.instances.find_uses`.
    named_sets : ibis.Table
        From `find_named_sets`: what a name tells of is not asked again.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        Rows of `ReplicaSet`.
    """
    told = uses.filter((uses.period_s == 0.0) & ~is_loopback(uses.resp_addr)).mutate(port=uses.resp_port)
    told = told.anti_join(named_sets, [*_CLIENT, "resp_addr"])
    calls = told.select(
        *_CLIENT, "flow_id", "first_ns", "resp_addr", "resp_host", "resp_app",
        place=told.resp_host.coalesce(told.resp_addr),
    )  # fmt: skip
    clients = calls.group_by(*_CLIENT).agg(places=calls.place.nunique(), apps=calls.resp_app.nunique())
    clients = clients.filter((clients.places > 1) & (clients.places <= _MOST_PLACES) & (clients.apps <= 1))
    calls = keep(_match(calls, clients, _CLIENT, "semi"))
    taken = _judge(_rank(calls), keep)
    found = _match(calls, taken, [*_CLIENT, "place"])
    members = found.group_by(*_CLIENT, "resp_addr").agg(
        resp_host=_agreed(found.resp_host), repeats=found.repeats.max(), flows=found.count()
    )
    first = members.group_by(*_CLIENT).agg(first=members.resp_addr.min(), members=members.count())
    members = _match(members, first, _CLIENT)
    others = (members.members - 1).cast("string")
    service = members.protocol + ibis.literal("/") + members.port.cast("string")
    set_id = service + ibis.literal(" ") + members.first + ibis.literal(" and ") + others + ibis.literal(" more")
    return _as_records(members.mutate(set_id=set_id, rule=ibis.literal("turns"), name=ibis.null("string")))


def find_replicas(uses: ibis.Table, destinations: ibis.Table, keep: Keep = keep_nothing) -> ibis.Table:
    """Sets by both rules; see `find_named_sets` and `find_turns`."""
    named = keep(find_named_sets(destinations))
    return named.union(find_turns(uses, named, keep), distinct=False)


def _rank(calls: ibis.Table) -> ibis.Table:
    """Calls with the pause before them, and its rank among the client's, doubled so that a shared one is whole."""
    in_order = ibis.window(group_by=list(_CLIENT), order_by=[calls.first_ns, calls.flow_id])
    steps = calls.mutate(
        pause_ns=calls.first_ns - calls.first_ns.lag().over(in_order), before=calls.place.lag().over(in_order)
    )
    steps = steps.mutate(again=(steps.before == steps.place).fill_null(False).cast("int64"))
    known = steps.filter(steps.pause_ns.notnull())
    tied = known.group_by(*_CLIENT, "pause_ns").agg(ties=known.count())
    tied = tied.mutate(
        shorter=tied.ties.sum().over(ibis.window(group_by=list(_CLIENT), order_by=tied.pause_ns, rows=(None, 0)))
        - tied.ties
    )
    # ranks from shorter + 1 to shorter + ties; twice their mean is a whole number
    ranked = tied.mutate(rank2=tied.shorter * 2 + tied.ties + 1)
    joined = _match(steps, ranked, [*_CLIENT, "pause_ns"], "left")
    return joined.select(*_CLIENT, "place", "pause_ns", "again", "ties", "rank2")


def _judge(steps: ibis.Table, keep: Keep) -> ibis.Table:
    """Clients that take turns: their places, and how many calls followed one to the same."""
    steps = keep(steps)
    places = steps.group_by(*_CLIENT, "place").agg(
        called=steps.count(),
        repeats=steps.again.sum().cast("int64"),
        ranked=steps.rank2.count(),
        rank2_sum=steps.rank2.sum().cast("float64"),
    )
    ties = steps.ties.cast("float64")
    clients = steps.group_by(*_CLIENT).agg(
        calls=steps.count(),
        pauses=steps.pause_ns.count(),
        # each of t tied rows adds t^2 - 1, which is the t^3 - t of the correction; whole numbers, in any order
        tied=(ties * ties - 1.0).sum(),
        passed_ns=steps.pause_ns.cast("float64").sum(),
    )
    paused = _match(steps, clients.select(*_CLIENT, "pauses", "passed_ns"), _CLIENT)
    short = (paused.pause_ns.cast("float64") * paused.pauses.cast("float64") * 2.0 < paused.passed_ns).fill_null(False)
    uneven = paused.mutate(short=short.cast("int64"))
    uneven = uneven.group_by(*_CLIENT).agg(short=uneven.short.sum().cast("int64"))
    rows = _match(places, clients, _CLIENT)
    expected = rows.called.cast("float64") * (rows.called - 1).cast("float64") / rows.calls.cast("float64")
    fewer = expected - rows.repeats.cast("float64") >= expected.sqrt() * 3.0
    rows = rows.mutate(
        fewer=fewer.cast("int64"), weight=rows.rank2_sum * rows.rank2_sum / _divisor(rows.ranked.cast("float64"))
    )
    verdict = rows.group_by(*_CLIENT).agg(
        places=rows.count(), fewer=rows.fewer.sum().cast("int64"), weight=rows.weight.sum()
    )
    verdict = _match(_match(verdict, clients, _CLIENT), uneven, _CLIENT)
    number = verdict.pauses.cast("float64")
    spread = verdict.weight * 3.0 / _divisor(number * (number + 1.0)) - (number + 1.0) * 3.0
    tied = ibis.literal(1.0) - verdict.tied / _divisor(number * number * number - number)
    freedom = _divisor((verdict.places - 1).cast("float64"))
    ninth = ibis.literal(2.0 / 9.0) / freedom
    root = ibis.literal(1.0) - ninth + ninth.sqrt() * _UPPER
    same_pause = (spread <= freedom * root * root * root * tied).fill_null(False)
    takes_turns = (verdict.fewer == verdict.places) & same_pause & (verdict.short * 10 >= verdict.pauses)
    taken = verdict.filter(takes_turns).select(*_CLIENT)
    return _match(rows, taken, _CLIENT, "semi").select(*_CLIENT, "place", "repeats")


def _divisor(number: Any) -> Any:
    """The number, unknown if it is zero: of too few pauses or one place nothing follows, on any engine."""
    return number.nullif(0.0)


def _match(left: ibis.Table, right: ibis.Table, key: Sequence[str], how: str = "inner") -> ibis.Table:
    """Join two tables that were made of the same rows, under names of which none occurs twice."""
    left = left.view()
    renamed = right.select(**{f"of_{name}" if name in key else name: right[name] for name in right.columns}).view()
    joined = left.join(renamed, [left[name] == renamed[f"of_{name}"] for name in key], how=how)
    new = () if how == "semi" else [name for name in right.columns if name not in left.columns]
    return joined.select(*left.columns, *new)


def _agreed(column: Any) -> Any:
    """The one value of a column; not known where there are several."""
    return ibis.ifelse(column.nunique() == 1, column.min(), ibis.null("string"))


def _as_records(rows: ibis.Table) -> ibis.Table:
    return rows.select(
        **{
            column.name: (rows[column.name] if column.name in rows.columns else ibis.null(column.type)).cast(
                column.type
            )
            for column in columns(ReplicaSet)
        }
    )
