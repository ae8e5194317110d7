# SPDX-License-Identifier: GPL-3.0-or-later
"""Usage of services over time (Macroscope, section 4.3, Fig. 9): the same figures, of each slice by itself.

An instance is part of a slice, and uses a service in it, if it has a connection, or one to that service, in any part
of the slice; a long connection so counts in each slice that it lasts through. Connections, bytes and failures belong
to the slice in which they began.

Nothing seen is not the same as nobody looking. A slice in which no host was looked at is a row without figures. One
in which hosts were looked at and no instance of the application had a connection has a population of 0, and its
share is not known: a measured zero needs an instance that did not use the service.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ibis

from whoneeds.analysis.attempts import INSTANCE, SEVERAL, drop_contradictions, measure_failures, tell_share
from whoneeds.model.errors import AnalysisError, SettingsError
from whoneeds.model.schema import is_whole_number
from whoneeds.store.portable import as_whole

_MOST_SLICES = 4000
_LEAST_NS = 10**9


@dataclass(frozen=True)
class Slices:
    """Consecutive slices of one length.

    Attributes
    ----------
    begin_ns : int
        Begin of the first one.
    length_ns : int
    number : int

    Raises
    ------
    SettingsError
        If a slice is shorter than a second, or there are more than 4000 of them.

    Examples
    --------
    >>> Slices(0, 10**9, 3).begins
    (0, 1000000000, 2000000000)
    """

    begin_ns: int
    length_ns: int
    number: int

    def __post_init__(self) -> None:
        if not is_whole_number(self.length_ns) or self.length_ns < _LEAST_NS:
            raise SettingsError("length of a slice", expected="a second or more", found=f"{self.length_ns} ns")
        if not 0 < self.number <= _MOST_SLICES:
            raise SettingsError(
                "slices", expected=f"1 to {_MOST_SLICES}", found=str(self.number), remedy="take longer ones"
            )

    @property
    def begins(self) -> tuple[int, ...]:
        """Begins of the slices."""
        return tuple(self.begin_ns + at * self.length_ns for at in range(self.number))

    @property
    def end_ns(self) -> int:
        """End of the last one."""
        return self.begin_ns + self.number * self.length_ns


def cut(first_ns: int, last_ns: int, length_ns: int) -> Slices:
    """Slices that hold a time.

    Parameters
    ----------
    first_ns, last_ns : int
        They begin with the first instant, and hold the last one.
    length_ns : int

    Raises
    ------
    AnalysisError
        If the time is empty.
    """
    if last_ns < first_ns:
        raise AnalysisError("the period is empty", expected="an end after its begin", found=f"{first_ns} to {last_ns}")
    number = (last_ns - first_ns) // max(length_ns, 1) + 1
    return Slices(first_ns, length_ns, number)


def number_slice(instant: ibis.Value, slices: Slices) -> ibis.Value:
    """The number of the slice that an instant lies in; exact, by whole numbers."""
    since = instant - slices.begin_ns
    return as_whole((since - since % slices.length_ns) / slices.length_ns)


def lay_slices(rows: ibis.Table, slices: Slices) -> ibis.Table:
    """A row for each slice that a row lies in.

    Parameters
    ----------
    rows : ibis.Table
        With first_ns and last_ns.
    slices : Slices

    Returns
    -------
    ibis.Table
        The rows, and ``slice``.
    """
    rows = rows.filter(rows.last_ns >= slices.begin_ns, rows.first_ns < slices.end_ns)
    # a union takes no column that may be unknown in one part only
    rows = rows.cast({name: kind.copy(nullable=True) for name, kind in rows.schema().items()})
    rows = rows.mutate(
        slice=number_slice(ibis.greatest(rows.first_ns, slices.begin_ns), slices),
        last_slice=number_slice(ibis.least(rows.last_ns, slices.end_ns - 1), slices),
    )
    # nearly all lie in one, and need not be held against every slice
    long = rows.filter(rows.last_slice > rows["slice"]).rename(first_slice="slice")
    numbers = _list(slices)
    spread = long.join(numbers, [long.first_slice <= numbers["slice"], long.last_slice >= numbers["slice"]])
    short = rows.filter(rows.last_slice == rows["slice"])
    return short.drop("last_slice").union(spread.select(short.drop("last_slice").columns))


def observe_slices(segment: ibis.Table, slices: Slices) -> ibis.Table:
    """How each slice was looked at.

    Parameters
    ----------
    segment : ibis.Table
        Rows of `SegmentHeader`.
    slices : Slices

    Returns
    -------
    ibis.Table
        slice (number from 0), hosts (that were looked at in any part of it), observed_s (summed over hosts).
        Slices without any are left out.
    """
    rows = segment.filter(~segment.sources.contains("wire"), segment.closed_ns >= segment.opened_ns)
    # the instant at which a segment was closed belongs to the next one
    last_ns = ibis.greatest(rows.closed_ns - 1, rows.opened_ns)
    rows = lay_slices(rows.select("host", "closed_ns", first_ns="opened_ns", last_ns=last_ns), slices)
    begin_ns = rows["slice"] * slices.length_ns + slices.begin_ns
    inside_ns = ibis.least(rows.closed_ns, begin_ns + slices.length_ns) - ibis.greatest(rows.first_ns, begin_ns)
    rows = rows.mutate(inside_ns=inside_ns)
    made = rows.group_by("slice").agg(hosts=rows.host.nunique(), inside_ns=rows.inside_ns.sum().cast("int64"))
    return made.select("slice", "hosts", observed_s=made.inside_ns.cast("float64") / 1e9)


def measure_slices(attempts: ibis.Table, segment: ibis.Table, slices: Slices) -> ibis.Table:
    """Measure each application's use of each of its services in each slice.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`, with services named. Those whose end lies before their begin are left out.
    segment : ibis.Table
        Rows of `SegmentHeader`.
    slices : Slices

    Returns
    -------
    ibis.Table
        slice, begin_ns, hosts, observed_s, app, protocol, port (null where several are one), kind, instances,
        population, usage_share, connections, orig_bytes, orig_share, resp_bytes, resp_share, rejected, unanswered,
        failed_share. A row for each slice and each service that the application uses in any of them.
    """
    rows = drop_contradictions(attempts)
    key = ("app", "protocol", "port", "kind")
    seen = lay_slices(rows.filter(~rows.failed), slices)
    used = seen.select("slice", *dict.fromkeys((*key, *INSTANCE))).distinct()
    used = used.group_by("slice", *key).agg(instances=used.count())
    population = seen.select("slice", *INSTANCE).distinct()
    population = population.group_by("slice", "app").agg(population=population.count())
    begun = rows.filter(rows.first_ns >= slices.begin_ns, rows.first_ns < slices.end_ns)
    begun = begun.mutate(slice=number_slice(begun.first_ns, slices))
    answered = begun.filter(~begun.failed)
    volume = answered.group_by("slice", *key).agg(
        connections=answered.count(),
        orig_bytes=answered.orig_bytes.sum().cast("int64"),
        resp_bytes=answered.resp_bytes.sum().cast("int64"),
    )
    totals = answered.group_by("slice", "app").agg(
        all_orig=answered.orig_bytes.sum().cast("int64"), all_resp=answered.resp_bytes.sum().cast("int64")
    )
    failed = begun.group_by("slice", *key).agg(**measure_failures(begun))
    observed = observe_slices(segment, slices)
    made = seen.select(*key).distinct().cross_join(_list(slices))
    for right, on in (
        (observed, ("slice",)), (population, ("slice", "app")), (used, ("slice", *key)),
        (volume, ("slice", *key)), (totals, ("slice", "app")), (failed, ("slice", *key)),
    ):  # fmt: skip
        made = _widen(made, right, on)
    looked = made.hosts.notnull()
    members = ibis.ifelse(looked, made.population.fill_null(0), ibis.null("int64"))
    instances = ibis.ifelse(looked & (members > 0), made.instances.fill_null(0), ibis.null("int64"))
    connections = ibis.ifelse(looked & (members > 0), made.connections.fill_null(0), ibis.null("int64"))
    return made.select(
        "slice", begin_ns=made["slice"] * slices.length_ns + slices.begin_ns, hosts=made.hosts.fill_null(0),
        observed_s=made.observed_s.fill_null(0.0), app="app", protocol="protocol", port=made.port.nullif(SEVERAL),
        kind="kind", instances=instances, population=members, usage_share=tell_share(instances, members),
        connections=connections, orig_bytes="orig_bytes", orig_share=tell_share(made.orig_bytes, made.all_orig),
        resp_bytes="resp_bytes", resp_share=tell_share(made.resp_bytes, made.all_resp),
        rejected="rejected", unanswered="unanswered", failed_share=tell_share(made.told_failed, made.told),
    )  # fmt: skip


def _list(slices: Slices) -> ibis.Table:
    """The numbers of all slices."""
    numbers = ibis.range(slices.number).unnest().name("slice").as_table()
    return numbers.mutate(slice=numbers["slice"].cast("int64"))


def _widen(left: ibis.Table, right: ibis.Table, on: Sequence[str]) -> ibis.Table:
    """All rows of the left with the columns of the right where there are any."""
    joined = left.left_join(right, list(on))
    return joined.drop(*(f"{name}_right" for name in on if f"{name}_right" in joined.columns))
