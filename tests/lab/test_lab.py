# SPDX-License-Identifier: GPL-3.0-or-later
"""The real lab: it comes up whole, is what it declares, and leaves nothing behind, however it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import rundir
from .fleet import FLEET
from .inventory import INVENTORY
from .namespaces import network_of
from .readiness import lasting_edges
from .ssh import CTL_SSH, on_host
from .test_derived import run_lab
from .witness import matches, sockets_on

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("possible")]


def machine() -> dict[str, Any]:
    """What a lab could leave behind, as this machine shows it now."""
    links = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, text=True).stdout)
    namespaces = {
        f"{kind}:{link.readlink()}"
        for process in Path("/proc").iterdir()
        if process.name.isdigit()
        for kind in ("net", "pid", "mnt", "uts", "ipc", "cgroup")
        if (link := process / "ns" / kind) and _readable(link)
    }
    cgroups = {
        str(folder)
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup2"
        for folder in Path(line.split()[1]).glob(f"*{rundir.CGROUP}*")
    }
    return {
        "links": sorted((link["ifname"], tuple(a["local"] for a in link["addr_info"])) for link in links),
        "namespaces": namespaces,
        # named network namespaces are not the lab's, which has none with a name: other tests make some meanwhile
        "mounts": sorted(
            line for line in Path("/proc/self/mounts").read_text().splitlines() if "/run/netns" not in line
        ),
        "run": sorted(path.name for path in Path("/run").iterdir() if path.name != "netns"),
        "cgroups": cgroups,
        "processes": _processes_of_the_lab(),
    }


def _readable(link: Path) -> bool:
    try:
        link.readlink()
    except OSError:
        return False
    return True


def _processes_of_the_lab() -> list[list[str]]:
    """Command lines of processes that are the lab's by a whole word of them: keeper, anchor and hosts."""
    marks = ("lab.keeper", "/tests/lab/host_boot.sh", "/tests/lab/reaper.py")
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(word.endswith(marks) for word in words if "\n" not in word and " " not in word):
                found.append(words)
    return found


def await_gone(limit_s: float = 20.0) -> None:
    """Wait until the run folder is gone."""
    deadline_s = time.monotonic() + limit_s
    while rundir.RUN.exists():
        assert time.monotonic() < deadline_s, f"{rundir.RUN} is still there after {limit_s:.0f} s"
        time.sleep(0.1)


def assert_as_before(before: dict[str, Any]) -> None:
    """The machine shows what it showed; namespaces that others opened meanwhile must at least not be the lab's."""
    after = machine()
    for key in ("links", "mounts", "run", "cgroups", "processes"):
        assert after[key] == before[key], key


def _working() -> dict[str, str]:
    """Command lines by pid of all processes but this one; those that ended have none."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if words:
                found[process.name] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def start_lab(*words: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start the lab's command line without waiting for it."""
    package = (__package__ or "tests.lab").split(".")
    top = Path(__file__).resolve().parents[len(package)]
    return subprocess.Popen(
        [sys.executable, "-m", ".".join(package), *words],
        cwd=top,
        stderr=subprocess.PIPE,
        stdout=stdout,
        text=True,
    )


def await_word(caller: subprocess.Popen[str], word: str) -> None:
    """Read what the lab says until a line has that word."""
    assert caller.stderr is not None
    assert any(word in line for line in caller.stderr), f"the lab ended without saying {word!r}"


@pytest.fixture(scope="module")
def before(possible: None) -> dict[str, Any]:
    """The machine before any lab."""
    return machine()


@pytest.fixture(scope="module")
def lab(before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A lab that is up, taken down afterwards."""
    done = run_lab("up", "--lifetime", "600")
    assert done.returncode == 0, done.stderr
    try:
        yield before
    finally:
        run_lab("down")


def test_every_host_runs_its_own_systemd_and_answers_by_ssh(lab: dict[str, Any]):
    """Over ssh each host tells its own name, systemd as PID 1, a boot id of its own and no failed unit."""
    boots = set()
    for host in FLEET.hosts:
        script = "hostname; cat /proc/1/comm /proc/sys/kernel/random/boot_id; systemctl --failed --no-legend | wc -l"
        name, first, boot, failed = on_host(host, script).stdout.split()
        assert (name, first, failed) == (host.name, "systemd", "0")
        boots.add(boot)
    assert len(boots) == len(FLEET.hosts)


def test_the_machine_itself_gets_no_address_and_no_mount(lab: dict[str, Any]):
    """While the lab is up, the machine's own network and mount tables are as before."""
    during = machine()
    assert during["links"] == lab["links"]
    assert during["mounts"] == lab["mounts"]


def test_a_host_cannot_change_the_machine_beneath(lab: dict[str, Any]):
    """The clock, kernel settings and module loading stay out of a host's reach, its own network settings do not."""
    web1 = FLEET.host("web1")
    for command in (
        "date -s '2001-01-01'",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sys/vm/overcommit_memory",
    ):
        assert on_host(web1, command).returncode != 0, command
    assert on_host(web1, "echo 1 > /proc/sys/net/ipv4/ip_forward").returncode == 0
    assert time.time() > 1_500_000_000


def test_a_second_lab_is_refused(lab: dict[str, Any]):
    """Bringing it up twice fails with the reason and does no harm to the first."""
    done = run_lab("up")
    assert done.returncode == 1
    assert "already up" in done.stderr
    assert json.loads(run_lab("status").stdout)["up"] is True


def test_ansible_reaches_every_host_through_the_inventory(lab: dict[str, Any]):
    """`ansible -i inventories/lab all -m ping` succeeds on each host."""
    ansible = shutil.which("ansible", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if ansible is None:
        pytest.skip("ansible is not installed beside this Python")
    done = subprocess.run(
        [ansible, "-i", str(INVENTORY.parent), "all", "-m", "ansible.builtin.ping"],
        capture_output=True, text=True, cwd="/", env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    assert done.stdout.count("SUCCESS") == len(FLEET.hosts), done.stdout + done.stderr


def test_sockets_on_the_hosts_are_the_declared_ones(lab: dict[str, Any]):
    """Two independent looks with ss find every lasting dependency under its right name, and nothing undeclared."""
    edges = FLEET.edges()
    missing = set(lasting_edges(FLEET))
    strange = set()
    for _ in range(2):
        for host in FLEET.hosts:
            for seen in sockets_on(FLEET, host):
                explained = [edge for edge in edges if matches(edge, seen)]
                missing -= set(explained)
                strange |= set() if explained else {seen}
        time.sleep(3.0)
    assert not missing
    assert not strange


def test_the_peers_listen_on_ports_of_their_own_and_dial_few(lab: dict[str, Any]):
    """At least 24 peers listen on distinct random ports; each dials at most two, and at most two dial each."""
    ports: list[int] = []
    for host in FLEET.hosts:
        text = on_host(host, "ss -H -t -l -n -p | grep peerd").stdout
        ports += [int(line.split()[3].rpartition(":")[2]) for line in text.splitlines()]
    assert len(ports) == len(set(ports)) >= 24
    calls = {
        (seen.host, seen.pid, seen.port)
        for host in FLEET.hosts
        for seen in sockets_on(FLEET, host)
        if seen.app == "peerd" and seen.port in ports
    }
    callers = [call[:2] for call in calls]
    called = [call[2] for call in calls]
    assert len(set(callers)) >= 20
    assert max(map(callers.count, callers)) <= 2
    assert max(map(called.count, called)) <= 2


def test_the_load_is_light(lab: dict[str, Any]):
    """The whole fleet takes less than 40 % of one core once it is warm."""
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2")
    stat = Path(line.split()[1]) / rundir.CGROUP / "cpu.stat"

    def used_s() -> float:
        return int(stat.read_text().split()[1]) / 1e6

    began_s, began_used_s = time.monotonic(), used_s()
    time.sleep(10)
    assert (used_s() - began_used_s) / (time.monotonic() - began_s) < 0.4


def test_the_exercise_empties_no_folder_that_is_not_its_own(lab: dict[str, Any], tmp_path: Path):
    """A folder with other files in it is refused as output and keeps them."""
    (tmp_path / "letter.txt").write_text("mine")
    words = [sys.executable, "-m", "tests.lab.exercise", "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=rundir.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "name another one with --out" in done.stderr
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_down_leaves_nothing(lab: dict[str, Any]):
    """After `down` the machine is as before the lab, also when an ssh into it was still open."""
    web1 = FLEET.host("web1")
    options = f"-F none -i {rundir.RUN}/ssh/id_ed25519 -o UserKnownHostsFile={rundir.RUN}/ssh/known_hosts"
    held = subprocess.Popen(
        [str(CTL_SSH), *options.split(), f"root@{web1.address}", "sleep 600"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1.0)
    assert held.poll() is None
    state = rundir.read_state()
    assert state is not None
    networks = {f"net:{network_of(pid)}" for pid in (state.anchor_pid, *state.hosts.values())}
    done = run_lab("down")
    assert done.returncode == 0, done.stderr
    assert held.wait(10) != 0
    assert_as_before(lab)
    assert not networks & machine()["namespaces"]
    assert "no lab" in run_lab("down").stderr


def test_the_lab_stops_by_itself(before: dict[str, Any]):
    """When its lifetime is over the lab is gone, without anybody asking."""
    done = run_lab("up", "--lifetime", "25")
    assert done.returncode == 0, done.stderr
    await_gone(40)
    assert_as_before(before)


def test_a_caller_killed_while_it_comes_up_leaves_nothing(before: dict[str, Any]):
    """`up` killed with SIGKILL between the first host and the last one ends in no lab at all."""
    with start_lab("up") as caller:
        await_word(caller, "host web1 boots")
        caller.kill()
    await_gone()
    assert_as_before(before)


def test_a_killed_keeper_takes_the_hosts_with_it_and_down_sweeps_up(before: dict[str, Any]):
    """With the keeper killed by SIGKILL the kernel ends every host; `down` then removes files and cgroups."""
    assert run_lab("up", "--lifetime", "120").returncode == 0
    state = rundir.read_state()
    assert state is not None
    os.kill(state.keeper_pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in state.hosts.values()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert run_lab("down").returncode == 0
    assert_as_before(before)


def test_the_exercise_without_a_lab_says_so_and_keeps_what_was_found(before: dict[str, Any], tmp_path: Path):
    """Started when no lab is up it ends with 1, tells how to start one, and leaves earlier results alone."""
    (tmp_path / "result.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.exercise", "--out", str(tmp_path)],
        cwd=rundir.REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "make lab" in done.stderr
    assert (tmp_path / "result.json").read_text() == "{}"


def test_run_brings_it_up_runs_the_command_and_takes_it_down(before: dict[str, Any]):
    """The command finds the truth file and the inventory by its environment, and its exit code comes back."""
    script = 'test -s "$WHONEEDS_LAB_TRUTH" && test -d "$WHONEEDS_LAB_RUN" && ls "$WHONEEDS_LAB_INVENTORY" && exit 7'
    done = run_lab("run", "--lifetime", "120", "--", "sh", "-c", script)
    assert done.returncode == 7, done.stderr
    assert "hosts.yml" in done.stdout
    assert_as_before(before)


def test_run_killed_hard_ends_the_lab_and_its_command(before: dict[str, Any]):
    """`run` killed with SIGKILL while its command works takes the lab along, and the command too."""
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with start_lab("run", "--", sys.executable, "-c", script, stdout=subprocess.PIPE) as caller:
        await_word(caller, "all services are active")
        assert caller.stdout is not None
        command = int(caller.stdout.readline())
        caller.kill()
    await_gone()
    deadline_s = time.monotonic() + 10
    while str(command) in _working():
        assert time.monotonic() < deadline_s, "the command goes on without its lab"
        time.sleep(0.1)
    assert_as_before(before)


def test_a_tree_whose_building_is_killed_leaves_nothing_running(before: dict[str, Any], tmp_path: Path):
    """`up` killed with SIGKILL while it builds the hosts' tree ends debootstrap, and the next one begins anew."""
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed here, and the tree is built already")
    script = (
        f"from pathlib import Path; from tests.lab.tree import build_tree; build_tree(Path({str(tmp_path)!r}), print)"
    )
    builder = subprocess.Popen([sys.executable, "-c", script], cwd=rundir.REPOSITORY, stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 30
    while not list(tmp_path.glob("building-*/debootstrap")):
        assert time.monotonic() < deadline_s, "debootstrap has not begun within 30 s"
        time.sleep(0.1)
    builder.kill()
    builder.wait()
    deadline_s = time.monotonic() + 10
    while any(str(tmp_path) in words for words in _working().values()):
        assert time.monotonic() < deadline_s, "debootstrap goes on without its caller"
        time.sleep(0.1)
    assert_as_before(before)
