# SPDX-License-Identifier: GPL-3.0-or-later
"""From sockets to flows: one row for each conversation, whoever saw it, and which end began it.

Events tell who called whom (``direction`` is ``event``). A socket table does not; there it follows from who was
waiting:

* ``listener``: the port at one end is listened on and the one at the other is not; or one end was seen only, and
  nobody on its host listens on its port, so it cannot have been called;
* ``handshake``: of a UDP conversation the first packet was seen, after both had been silent, and who sent it began;
* ``port``: nobody or both listen, and exactly one port is below 1024;
* ``unknown``: neither; such a flow says that two ends spoke, and no dependency follows from it.
"""

from dataclasses import dataclass
from typing import Any

import ibis

from whoneeds.collector.addresses import find_claims, find_owners, home_namespaces
from whoneeds.collector.listeners import match_listeners
from whoneeds.collector.pairing import choose_pairs, find_ambiguous, find_candidates
from whoneeds.collector.sockets import (
    Keep,
    connected_lives,
    is_loopback,
    keep_nothing,
    merge_sockets,
    name_life,
    waiting_lives,
)
from whoneeds.collector.translation import find_misled, resolve_far_ends, resolve_nothing
from whoneeds.model.evidence import FlowRecord
from whoneeds.model.schema import columns

#: Ports that only services use: below it a program needs a privilege to wait.
WELL_KNOWN = 1024
#: Ends of connections that never came about.
FAILED = ("unanswered", "rejected")


@dataclass(frozen=True)
class FlowSettings:
    """What has to be assumed of hosts.

    Attributes
    ----------
    clock_offset_s : float
        How far the clocks of two hosts may be apart.
    """

    clock_offset_s: float = 2.0

    @property
    def clock_offset_ns(self) -> int:
        """The same in nanoseconds."""
        return int(self.clock_offset_s * 1e9)


def build_flows(
    sockets: ibis.Table,
    segments: ibis.Table,
    settings: FlowSettings = FlowSettings(),
    keep: Keep = keep_nothing,
    translations: ibis.Table | None = None,
) -> ibis.Table:
    """Flows, seen from one end or from both.

    Parameters
    ----------
    sockets, segments : ibis.Table
        SocketRecord (with ``segment_id``), where packets were taken in as
        `whoneeds.collector.exchanges.join_exchanges` gives it, and SegmentHeader.
    settings : FlowSettings
    keep : callable
        See `whoneeds.collector.sockets.Keep`.
    translations : ibis.Table, optional
        TranslationRecord; without them none is known.

    Returns
    -------
    ibis.Table
        FlowRecord.
    """
    lives = merge_sockets(sockets, segments, keep)
    waiting = keep(waiting_lives(lives))
    claims = keep(find_claims(segments))
    ends = connected_lives(lives)
    if translations is None:
        ends = resolve_nothing(ends)
    else:
        ends = resolve_far_ends(ends, translations, claims, settings.clock_offset_ns, keep)
    candidates = keep(find_candidates(ends, settings.clock_offset_ns, keep))
    pairs = keep(choose_pairs(candidates))
    # rows are wide and most have nothing to be found out about them: what is found is held by itself, by number
    joined = _join_ends(ends, pairs, keep(find_ambiguous(candidates, pairs)), keep)
    known = _find_far_hosts(joined, claims, segments, settings, keep)
    homes = keep(home_namespaces(lives, claims))
    x_hit, y_hit = (keep(hits) for hits in _find_listening(known, waiting, homes, settings))
    known = known.left_join(x_hit, known.x_life == x_hit.x_hit)
    known = known.left_join(y_hit, known.x_life == y_hit.y_hit)
    return _name_roles(known.mutate(x_listens=known.x_hit.notnull(), y_listens=known.y_hit.notnull()))


def _join_ends(ends: ibis.Table, pairs: ibis.Table, ambiguous: ibis.Table, keep: Keep) -> ibis.Table:
    """One row a conversation: the end ``x`` that was seen, the end ``y`` where that was seen too, ``candidates``."""
    leading = pairs.filter(pairs.leads).select(x_life="life", y_life="other_life")
    x, y = ends.rename("x_{name}"), ends.rename("y_{name}").view()
    paired = keep(y.join(leading, "y_life").join(x, "x_life"))
    alone = x.anti_join(pairs, x.x_life == pairs.life)
    alone = alone.mutate(**{name: ibis.null(kind) for name, kind in y.schema().items()})
    known = alone.union(paired.select(alone.columns))
    known = known.left_join(ambiguous, known.x_life == ambiguous.life).drop("life")
    # an end that was seen is where it is, whatever the other one was told of it
    return known.mutate(
        candidates=known.candidates.fill_null(0),
        x_remote_addr=known.y_local_addr.coalesce(known.x_remote_addr),
        x_remote_port=known.y_local_port.coalesce(known.x_remote_port),
    )


def _find_far_hosts(
    joined: ibis.Table, claims: ibis.Table, segments: ibis.Table, settings: FlowSettings, keep: Keep
) -> ibis.Table:
    """Conversations with ``remote_host`` (the traced host at the other end, seen or by address) and ``translated``."""
    asked = joined.filter(joined.y_life.isnull(), ~_stays_home(joined))
    asked = asked.select(
        end=asked.x_life, address=asked.x_remote_addr, first_ns=asked.x_first_ns, last_ns=asked.x_last_ns
    )
    owners = keep(find_owners(asked, claims, settings.clock_offset_ns))
    known = joined.left_join(owners, joined.x_life == owners.end)
    away = ibis.ifelse(is_loopback(known.x_remote_addr), known.x_translator, known.owner)
    by_address = ibis.ifelse(_stays_home(known), known.x_host, away)
    known = known.mutate(remote_host=ibis.coalesce(known.y_host, by_address)).drop("end", "owner")
    alone = known.filter(
        known.y_life.isnull(), known.candidates == 0, known.x_protocol == "tcp", known.x_established,
        known.x_open, ~_stays_home(known), known.remote_host.notnull(),
    )  # fmt: skip
    alone = alone.select(end=alone.x_life, owner=alone.remote_host, first_ns=alone.x_first_ns, last_ns=alone.x_last_ns)
    misled = keep(find_misled(alone, segments, settings.clock_offset_ns))
    known = known.left_join(misled, known.x_life == misled.end)
    lost = known.end.notnull() | (known.x_disagreed & known.y_life.isnull())
    resolved = known.x_translator.notnull() | known.y_translator.notnull()
    return known.mutate(
        remote_host=ibis.ifelse(lost, ibis.null("string"), known.remote_host),
        translated=ibis.cases((lost, "unresolved"), (resolved, "resolved"), else_=ibis.null("string")),
    ).drop("end")


def _find_listening(
    joined: ibis.Table, waiting: ibis.Table, homes: ibis.Table, settings: FlowSettings
) -> tuple[ibis.Table, ibis.Table]:
    """Conversations at whose end x, and those at whose end y, somebody waits on the port: ``x_hit`` and ``y_hit``."""
    near = joined.select(
        end=joined.x_life, host=joined.x_host, netns=joined.x_netns, protocol=joined.x_protocol,
        addr=joined.x_local_addr, port=joined.x_local_port, first_ns=joined.x_first_ns, last_ns=joined.x_last_ns,
        period_s=joined.x_period_s, own_socket_id=joined.x_socket_id,
    )  # fmt: skip
    far = far_ends(
        joined.select(
            end=joined.x_life, host=joined.remote_host, protocol=joined.x_protocol, addr=joined.x_remote_addr,
            port=joined.x_remote_port, first_ns=ibis.coalesce(joined.y_first_ns, joined.x_first_ns),
            last_ns=ibis.coalesce(joined.y_last_ns, joined.x_last_ns),
            period_s=ibis.coalesce(joined.y_period_s, joined.x_period_s), own_socket_id=joined.y_socket_id,
            seen_netns=joined.y_netns,
            home_netns=ibis.ifelse(_stays_home(joined), joined.x_netns, ibis.null("string")),
        ),
        homes,
    )  # fmt: skip
    x_hit = match_listeners(near, waiting, settings.clock_offset_ns).select(x_hit="end").distinct()
    y_hit = match_listeners(far, waiting, settings.clock_offset_ns).select(y_hit="end").distinct()
    return x_hit, y_hit


def _stays_home(joined: ibis.Table) -> Any:
    """Whether the conversation cannot leave its network namespace: one of its addresses is loopback."""
    far = is_loopback(joined.x_remote_addr)
    own = (joined.x_translator == joined.x_host) & (joined.x_translator_netns == joined.x_netns)
    return ibis.ifelse(joined.x_translator.isnull(), is_loopback(joined.x_local_addr) | far, far & own)


def far_ends(ends: ibis.Table, homes: ibis.Table) -> ibis.Table:
    """Give each end the network namespaces that it can be in.

    Parameters
    ----------
    ends : ibis.Table
        As for `match_listeners`, but instead of ``netns`` with ``seen_netns`` (where its socket was seen) and
        ``home_netns`` (the caller's, if the conversation cannot leave it); with neither, it is where the host's own
        addresses are. Ends without a host are dropped.
    homes : ibis.Table
        From `home_namespaces`.

    Returns
    -------
    ibis.Table
        As for `match_listeners`.
    """
    ends = ends.filter(ends.host.notnull())
    ends = ends.mutate(own_netns=ibis.coalesce(ends.seen_netns, ends.home_netns))
    certain = ends.filter(ends.own_netns.notnull()).mutate(netns=lambda t: t.own_netns)
    homes = homes.rename(home_host="host")
    guessed = ends.filter(ends.own_netns.isnull())
    guessed = guessed.join(homes, guessed.host == homes.home_host)
    wanted = [
        "end", "host", "netns", "protocol", "addr", "port", "first_ns", "last_ns", "period_s", "own_socket_id",
    ]  # fmt: skip
    return certain.select(wanted).union(guessed.select(wanted))


def _name_roles(joined: ibis.Table) -> ibis.Table:
    """Decide who began, and turn x and y into originator and responder."""
    alone = joined.y_life.isnull()
    # a UDP socket that is not connected may wait or call
    x_open, y_open = joined.x_unconnected.fill_null(False), joined.y_unconnected.fill_null(False)
    x_waits, y_waits = joined.x_listens | x_open, joined.y_listens | y_open
    x_called = x_waits & ~y_waits & ~(alone & x_open)
    x_calls = ibis.ifelse(alone, ~x_waits, y_waits & ~x_waits)
    x_low, y_low = joined.x_local_port < WELL_KNOWN, joined.x_remote_port < WELL_KNOWN
    # both ends cannot be right if they say the same of themselves
    x_told, y_told = joined.x_initiated, ~joined.y_initiated
    told = ibis.ifelse((x_told == y_told).fill_null(True), ibis.coalesce(x_told, y_told), ibis.null("boolean"))
    upper = (joined.x_local_port > joined.x_remote_port) | (
        (joined.x_local_port == joined.x_remote_port) & (joined.x_local_addr > joined.x_remote_addr)
    )
    by_port = x_low != y_low
    # as with what events tell: both ends cannot have been first
    x_first, y_second = joined.x_spoke_first, ~joined.y_spoke_first
    first = ibis.ifelse((x_first == y_second).fill_null(True), ibis.coalesce(x_first, y_second), ibis.null("boolean"))
    table = joined.mutate(
        x_is_orig=ibis.cases(
            (told.notnull(), told),
            (x_calls, True),
            (x_called, False),
            (first.notnull(), first),
            (by_port, y_low),
            else_=upper,
        ),
        direction=ibis.cases(
            (told.notnull(), "event"),
            (x_calls | x_called, "listener"),
            (first.notnull(), "handshake"),
            (by_port, "port"),
            else_="unknown",
        ),
        answered=joined.x_answered | joined.y_answered.fill_null(False),
        finished=joined.x_finished | joined.y_finished.fill_null(False) | _either(joined.x_end, joined.y_end, "fin"),
    )
    orig = table.x_is_orig

    def pick(x: Any, y: Any) -> tuple[Any, Any]:
        """The originator's and the responder's value of what is known at x and at y."""
        return ibis.ifelse(orig, x, y), ibis.ifelse(orig, y, x)

    orig_addr, resp_addr = pick(table.x_local_addr, table.x_remote_addr)
    orig_port, resp_port = pick(table.x_local_port, table.x_remote_port)
    # what the socket at each end saw, where the other end is another
    x_saw = _differs(table.x_seen_addr, table.x_remote_addr) | _differs(table.x_seen_port, table.x_remote_port)
    y_saw = _differs(table.y_seen_addr, table.x_local_addr) | _differs(table.y_seen_port, table.x_local_port)
    called_addr, caller_addr = pick(
        ibis.ifelse(x_saw, table.x_seen_addr, ibis.null("string")),
        ibis.ifelse(y_saw, table.y_seen_addr, ibis.null("string")),
    )
    called_port, caller_port = pick(
        ibis.ifelse(x_saw, table.x_seen_port, ibis.null("int64")),
        ibis.ifelse(y_saw, table.y_seen_port, ibis.null("int64")),
    )
    orig_host, resp_host = pick(table.x_host, table.remote_host)
    orig_socket, resp_socket = pick(table.x_socket_id, table.y_socket_id)
    # each end counts both ways, and the last look at it came before its last byte: the larger count is nearer
    orig_bytes, resp_bytes = pick(
        _larger(table.x_sent_bytes, table.y_received_bytes), _larger(table.x_received_bytes, table.y_sent_bytes)
    )
    orig_packets, resp_packets = pick(
        _larger(table.x_sent_packets, table.y_received_packets), _larger(table.x_received_packets, table.y_sent_packets)
    )
    orig_location, resp_location = pick(table.x_location, table.y_location)
    orig_seen = ibis.ifelse(orig, True, table.y_life.notnull())
    x_spent, y_spent = table.x_last_ns - table.x_first_ns, table.y_last_ns - table.y_first_ns
    # compared with an end that was not seen, nothing is less
    y_more = (table.y_samples > table.x_samples) | ((table.y_samples == table.x_samples) & (y_spent > x_spent))
    # an end that only its tuple is left of was not seen while it spoke; one that events told of was seen whole
    y_seen = ibis.ifelse(table.x_open == table.y_open, y_more, table.y_open)
    # nor does any packet escape a capture
    x_whole = table.x_end.notnull() | table.x_sent_packets.notnull()
    y_whole = table.y_end.notnull() | table.y_sent_packets.notnull()
    y_better = (ibis.ifelse(x_whole == y_whole, y_seen, y_whole) & table.y_life.notnull()).fill_null(False)
    x_name = name_life(
        table.x_socket_id, table.x_protocol, (table.x_local_addr, table.x_local_port),
        (table.x_seen_addr, table.x_seen_port),
    )  # fmt: skip
    ids = ibis.ifelse(table.y_life.isnull(), x_name, table.y_socket_id.fill_null("") + ibis.literal("+") + x_name)
    made = {
        "flow_id": ids,
        "protocol": table.x_protocol,
        "orig_addr": orig_addr,
        "orig_port": orig_port,
        "resp_addr": resp_addr,
        "resp_port": resp_port,
        "direction": table.direction,
        "orig_host": orig_host,
        "resp_host": resp_host,
        "orig_socket_id": orig_socket,
        "resp_socket_id": resp_socket,
        "first_ns": _smaller(table.x_first_ns, table.y_first_ns),
        "last_ns": _larger(table.x_last_ns, table.y_last_ns),
        "duration_s": ibis.ifelse(y_better, y_spent, x_spent).cast("float64") / 1e9,
        "samples": ibis.ifelse(y_better, table.y_samples, table.x_samples),
        "period_s": ibis.cases(
            (ibis.ifelse(y_better, y_whole, x_whole), 0.0), (y_better, table.y_period_s), else_=table.x_period_s
        ),
        "orig_bytes": orig_bytes,
        "resp_bytes": resp_bytes,
        "orig_packets": orig_packets,
        "resp_packets": resp_packets,
        "end": ibis.cases(
            *((_either(table.x_end, table.y_end, word), ibis.literal(word)) for word in ("rst", "rejected")),
            (~table.answered, ibis.literal("unanswered")),
            (table.finished, ibis.literal("fin")),
            else_=ibis.null("string"),
        ),
        "candidates": table.candidates,
        "location": ibis.ifelse(orig_seen, orig_location, resp_location),
        "called_addr": called_addr,
        "called_port": called_port,
        "caller_addr": caller_addr,
        "caller_port": caller_port,
        "translated": table.translated,
    }
    return table.select(**{column.name: made[column.name] for column in columns(FlowRecord)})


def _differs(a: Any, b: Any) -> Any:
    return (a != b).fill_null(False)


def _either(a: Any, b: Any, word: str) -> Any:
    return (a == word).fill_null(False) | (b == word).fill_null(False)


def _larger(a: Any, b: Any) -> Any:
    return ibis.cases((a.isnull(), b), (b.isnull(), a), (a > b, a), else_=b)


def _smaller(a: Any, b: Any) -> Any:
    return ibis.cases((a.isnull(), b), (b.isnull(), a), (a < b, a), else_=b)
