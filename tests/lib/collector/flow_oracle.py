# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows and attribution by plain loops over records: slow, obvious, and sharing no code with the collector.

Written from ``docs/attribution.md``; it is what the set expressions are compared with. Long, because it has all of it
once more.
"""

from dataclasses import dataclass, field
from typing import Any

from fleet import Host

from whoneeds.model.evidence import ProcessRecord, SegmentHeader, SocketRecord

ALIVE = {"established", "fin_wait1", "fin_wait2", "time_wait", "close_wait", "last_ack", "closing"}
SECOND = 10**9


@dataclass
class Life:
    """One socket with one peer (or none)."""

    socket_id: str
    host: str
    netns: str
    protocol: str
    local: tuple[str, int]
    remote: tuple[str | None, int | None]
    rows: list[tuple[SegmentHeader, SocketRecord]] = field(default_factory=list)

    @property
    def first(self) -> int:
        return min(row.first_ns for _, row in self.rows)

    @property
    def last(self) -> int:
        return max(row.last_ns for _, row in self.rows)

    @property
    def period(self) -> float:
        return max(header.period_s for header, _ in self.rows)

    @property
    def location(self) -> str | None:
        told = [(header.opened_ns, header.location) for header, _ in self.rows if header.location is not None]
        return max(told)[1] if told else None

    @property
    def sent(self) -> int | None:
        return max((row.sent_bytes for _, row in self.rows if row.sent_bytes is not None), default=None)

    @property
    def received(self) -> int | None:
        return max((row.received_bytes for _, row in self.rows if row.received_bytes is not None), default=None)

    @property
    def answered(self) -> bool:
        return any(
            row.state in ALIVE or (row.received_bytes or 0) > 0 or row.end in ("fin", "rst") for _, row in self.rows
        )

    @property
    def end(self) -> str | None:
        return max((row.end for _, row in self.rows if row.end is not None), default=None)

    @property
    def initiated(self) -> bool | None:
        return max((row.initiated for _, row in self.rows if row.initiated is not None), default=None)

    @property
    def seen_open(self) -> bool:
        return any(row.source != "tuple_only" for _, row in self.rows)

    @property
    def samples(self) -> int:
        total = 0
        for segment in {header.segment_id for header, _ in self.rows}:
            rows = [(header, row) for header, row in self.rows if header.segment_id == segment]
            spent = max(row.last_ns for _, row in rows) - min(row.first_ns for _, row in rows)
            room = round(spent / (rows[0][0].period_s * SECOND)) + 1
            counts = [row.samples for _, row in rows]
            total += max(max(counts), min(sum(counts), room))
        return total

    @property
    def loopback(self) -> bool:
        return any(str(address).startswith("127.") or address == "::1" for address in (self.local[0], self.remote[0]))


def _lives(hosts: list[Host]) -> list[Life]:
    lives: dict[tuple[Any, ...], Life] = {}
    for host in hosts:
        for header, tables in host.segments:
            for row in tables[SocketRecord]:
                local, remote = (row.local_addr, row.local_port), (row.remote_addr, row.remote_port)
                life = Life(row.socket_id, row.host, row.netns, row.protocol, local, remote)
                key = (row.socket_id, row.host, row.netns, row.protocol, local, remote)
                lives.setdefault(key, life).rows.append((header, row))
    return list(lives.values())


def _slack(a: Life, b: Life, offset_ns: int) -> int:
    return int((a.period + b.period) * SECOND) + offset_ns


def _overlap(a: Life, b: Life) -> int:
    return min(a.last, b.last) - max(a.first, b.first)


def _candidates(a: Life, lives: list[Life], offset_ns: int) -> list[Life]:
    return [
        b
        for b in lives
        if b.socket_id != a.socket_id
        and b.protocol == a.protocol
        and b.local == a.remote
        and b.remote == a.local
        and (not (a.loopback or b.loopback) or (a.host, a.netns) == (b.host, b.netns))
        and not _left_before(a, b)
        and not _left_before(b, a)
        and _overlap(a, b) >= -_slack(a, b, offset_ns)
    ]


def _left_before(a: Life, b: Life) -> bool:
    """Whether what is left of `a` was there before `b`, whose begin is known, began on the same host."""
    return a.host == b.host and not a.seen_open and b.initiated is not None and a.first < b.first


def _favourite(a: Life, lives: list[Life], offset_ns: int) -> Life | None:
    candidates = _candidates(a, lives, offset_ns)
    if not candidates:
        return None
    best = max(_overlap(a, b) for b in candidates)
    winners = [b for b in candidates if _overlap(a, b) == best]
    close = [b for b in candidates if _overlap(a, b) >= best - _slack(a, b, offset_ns)]
    if len(winners) > 1 or len({(b.host, b.netns) for b in close}) > 1:
        return None
    return winners[0]


def _claims(hosts: list[Host]) -> list[tuple[str, str, int, int]]:
    """Host, address, begin, end; a run of segments that list the address counts as one stretch of time."""
    found = []
    for host in hosts:
        headers = sorted((header for header, _ in host.segments), key=lambda header: header.opened_ns)
        for address in {one for header in headers for one in header.addresses}:
            if address.startswith(("127.", "169.254.", "fe8", "fe9", "fea", "feb")) or address == "::1":
                continue
            begin = end = None
            for header in headers:
                if address in header.addresses:
                    begin = header.opened_ns if begin is None else min(begin, header.opened_ns)
                    end = header.closed_ns if end is None else max(end, header.closed_ns)
                elif begin is not None:
                    found.append((host.name, address, begin, end))
                    begin = end = None
            if begin is not None:
                found.append((host.name, address, begin, end))
    return found


def _owner(address: str, life: Life, claims: list[tuple[str, str, int, int]], offset_ns: int) -> str | None:
    ever = {host for host, claimed, _, _ in claims if claimed == address}
    then = {
        host
        for host, claimed, begin, end in claims
        if claimed == address and begin <= life.last + offset_ns and end >= life.first - offset_ns
    }
    if len(then) == 1:
        return then.pop()
    return ever.pop() if not then and len(ever) == 1 else None


def _specificity(listening: str, address: str) -> int:
    if listening == address:
        return 3
    if listening == "::":
        return 2 if ":" in address else 1
    return 2 if listening == "0.0.0.0" and ":" not in address else 0


def _spaces(host: str, lives: list[Life], claims: list[tuple[str, str, int, int]]) -> set[str]:
    own = {address for claimant, address, _, _ in claims if claimant == host}
    home = {life.netns for life in lives if life.host == host and life.local[0] in own}
    return home or {life.netns for life in lives if life.host == host}


def _listeners(
    host: str,
    spaces: set[str],
    end: tuple[str, int],
    own: str | None,
    when: "Life | Flow",
    lives: list[Life],
    offset: int,
) -> list[tuple[int, Life]]:
    found = []
    for one in lives:
        waits = any(row.state in ("listen", "bound") for _, row in one.rows) and one.remote[0] is None
        if not waits or one.host != host or one.netns not in spaces or one.protocol != when.protocol:
            continue
        if one.local[1] != end[1] or one.local[1] == 0 or one.socket_id == own:
            continue
        slack = int((when.period + one.period) * SECOND) + offset
        fits = one.first <= when.last + slack and one.last >= when.first - slack
        if fits and _specificity(one.local[0], end[0]):
            found.append((_specificity(one.local[0], end[0]), one))
    return found


@dataclass
class Flow:
    """What is compared with FlowRecord, and what attribution needs."""

    protocol: str
    first: int
    last: int
    period: float
    direction: str
    values: dict[str, Any]
    orig: Life | None
    resp: Life | None


def expected_flows(hosts: list[Host], offset_ns: int = 2 * SECOND) -> list[Flow]:
    """All flows of a fleet."""
    lives, claims = _lives(hosts), _claims(hosts)
    talking = [one for one in lives if one.remote[0] is not None and one.remote[1] and one.local[1]]
    favourite = [_favourite(one, talking, offset_ns) for one in talking]
    flows = []
    done: list[Life] = []
    for a, b in zip(talking, favourite, strict=True):
        if any(a is one for one in done):
            continue
        mutual = b is not None and favourite[next(i for i, one in enumerate(talking) if one is b)] is a
        other = b if mutual else None
        done += [a] if other is None else [a, other]
        ambiguous = 0 if other else len(_candidates(a, talking, offset_ns))
        flows.append(_make_flow(a, other, ambiguous, lives, claims, hosts, offset_ns))
    return flows


def _make_flow(
    a: Life,
    b: Life | None,
    ambiguous: int,
    lives: list[Life],
    claims: list[tuple[str, str, int, int]],
    hosts: list[Host],
    offset: int,
) -> Flow:
    far_host: str | None
    misled = False
    if b is not None:
        far_host = b.host
    elif a.loopback:
        far_host = a.host
    else:
        far_host = _owner(str(a.remote[0]), a, claims, offset)
        misled = not ambiguous and _is_misled(a, far_host, hosts, offset)
        far_host = None if misled else far_host
    far_end = (str(a.remote[0]), int(a.remote[1] or 0))
    a_listens = bool(_listeners(a.host, {a.netns}, a.local, a.socket_id, a, lives, offset))
    b_listens = False
    if far_host is not None:
        spaces = {b.netns} if b else {a.netns} if a.loopback else _spaces(far_host, lives, claims)
        b_listens = bool(_listeners(far_host, spaces, far_end, b.socket_id if b else None, b or a, lives, offset))

    told = [a.initiated] if a.initiated is not None else []
    told += [not b.initiated] if b is not None and b.initiated is not None else []
    if len(set(told)) == 1:
        a_begins, direction = told[0], "event"
    elif b is None and not a_listens:
        a_begins, direction = True, "listener"
    elif a_listens != b_listens:
        a_begins, direction = b_listens, "listener"
    elif (a.local[1] < 1024) != (far_end[1] < 1024):
        a_begins, direction = far_end[1] < 1024, "port"
    else:
        names = (a.socket_id, b.socket_id) if b else ("", "")
        a_begins = (a.local[1], a.local[0], names[0]) > (far_end[1], far_end[0], names[1])
        direction = "unknown"

    near, far = (a.local, a.host, a), (far_end, far_host, b)
    (orig_end, orig_host, orig), (resp_end, resp_host, resp) = (near, far) if a_begins else (far, near)
    seen = [one for one in (a, b) if one is not None]
    best = max(seen, key=lambda one: (one.end is not None, one.seen_open, one.samples, one.last - one.first))
    witness = orig or resp
    assert witness is not None
    first, last = min(one.first for one in seen), max(one.last for one in seen)
    counts_out = [orig.sent if orig else None, resp.received if resp else None]
    counts_back = [orig.received if orig else None, resp.sent if resp else None]
    values = {
        "protocol": a.protocol,
        "orig_addr": orig_end[0], "orig_port": orig_end[1], "resp_addr": resp_end[0], "resp_port": resp_end[1],
        "direction": direction, "orig_host": orig_host, "resp_host": resp_host,
        "orig_socket_id": orig.socket_id if orig else None, "resp_socket_id": resp.socket_id if resp else None,
        "first_ns": first, "last_ns": last, "duration_s": (best.last - best.first) / 1e9, "samples": best.samples,
        "orig_bytes": max((one for one in counts_out if one is not None), default=None),
        "resp_bytes": max((one for one in counts_back if one is not None), default=None),
        "orig_packets": None, "resp_packets": None,
        "end": None if any(one.answered for one in seen) else "unanswered",
        "location": witness.location,
        "candidates": ambiguous, "translated": "unresolved" if misled else None,
        "called_addr": None, "called_port": None, "caller_addr": None, "caller_port": None,
    }  # fmt: skip
    ends = {one.end for one in seen}
    if "rst" in ends or "rejected" in ends:
        values["end"] = "rst" if "rst" in ends else "rejected"
    elif values["end"] is None and ("fin" in ends or any(r.state == "time_wait" for one in seen for _, r in one.rows)):
        values["end"] = "fin"
    period = 0.0 if best.end is not None else best.period
    return Flow(a.protocol, first, last, period, direction, values, orig, resp)


def _is_misled(a: Life, owner: str | None, hosts: list[Host], offset: int) -> bool:
    """Whether the owner of the far address was sampled while `a` was surely open, and nothing was there."""
    whole = any(row.state == "established" or row.end in ("fin", "rst") for _, row in a.rows)
    if a.protocol != "tcp" or not whole or not a.seen_open:
        return False
    for header in (header for host in hosts if host.name == owner for header, _ in host.segments):
        begin, end = max(a.first + offset, header.opened_ns), min(a.last - offset, header.closed_ns)
        if header.samples and end - begin > int(header.period_s * SECOND):
            return True
    return False


def expected_attribution(flow: Flow, side: str, hosts: list[Host], offset_ns: int = 2 * SECOND) -> dict[str, Any]:
    """Who stands behind one side of a flow."""
    lives, claims = _lives(hosts), _claims(hosts)
    host, life = flow.values[f"{side}_host"], flow.orig if side == "orig" else flow.resp
    nothing = {"host": host, "process_id": None, "app": None, "rule": "none", "candidates": 0}
    if life is not None:
        holders = _holders([life], hosts)
        if holders:
            counted = max((row.owners or 0) for _, row in life.rows)
            return nothing | {"rule": "socket"} | _agree(holders, max(0, counted - len(holders)))
    failed = flow.values["end"] in ("unanswered", "rejected")
    if side == "orig" or host is None or flow.direction == "unknown" or failed:
        return nothing
    end = (flow.values["resp_addr"], flow.values["resp_port"])
    both = (end[0], flow.values["orig_addr"])
    loopback = any(address.startswith("127.") or address == "::1" for address in both)
    if life is not None:
        spaces = {life.netns}
    elif loopback:
        spaces = {flow.orig.netns} if flow.orig else set()
    else:
        spaces = _spaces(host, lives, claims)
    found = _listeners(host, spaces, end, life.socket_id if life else None, flow, lives, offset_ns)  # type: ignore[arg-type]
    if not found:
        return nothing
    most = max(rank for rank, _ in found)
    nearest = [one for rank, one in found if rank == most]
    holders = _holders(nearest, hosts)
    if not holders:
        return nothing
    orphans = sum(not _holders([one], hosts) for one in nearest)
    agreed = _agree(holders, orphans)
    if agreed["app"] in ("systemd", "init", "inetd", "xinetd", "launchd"):
        agreed |= {"process_id": None, "app": None}
    return nothing | {"rule": "listener"} | agreed


def _holders(lives: list[Life], hosts: list[Host]) -> dict[str, set[str | None]]:
    """Processes that held any of the sockets, each with the names it had while it did."""
    found: dict[str, set[str | None]] = {}
    for life in lives:
        latest: dict[str, tuple[int, str | None]] = {}
        for header, row in life.rows:
            if row.process_id is None:
                continue
            name = _name(row.process_id, hosts, header.segment_id)
            before = latest.get(row.process_id, (-1, None))
            if name is not None and row.last_ns >= before[0]:
                latest[row.process_id] = (row.last_ns, name)
            else:
                latest.setdefault(row.process_id, (-1, None))
        for process, (_, name) in latest.items():
            found.setdefault(process, set()).add(name or _name(process, hosts, None))
    return found


def _name(process: str, hosts: list[Host], segment_id: str | None) -> str | None:
    told = [
        (row.last_ns, row.name)
        for host in hosts
        for header, tables in host.segments
        for row in tables[ProcessRecord]
        if row.process_id == process and segment_id in (None, header.segment_id)
    ]
    return max(told)[1] if told else None


def _agree(holders: dict[str, set[str | None]], unknown: int) -> dict[str, Any]:
    names = set().union(*holders.values())
    return {
        "process_id": next(iter(holders)) if len(holders) == 1 and not unknown else None,
        "app": names.pop() if len(names) == 1 and not unknown else None,
        "candidates": len(holders) + unknown,
    }
