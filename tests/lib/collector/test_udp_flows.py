# SPDX-License-Identifier: GPL-3.0-or-later
"""UDP: packets tell who spoke with whom, sockets tell which program that was, and silence is no conversation."""

from fleet import ANY, Host
from line import connections_of, run_line

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


def shown(host_or_hosts):
    """What matters of each connection."""
    hosts = [host_or_hosts] if isinstance(host_or_hosts, Host) else host_or_hosts
    names = ("orig_addr", "orig_port", "resp_addr", "resp_port", "orig_app", "resp_app", "direction", "orig_packets")
    return [tuple(row[name] for name in names) for row in connections_of(hosts)]


def asking(port=40000, remote=None):
    """A host on which a resolver holds a UDP socket, with packets taken in."""
    host = Host("a", (CLIENT,)).segment().capture()
    host.socket((CLIENT, port), remote, by=host.process("resolver", 10), protocol="udp")
    return host


def answering():
    """A host on which a name server waits on every address, with packets taken in."""
    host = Host("b", (SERVER,)).segment().capture()
    host.socket((ANY, 5300), by=host.process("named", 20), protocol="udp")
    return host


def test_a_connected_socket_that_no_packet_is_of_is_no_conversation():
    """Where all packets were taken in, a connected UDP socket that sent and received nothing is left out."""
    assert shown(asking(remote=(SERVER, 53))) == []


def test_without_packets_a_connected_socket_stays_and_shows_that_nobody_counted():
    """Where no packets were taken in, the connected socket is a conversation as far as is known, without a count."""
    host = Host("a", (CLIENT,)).segment()
    host.socket((CLIENT, 40000), (SERVER, 53), by=host.process("resolver", 10), protocol="udp")
    assert shown(host) == [(CLIENT, 40000, SERVER, 53, "resolver", None, "listener", None)]


def test_silence_proves_nothing_where_packets_were_lost_left_out_or_elsewhere():
    """A loss, an expression, another namespace, or a capture that began later leaves the connected socket as it is."""
    cases = (
        {"lost": 1}, {"words": "tcp"}, {"netns": "7"}, {"span": (1, 60)}, {"span": (0, 59)},
    )  # fmt: skip
    for case in cases:
        host = Host("a", (CLIENT,)).segment().capture(**case)
        host.socket((CLIENT, 40000), (SERVER, 53), by=host.process("resolver", 10), protocol="udp")
        assert len(shown(host)) == 1, case


def test_a_segment_without_a_capture_leaves_a_long_connection_as_it_is():
    """A socket seen in two segments of which one took no packets in may have spoken in that one."""
    host = asking(remote=(SERVER, 53)).segment(60, 120)
    host.socket(
        (CLIENT, 40000), (SERVER, 53), (60, 120), by=host.process("resolver", 10), protocol="udp", cookie=1
    )  # fmt: skip
    (row,) = connections_of([host])
    assert row["last_ns"] - row["first_ns"] == 120 * 10**9


def test_port_0_is_never_anything():
    """A connect to port 0 asks the kernel for a route, with packets taken in or not."""
    host = Host("a", (CLIENT,)).segment()
    host.socket((CLIENT, 40000), (SERVER, 0), by=host.process("resolver", 10), protocol="udp")
    assert shown(host) == []
    assert shown(host.capture()) == []


def test_packets_count_for_the_connected_socket():
    """A connected socket with packets is a conversation with their number, their data and their time."""
    host = asking(remote=(SERVER, 53)).exchange((CLIENT, 40000), (SERVER, 53), (10, 20), (3, 2))
    (row,) = connections_of([host])
    assert (row["orig_app"], row["orig_packets"], row["resp_packets"]) == ("resolver", 3, 2)
    assert (row["orig_bytes"], row["resp_bytes"], row["last_ns"] - row["first_ns"]) == (300, 200, 10 * 10**9)
    (flow,) = run_line([host])["flow"]
    assert (flow["period_s"], flow["duration_s"]) == (0.0, 10.0)


def test_unconnected_sockets_get_their_far_end_from_packets():
    """Two unconnected sockets that spoke are one conversation between their programs, begun by who sent first."""
    client = asking().exchange((CLIENT, 40000), (SERVER, 5300), first=True)
    server = answering().exchange((SERVER, 5300), (CLIENT, 40000), first=False)
    assert shown([client, server]) == [(CLIENT, 40000, SERVER, 5300, "resolver", "named", "handshake", 1)]
    (use,) = run_line([client, server])["service_use"]
    assert (use["app"], use["resp_app"], use["port"], use["flows"]) == ("resolver", "named", 5300, 1)


def test_a_connected_end_calls_an_unconnected_one():
    """Who is connected called who is not, whoever's packet seems to have come first."""
    client = asking(remote=(SERVER, 5300)).exchange((CLIENT, 40000), (SERVER, 5300), first=False)
    server = answering().exchange((SERVER, 5300), (CLIENT, 40000), first=True)
    assert shown([client, server]) == [(CLIENT, 40000, SERVER, 5300, "resolver", "named", "listener", 1)]


def test_without_a_first_packet_the_lower_port_was_called_or_nobody_knows():
    """Where both may wait and the first packet was not seen, only a port below 1024 tells."""
    client = asking().exchange((CLIENT, 40000), (SERVER, 5300))
    server = answering().exchange((SERVER, 5300), (CLIENT, 40000))
    assert [row[6] for row in shown([client, server])] == ["unknown"]
    assert run_line([client, server])["service_use"] == []
    alone = asking().exchange((CLIENT, 40000), (SERVER, 53))
    assert shown(alone) == [(CLIENT, 40000, SERVER, 53, "resolver", None, "port", 1)]


def test_both_ends_cannot_have_been_first():
    """Two ends that each say they sent first leave the direction to the ports."""
    client = asking().exchange((CLIENT, 40000), (SERVER, 5300), first=True)
    server = answering().exchange((SERVER, 5300), (CLIENT, 40000), first=True)
    assert [row[6] for row in shown([client, server])] == ["unknown"]


def test_a_server_alone_knows_its_callers():
    """A traced server with untraced clients has a conversation with each of them, and is the called end of each."""
    server = answering()
    for number in (7, 8):
        server.exchange((SERVER, 5300), (f"10.9.9.{number}", 50000), first=False)
    assert shown(server) == [
        (f"10.9.9.{number}", 50000, SERVER, 5300, None, "named", "handshake", 1) for number in (7, 8)
    ]


def test_the_nearest_socket_spoke():
    """Of sockets on one port the one connected to the peer spoke, else the one on that address, else the one on all."""
    host = Host("b", (SERVER, "10.0.0.3")).segment().capture()
    host.socket((ANY, 5300), by=host.process("wide", 1), protocol="udp")
    host.socket((SERVER, 5300), by=host.process("near", 2), protocol="udp")
    host.socket((SERVER, 5300), (CLIENT, 1), by=host.process("own", 3), protocol="udp")
    for local, port in ((SERVER, 1), (SERVER, 2), ("10.0.0.3", 2)):
        host.exchange((local, 5300), (CLIENT, port), first=False)
    assert sorted((row[0:3], row[1], row[5])[1:] + (row[2],) for row in shown(host)) == [
        (1, "own", SERVER), (2, "near", SERVER), (2, "wide", "10.0.0.3"),
    ]  # fmt: skip


def test_several_sockets_that_fit_equally_are_nobodys():
    """Two sockets of two programs on one port (SO_REUSEPORT) leave the speaker unnamed, and the conversation there."""
    host = Host("a", (CLIENT,)).segment().capture()
    for number, name in enumerate(("one", "two")):
        host.socket((ANY, 40000), by=host.process(name, number + 1), protocol="udp")
    host.exchange((CLIENT, 40000), (SERVER, 53), first=True)
    assert shown(host) == [(CLIENT, 40000, SERVER, 53, None, None, "handshake", 1)]


def test_a_socket_seen_at_another_time_did_not_speak():
    """A port that a socket had at another time than the packets passed is somebody else's by then."""
    host = Host("a", (CLIENT,)).segment().capture()
    host.socket((ANY, 40000), span=(0, 5), by=host.process("early", 1), protocol="udp")
    host.exchange((CLIENT, 40000), (SERVER, 53), (30, 31), first=True)
    assert shown(host) == [(CLIENT, 40000, SERVER, 53, None, None, "handshake", 1)]


def test_namespaces_are_kept_apart():
    """The same address and port in another network namespace is another socket."""
    host = Host("a").segment().capture().capture(netns="7")
    host.socket(("127.0.0.1", 5300), by=host.process("here", 1), protocol="udp")
    host.socket(("127.0.0.1", 5300), by=host.process("there", 2), protocol="udp", netns="7")
    host.socket(("127.0.0.1", 40000), by=host.process("caller", 3), protocol="udp", netns="7")
    host.exchange(("127.0.0.1", 40000), ("127.0.0.1", 5300), first=True, netns="7")
    host.exchange(("127.0.0.1", 5300), ("127.0.0.1", 40000), first=False, netns="7")
    assert [row[4:7] for row in shown(host)] == [("caller", "there", "handshake")]


def test_one_conversation_in_several_segments_is_one():
    """Packets of one socket and peer in two segments, and in two stretches of one, add up to one conversation."""
    host = asking().exchange((CLIENT, 40000), (SERVER, 5300), (1, 2), first=True)
    host.exchange((CLIENT, 40000), (SERVER, 5300), (30, 31), (2, 0))
    host.segment(60, 120).capture((60, 120))
    host.socket((CLIENT, 40000), span=(60, 120), by=host.process("resolver", 10), protocol="udp", cookie=1)
    host.exchange((CLIENT, 40000), (SERVER, 5300), (70, 71), (4, 0), first=False)
    assert shown(host) == [(CLIENT, 40000, SERVER, 5300, "resolver", None, "handshake", 7)]


def test_what_an_event_tells_of_names_the_process_of_a_shared_socket():
    """Of the processes that hold an unconnected socket the one that an event saw speak with this peer is named."""
    host = Host("b", (SERVER,)).segment().capture()
    workers = (host.process("worker", 1), host.process("worker", 2))
    socket_id = host.socket((ANY, 5300), by=workers, protocol="udp", cookie=5)
    assert socket_id == host.socket(
        (ANY, 5300), (CLIENT, 40000), (1, 1), workers[1], protocol="udp", cookie=5, source="event", samples=0
    )
    host.exchange((SERVER, 5300), (CLIENT, 40000), (1, 2), first=False)
    (row,) = connections_of([host])
    assert (row["resp_app"], row["resp_pid"], row["resp_addr"]) == ("worker", 2, SERVER)
