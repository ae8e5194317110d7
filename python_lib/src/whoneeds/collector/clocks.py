# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the times of all hosts on one clock: a host's own may be set during a run, or be wrong by hours all the time.

Two ends of one connection began at the same instant, whatever two clocks said then. So connections that events tell of
from both ends are witnesses of how far two clocks are apart. Only those count whose addresses and ports came once on
either host, so that no port that was used again is taken for the same connection; and one witness is none.

Which clock is right, nobody can tell from inside. Times are put on the one that most hosts agree with; where as many
agree with another one, on either of both, so that connections meet, and nobody's clock is called wrong.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median_low
from typing import Any, NamedTuple

import ibis
import pyarrow as pa

from whoneeds.collector.sockets import Keep, is_loopback, keep_nothing

#: A difference below this is what clocks have that are kept right, and what pairing allows for anyway.
STEP_NS = 1_000_000_000
_LEAST_WITNESSES = 3
_PLACE = ("host", "boot_id")
_ENDS = ("local_addr", "local_port", "remote_addr", "remote_port")


class Boot(NamedTuple):
    """One run of a host's kernel: what counts its own time without a step."""

    host: str
    boot_id: str


class ClockOffset(NamedTuple):
    """How far a clock is from the one that times are put on.

    Attributes
    ----------
    ahead_ns : int
        Negative if it is behind.
    agreeing : int
        Hosts whose clocks agree with that one.
    by_most : bool
        Whether these are more than agree with any other clock. If not, nobody can tell which of both is wrong.
    """

    ahead_ns: int
    agreeing: int
    by_most: bool


def find_steps(segments: ibis.Table) -> ibis.Table:
    """What the steps of a host's clock after each segment come to, by the time since boot, which has none.

    Parameters
    ----------
    segments : ibis.Table
        SegmentHeader.

    Returns
    -------
    ibis.Table
        segment_id, host, boot_id, stepped_ns: added to the segment's times, they count as the clock did at the last.
    """
    rows = segments.select(
        "segment_id", *_PLACE, at="opened_mono_ns", base=segments.opened_ns - segments.opened_mono_ns
    )
    window = ibis.window(group_by=list(_PLACE), order_by=[rows["at"], rows.segment_id])
    rows = rows.mutate(change=(rows.base - rows.base.lag().over(window)).fill_null(0))
    rows = rows.mutate(step=ibis.ifelse(rows.change.abs() > STEP_NS, rows.change, 0))
    ahead = ibis.window(group_by=list(_PLACE), order_by=[rows["at"], rows.segment_id], preceding=None, following=0)
    whole = rows.step.sum().over(ibis.window(group_by=list(_PLACE)))
    return rows.select("segment_id", *_PLACE, stepped_ns=(whole - rows.step.sum().over(ahead)).cast("int64"))


def compare_clocks(sockets: ibis.Table, steps: ibis.Table, keep: Keep = keep_nothing) -> ibis.Table:
    """How far the clocks of two boots are apart, by the connections between them.

    Parameters
    ----------
    sockets : ibis.Table
        SocketRecord, with ``segment_id``.
    steps : ibis.Table
        From `find_steps`.
    keep : callable
        See `whoneeds.collector.sockets.Keep`.

    Returns
    -------
    ibis.Table
        host, boot_id, other_host, other_boot_id, ahead_ns (of the other: median), low_ns and high_ns (quartiles),
        witnesses.
    """
    told = sockets.filter(
        sockets.initiated.notnull(), sockets.remote_addr.notnull(), sockets.protocol == "tcp",
        sockets.source == "event", ~is_loopback(sockets.local_addr),
    )  # fmt: skip
    # most speak to hosts that are not traced, of which no other end is to be looked for
    far = keep(told.select(far_addr="local_addr").distinct())
    told = told.semi_join(far, told.remote_addr == far.far_addr)
    boots = keep(steps.select(*_PLACE).distinct(), "boot")
    told = told.join(steps.join(boots, list(_PLACE)).select("segment_id", "stepped_ns", "boot"), "segment_id")
    told = told.select("boot", *_ENDS, "initiated", "socket_id", begun_ns=told.first_ns + told.stepped_ns)
    once = _find_once(told.filter(told.initiated), keep)
    other = _find_once(told.filter(~told.initiated), keep).rename("other_{name}")
    both = once.join(
        other,
        [
            once.local_addr == other.other_remote_addr,
            once.local_port == other.other_remote_port,
            once.remote_addr == other.other_local_addr,
            once.remote_port == other.other_local_port,
        ],
    )
    both = keep(both.select("boot", "other_boot", ahead_ns=both.other_begun_ns - both.begun_ns))
    both = both.join(boots, "boot").join(boots.rename("other_{name}").view(), "other_boot")
    swapped = both.filter(both.host > both.other_host)
    swapped = swapped.select(
        host="other_host", boot_id="other_boot_id", other_host="host", other_boot_id="boot_id",
        ahead_ns=-swapped.ahead_ns,
    )  # fmt: skip
    both = both.filter(both.host < both.other_host).select(swapped.columns).union(swapped)
    places = [*_PLACE, *(f"other_{name}" for name in _PLACE)]
    return both.group_by(places).aggregate(
        ahead_ns=both.ahead_ns.quantile(0.5).round().cast("int64"),
        low_ns=both.ahead_ns.quantile(0.25).round().cast("int64"),
        high_ns=both.ahead_ns.quantile(0.75).round().cast("int64"),
        witnesses=both.count(),
    )


def _find_once(told: ibis.Table, keep: Keep) -> ibis.Table:
    """Addresses and ports that one socket of a boot had, and when that began."""
    key = ["boot", *_ENDS]
    rows = keep(told.group_by(key).aggregate(begun_ns=told.begun_ns.min(), times=told.count()))
    several = keep(rows.filter(rows.times > 1))
    again = told.semi_join(several, key)
    again = again.group_by(key).aggregate(begun_ns=again.begun_ns.min(), sockets=again.socket_id.nunique())
    again = again.filter(again.sockets == 1).drop("sockets")
    return rows.filter(rows.times == 1).drop("times").union(again)


def settle_clocks(comparisons: Iterable[Mapping[str, Any]]) -> dict[Boot, ClockOffset]:
    """Which clocks are wrong, and by how much: those that differ from what most hosts agree on.

    Parameters
    ----------
    comparisons : iterable of mapping
        Rows of `compare_clocks`. Those with few witnesses, or with witnesses that disagree, say nothing.

    Returns
    -------
    dict of Boot to ClockOffset
        Boots whose clock is more than `STEP_NS` from the one that times are put on.
    """
    apart: defaultdict[Boot, dict[Boot, int]] = defaultdict(dict)
    for row in comparisons:
        if row["witnesses"] < _LEAST_WITNESSES or row["high_ns"] - row["low_ns"] > STEP_NS:
            continue
        one, other = Boot(row["host"], row["boot_id"]), Boot(row["other_host"], row["other_boot_id"])
        apart[one][other], apart[other][one] = row["ahead_ns"], -row["ahead_ns"]
    wrong: dict[Boot, ClockOffset] = {}
    seen: set[Boot] = set()
    for first in sorted(apart):
        if first in seen:
            continue
        ahead = {first: 0}
        waiting = [first]
        while waiting:
            boot = waiting.pop()
            for other in sorted(apart[boot].keys() - ahead.keys()):
                ahead[other] = ahead[boot] + apart[boot][other]
                waiting.append(other)
        seen |= ahead.keys()
        most = max(sorted(ahead.values()), key=lambda value: len(_near(ahead.values(), value)))
        agreeing = _near(ahead.values(), most)
        right = median_low(agreeing)
        others = [value for value in ahead.values() if abs(value - right) > STEP_NS]
        by_most = all(len(_near(others, value)) < len(agreeing) for value in others)
        for boot, value in ahead.items():
            if abs(value - right) > STEP_NS:
                wrong[boot] = ClockOffset(value - right, len(agreeing), by_most)
    return wrong


def _near(values: Iterable[int], value: int) -> list[int]:
    return [one for one in values if abs(one - value) <= STEP_NS]


def find_shifts(steps: ibis.Table, offsets: Mapping[Boot, ClockOffset]) -> ibis.Table:
    """What is to be added to the times of each segment, where that is not nothing.

    Parameters
    ----------
    steps : ibis.Table
        From `find_steps`.
    offsets : mapping of Boot to ClockOffset
        From `settle_clocks`.

    Returns
    -------
    ibis.Table
        segment_id, shift_ns.
    """
    known = [{**boot._asdict(), "ahead_ns": offset.ahead_ns} for boot, offset in sorted(offsets.items())]
    schema = pa.schema([("host", pa.string()), ("boot_id", pa.string()), ("ahead_ns", pa.int64())])
    wrong = ibis.memtable(pa.Table.from_pylist(known, schema=schema))
    rows = steps.left_join(wrong, list(_PLACE))
    rows = rows.select("segment_id", shift_ns=rows.stepped_ns - rows.ahead_ns.fill_null(0))
    return rows.filter(rows.shift_ns != 0)


def shift_times(rows: ibis.Table, shifts: ibis.Table, *times: str) -> ibis.Table:
    """Rows with a ``segment_id``, their times on the common clock.

    Parameters
    ----------
    rows : ibis.Table
    shifts : ibis.Table
        From `find_shifts`.
    *times : str
        Columns of instants.
    """
    by = shifts.rename(shifted_id="segment_id")
    known = rows.left_join(by, rows.segment_id == by.shifted_id)
    shift = known.shift_ns.fill_null(0)
    return known.mutate(**{name: known[name] + shift for name in times}).select(rows.columns)
