# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own programs on real connections: each is told once, with who really acted on it."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from event_watches import ABORT, CALL, ProgramsWatch, ends, in_child, serving, wait

pytestmark = pytest.mark.root


def test_every_one_of_many_is_told_once(watch):
    """Of a thousand short connections none is missed or told twice, and each end has its process and its bytes."""
    with serving("c.recv(9)", times=1000) as (server_pid, port):
        for number in range(1000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x" * (1 + number % 7))
    found = watch.rows(port, seconds=20)
    assert len(found) == len({one.row.socket_id for one in found}) == 2000
    assert ends(found) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}
    sent = sorted(one.row.sent_bytes for one in found if one.row.initiated)
    received = sorted(one.row.received_bytes for one in found if not one.row.initiated)
    assert sent == received == sorted(1 + number % 7 for number in range(1000))


def test_a_refused_connection_is_rejected(watch):
    """A connection to a port where nobody listens has its caller, and nobody at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    (one,) = watch.rows(port)
    assert (one.pid, one.row.end, one.row.remote_port, one.row.initiated) == (os.getpid(), "rejected", port, True)
    assert one.row.local_port != 0


def test_a_connection_that_nobody_answers_is_unanswered(watch):
    """A call that is given up after more than a second without an answer, and one given up at once, are told apart."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the one that waits; further calls are not answered
            calls = [socket.socket(), socket.socket()]
            for call in calls:
                call.setblocking(False)
                assert call.connect_ex(("127.0.0.1", port)) != 0
            local = [call.getsockname()[1] for call in calls]
            calls[0].close()
            time.sleep(1.1)
            calls[1].close()
        found = {one.row.local_port: one for one in watch.rows(*local) if one.row.initiated}
    assert [(found[port].pid, found[port].row.end) for port in local] == [
        (os.getpid(), "rejected"), (os.getpid(), "unanswered"),
    ]  # fmt: skip


def test_an_end_that_is_reset_belongs_to_who_closes_it_later(watch):
    """An accepted connection that the caller resets is laid to the process that held it, not to whoever reset it."""
    with serving("time.sleep(0.3)") as (server_pid, port):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client.close()
    assert ends(watch.rows(port)) == {(os.getpid(), True, "rst"), (server_pid, False, "rst")}


def test_closing_with_unread_data_resets(watch):
    """A server that closes before it has read everything resets the connection, which both ends are told to have."""
    with serving("time.sleep(0.2)") as (server_pid, port):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"x" * 100)
        client.settimeout(10)
        with pytest.raises(ConnectionResetError):
            client.recv(9)
        client.close()
    found = watch.rows(port)
    assert ends(found) == {(os.getpid(), True, "rst"), (server_pid, False, "rst")}
    assert {one.row.received_bytes for one in found if not one.row.initiated} == {100}


def test_all_that_act_on_one_connection_are_its_owners(watch):
    """One process connects, another shuts down, a third closes: all three are told, each once."""
    with serving("c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, __import__('struct').pack('ii', 1, 0));"
                 "c.recv(9)") as (server_pid, port):  # fmt: skip
        client = socket.socket()
        other = in_child(lambda: (time.sleep(0.2), client.connect(("127.0.0.1", port))))
        wait(other)
        third = in_child(lambda: client.shutdown(socket.SHUT_WR))
        wait(third)
        time.sleep(0.2)  # until the server has reset it
        client.close()
    found = [one for one in watch.rows(port) if one.row.initiated]
    assert {one.pid for one in found} == {os.getpid(), other, third}
    assert [one.row.owners for one in found] == [3] * 3
    assert len({one.row.socket_id for one in found}) == 1
    assert server_pid not in {one.pid for one in found}


def test_who_shuts_down_and_who_closes_both_own(watch):
    """A worker that says goodbye and its parent that closes afterwards are both owners of the accepted end."""
    body = "p = os.fork()\nif p == 0: c.shutdown(1); os._exit(0)\nos.waitpid(p, 0); c.recv(9)"
    with serving(body) as (server_pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.recv(9)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    found = [one for one in watch.rows(port) if not one.row.initiated]
    assert len({one.pid for one in found}) == 2
    assert server_pid in {one.pid for one in found}
    assert {one.process.ppid for one in found} == {os.getpid(), server_pid}


def test_a_connection_passed_on_by_fork_is_the_one_s_that_ends_it(watch):
    """A server that accepts and leaves the connection to a forked worker at once is no owner of it."""
    body = "p = os.fork()\nif p == 0: c.recv(9); os._exit(0)\nc.close(); os.waitpid(p, 0)"
    with serving(body) as (server_pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        time.sleep(0.1)  # until the server has closed its own descriptor
        client.sendall(b"x")
    (one,) = [one for one in watch.rows(port) if not one.row.initiated]
    assert one.pid != server_pid
    assert one.process.ppid == server_pid


def test_nobody_owns_what_only_the_kernel_touched(watch):
    """The accepted end of a connection that no process ever took is no caller's and no process's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        caller = subprocess.Popen([sys.executable, "-c", CALL, str(port)])
        caller.wait()
    found = watch.rows(port)
    assert {(one.pid, one.row.initiated) for one in found} == {(caller.pid, True), (None, False)}
    assert [(one.row.process_id, one.row.owners) for one in found if not one.row.initiated] == [(None, 0)]


def test_sockets_that_never_had_a_peer_leave_no_row(watch):
    """Waiting, bound and unused sockets come and go without a word."""
    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound, socket.socket():
            bound.bind(("127.0.0.1", 0))
            ports += [server.getsockname()[1], bound.getsockname()[1]]
    before = watch.source.tally.ends
    with serving() as (_, port):  # what is told of shows that all before it was taken in
        socket.create_connection(("127.0.0.1", port)).close()
    assert len(watch.rows(port)) == 2
    tables = watch.tables()
    assert not [row for rows in tables.values() for row in rows if getattr(row, "local_port", 0) in ports]
    assert watch.source.tally.ends >= before + 2


def test_a_socket_used_again_is_another_connection(watch):
    """A call that was refused and a later one of the same socket are told as two, each with its own end."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        nobody = spare.getsockname()[1]
    with serving() as (_, port):
        client = socket.socket()
        assert client.connect_ex(("127.0.0.1", nobody)) != 0
        client.connect(("127.0.0.1", port))
        client.close()
    found = [one for one in watch.rows(nobody, port) if one.row.initiated]
    assert sorted((one.row.remote_port, one.row.end, one.pid) for one in found) == sorted(
        [(nobody, "rejected", os.getpid()), (port, "fin", os.getpid())]
    )


def test_a_connection_that_was_open_before(watch):
    """A connection that began before the programs were there is told at its end, without a begin."""
    with serving() as (server_pid, port):
        client = socket.create_connection(("127.0.0.1", port))
        later = ProgramsWatch()
        client.sendall(b"abc")
        client.close()
    try:
        found = later.rows(port)
    finally:
        later.close()
    assert ends(found) == {(os.getpid(), None, "fin"), (server_pid, None, "fin")}
    assert all(one.row.first_ns == one.row.last_ns for one in found)
    assert sorted((one.row.sent_bytes, one.row.received_bytes) for one in found) == [(0, 3), (3, 0)]


@pytest.mark.parametrize(
    ("listening", "called", "shown"), [("::1", "::1", "::1"), ("::", "127.0.0.1", "127.0.0.1"), ("::", "::1", "::1")]
)
def test_addresses_of_either_family(watch, listening, called, shown):
    """IPv6 is told as it is, and IPv4 on a socket of IPv6 as IPv4, at both ends."""
    try:
        with serving(address=listening) as (server_pid, port), socket.create_connection((called, port)) as client:
            local = client.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    found = watch.rows(port)
    assert ends(found) == {(os.getpid(), True, "fin"), (server_pid, False, "fin")}
    tuples = [(one.row.local_addr, one.row.local_port, one.row.remote_addr, one.row.remote_port) for one in found]
    assert set(tuples) == {
        (shown, local, shown, port), (shown, port, shown, local),
    }  # fmt: skip


def test_another_network_namespace_is_named(watch):
    """A connection within another network namespace carries that one's number, and its process."""
    talk = """
import os, socket, subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 7011))
client = socket.create_connection(("127.0.0.1", 7011))
accepted, _ = server.accept()
client.close(); accepted.close()
print(os.stat("/proc/self/ns/net").st_ino, os.getpid())
"""
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", talk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no right to make network namespaces: {done.stderr[-200:]}")
    netns, pid = done.stdout.split()
    found = watch.rows(7011)
    assert {(one.row.netns, str(one.pid), one.row.initiated) for one in found} == {
        (netns, pid, True),
        (netns, pid, False),
    }


def test_threads_and_processes_at_once_mix_nothing_up(watch):
    """While several threads and processes connect at the same time, every connection keeps its own process."""
    with serving("c.recv(9)", times=300) as (server_pid, port):

        def call():
            for _ in range(25):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b"12345")

        children = [in_child(call) for _ in range(8)]
        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait(*children)
    found = watch.rows(port, seconds=20)
    began = [one for one in found if one.row.initiated]
    counts = {pid: sum(one.pid == pid for one in began) for pid in (*children, os.getpid())}
    assert counts == {**dict.fromkeys(children, 25), os.getpid(): 100}
    assert {one.pid for one in found if not one.row.initiated} == {server_pid}
    assert len(found) == 600
