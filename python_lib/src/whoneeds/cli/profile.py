# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb that tells how applications behave: profile, with one view for each question."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whoneeds.cli.answers import finish, observe, print_rows, tell_narrowing
from whoneeds.cli.engine import settings_of
from whoneeds.cli.narrowing import (
    DEFAULT_TIMEZONE,
    AppOption,
    HostOption,
    HoursOption,
    LocationOption,
    Narrowing,
    PlaceOption,
    RangesOption,
    Rows,
    ServiceOption,
    SinceOption,
    TimezoneOption,
    UntilOption,
    UserOption,
    read_rows,
)
from whoneeds.cli.options import (
    DEFAULT_MEMORY,
    DEFAULT_SPILL,
    DEFAULT_STORE,
    AskedMethodOption,
    FormatOption,
    MemoryOption,
    SpillOption,
    StoreOption,
)
from whoneeds.cli.outcome import Format
from whoneeds.cli.verbs import Examples, add_verb
from whoneeds.model.errors import SettingsError

if TYPE_CHECKING:
    from whoneeds.analysis.filters import Filters
    from whoneeds.store.session import Store


class View(StrEnum):
    """What to tell."""

    USAGE = "usage"
    TRAFFIC = "traffic"
    USERS = "users"
    FAILURES = "failures"
    CAUSAL = "causal"
    SLICES = "slices"
    FINDINGS = "findings"
    POPULATION = "population"


#: Views that can tell users apart.
_BY_USER = (View.USAGE, View.TRAFFIC, View.USERS, View.FAILURES)
_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d|w)\Z", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DAY_NS = 86400 * 10**9
_SECOND_NS = 10**9


def register(app: typer.Typer) -> None:
    """Add the verb."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)


@dataclass(frozen=True)
class _Asked:
    """What a view is made from."""

    store: "Store"
    filters: "Filters"
    rows: Rows
    needs: Any
    slice_ns: int
    window_s: float
    by_user: bool
    every_pair: bool

    def read(self, expression: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.store.read(expression).to_pylist()
        return rows

    def span(self) -> tuple[int, int]:
        """Begin and end of what was observed, within the filters."""
        from whoneeds.cli.evidence import require_segments

        hosts = require_segments(self.store)
        first, last = min(row["first_ns"] for row in hosts), max(row["last_ns"] for row in hosts)
        since, until = self.filters.since_ns, self.filters.until_ns
        return (first if since is None else max(first, since), last if until is None else min(last, until - 1))


def profile(
    store: StoreOption = DEFAULT_STORE,
    view: Annotated[
        View,
        typer.Option(
            "--view",
            help="usage: how many instances use each service, and its traffic. traffic: each application's share of "
            "all. users: the same for each user. failures: rejected and unanswered connections. causal: which service "
            "is used just before which. slices: usage over time. findings: scans, and what no longer behaves as "
            "before. population: how applications and services are spread.",
        ),
    ] = View.USAGE,
    app: AppOption = None,
    service: ServiceOption = None,
    slice_length: Annotated[
        str,
        typer.Option(
            "--slice", metavar="LENGTH", help="Length of slices, and of the period that findings judge: 2d, 6h."
        ),
    ] = "2d",
    window: Annotated[
        str,
        typer.Option("--window", metavar="LENGTH", help="How long before is just before, in causal order: 1s, 200ms."),
    ] = "1s",
    per_user: Annotated[
        bool, typer.Option("--per-user", help="A row for each user, in usage, traffic and failures.")
    ] = False,
    every_pair: Annotated[
        bool, typer.Option("--every-pair", help="Of causal order, list pairs without one as well.")
    ] = False,
    host: HostOption = None,
    user: UserOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    hours: HoursOption = None,
    timezone: TimezoneOption = DEFAULT_TIMEZONE,
    place: PlaceOption = None,
    inside_range: RangesOption = None,
    location: LocationOption = None,
    method: AskedMethodOption = None,
    memory: MemoryOption = DEFAULT_MEMORY,
    spill: SpillOption = DEFAULT_SPILL,
    form: FormatOption = Format.TABLE,
) -> None:
    """Tell how applications behave: usage, traffic, failures, order, change.

    Static services have a row each; so have transient ones, up to 20 of an application. Findings hold the period from
    --since to --until, by default the last slice, against all that was before.
    """
    from whoneeds.analysis.attempts import name_services
    from whoneeds.questions import choose_dependencies, find_attempts
    from whoneeds.render.profiles import profile_columns, sort_profile
    from whoneeds.store.session import open_store

    shown = read_rows(app, service)
    slice_ns = round(read_length("--slice", slice_length, least_s=1) * 1e9)
    window_s = read_length("--window", window, least_s=0.001)
    if per_user and view not in _BY_USER:
        raise SettingsError("--per-user", expected="a view of usage, traffic or failures", found=f"--view {view.value}")
    narrowing = Narrowing(host, user, since, until, hours, timezone, place, inside_range, location)
    with open_store(store, settings=settings_of(memory, spill)) as opened:
        seen = observe(opened)
        filters = narrowing.read(opened)
        sentences = [*tell_narrowing(opened, filters, shown), *seen.sentences]
        # what was before the period is what findings are held against
        counted = replace(filters, since_ns=None, until_ns=None) if view is View.FINDINGS else filters
        needs = opened.keep(choose_dependencies(opened, counted, method.value if method else None))
        attempts, flow = find_attempts(opened, counted)
        if shown.apps and view is not View.TRAFFIC and view is not View.USERS:
            # what was not asked about is no question that was asked
            attempts = attempts.filter(attempts.app.isin(shown.apps))
        attempts = opened.keep(name_services(attempts, needs))
        by_user = per_user or view is View.USERS
        asked = _Asked(opened, filters, shown, needs, slice_ns, window_s, by_user, every_pair)
        rows, names, said = _VIEWS[view](asked, attempts, flow)
        print_rows(
            sort_profile(view.value, rows), names, profile_columns(view.value, by_user=per_user), form,
            [*said, *sentences],
        )  # fmt: skip
        finish(opened)


def read_length(option: str, text: str, least_s: float) -> float:
    """A length of time in seconds.

    Raises
    ------
    SettingsError

    Examples
    --------
    >>> read_length("--slice", "2d", 1), read_length("--window", "250ms", 0.001)
    (172800.0, 0.25)
    """
    found = _LENGTH.match(text)
    length_s = float(found[1]) * _UNITS_S[found[2]] if found else math.nan
    if not least_s <= length_s <= 10**9:
        raise SettingsError(
            option, expected=f"a length of {least_s:g} s or more, as 200ms, 1s, 6h or 2d", found=ascii(text)[:40]
        )
    return length_s


_Answer = tuple[list[dict[str, Any]], list[str], list[str]]


def _plain(asked: _Asked, made: Any, said: list[str]) -> _Answer:
    """An answer that is an expression."""
    return asked.read(asked.rows.select(made) if "port" in made.columns else _of_apps(asked, made)), made.columns, said


def _of_apps(asked: _Asked, made: Any) -> Any:
    return made.filter(made.app.isin(asked.rows.apps)) if asked.rows.apps else made


def _usage(asked: _Asked, attempts: Any, _flow: Any) -> _Answer:
    from whoneeds.analysis.usage import measure_usage

    made = measure_usage(attempts, by_user=asked.by_user)
    return _plain(asked, made, _tell_uncounted(asked, attempts.filter(~attempts.failed)))


def _traffic(asked: _Asked, attempts: Any, flow: Any) -> _Answer:
    from whoneeds.analysis.traffic import measure_traffic

    made = measure_traffic(attempts, flow, by_user=asked.by_user)
    return _plain(asked, made, [*_tell_uncounted(asked, flow), *_tell_untold(asked, attempts)])


def _failures(asked: _Asked, attempts: Any, _flow: Any) -> _Answer:
    from whoneeds.analysis.failures import measure_failures_of

    made = measure_failures_of(attempts, by_user=asked.by_user)
    return _plain(asked, made, _tell_untold(asked, attempts))


def _causal(asked: _Asked, attempts: Any, _flow: Any) -> _Answer:
    from whoneeds.analysis.causal import CausalSettings, count_orders, count_timed, judge_orders, select_timed
    from whoneeds.render.profile_statements import state_orders

    settings = CausalSettings(window_s=asked.window_s)
    counts = asked.read(count_orders(select_timed(attempts, settings), settings))
    judged = judge_orders(counts, settings)
    said = state_orders(asked.read(count_timed(attempts, settings))[0], judged, settings)
    wanted = set(asked.rows.services)
    rows = [
        row
        for row in judged
        if (row["ordered"] or asked.every_pair)
        and (not wanted or wanted & {(row[f"{end}protocol"], row[f"{end}port"]) for end in ("", "before_")})
    ]
    return rows, [*count_orders(select_timed(attempts)).columns, *_JUDGED], said


#: What judging adds to the columns of a pair.
_JUDGED = (
    "window_s", "preceded_share", "expected_share", "lift", "instances_share", "reverse_preceded", "reverse_begins",
    "reverse_share", "p_value", "q_value", "ordered",
)  # fmt: skip


def _slices(asked: _Asked, attempts: Any, _flow: Any) -> _Answer:
    from whoneeds.analysis.slices import cut, measure_slices
    from whoneeds.model.evidence import SegmentHeader
    from whoneeds.render.profile_statements import state_slices

    first, last = asked.span()
    if asked.filters.since_ns is None:
        # from a midnight, or a whole slice, on: so that more observation makes no other slices
        first -= first % min(asked.slice_ns, _DAY_NS)
    slices = cut(first, max(first, last - 1), asked.slice_ns)
    made = measure_slices(attempts, asked.store.table(SegmentHeader), slices)
    rows, names, said = _plain(asked, made, [])
    return rows, names, [*said, *state_slices(slices, rows)]


def _findings(asked: _Asked, attempts: Any, _flow: Any) -> _Answer:
    from whoneeds.analysis.findings import COLUMNS, find, split_history
    from whoneeds.render.profile_statements import state_findings

    unlimited = replace(asked, filters=replace(asked.filters, since_ns=None, until_ns=None))
    first, last = unlimited.span()
    until_ns = last + 1 if asked.filters.until_ns is None else min(last + 1, asked.filters.until_ns)
    since_ns = asked.filters.since_ns
    if since_ns is None:
        # of a short observation no more than half can be judged by the rest
        since_ns = until_ns - min(asked.slice_ns, (until_ns - first) // 2)
    day_ns = max(min(_DAY_NS, (until_ns - since_ns) // 2), _SECOND_NS)
    days, first_day = split_history(first, since_ns, until_ns, day_ns)
    found = find(attempts, days, first_day, asked.read)
    wanted = asked.rows.services
    rows = [row for row in found.findings if not wanted or (row["protocol"], row["port"]) in wanted]
    return rows, list(COLUMNS), state_findings(found, days, first_day, first)


def _population(asked: _Asked, attempts: Any, _flow: Any) -> _Answer:
    from whoneeds.analysis.population import COLUMNS, describe_population
    from whoneeds.analysis.ranges import list_own_addresses
    from whoneeds.model.evidence import SegmentHeader

    own = list_own_addresses(asked.store.table(SegmentHeader))
    needs = _of_apps(asked, asked.needs)
    return describe_population(needs, attempts, asked.read, asked.filters.ranges, own), list(COLUMNS), []


def _tell_uncounted(asked: _Asked, rows: Any) -> list[str]:
    """How many connections have no byte counts."""
    from whoneeds.render.profile_statements import state_uncounted

    lost = (rows.orig_bytes.isnull() | rows.resp_bytes.isnull()).cast("int64").sum().fill_null(0)
    return state_uncounted(**asked.read(rows.agg(connections=rows.count(), uncounted=lost))[0])


def _tell_untold(asked: _Asked, rows: Any) -> list[str]:
    """Of how many connections a failure would have been seen."""
    from whoneeds.render.profile_statements import state_untold

    told = (rows.period_s == 0.0).cast("int64").sum().fill_null(0)
    return state_untold(**asked.read(rows.agg(attempts=rows.count(), told=told))[0])


_VIEWS: dict[View, Callable[[_Asked, Any, Any], _Answer]] = {
    View.USAGE: _usage,
    View.TRAFFIC: _traffic,
    View.USERS: _traffic,
    View.FAILURES: _failures,
    View.CAUSAL: _causal,
    View.SLICES: _slices,
    View.FINDINGS: _findings,
    View.POPULATION: _population,
}

EXAMPLES: Examples = {
    profile: (
        "whoneeds profile --store found",
        "whoneeds profile --store found --view causal --app nginx --window 200ms",
        "whoneeds profile --store found --view slices --slice 6h --format csv > usage.csv",
        "whoneeds profile --store found --view findings --since 2d",
    ),
}
