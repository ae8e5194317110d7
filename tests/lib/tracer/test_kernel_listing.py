# SPDX-License-Identifier: GPL-3.0-or-later
import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from whoneeds.model.evidence import ProcessRecord, SocketRecord
from whoneeds.tracer import clocks
from whoneeds.tracer.bpf.listing import ListingSampler, make_batches
from whoneeds.tracer.bpf.listing_program import LISTED
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import Attributes
from whoneeds.tracer.sampler import Sampler

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"


@pytest.fixture
def sockets():
    """Sockets of every kind, all of this process, and their local ports."""
    with ExitStack() as stack:
        keep = stack.enter_context
        server = keep(socket.create_server(("127.0.0.1", 0)))
        client = keep(socket.create_connection(server.getsockname()))
        accepted = keep(server.accept()[0])
        client.sendall(b"abc")
        accepted.recv(3)
        sixth = keep(socket.create_server(("::1", 0), family=socket.AF_INET6))
        mapped = keep(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        caller = keep(socket.create_connection(("127.0.0.1", mapped.getsockname()[1])))
        bound = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        bound.bind(("127.0.0.1", 0))
        pointed = keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        pointed.connect(("::1", 9))
        silent = keep(socket.socket())
        silent.bind(("127.0.0.1", 0))  # bound, but neither listening nor connected: nobody can speak to it
        mine = [server, client, accepted, sixth, mapped, caller, bound, pointed, silent]
        yield {each.getsockname()[1] for each in mine}


def look(sampler, observation):
    """Take a sample; the rows of sockets afterwards."""
    at = clocks.now()
    sampler.sample(observation, at)
    return observation.records(at)


def facts(rows, ports):
    """What both ways of listing say of the sockets with these local ports."""
    return {
        (row.socket_id, row.netns, row.protocol, row.local_addr, row.local_port, row.remote_addr, row.remote_port,
         row.state, row.inode, row.uid, row.process_id, row.owners, row.sent_bytes, row.received_bytes)
        for row in rows[SocketRecord] if row.local_port in ports and row.process_id is not None
    }  # fmt: skip


@pytest.mark.root
def test_the_kernels_walk_says_what_its_list_and_a_walk_of_proc_say(events, sockets):
    """Every kind of socket has the same identity, ends, state, bytes and owner by both ways of listing."""
    ours, others = (Observation("h", BOOT, clocks.now()) for _way in range(2))
    found = facts(look(ListingSampler(events), ours), sockets)
    assert found == facts(look(Sampler(), others), sockets)
    assert len(found) == len(sockets)  # server and accepted have one port, and the silent one is in no listing


@pytest.mark.root
def test_a_process_that_shares_a_socket_is_a_holder_as_long_as_it_does(events):
    """A forked child that inherits a listener is its second holder, and none any more once it has ended."""
    sampler, observation = ListingSampler(events), Observation("h", BOOT, clocks.now())
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = os.fstat(server.fileno()).st_ino
        sampler.sample(observation, clocks.now())
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        sampler.sample(observation, clocks.now())
        shared = {holder.pid for holder in sampler.owners[inode]}
        os.close(reading)
        os.close(writing)
        os.waitpid(child, 0)
        rows = look(sampler, observation)
        assert shared == {os.getpid(), child}
        assert [holder.pid for holder in sampler.owners[inode]] == [os.getpid()]
    row = next(row for row in rows[SocketRecord] if row.inode == inode)
    assert row.owners == 2
    sampler.sample(observation, clocks.now())
    assert inode not in sampler.owners


@pytest.mark.root
def test_what_changed_between_samples_is_all_that_is_looked_at_again(events):
    """Bytes that flow, a socket that goes and one that comes are in the segment; what stands counts every sample."""
    sampler, observation = ListingSampler(events), Observation("h", BOOT, clocks.now())
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = socket.create_connection(server.getsockname())
        second, _address = server.accept()
        port = first.getsockname()[1]
        sampler.sample(observation, clocks.now())
        first.sendall(b"12345")
        second.recv(5)
        sampler.sample(observation, clocks.now())
        first.close()
        second.close()
        later = socket.create_connection(server.getsockname())
        new_port = later.getsockname()[1]
        rows = look(sampler, observation)[SocketRecord]
        later.close()
    (gone,) = [row for row in rows if row.local_port == port]
    assert (gone.samples, gone.sent_bytes) == (2, 5)
    (listener,) = [row for row in rows if row.state == "listen" and row.local_port == gone.remote_port]
    assert listener.samples == 3
    assert [row.samples for row in rows if row.local_port == new_port] == [1]


@pytest.mark.root
def test_holders_are_named_although_they_are_not_asked(events):
    """The processes that a listing finds have names and users, told by the kernel itself."""
    observation = Observation("h", BOOT, clocks.now())
    with socket.create_server(("127.0.0.1", 0)):
        rows = look(ListingSampler(events), observation)
    (own,) = [row for row in rows[ProcessRecord] if row.pid == os.getpid()]
    assert own.exe == str(Path("/proc/self/exe").readlink())
    assert (own.uid, own.ppid) == (os.geteuid(), os.getppid())


def test_rows_of_af_unix_and_of_unknown_protocols_become_no_sockets():
    """A listing may hold other sockets for the sake of their holders; they are not among those of the network."""
    row = LISTED.pack(bytes(48), 1, 1, 0, 0, 5, 77, 0, 0, 10, 20)
    strange = LISTED.pack(bytes(48), 2, 1, 132, 0, 5, 78, 0, 0, 10, 20)
    assert list(make_batches([row + strange], [row])) == []


def test_a_listing_is_taken_apart_by_namespace_and_protocol():
    """Rows of two namespaces and both protocols come in batches of their own, with those that are gone."""
    identity = struct.pack(">HH", 80, 0) + bytes(36) + struct.pack("=Q", 9)
    rows = [
        LISTED.pack(identity, 2, 10, protocol, 0, netns, 77, 2**64 - 1, 3, 10, 20)
        for netns in (5, 6)
        for protocol in (6, 17)
    ]
    batches = list(make_batches([b"".join(rows)], rows[:1]))
    assert [(batch.netns, batch.protocol, len(batch.rows), len(batch.gone)) for batch in batches] == [
        ("5", "tcp", 1, 0), ("5", "udp", 1, 0), ("6", "tcp", 1, 0), ("6", "udp", 1, 0), ("5", "tcp", 0, 1),
    ]  # fmt: skip
    assert batches[0].read(batches[0].rows[0]) == (identity, 10, 77, 0, None, 3, 2)


SOCKETS = st.lists(
    st.tuples(
        st.integers(0, 5),  # which socket
        st.sampled_from([1, 8, 10]),  # its state
        st.integers(0, 2),  # bytes
        st.sets(st.sampled_from([(10, 2_000_000_000), (11, 3_000_000_000), (12, 4_000_000_000)]), min_size=1),
        st.integers(1, 2),  # how often each holder has it open
    ),
    max_size=6,
    unique_by=lambda row: row[0],
)


class Listed:
    """Stands for the kernel: gives listings that were drawn, in parts, and names every process."""

    listing, ticks_per_s = -1, 100

    def __init__(self):
        self.parts = []

    def take_told(self, observation):
        """Nothing is told beside the listing."""

    def name_holders(self, observation):
        """Every process is known."""
        for holder in list(observation.unnamed()):
            name_process(observation, holder)


def name_process(observation, holder):
    """Give a process a name."""
    observation.name(holder, Attributes(1, f"p{holder.pid}", None, 0, None, None, None))


def row_of(number, state, count, pid, start_ns):
    """A row of the listing."""
    identity = struct.pack(">HH", 1000 + number, 80) + bytes(36) + struct.pack("=Q", number + 1)
    return LISTED.pack(identity, 2, state, 6 if number % 2 else 17, 0, 5, 100 + number, count, count, pid, start_ns)


#: A socket that its process has open twice, and then once, with its rows in two parts of the listing.
ONCE, TWICE = ([(0, 1, 0, {(10, 2_000_000_000)}, times)] for times in (1, 2))


@settings(deadline=None)
@example([(TWICE, False), (ONCE, False), (ONCE, False)], 1)
@given(st.lists(st.tuples(SOCKETS, st.booleans()), min_size=1, max_size=7), st.integers(1, 4))
def test_changes_alone_come_to_the_same_as_whole_listings(samples, part):
    """Keeping the first listing and telling changes gives the records that looking at every row each time gives."""
    kernel = Listed()
    sampler = ListingSampler(kernel)
    sampler._read_parts = lambda _observation: iter(kernel.parts)
    quick, slow = (Observation("h", BOOT, Instant(10**18, 10**9)) for _way in range(2))
    for number, (drawn, rotate) in enumerate(samples):
        at = Instant(10**18 + number * 10**9, (number + 1) * 10**9)
        rows = [
            row_of(which, state, count, *holder)
            for which, state, count, holders, times in drawn
            for holder in sorted(holders)
            for _time in range(times)
        ]
        kernel.parts = [b"".join(rows[begin : begin + part]) for begin in range(0, len(rows), part)]
        sampler.sample(quick, at)
        held = {
            100 + which: tuple(sorted(Holder(pid, start_ns // 10**7) for pid, start_ns in holders))
            for which, _state, _count, holders, _times in drawn
        }
        whole = {}
        for batch in make_batches([b"".join(rows)], ()):
            before = whole.get(batch.protocol, batch._replace(rows=[]))
            whole[batch.protocol] = batch._replace(rows=[*before.rows, *batch.rows])
        slow.sources.add("table")
        slow.add_sample(at, list(whole.values()), held)
        for holder in list(slow.unnamed()):
            name_process(slow, holder)
        assert sampler.owners == held
        if rotate:
            assert by_identity(quick.records(at)) == by_identity(slow.records(at))
            quick, slow = (Observation("h", BOOT, at) for _way in range(2))
    assert by_identity(quick.records(at)) == by_identity(slow.records(at))


def by_identity(tables):
    """Rows in an order that does not depend on when they were made."""
    return {record: sorted(map(str, rows)) for record, rows in tables.items()}
