# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples are summed up into the rows that they mean."""

from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.model.schema import check_value, columns
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import Attributes
from whoneeds.tracer.socket_rows import Batch, Ends

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"
SECOND = 1_000_000_000
ESTABLISHED, SYN_RECV, TIME_WAIT, LISTEN = 1, 3, 6, 10
WORKER, OTHER = Holder(100, 1), Holder(200, 2)


def at(second, wall=1_790_000_000):
    """An instant so many seconds after boot."""
    return Instant(int((wall + second) * SECOND), int(second * SECOND))


def attributes(name):
    """Attributes of a process of this name."""
    return Attributes(1, name, f"/bin/{name}", 0, "root", None, None)


def row(key="k", state=ESTABLISHED, inode=5, sent=0, received=0):
    """One socket of a sample."""
    return (key, state, inode, 1000, sent, received, 2)


def decode(_, key):
    """Ends that follow from the key."""
    return Ends("192.0.2.1", 40000, "192.0.2.9", 443, sum(key.encode()))


def batch(*rows, protocol="tcp", netns="1"):
    """A listing of the kernel."""
    return Batch(netns, protocol, "table", rows, decode)


def observe(*samples, told=None, names=(WORKER, OTHER)):
    """An observation of samples, each of (second, rows, holders)."""
    made = Observation("h", BOOT, at(samples[0][0]), told)
    for second, rows, holders in samples:
        made.add_sample(at(second), [batch(*rows)], holders)
        for holder in set(made.unnamed()) & set(names):
            made.name(holder, attributes(f"p{holder.pid}"))
    return made, made.records(at(samples[-1][0] + 1))


def test_a_socket_is_one_row_however_often_it_is_seen():
    """A socket seen in several samples is one row with first and last sight, samples, and the most bytes."""
    _, tables = observe(
        (10, [row(sent=5, received=1)], {5: (WORKER,)}),
        (15, [row(sent=9, received=1)], {5: (WORKER,)}),
        (20, [row(sent=7, received=3)], {5: (WORKER,)}),
    )
    (found,) = tables[SocketRecord]
    assert (found.first_ns, found.last_ns) == (at(10).wall_ns, at(20).wall_ns)
    assert (found.samples, found.sent_bytes, found.received_bytes, found.owners) == (3, 9, 3, 1)
    assert found.process_id == f"h/{BOOT}/100/1"
    assert found.socket_id == f"h/{BOOT}/1/{ord('k'):x}"
    (process,) = tables[ProcessRecord]
    assert (process.name, process.first_ns, process.last_ns) == ("p100", found.first_ns, found.last_ns)


def test_a_count_that_no_column_holds_is_not_known():
    """A byte count beyond 63 bits is absent, so that the controller takes the segment all the same."""
    _, tables = observe((10, [row(sent=2**63, received=2**64 - 1)], {5: (WORKER,)}))
    (found,) = tables[SocketRecord]
    assert (found.sent_bytes, found.received_bytes) == (None, None)


def test_every_owner_has_its_row():
    """A socket held by two processes has a row for each, and both say how many there are."""
    _, tables = observe((10, [row(state=LISTEN)], {5: (WORKER, OTHER)}))
    assert [(found.process_id[-5:], found.owners) for found in tables[SocketRecord]] == [("100/1", 2), ("200/2", 2)]
    assert len({found.socket_id for found in tables[SocketRecord]}) == 1


def test_a_handover_is_two_rows_with_their_own_times():
    """When a socket changes hands each owner's row covers the time in which it was the owner."""
    _, tables = observe((10, [row()], {5: (WORKER,)}), (15, [row()], {5: (OTHER,)}), (20, [row()], {5: (OTHER,)}))
    assert [(found.first_ns, found.last_ns, found.samples) for found in tables[SocketRecord]] == [
        (at(10).wall_ns, at(10).wall_ns, 1),
        (at(15).wall_ns, at(20).wall_ns, 2),
    ]


def test_time_before_accept_belongs_to_who_accepts():
    """A connection that nobody had accepted yet is the accepting process's from its first sight on."""
    _, tables = observe((10, [row(inode=0)], {}), (15, [row()], {5: (WORKER,)}))
    (found,) = tables[SocketRecord]
    assert (found.first_ns, found.samples, found.inode) == (at(10).wall_ns, 2, 5)


def test_a_lost_race_does_not_take_the_owner_away():
    """A sample in which the owner could not be found leaves the owner that was known."""
    _, tables = observe((10, [row()], {5: (WORKER,)}), (15, [row()], {}))
    (found,) = tables[SocketRecord]
    assert (found.process_id[-5:], found.samples) == ("100/1", 2)


def test_closing_ends_the_row_where_it_was_open():
    """A known connection in time_wait gets that state; when it was last open, and its owner, stay."""
    _, tables = observe(
        (10, [row()], {5: (WORKER,)}),
        (15, [row(state=TIME_WAIT, inode=0, sent=None, received=None)], {}),
    )
    (found,) = tables[SocketRecord]
    assert (found.state, found.last_ns, found.samples, found.source) == ("time_wait", at(10).wall_ns, 1, "table")
    assert found.process_id is not None


def test_a_connection_seen_closed_only_is_a_tuple_only():
    """A connection first seen in time_wait is a row without owner that says so, and is no gap."""
    closed = row(state=TIME_WAIT, inode=0, sent=None, received=None)
    _, tables = observe((10, [closed], {}), (15, [closed], {}))
    (found,) = tables[SocketRecord]
    assert (found.source, found.process_id, found.owners, found.samples) == ("tuple_only", None, 0, 2)
    assert tables[Gap] == []


def test_closed_connections_are_told_of_once():
    """A connection that an earlier segment told of is not told again while the kernel still remembers it."""
    closed = row(state=TIME_WAIT, inode=0, sent=None, received=None)
    first, _ = observe((10, [row()], {5: (WORKER,)}))
    second, tables = observe((15, [closed], {}), told=first.told())
    assert tables[SocketRecord] == []
    third, tables = observe((20, [closed], {}), told=second.told())
    assert tables[SocketRecord] == []
    _, tables = observe((25, [row()], {5: (WORKER,)}), told=third.told())
    assert len(tables[SocketRecord]) == 1


def test_a_half_open_connection_that_opens_is_a_full_one():
    """A connection seen first while it was being opened counts as a full one once it is open."""
    opening = row(state=SYN_RECV, inode=0, sent=None, received=None)
    _, tables = observe((10, [opening], {}), (15, [row()], {5: (WORKER,)}))
    (found,) = tables[SocketRecord]
    assert (found.source, found.state, found.samples) == ("table", "established", 2)


def test_a_socket_listed_twice_counts_once():
    """A socket that the kernel lists twice in one sample is seen once."""
    _, tables = observe((10, [row(), row()], {5: (WORKER,)}))
    assert tables[SocketRecord][0].samples == 1


def test_namespaces_keep_equal_sockets_apart():
    """The same ends in two namespaces are two sockets."""
    made = Observation("h", BOOT, at(10))
    made.add_sample(at(10), [batch(row(), netns="1"), batch(row(inode=6), netns="2")], {5: (WORKER,), 6: (OTHER,)})
    made.name(WORKER, attributes("a"))
    made.name(OTHER, attributes("b"))
    assert len({found.socket_id for found in made.records(at(11))[SocketRecord]}) == 2


def test_unowned_sockets_are_one_gap_with_their_number():
    """Sockets without an owner that could be found are counted in one gap, by the reason."""
    for denied, reason in ((0, "vanished"), (3, "permission")):
        made = Observation("h", BOOT, at(10))
        made.denied = denied
        made.add_sample(at(10), [batch(row("a", inode=5), row("b", inode=6), row("c", inode=0))], {})
        tables = made.records(at(11))
        assert [(gap.source, gap.reason, gap.lost) for gap in tables[Gap]] == [("owners", reason, 2)]
        assert [found.owners for found in tables[SocketRecord]] == [None, None, 0]


def test_a_process_that_ended_before_it_was_named_is_no_owner():
    """A process whose name could not be read any more owns nothing: the socket counts as without owner."""
    _, tables = observe((10, [row()], {5: (WORKER, OTHER)}), names=(OTHER,))
    assert [found.process_id[-5:] for found in tables[SocketRecord]] == ["200/2"]
    _, tables = observe((10, [row()], {5: (WORKER,)}), names=())
    assert [found.process_id for found in tables[SocketRecord]] == [None]
    assert [gap.reason for gap in tables[Gap]] == ["vanished"]


def test_the_last_name_counts():
    """A process that became another program after it was first seen is called by what it became."""
    made, _ = observe((10, [row()], {5: (WORKER,)}))
    made.name(WORKER, attributes("nginx"))
    assert made.records(at(11))[ProcessRecord][0].name == "nginx"


def test_equal_gaps_are_one():
    """The same gap again extends the first one and adds up what was lost; others stay apart."""
    made = Observation("h", BOOT, at(10))
    made.add_gap("s", "late", "why", at(10), at(12), 1)
    made.add_gap("s", "late", "why", at(20), at(22), 2)
    made.add_gap("s", "late", "other", at(11), at(11))
    gaps = made.records(at(30))[Gap]
    assert [(gap.detail, gap.first_ns, gap.last_ns, gap.lost) for gap in gaps] == [
        ("other", at(11).wall_ns, at(11).wall_ns, None),
        ("why", at(10).wall_ns, at(22).wall_ns, 3),
    ]


def test_gaps_are_bounded():
    """However many different gaps there are, a segment holds a bounded number and says that there were more."""
    made = Observation("h", BOOT, at(10))
    for number in range(5000):
        made.add_gap("s", "failed", f"number {number}", at(10), at(10), 1)
    gaps = made.records(at(11))[Gap]
    assert len(gaps) <= 1001
    assert sum(gap.lost for gap in gaps) == 5000


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=8))
def test_no_interval_is_negative_whatever_the_wall_clock_does(walls):
    """Whatever the wall clock reads at each sample, no row ends before it begins or begins before the segment."""
    made = Observation("h", BOOT, at(0, 1_790_000_000 + walls[0]))
    for number, wall in enumerate(walls):
        made.add_sample(at(5 * number, 1_790_000_000 + wall), [batch(row())], {5: (WORKER,)})
        made.name(WORKER, attributes("a"))
    tables = made.records(at(5 * len(walls), 0))
    for found in tables[SocketRecord] + tables[ProcessRecord]:
        assert made.opened.wall_ns <= found.first_ns <= found.last_ns
    assert tables[SocketRecord][0].last_ns - tables[SocketRecord][0].first_ns == 5 * SECOND * (len(walls) - 1)


HOLDERS = st.lists(st.sampled_from([Holder(pid, pid) for pid in range(1, 5)]), unique=True, max_size=3).map(
    lambda holders: tuple(sorted(holders))
)
SEEN = st.tuples(st.sampled_from("abc"), st.sampled_from([1, 3, 5, 6, 8, 10]), st.booleans(), st.booleans(), HOLDERS)


@given(st.lists(st.lists(SEEN, max_size=4), max_size=6))
def test_every_row_is_legal_and_complete(samples):
    """Whatever is seen in whatever order, rows fit their columns, each owner has a process, and no key is twice."""
    made = Observation("h", BOOT, at(0))
    for number, seen in enumerate(samples):
        rows, holders = [], {}
        for key, state, has_inode, has_counts, owners in seen:
            inode = ord(key) if has_inode else 0
            rows.append(row(key, state, inode, *((number, number) if has_counts else (None, None))))
            if owners:
                holders[inode] = owners
        made.add_sample(at(5 * number), [batch(*rows)], holders)
        for holder in set(made.unnamed()):
            made.name(holder, attributes("a"))
    tables = made.records(at(60))
    processes = {process.process_id for process in tables[ProcessRecord]}
    keys = [(found.socket_id, found.process_id) for found in tables[SocketRecord]]
    assert len(set(keys)) == len(keys)
    assert {owner for _, owner in keys} - {None} == processes
    for record, rows in tables.items():
        for made_row in rows:
            for column in columns(record):
                check_value(column, getattr(made_row, column.name))


KEYS, INODES = ("a", "b", "c"), {"a": 5, "b": 6, "c": 7}
ROWS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from([ESTABLISHED, SYN_RECV, TIME_WAIT, LISTEN]),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=5,
    unique_by=lambda row: row[0],
)
SAMPLES = st.lists(
    st.tuples(
        st.none() | ROWS,  # none: the listing failed
        ROWS,
        st.dictionaries(
            st.sampled_from([5, 6, 7, 15, 16, 17]), st.sampled_from([(WORKER,), (OTHER,), (WORKER, OTHER)])
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=7,
)  # fmt: skip


def make_rows(drawn, beyond=0):
    """Rows out of what was drawn; a closed socket has neither inode nor counts, and no two sockets have one inode."""
    rows = []
    for key, state, sent, has_inode in drawn:
        closed = state in (SYN_RECV, TIME_WAIT)
        inode = 0 if closed or not has_inode else INODES[key] + beyond
        rows.append((key, state, inode, 1000, None if closed else sent, None if closed else sent, 2))
    return rows


@settings(deadline=None)
@given(SAMPLES)
def test_what_stands_comes_to_the_same_as_what_is_looked_at(samples):
    """Looking only at rows and holders that changed gives the records that looking at everything gives."""
    quick, slow = Observation("h", BOOT, at(10)), Observation("h", BOOT, at(10))
    held = {}
    for number, (tcp, udp, holders, rotate) in enumerate(samples):
        moved = {inode for inode in held.keys() | holders.keys() if held.get(inode) != holders.get(inode)}
        held = holders
        now = at(10 + 5 * number)
        rows = {"tcp": None if tcp is None else make_rows(tcp), "udp": make_rows(udp, 10)}
        listings = [(protocol, listed) for protocol, listed in rows.items() if listed is not None]
        quick.add_sample(now, [batch(*listed, protocol=protocol) for protocol, listed in listings], holders, moved)
        # each row differs from the last sample's in a number that nobody reads
        marked = [(protocol, [(*row, number) for row in listed]) for protocol, listed in listings]
        slow.add_sample(
            now,
            [batch(*listed, protocol=protocol)._replace(read=lambda raw: raw[:-1]) for protocol, listed in marked],
            holders,
        )
        for made in (quick, slow):
            for holder in set(made.unnamed()):
                made.name(holder, attributes(f"p{holder.pid}"))
        assert quick.told() == slow.told()
        if rotate:
            assert quick.records(now) == slow.records(now)
            quick, slow = (Observation("h", BOOT, now, made.told()) for made in (quick, slow))
    end = at(10 + 5 * len(samples))
    assert quick.records(end) == slow.records(end)
