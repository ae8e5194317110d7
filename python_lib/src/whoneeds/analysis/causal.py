# SPDX-License-Identifier: GPL-3.0-or-later
r"""Causal order: an application uses service A just before service B (Macroscope, sections 2.1 and 5.2).

"We say two dependencies A and B are causally ordered (and write A -> B) if A usually finishes just before B is
started (and the vice-versa is not true). In this context, 'before' means within a time window." The paper gives no
algorithm and no result, for want of truth. Here, for each application and ordered pair of its services:

- Within one instance, a *begin* of B is a use of B that begins more than W after the one before it began: what comes
  in one breath counts once, since it is not independent.
- It is *preceded* if a use of A ended at most W before it, in the same instance.
- Only instances that use both count. The order *is often so* if at least half of the begins are preceded.

**Chance.** Null: the instance's begins of B fall anywhere in its lifetime (first to last connection) with equal
chance, each by itself. A begin is then preceded with the chance :math:`p_i` that a point of instance :math:`i`'s
lifetime lies within W after an end of A, which is known exactly. The number of preceded begins is a sum of trials of
unequal chances; its upper tail, from the mean on, is at most that of the binomial with the same mean (Hoeffding
1956), which is what is computed: a bound, so that nothing looks surer than it is.

**The reverse must not hold.** If both services belong to one burst of activity, each comes after the other more often
than chance. So the number preceded is also held against the number the other way round: if neither order were
preferred, of both together each would have the part that its own null expects. The larger of the two p-values counts,
corrected for the number of pairs (Benjamini and Hochberg), and the reverse must itself not be often so.

Ends and begins out of samples are known to a sampling period only: connections sampled more seldom than every W / 2
are left out, and counted. So are those whose end lies before their begin. A connection that was still open has a
begin, and no end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis

from whoneeds.analysis.attempts import INSTANCE, SEVERAL, drop_contradictions
from whoneeds.analysis.chance import FALSE_DISCOVERIES, binomial_tail, correct_for_many
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number
from whoneeds.store.portable import as_whole

_LONGEST_WINDOW_S = 86400.0


def _is_number(value: Any) -> bool:
    return (isinstance(value, float) or is_whole_number(value)) and math.isfinite(value)


@dataclass(frozen=True)
class CausalSettings:
    """What counts as an order.

    Attributes
    ----------
    window_s : float
        W.
    often_share : float
        Least share of begins that are preceded.
    least_begins : int
        Begins, and ends of the other service, below which nothing is claimed of a pair.
    false_discoveries : float
        Accepted share of false claims.

    Raises
    ------
    SettingsError
        If a value lies outside its range.
    """

    window_s: float = 1.0
    often_share: float = 0.5
    least_begins: int = 5
    false_discoveries: float = FALSE_DISCOVERIES

    def __post_init__(self) -> None:
        if not (_is_number(self.window_s) and 0.001 <= self.window_s <= _LONGEST_WINDOW_S):
            raise SettingsError(
                "window of causal order", expected="0.001 to 86400 seconds", found=ascii(self.window_s)[:40]
            )
        for name in ("often_share", "false_discoveries"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 < value <= 1):
                raise SettingsError(f"causal order, {name}", expected="above 0, and at most 1", found=ascii(value)[:40])
        if not (is_whole_number(self.least_begins) and 2 <= self.least_begins <= 10**6):
            raise SettingsError(
                "causal order, least_begins", expected="2 to 1000000", found=ascii(self.least_begins)[:40]
            )


def select_timed(attempts: ibis.Table, settings: CausalSettings = CausalSettings()) -> ibis.Table:
    """Answered uses of named services whose begin and end are known well enough for the window.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`, with services named.
    settings : CausalSettings, optional
    """
    rows = attempts.filter(~attempts.failed, attempts.port != SEVERAL)
    return drop_contradictions(rows.filter(rows.period_s * 2.0 <= settings.window_s))


def count_timed(attempts: ibis.Table, settings: CausalSettings = CausalSettings()) -> ibis.Table:
    """How many uses there are, and how many of them cannot be put in order.

    Parameters
    ----------
    attempts : ibis.Table
    settings : CausalSettings, optional

    Returns
    -------
    ibis.Table
        One row: uses, coarse (sampled too seldom for the window), contradicting (they end before they begin).
    """
    rows = attempts.filter(~attempts.failed, attempts.port != SEVERAL)
    contradicts = rows.last_ns < rows.first_ns
    return rows.agg(
        uses=rows.count(),
        coarse=((rows.period_s * 2.0 > settings.window_s) & ~contradicts).cast("int64").sum().fill_null(0),
        contradicting=contradicts.cast("int64").sum().fill_null(0),
    )


def count_orders(timed: ibis.Table, settings: CausalSettings = CausalSettings()) -> ibis.Table:
    """Count for each application and ordered pair of services how often the first one precedes the second.

    Parameters
    ----------
    timed : ibis.Table
        From `select_timed`.
    settings : CausalSettings, optional

    Returns
    -------
    ibis.Table
        app, before_protocol, before_port (A), protocol, port (B), instances (that use both), ordered_instances (of
        them, with a begin that is preceded), ends (of A in them), begins (of B in them), preceded, expected (of
        begins, by chance). Pairs with fewer ends or begins than the settings ask for are left out; those of which no
        begin is preceded are not, since they were asked about as well.
    """
    window_ns = round(settings.window_s * 1e9)
    service = ("protocol", "port")
    uses = timed.select(*INSTANCE, *service, "first_ns", "last_ns", "end", "period_s")
    lives = uses.group_by(*INSTANCE).agg(born_ns=uses.first_ns.min(), gone_ns=uses.last_ns.max())
    in_time = ibis.window(group_by=[*INSTANCE, *service], order_by="first_ns")
    marked = uses.mutate(since_ns=uses.first_ns - uses.first_ns.lag().over(in_time))
    begins = marked.filter(marked.since_ns.isnull() | (marked.since_ns > window_ns))
    begins = begins.select(*INSTANCE, *service, begin_ns="first_ns")
    over = ~(uses["end"] == "active").fill_null(False)
    ends = uses.filter(over).select(*INSTANCE, *service, end_ns="last_ns").distinct()
    # how much of the instance's lifetime lies within the window after an end
    following = ibis.window(group_by=[*INSTANCE, *service], order_by="end_ns")
    reach = ends.mutate(next_ns=ends.end_ns.lead().over(following)).join(lives, list(INSTANCE))
    reach = reach.mutate(
        after_ns=ibis.least(
            window_ns, reach.next_ns.fill_null(reach.gone_ns) - reach.end_ns, reach.gone_ns - reach.end_ns
        )
    )
    heads = reach.group_by(*INSTANCE, *service).agg(
        ends=reach.count(),
        after_ns=reach.after_ns.sum().cast("int64"),
        life_ns=(reach.gone_ns - reach.born_ns).max(),
    )
    tails = begins.group_by(*INSTANCE, *service).agg(begins=begins.count())
    heads, tails = _keep_frequent(heads, "ends", settings), _keep_frequent(tails, "begins", settings)
    first = heads.rename(before_protocol="protocol", before_port="port")
    both = first.join(tails, list(INSTANCE))
    both = both.filter((both.before_protocol != both.protocol) | (both.before_port != both.port))
    chance = ibis.ifelse(both.life_ns > 0, both.after_ns.cast("float64") / both.life_ns.nullif(0).cast("float64"), 1.0)
    # in millionths, since broken numbers add up to another sum in every order
    both = both.mutate(expected_millionths=as_whole(both.begins.cast("float64") * chance * 1e6))
    pair = ("app", "before_protocol", "before_port", *service)
    counted = both.group_by(*pair).agg(
        instances=both.count(),
        ends=both.ends.sum().cast("int64"),
        begins=both.begins.sum().cast("int64"),
        expected_millionths=both.expected_millionths.sum().cast("int64"),
    )
    begins, ends = (rows.semi_join(kept, [*INSTANCE, *service]) for rows, kept in ((begins, tails), (ends, heads)))
    hits = _find_preceded(begins, ends, window_ns)
    by_instance = hits.group_by(*pair, *INSTANCE[1:]).agg(preceded=hits.count())
    preceded = by_instance.group_by(*pair).agg(
        preceded=by_instance.preceded.sum().cast("int64"), ordered_instances=by_instance.count()
    )
    made = counted.left_join(preceded, list(pair))
    made = made.filter(made.begins >= settings.least_begins, made.ends >= settings.least_begins)
    return made.select(
        *pair, "instances", ordered_instances=made.ordered_instances.fill_null(0), ends="ends", begins="begins",
        preceded=made.preceded.fill_null(0), expected=made.expected_millionths.cast("float64") / 1e6,
    )  # fmt: skip


def judge_orders(
    counts: Sequence[Mapping[str, Any]], settings: CausalSettings = CausalSettings()
) -> list[dict[str, Any]]:
    """Tell which pairs are in causal order.

    Parameters
    ----------
    counts : sequence of mapping
        Rows of `count_orders`.
    settings : CausalSettings, optional

    Returns
    -------
    list of dict
        The rows with window_s, preceded_share, expected_share, lift (how many times as often as by chance),
        instances_share, reverse_preceded, reverse_begins, reverse_share, p_value, q_value and ``ordered``; surest
        first.
    """
    reverse = {_pair(row): row for row in counts}
    nothing = {"preceded": 0, "begins": 0, "expected": 0.0}
    others = [reverse.get(_pair(row, turned=True), nothing) for row in counts]
    forward = binomial_tail(
        [row["preceded"] for row in counts],
        [row["begins"] for row in counts],
        [row["expected"] / row["begins"] for row in counts],
    )
    # the bound holds from one above the mean on
    bound = [
        chance if row["preceded"] >= row["expected"] + 1 else 1.0 for chance, row in zip(forward, counts, strict=True)
    ]
    either = binomial_tail(
        [row["preceded"] for row in counts],
        [row["preceded"] + other["preceded"] for row, other in zip(counts, others, strict=True)],
        [_part(row["expected"], other["expected"]) for row, other in zip(counts, others, strict=True)],
    )
    p_values = [max(one, two) for one, two in zip(bound, either, strict=True)]
    made = []
    for row, other, p_value, q_value in zip(counts, others, p_values, correct_for_many(p_values), strict=True):
        share = row["preceded"] / row["begins"]
        reverse_share = other["preceded"] / other["begins"] if other["begins"] else None
        made.append(
            {
                **row,
                "window_s": settings.window_s,
                "preceded_share": share,
                "expected_share": row["expected"] / row["begins"],
                "lift": row["preceded"] / row["expected"] if row["expected"] else None,
                "instances_share": row["ordered_instances"] / row["instances"],
                "reverse_preceded": other["preceded"],
                "reverse_begins": other["begins"],
                "reverse_share": reverse_share,
                "p_value": float(p_value),
                "q_value": float(q_value),
                "ordered": bool(
                    q_value <= settings.false_discoveries
                    and share >= settings.often_share
                    and (reverse_share is None or reverse_share < settings.often_share)
                ),
            }
        )
    return sorted(made, key=lambda row: (not row["ordered"], row["q_value"], *_pair(row)))


def _keep_frequent(rows: ibis.Table, name: str, settings: CausalSettings) -> ibis.Table:
    """Only services of which an application has enough ends or begins to say anything: scans make millions of few."""
    key = ("app", "protocol", "port")
    sums = rows.group_by(*key).agg(together=rows[name].sum())
    return rows.semi_join(sums.filter(sums.together >= settings.least_begins), list(key))


def _find_preceded(begins: ibis.Table, ends: ibis.Table, window_ns: int) -> ibis.Table:
    """Begins with each service of the same instance that ended at most a window before.

    Time is cut into pieces of one window. An end at most that long before a begin lies in the begin's piece, where
    the first end tells whether any is before it, or in the piece before, where the last one tells whether any is late
    enough: so two ends of each piece stand for all of them, however many there are.
    """
    pieces = ends.mutate(piece=_piece(ends.end_ns, window_ns))
    pieces = pieces.group_by(
        *INSTANCE, before_protocol=pieces.protocol, before_port=pieces.port, piece=pieces.piece
    ).agg(first_end_ns=pieces.end_ns.min(), last_end_ns=pieces.end_ns.max())
    numbered = begins.mutate(piece=_piece(begins.begin_ns, window_ns))
    places = numbered.mutate(own=ibis.literal(True)).union(
        numbered.mutate(piece=numbered.piece - 1, own=ibis.literal(False))
    )
    met = places.join(pieces, [*INSTANCE, "piece"])
    met = met.filter(
        (met.before_protocol != met.protocol) | (met.before_port != met.port),
        ibis.ifelse(met.own, met.first_end_ns <= met.begin_ns, met.last_end_ns >= met.begin_ns - window_ns),
    )
    return met.select(*INSTANCE, "before_protocol", "before_port", "protocol", "port", "begin_ns").distinct()


def _piece(instant: Any, window_ns: int) -> Any:
    """The number of the piece of time that an instant lies in; exact, by whole numbers."""
    return as_whole((instant - instant % window_ns) / window_ns)


def _pair(row: Mapping[str, Any], *, turned: bool = False) -> tuple[Any, ...]:
    before, after = (row["before_protocol"], row["before_port"]), (row["protocol"], row["port"])
    return (row["app"], *after, *before) if turned else (row["app"], *before, *after)


def _part(expected: float, reverse_expected: float) -> float:
    """Which part of both orders together this one has if neither is preferred."""
    together = expected + reverse_expected
    return expected / together if together else 0.5
