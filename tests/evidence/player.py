# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that opens, serves and closes real connections when it is told to, and says what it did.

It runs as a file of its own, under the name of the program that it plays. Each line of its standard input is a verb
and its words in JSON; each line of its standard output is what came of it: the truth. Called with an address and a
port it plays a process of 100 ms that makes one connection, and says who it was.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time

LIFE_S = 0.1
_sockets = {}
_accepted = []
_children = []


def _key(sock):
    _sockets[sock.fileno()] = sock
    return sock.fileno()


def _serve(connection, peer):
    """Give back twice what comes, until nothing comes any more."""
    _accepted.append([os.getpid(), peer[1]])
    with connection:
        try:
            while piece := connection.recv(4096):
                connection.sendall(piece * 2)
        except OSError:
            pass


def _accept(server):
    while True:
        connection, peer = server.accept()
        threading.Thread(target=_serve, args=(connection, peer), daemon=True).start()


def listen(address, port=0, family="AF_INET", both=False):
    """Wait for connections, in a thread; the port."""
    server = socket.socket(getattr(socket, family))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == "AF_INET6":
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
    server.bind((address, port))
    server.listen(128)
    _key(server)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    return server.getsockname()[1]


def prefork(address, workers):
    """Open a listening socket and let children accept from it; the port and the children's numbers.

    Each child accepts one connection after the other and gives its own number to who connected.
    """
    server = socket.create_server((address, 0), backlog=128)
    _key(server)
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            while True:
                connection, _peer = server.accept()
                with connection:
                    while piece := connection.recv(64):
                        time.sleep(0.02)  # so that the others get their share
                        connection.sendall(f"{os.getpid()} {len(piece)}\n".encode())
        _children.append(child)
    return [server.getsockname()[1], _children]


def accepted():
    """Who accepted: own number and the peer's port of each connection so far."""
    return _accepted


def connect(address, port, local_port=0, family="AF_INET", local_address=None, timeout_s=10):
    """Connect; the key of the socket, and its own address and port."""
    made = socket.socket(getattr(socket, family))
    made.settimeout(timeout_s)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if local_port or local_address:
        made.bind((local_address or "", local_port))
    made.connect((address, port))
    return [_key(made), *made.getsockname()[:2]]


def say(key, count):
    """Send so many bytes and wait for an answer; what came."""
    _sockets[key].sendall(b"x" * count)
    return _sockets[key].recv(65536).decode("ascii", "replace")


def close(key, reset=False):
    """Close a socket, or tear it down so that nothing of it stays."""
    sock = _sockets.pop(key)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def run_as(path):
    """Become another program, under the same number."""
    os.execv(path, [path])


def _play(verbs):
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        verb, *words, options = json.loads(line)
        print(json.dumps(verbs[verb](*words, **options)), flush=True)
    for child in _children:
        os.kill(child, signal.SIGKILL)


def _live_for_one_connection(begun_s, address, port):
    with socket.create_connection((address, port)) as connection:
        connection.sendall(b"x" * 10)
        connection.recv(64)
        local_port = connection.getsockname()[1]
    time.sleep(max(begun_s + LIFE_S - time.monotonic(), 0))
    print(json.dumps([os.getpid(), local_port]), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _live_for_one_connection(time.monotonic(), sys.argv[1], int(sys.argv[2]))
    else:
        _play({verb.__name__: verb for verb in (listen, prefork, accepted, connect, say, close, run_as)})
