# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications that no longer behave as they did: a period held against their own history (Macroscope, section 5.1).

"The historical computed profiles can be compared to profiles generated from more recent data ... a trojan application
that replaces it will perturb the usage frequency, which can be detected." For each application on each host:

- **Usage**: in which share of its *days* does it use each service? A day is an instance in one piece of time (by
  default half the period), so that a daemon that runs for months has as many days as programs that start each
  morning. The share is held against that of the same host before, and against that of the application on all
  hosts before; where both are there, both must differ. So neither a habit of one host, which is old there, nor a
  change that all hosts had long ago is news.
- **Traffic and failures**: bytes sent and received, the part of them that one service gets, and the share of
  attempts that fail are numbers of each day. Of all days of a host, before and now together, as many are called high
  as there are days now, those with the largest numbers. If nothing changed, the days now have no more than their part
  of these (a quantile test after Mood): nothing need be known of how the numbers are distributed.

Each is a table of two by two, and Fisher's exact test tells the chance of a difference as large, if nothing changed.
Its margins alone tell how small that chance can become: a comparison with few days can never tell anything, and is
not counted as a question (`whoneeds.analysis.chance.choose_answerable`).
A service counts by itself if it is static or three instances used it; the others of a protocol are one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ibis

from whoneeds.analysis.attempts import INSTANCE, SEVERAL, drop_contradictions, tell_share
from whoneeds.analysis.chance import excess_tail
from whoneeds.analysis.slices import Slices, lay_slices, number_slice

#: Stands for the service of a number that speaks of all services together.
ALL_SERVICES = -2
_LEAST_INSTANCES = 3
#: A share that moved by less is no finding, however sure.
LEAST_CHANGE = 0.2

_PLACE = ("app", "host")
_SERVICE = ("protocol", "port")


def compare_usage(attempts: ibis.Table, days: Slices, first_day: int) -> ibis.Table:
    """Count in how many days each service was used, before and in a period.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`, with services named, of all times.
    days : Slices
        Pieces of time, up to the end of the period.
    first_day : int
        The first one of the period.

    Returns
    -------
    ibis.Table
        app, host, protocol, port, now, now_of, before, before_of, fleet_before, fleet_before_of, first_ns, last_ns
        (of uses in the period; null where there are none). Hosts without the application in the period are left out.
    """
    rows = _name(drop_contradictions(attempts.filter(~attempts.failed)))
    seen = lay_slices(rows, days).mutate(now=ibis._["slice"] >= first_day)
    used = seen.group_by(*INSTANCE, "slice", "now", *_SERVICE).agg(
        first_ns=seen.first_ns.min(), last_ns=seen.last_ns.max()
    )
    present = seen.select(*INSTANCE, "slice", "now").distinct()
    whole = present.group_by(*_PLACE).agg(now_of=_count(present.now), before_of=_count(~present.now))
    part = used.group_by(*_PLACE, *_SERVICE).agg(
        now=_count(used.now), before=_count(~used.now),
        first_ns=ibis.ifelse(used.now, used.first_ns, ibis.null("int64")).min(),
        last_ns=ibis.ifelse(used.now, used.last_ns, ibis.null("int64")).max(),
    )  # fmt: skip
    fleet_of = whole.group_by("app").agg(fleet_before_of=whole.before_of.sum().cast("int64"))
    fleet = part.group_by("app", *_SERVICE).agg(fleet_before=part.before.sum().cast("int64"))
    made = part.join(whole, list(_PLACE)).join(fleet_of, "app").join(fleet, ["app", *_SERVICE])
    made = made.filter(made.now_of > 0)
    return made.select(
        *_PLACE, *_SERVICE, "now", "now_of", "before", "before_of", "fleet_before", "fleet_before_of",
        "first_ns", "last_ns",
    )  # fmt: skip


def compare_amounts(attempts: ibis.Table, days: Slices, first_day: int) -> ibis.Table:
    """Count how many days had more than usual of something, before and in a period.

    Parameters
    ----------
    attempts, days, first_day
        As for `compare_usage`.

    Returns
    -------
    ibis.Table
        what (``sent``, ``received``, ``sent_share``, ``failed``), app, host, protocol, port (`ALL_SERVICES` but for
        sent_share), threshold, now, now_of, before, before_of, first_ns, last_ns (of the days above the threshold in
        the period). Only hosts with the application before and in the period.
    """
    rows = _name(drop_contradictions(attempts))
    rows = rows.filter(rows.first_ns >= days.begin_ns, rows.first_ns < days.end_ns)
    rows = rows.mutate(slice=number_slice(rows.first_ns, days))
    day = (*INSTANCE, "slice")
    answered = rows.filter(~rows.failed)
    sums = answered.group_by(*day).agg(
        sent=answered.orig_bytes.sum().cast("int64"),
        received=answered.resp_bytes.sum().cast("int64"),
        **_span(answered),
    )
    parts = answered.group_by(*day, *_SERVICE).agg(part=answered.orig_bytes.sum().cast("int64"), **_span(answered))
    parts = parts.join(sums.select(*day, "sent"), list(day))
    told = rows.filter(rows.period_s == 0.0)
    losses = told.group_by(*day).agg(lost=told.failed.cast("int64").sum(), tried=told.count(), **_span(told))
    values = _lay_values(sums, "sent", sums.sent.cast("float64"))
    values = values.union(_lay_values(sums, "received", sums.received.cast("float64")))
    values = values.union(_lay_values(parts, "sent_share", tell_share(parts.part, parts.sent)))
    values = values.union(_lay_values(losses, "failed", tell_share(losses.lost, losses.tried)))
    values = values.filter(values.value.notnull()).mutate(now=values["slice"] >= first_day)
    key = ("what", *_PLACE, *_SERVICE)
    largest = ibis.window(group_by=list(key), order_by=[ibis.desc("value")])
    held = values.mutate(
        place=ibis.row_number().over(largest),
        days_now=values.now.cast("int64").sum().over(group_by=list(key)),
    )
    # the largest number that is not high: of those that are equal to it, none is
    next_value = ibis.ifelse(held["place"] == held.days_now, held.value, ibis.null("float64"))
    held = held.mutate(threshold=next_value.max().over(group_by=list(key)))
    held = held.filter(held.threshold.notnull())
    held = held.mutate(above=held.value > held.threshold)
    hit = held.now & held.above
    made = held.group_by(*key, "threshold").agg(
        now=_count(hit), now_of=_count(held.now),
        before=_count(~held.now & held.above), before_of=_count(~held.now),
        first_ns=ibis.ifelse(hit, held.first_ns, ibis.null("int64")).min(),
        last_ns=ibis.ifelse(hit, held.last_ns, ibis.null("int64")).max(),
    )  # fmt: skip
    return made.filter(made.now_of > 0, made.before_of > 0)


def count_margins(compared: ibis.Table) -> ibis.Table:
    """How many comparisons there are of each kind of margins.

    Parameters
    ----------
    compared : ibis.Table
        From `compare_usage` or `compare_amounts`.

    Returns
    -------
    ibis.Table
        now_of, before_of, part (now and before together), asked. Where a host has no history, it is that of all hosts.
    """
    before, before_of = compared.before, compared.before_of
    if "fleet_before" in compared.columns:
        before = ibis.ifelse(before_of > 0, before, compared.fleet_before)
        before_of = ibis.ifelse(before_of > 0, before_of, compared.fleet_before_of)
    rows = compared.select("now_of", before_of=before_of, part=compared.now + before)
    return rows.group_by("now_of", "before_of", "part").agg(asked=rows.count())


def bound_usage(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The smallest p-value that margins allow, of a change up or down.

    Parameters
    ----------
    rows : sequence of mapping
        now_of, before_of, part.
    """
    return [min(1.0, 2.0 * min(up, down)) for up, down in zip(_bound(rows), _bound(rows, turned=True), strict=True)]


def bound_amounts(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The smallest p-value that margins allow, of a rise; see `bound_usage`."""
    return _bound(rows)


def _bound(rows: Sequence[Mapping[str, Any]], *, turned: bool = False) -> list[float]:
    parts = [row["now_of"] + row["before_of"] - row["part"] if turned else row["part"] for row in rows]
    most = [min(part, row["now_of"]) for part, row in zip(parts, rows, strict=True)]
    rest = [part - one for part, one in zip(parts, most, strict=True)]
    return [
        float(chance)
        for chance in excess_tail(most, [row["now_of"] for row in rows], rest, [row["before_of"] for row in rows])
    ]


def keep_changed(compared: ibis.Table) -> ibis.Table:
    """Comparisons whose share moved by enough to be told, if it is no accident.

    Parameters
    ----------
    compared : ibis.Table
        From `compare_usage` or `compare_amounts`.
    """
    now, before = tell_share(compared.now, compared.now_of), tell_share(compared.before, compared.before_of)
    if "fleet_before" not in compared.columns:
        return compared.filter(now - before >= LEAST_CHANGE)
    fleet = tell_share(compared.fleet_before, compared.fleet_before_of)
    return compared.filter((now - before.fill_null(fleet)).abs() >= LEAST_CHANGE)


def weigh_usage(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Chance of each change of usage, up or down, if nothing changed: the larger one of both comparisons.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of `compare_usage`, all of which have some history.
    """
    own, fleet = (_weigh_either(rows, before) for before in ("before", "fleet_before"))
    # both directions were asked
    return [min(1.0, 2.0 * max(one, two)) for one, two in zip(own, fleet, strict=True)]


def weigh_amounts(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Chance of each rise, if nothing changed.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of `compare_amounts`.
    """
    made = excess_tail(*([row[name] for row in rows] for name in ("now", "now_of", "before", "before_of")))
    return [float(chance) for chance in made]


def is_rise(row: Mapping[str, Any]) -> bool:
    """Whether a share is larger in the period than before: on the host, or on all where it has no history."""
    before, whole = (row["before"], row["before_of"]) if row["before_of"] else (
        row["fleet_before"], row["fleet_before_of"],
    )  # fmt: skip
    return bool(row["now"] * whole > before * row["now_of"])


def _weigh_either(rows: Sequence[Mapping[str, Any]], before: str) -> list[float]:
    """Chance of each change in the direction that it has; 0 where there is no such history: it says nothing."""
    now, now_of, was, was_of = ([row[name] for row in rows] for name in ("now", "now_of", before, f"{before}_of"))
    up = excess_tail(now, now_of, was, was_of)
    down = excess_tail(
        [of - part for part, of in zip(now, now_of, strict=True)], now_of,
        [of - part for part, of in zip(was, was_of, strict=True)], was_of,
    )  # fmt: skip
    return [
        0.0 if not row[f"{before}_of"] else float(rise if is_rise(row) else fall)
        for row, rise, fall in zip(rows, up, down, strict=True)
    ]


def _name(attempts: ibis.Table) -> ibis.Table:
    """Services by themselves where they are static or several instances used them, together where not."""
    rows = attempts.drop("port").rename(service_port="resp_port")
    used = rows.select("app", "protocol", "service_port", "kind", *INSTANCE[1:]).distinct()
    counted = used.group_by("app", "protocol", "service_port").agg(times=used.count(), kind=used.kind.max())
    alone = (counted.times >= _LEAST_INSTANCES) | (counted.kind == "static")
    named = counted.select("app", "protocol", "service_port", port=ibis.ifelse(alone, counted.service_port, SEVERAL))
    return rows.join(named, ["app", "protocol", "service_port"])


def _lay_values(rows: ibis.Table, what: str, value: ibis.Value) -> ibis.Table:
    """One number a day, under its name."""
    one = "port" in rows.columns
    return rows.select(
        *_PLACE, "slice", "first_ns", "last_ns", what=ibis.literal(what), value=value,
        protocol=rows.protocol if one else ibis.literal(""),
        port=rows.port.cast("int64") if one else ibis.literal(ALL_SERVICES, "int64"),
    )  # fmt: skip


def _span(rows: ibis.Table) -> dict[str, ibis.Value]:
    return {"first_ns": rows.first_ns.min(), "last_ns": rows.last_ns.max()}


def _count(condition: ibis.Value) -> ibis.Value:
    return condition.cast("int64").sum().cast("int64")
