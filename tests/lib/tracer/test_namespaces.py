# SPDX-License-Identifier: GPL-3.0-or-later
"""Every network namespace is looked into, and none is kept alive by it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.tracer import clocks
from whoneeds.tracer.namespaces import NamespaceFinder, own_namespace, parse_namespace_mounts
from whoneeds.tracer.observation import Observation
from whoneeds.tracer.owners import list_pids
from whoneeds.tracer.sampler import Sampler

pytestmark = pytest.mark.root

LISTENER = """
import os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 7000))
client = socket.create_connection(("127.0.0.1", 7000))
print(os.stat("/proc/self/ns/net").st_ino, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_namespace():
    """A real process in a network namespace of its own, with a connection over its own loopback."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("needs root and the right to make network namespaces")
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, int(process.stdout.readline())
        process.kill()


def observe(sampler=None):
    """One sample as records."""
    at = clocks.now()
    observation = Observation("h", clocks.read_boot_id(), at)
    (sampler or Sampler()).sample(observation, at)
    return observation.records(at)


def test_loopback_of_another_namespace_is_told_apart(other_namespace):
    """Sockets of another namespace are seen with their owner, under that namespace's own number."""
    process, inode = other_namespace
    with socket.create_server(("127.0.0.1", 7000), reuse_port=False):
        tables = observe()
    found = [row for row in tables[SocketRecord] if row.local_port == 7000 and row.state == "listen"]
    owners = {row.process_id: row.pid for row in tables[ProcessRecord]}
    assert {(row.netns, owners[row.process_id]) for row in found} >= {
        (str(inode), process.pid),
        (str(own_namespace()), os.getpid()),
    }


def test_a_namespace_that_appears_later_is_found(other_namespace):
    """A namespace made after the first sample is in the next one."""
    sampler = Sampler()
    observe(sampler)
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as late:
        inode = late.stdout.readline().strip()
        tables = observe(sampler)
        late.kill()
    assert inode in {row.netns for row in tables[SocketRecord]}


def test_a_namespace_without_processes_is_found_by_its_mount():
    """A named namespace (ip netns) with no process in it is found by its mount."""
    name = f"whoneeds-{os.getpid()}"
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
        pytest.skip("needs root and iproute2's named namespaces")
    try:
        inode = Path(f"/run/netns/{name}").stat().st_ino
        assert inode in NamespaceFinder().find(list_pids(), set()).doors
        assert not [gap for gap in observe()[Gap] if gap.source == "namespaces" and str(inode) in gap.detail]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_no_namespace_is_kept_alive(other_namespace):
    """After its last process a namespace that was looked into is gone at once."""
    process, inode = other_namespace
    sampler = Sampler()
    assert str(inode) in {row.netns for row in observe(sampler)[SocketRecord]}
    before = len(list(Path("/proc/self/fd").iterdir()))
    process.kill()
    process.wait()
    time.sleep(0.05)
    assert str(inode) not in {row.netns for row in observe(sampler)[SocketRecord]}
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert own_namespace() == Path("/proc/self/ns/net").stat().st_ino


def test_mounts_of_other_kinds_are_passed_over():
    """Only mounts of network namespaces count, and escaped characters in their paths are read."""
    text = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:4 mnt:[4026532300] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n"
        "31 22 0:4 net:[4026532301] /run/netns/a\\134b\\040c rw shared:1 master:2 - nsfs nsfs rw\n"
        "32 22 0:4 net:[4026532302] /run/docker/netns/default rw - nsfs nsfs rw\n"
        "garbage\n"
    )
    assert parse_namespace_mounts(text) == ["/run/netns/a\\b c", "/run/docker/netns/default"]
