# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper: the one process that makes the lab, keeps it, and takes it away.

It runs in a mount namespace and a session of its own, holds the lock on the run folder, and stops the lab when it is
told to, when the lab's time is over, or when the caller who started it goes away without having said that it stays.
Should the keeper itself be killed, the kernel ends the rest: the anchor dies with it, and everything with the anchor.

Started by ``lifecycle.bring_up`` as ``unshare --mount python -m tests.lab.keeper LOCK_FD CALLER_FD LIFETIME_S TREE``.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from . import rundir
from .declaration import Fleet
from .failure import LabError
from .fleet import FLEET
from .hostfiles import host_files
from .keys import make_keys
from .namespaces import (
    Anchor,
    boot_host,
    end_strays,
    make_bridge,
    make_root,
    mount_cgroups,
    network_of,
    remove_cgroups,
    run,
    start_anchor,
)  # fmt: skip

# All roots' upper layers share it; it lives in memory and goes with the keeper.
PRIVATE_SIZE = "2g"
POLL_S = 0.2
# What the caller says once the lab is good: it may go away and the lab stays, or the lab ends with it.
STAY = b"stay\n"
GOOD = b"good\n"


class Stopped(Exception):
    """The lab is to end now; the text says why."""


class Keeper:
    """Makes and ends one lab."""

    def __init__(self, fleet: Fleet, tree: Path, lifetime_s: float, caller: int) -> None:
        self._fleet = fleet
        self._tree = tree
        self._caller = caller
        self._deadline_s = time.monotonic() + lifetime_s
        ticks = rundir.start_ticks(os.getpid())
        assert ticks is not None
        self._state = rundir.LabState(1, "starting", os.getpid(), ticks, 0, time.time() + lifetime_s)
        self._anchor: Anchor | None = None
        self._hosts: dict[str, subprocess.Popen[str]] = {}
        self._cgroups = rundir.RUN / rundir.PRIVATE / "cgroup"

    def say(self, text: str) -> None:
        """Tell the log, and through it whoever follows the start."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def start(self) -> None:
        """Make the lab; its hosts boot on after this returns."""
        rundir.write_state(self._state)
        private = rundir.RUN / rundir.PRIVATE
        private.mkdir()
        run(["mount", "-t", "tmpfs", "-o", f"mode=700,size={PRIVATE_SIZE}", "tmpfs", str(private)])
        mount_cgroups(self._cgroups)
        remove_cgroups(self._cgroups / rundir.CGROUP)
        keys = make_keys(self._fleet, rundir.RUN / "ssh")
        self._anchor = start_anchor()
        self._state.anchor_pid = self._anchor.pid
        (rundir.RUN / "anchor.pid").write_text(f"{self._anchor.pid}\n")
        make_bridge(self._anchor, self._fleet)
        for number, host in enumerate(self._fleet.hosts):
            self._heed()
            files = [*host_files(self._fleet, host.name), *keys[host.name]]
            root = make_root(self._tree, private, host, files)
            cgroup = self._cgroups / rundir.CGROUP / host.name
            process, pid = boot_host(self._anchor, host, number, self._fleet, root, cgroup)
            self._hosts[host.name] = process
            self._state.hosts[host.name] = pid
            rundir.write_state(self._state)
            self.say(f"host {host.name} boots (pid {pid})")
        self.say("all hosts boot")

    def keep(self) -> None:
        """Wait until the lab is to end; raises Stopped."""
        while True:
            self._heed()
            time.sleep(POLL_S)

    def _heed(self) -> None:
        """Raise Stopped for each reason to end the lab."""
        if time.monotonic() > self._deadline_s:
            raise Stopped("its time is over")
        if self._caller >= 0 and select.select([self._caller], [], [], 0)[0]:
            word = os.read(self._caller, 16)
            if word not in (STAY, GOOD):
                raise Stopped("whoever started it went away")
            if word == STAY:
                os.close(self._caller)
                self._caller = -1
            self._state.phase = "up"
            rundir.write_state(self._state)
        if self._anchor is not None and self._anchor.launcher.poll() is not None:
            raise Stopped("its first process ended")
        for name, process in self._hosts.items():
            if process.poll() is not None:
                raise Stopped(f"host {name} ended")

    def stop(self) -> None:
        """Take everything away, whatever there is of it."""
        networks: set[str] = set()
        if self._anchor is not None:
            pids = [self._anchor.pid, *self._state.hosts.values()]
            networks = {network for network in map(network_of, pids) if network is not None}
            networks.discard(network_of(os.getpid()) or "")
            self._anchor.launcher.kill()
            self._anchor.launcher.wait()
            for process in self._hosts.values():
                process.wait()
            end_strays(networks)
        if os.path.ismount(self._cgroups):
            remove_cgroups(self._cgroups / rundir.CGROUP)
        private = rundir.RUN / rundir.PRIVATE
        if os.path.ismount(private):
            # The folder beneath is everybody's, and could not be removed with the mounts on it.
            run(["umount", "--lazy", "--recursive", str(private)])
        rundir.remove_run_folder()


def main() -> None:
    """Keep one lab from its beginning to its end."""
    lock, caller = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(lock, False)
    os.set_inheritable(caller, False)

    def on_signal(number: int, _frame: object) -> None:
        raise Stopped(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    keeper = Keeper(FLEET, Path(sys.argv[4]), float(sys.argv[3]), caller)
    code = 1
    try:
        keeper.start()
        keeper.keep()
    except Stopped as why:
        keeper.say(f"the lab ends: {why}")
        code = 0
    except LabError as wrong:
        keeper.say(f"the lab failed: {wrong}")
    except BaseException:
        keeper.say(f"the lab failed:\n{traceback.format_exc()}")
    # A second signal must not interrupt the clearing away.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keeper.stop()
    raise SystemExit(code)


if __name__ == "__main__":
    main()
