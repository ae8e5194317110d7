# SPDX-License-Identifier: GPL-3.0-or-later
"""A tracer that is held up while more happens than the kernel keeps for it."""

import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

from tests.evidence.stage import walk

pytestmark = pytest.mark.root
#: Ends of these connections take several times the largest ring.
_CALLS = 30_000


def call_often(server):
    """Connect so often, and tear each connection down so that its port is free at once."""

    def accept():
        for _ in range(_CALLS):
            server.accept()[0].close()

    serving = threading.Thread(target=accept, daemon=True)
    serving.start()
    for _ in range(_CALLS):
        with socket.socket() as caller:
            caller.connect(server.getsockname())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    serving.join()


@pytest.fixture(scope="module")
def overrun(stage, tmp_path_factory):
    """What the line makes of a tracer that was stopped during the load; the server's port."""
    tracer = stage.trace().await_first_sample()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        tracer.signal(signal.SIGSTOP)
        call_often(server)
        tracer.signal(signal.SIGCONT)
        port = server.getsockname()[1]
    tracer.stop()
    return port, walk(tmp_path_factory.mktemp("line"), [tracer])


def test_what_the_kernel_could_not_keep_is_counted(overrun):
    """Every end of a connection that is not in the segments is counted as lost in a gap."""
    port, answer = overrun
    ends = sum(bool(row["orig_pid"]) + bool(row["resp_pid"]) for row in answer.calls(port))
    lost = sum(gap["lost"] for gap in answer.gaps if gap["source"] in ("events", "destroyed") and gap["lost"])
    assert ends < 2 * _CALLS
    assert ends + lost >= 2 * _CALLS


def test_the_facts_tell_of_the_loss(overrun):
    """The facts of the host, and what stands under every table, say that events were lost."""
    _port, answer = overrun
    assert [words for words in answer.hosts["here"]["coverage"]["gaps"] if words.startswith("events: dropped: ")]
    words = [sys.executable, "-m", "whoneeds", "deps", "--store", str(answer.store)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    assert "Not seen on here: " in said
    assert " lost)" in " ".join(said.split())
