# SPDX-License-Identifier: GPL-3.0-or-later
import array
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import whoneeds
from whoneeds.model.errors import HostError
from whoneeds.tracer.bpf.load import Loaded, from_named
from whoneeds.tracer.handover import handed_descriptors, store_descriptors


class Manager:
    """Keeps descriptors as the service manager does."""

    def __init__(self, path):
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(path)
        self.words = []
        self.kept = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            words, ancillary, _flags, _address = self.channel.recvmsg(4096, socket.CMSG_SPACE(64))
            descriptors = array.array("i")
            for _level, _kind, data in ancillary:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            self.words.append(words.decode())
            if words.startswith(b"BARRIER"):
                os.close(descriptors[0])
                return
            self.kept += descriptors

    def close(self):
        """End, and let go of all that is kept."""
        self._thread.join(10)
        for descriptor in self.kept:
            os.close(descriptor)
        self.channel.close()


def test_descriptors_get_to_the_manager_under_their_names_in_the_place_of_older_ones(tmp_path):
    """Each name is emptied first, then filled, and only when the manager has read all does the loader go on."""
    manager = Manager(str(tmp_path / "notify"))
    reading, writing = os.pipe()
    try:
        store_descriptors([("whoneeds-a", reading), ("whoneeds-b", writing)], str(tmp_path / "notify"))
        manager._thread.join(10)
        os.write(manager.kept[1], b"x")
        assert os.read(reading, 1) == b"x"
    finally:
        os.close(reading)
        os.close(writing)
        manager.close()
    assert manager.words == [
        "FDSTOREREMOVE=1\nFDNAME=whoneeds-a",
        "FDSTOREREMOVE=1\nFDNAME=whoneeds-b",
        "FDSTORE=1\nFDPOLL=0\nFDNAME=whoneeds-a",
        "FDSTORE=1\nFDPOLL=0\nFDNAME=whoneeds-b",
        "BARRIER=1",
    ]


def test_a_manager_that_is_not_there_is_a_clear_error(tmp_path):
    """Where nobody takes the descriptors, the loader says what it expected."""
    with pytest.raises(HostError, match="expected that it keeps descriptors"):
        store_descriptors([("whoneeds-a", 0)], str(tmp_path / "nobody"))


def test_descriptors_that_were_handed_over_are_found_by_name_and_not_passed_on():
    """A service finds its descriptors by the names that they were stored under, several with one name in order."""
    program = (
        "import os\n"
        "from whoneeds.tracer.handover import handed_descriptors\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "found = handed_descriptors(os.environ)\n"
        "print(found, [os.get_inheritable(number) for numbers in found.values() for number in numbers])"
    )
    words = ["sh", "-c", 'exec "$@" 3</dev/null 4</dev/null 5</dev/null', "sh", sys.executable, "-c", program]
    environment = {**os.environ, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:a"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "{'a': [3, 5], 'b': [4]} [False, False, False]\n"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "many", "LISTEN_FDNAMES": "a"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "99999", "LISTEN_FDNAMES": "a"},
    ],
)
def test_what_was_not_meant_for_this_process_is_not_taken(environment):
    """Without descriptors, with another process's, or with a number that makes no sense, there are none."""
    own = str(os.getpid())
    assert handed_descriptors({key: own if value == "own" else value for key, value in environment.items()}) == {}


def test_what_was_loaded_is_put_together_again_from_its_names_or_not_at_all():
    """All parts by name make what was loaded; with one part missing there is nothing."""
    loaded = Loaded(lives=3, tasks=4, counters=5, programs=(6, 7), links=(8, 9), listing=10)
    handed = {}
    for name, descriptor in loaded.named():
        handed.setdefault(name, []).append(descriptor)
    assert from_named(handed) == loaded
    for name in handed:
        assert from_named({other: value for other, value in handed.items() if other != name}) is None


@pytest.mark.root
def test_without_privileges_nothing_of_others_can_be_opened_and_none_comes_back():
    """After giving up, no capability is left, a set-user-id program gives none, and other users' files are closed."""
    program = (
        "import os\n"
        "from whoneeds.tracer.privileges import give_up_privileges\n"
        "give_up_privileges()\n"
        "lines = dict(line.split(':', 1) for line in open('/proc/self/status') if line.startswith(('Cap', 'NoNew')))\n"
        "print({name: value.strip() for name, value in lines.items()})\n"
        "try:\n"
        "    os.chown('/proc/self/fd', 1, 1)\n"
        "except PermissionError:\n"
        "    print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    words, refused = done.stdout.splitlines()
    nothing = "0000000000000000"
    assert words == str(
        {**dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), nothing), "NoNewPrivs": "1"}
    )
    assert refused == "refused"


@pytest.mark.root
def test_the_check_says_what_a_user_without_any_right_cannot_do():
    """The check passes for an interpreter that everybody may run, and names one that nobody else may run."""
    if os.geteuid() != 0:
        pytest.skip("loading programs needs root")
    program = "import sys; sys.path.insert(0, {!r}); from whoneeds.tracer.command import main; sys.exit(main({!r}))"
    library, words = str(Path(whoneeds.__file__).parents[1]), ["trace", "load", "--check"]
    with tempfile.TemporaryDirectory() as hidden:
        private = Path(hidden) / "python3"
        shutil.copy(os.path.realpath(sys.executable), private)
        setting = f"import sys; sys.executable = {str(private)!r}; " + program.format(library, words)
        done = subprocess.run([sys.executable, "-c", setting], capture_output=True, text=True, check=False)
    if "kernel program" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 1
    assert "run this interpreter; found" in done.stderr
    assert str(private) in done.stderr
    setting = "import sys; sys.executable = '/bin/true'; " + program.format(library, words)
    done = subprocess.run([sys.executable, "-c", setting], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        0, "the kernel takes the programs, and a user without any right can use them",
    )  # fmt: skip


@pytest.mark.root
def test_a_packet_socket_that_was_handed_over_is_read_without_privilege():
    """Packets of a socket that root opened are taken in by a process that could not open one itself."""
    if os.geteuid() != 0:
        pytest.skip("packet sockets need root")
    program = (
        "import socket, time\n"
        "from whoneeds.tracer import clocks\n"
        "from whoneeds.tracer.packets import PacketLimits, begin_capture, open_to_hand_over\n"
        "from whoneeds.tracer.privileges import give_up_privileges\n"
        "from whoneeds.tracer.observation import Observation\n"
        "named, refused = open_to_hand_over('headers')\n"
        "assert refused is None, refused\n"
        "give_up_privileges()\n"
        "at = clocks.now()\n"
        "assert begin_capture('headers', PacketLimits(), 1, at)[1] is not None\n"
        "source, refused = begin_capture('headers', PacketLimits(), 1, at, [named[0][1]])\n"
        "assert refused is None, refused\n"
        "taking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "taking.bind(('127.0.0.1', 0))\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', taking.getsockname())\n"
        "observation = Observation('host', 'boot', at)\n"
        "until = time.monotonic() + 10\n"
        "while not source.packets and time.monotonic() < until:\n"
        "    source.read(observation, clocks.now())\n"
        "    time.sleep(0.05)\n"
        "print(named[0][0], source.packets > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "whoneeds-packets True\n")
