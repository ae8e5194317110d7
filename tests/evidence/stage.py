# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cases stand on: hosts, programs on them, the tracer as it is shipped, and the line that follows."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoneeds import pipeline
from whoneeds.collector.connections import join_connections
from whoneeds.model.conclusions import Attribution, Dependency
from whoneeds.model.evidence import FlowRecord, Gap
from whoneeds.store.session import open_store

HERE = Path(__file__).parent
_PATIENCE_S = 20.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something is true, and return it."""
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"within {_PATIENCE_S:.0f} s there was no {what}")


class Player:
    """A program that does what it is told; see `tests.evidence.player`.

    Attributes
    ----------
    pid : int
        Its own word for its number.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = int(self._hear())

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self, verb: str, *words: Any, **options: Any) -> Any:
        """Let it act, and wait until it has."""
        self.shout(verb, *words, **options)
        return json.loads(self._hear())

    def shout(self, verb: str, *words: Any, **options: Any) -> None:
        """Let it act, and do not wait for an answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, *words, options]) + "\n")
        self.process.stdin.flush()

    def become(self, path: str) -> None:
        """Let it run another program."""
        self.shout("run_as", path)
        assert int(self._hear()) == self.pid

    def end(self) -> None:
        """Let it end by itself, or make it."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Machine:
    """The machine itself, with all its namespaces: what a tracer on a real host sees."""

    name = "here"

    def command(self, *words: str) -> list[str]:
        """The words that run a command on it."""
        return list(words)

    def run(self, *words: str) -> str:
        """Run a command on it to its end."""
        return subprocess.run(self.command(*words), check=True, capture_output=True, text=True, timeout=60).stdout


class Host(Machine):
    """A host of its own: pid, network, mount and UTS namespaces; it ends with `stop`, or with this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._launcher = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--uts", "--fork",
                "--kill-child=SIGKILL", "--mount-proc", "--", sys.executable, "-I", "-S",
                str(HERE.parent / "lab" / "reaper.py"),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._launcher.stdout is not None
        with self._launcher.stdout as words:
            if words.readline() != "alive\n":
                self._launcher.wait()
                raise RuntimeError("a host did not start; are namespaces allowed here?")
        self.pid = int(Path(f"/proc/{self._launcher.pid}/task/{self._launcher.pid}/children").read_text())
        self.run("hostname", name)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *words: str) -> list[str]:
        """The words that run a command on it."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", "--", *words]

    def connect_to(self, hub: "Host", address: str) -> None:
        """Lay a cable to the bridge of another host, and take an address at this end."""
        cable = f"to-{self.name}"[:15]
        hub_net = ["nsenter", f"--target={hub.pid}", "--net", "--"]
        link = ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)]
        subprocess.run([*hub_net, *link], check=True)
        hub.run("ip", "link", "set", cable, "master", "hub", "up")
        self.run("ip", "link", "set", "eth0", "up")
        self.take(address)

    def become_hub(self, address: str) -> None:
        """Put up the bridge that the others' cables lead to."""
        self.run("ip", "link", "add", "hub", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        self.run("ip", "link", "set", "hub", "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", "hub")

    def take(self, address: str) -> None:
        """Take one more address, and let everybody know."""
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")

    def leave(self, address: str) -> None:
        """Give an address up."""
        self.run("ip", "address", "del", f"{address}/24", "dev", "eth0")

    def stop(self) -> None:
        """End every process of it; its network goes with the last one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._launcher.wait(timeout=30)


class Stage:
    """Hosts, programs and tracers, and their end.

    Parameters
    ----------
    folder : Path
        Where programs and tracers have their files; every user may read it.
    pyz : Path
        The tracer as it goes to hosts.
    """

    def __init__(self, folder: Path, pyz: Path) -> None:
        self.folder, self.pyz = folder, pyz
        self._left = contextlib.ExitStack()

    def close(self) -> None:
        """End all that still runs."""
        self._left.close()

    def program(self, name: str) -> str:
        """Path of a player under that name."""
        path = self.folder / "bin" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!{sys.executable} -IS\n" + (HERE / "player.py").read_text())
            path.chmod(0o755)
        return str(path)

    def host(self, name: str) -> Host:
        """Start a host."""
        made = Host(name)
        self._left.callback(made.stop)
        return made

    def start(self, name: str, host: Machine = Machine()) -> Player:
        """Start a program that waits to be told what to do."""
        made = Player(host.command(self.program(name)))
        self._left.callback(made.end)
        return made

    def call_once(self, name: str, address: str, port: int, host: Machine = Machine()) -> tuple[int, int]:
        """Run a program that lives for 100 ms and one connection: its number, and the port that it called from."""
        pid, local_port = json.loads(host.run(self.program(name), address, str(port)))
        return pid, local_port

    def trace(
        self, host: Machine = Machine(), *options: str, environment: Mapping[str, str] = {}, **settings: Any
    ) -> "Tracer":
        """Begin to trace a host; returns when the first sample is taken."""
        made = Tracer(self, host, options, environment, settings)
        self._left.callback(made.kill)
        return made


class Tracer:
    """The tracer as it is shipped, on one host."""

    def __init__(
        self,
        stage: Stage,
        host: Machine,
        options: Sequence[str],
        environment: Mapping[str, str],
        settings: Mapping[str, Any],
    ) -> None:
        self._host, self.host = host, host.name
        self.folder = stage.folder / f"trace-{host.name}"
        config = stage.folder / f"{host.name}.json"
        config.write_text(json.dumps({"schema": 1, "host": host.name, **settings}))
        self._words = [sys.executable, "-I", "-S", str(stage.pyz), "trace"]
        run = [*self._words, "run", "--dir", str(self.folder), "--config", str(config), *options]
        variables = [f"{name}={value}" for name, value in environment.items()]
        self.process = subprocess.Popen(
            [*host.command("env", *variables, *run)], stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def await_first_sample(self) -> "Tracer":
        """Wait until it has looked once."""
        wait_for(lambda: self.status().get("samples") or self.process.poll() is not None, "first sample")
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        return self

    def status(self) -> dict[str, Any]:
        """Its state file."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def signal(self, number: int) -> None:
        """Send a signal to it, and to what runs it."""
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """Ask it to end, and wait until all that it saw is on disk."""
        self.run("stop")
        assert self.process.wait(30) == 0, self.process.stderr and self.process.stderr.read()

    def run(self, verb: str, *options: str) -> str:
        """What another verb of the tracer says about its folder."""
        words = self._host.command(*self._words, verb, "--dir", str(self.folder), *options)
        return subprocess.run(words, check=False, capture_output=True, text=True, timeout=60).stdout

    def kill(self) -> None:
        """End it in any case."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@dataclass(frozen=True)
class Answer:
    """What the line made of what tracers wrote.

    Attributes
    ----------
    connections, dependencies, gaps : list of dict
        Rows of `Connection`, of `Dependency` at every level, and of `Gap`.
    hosts : dict
        The facts of each host.
    store : Path
    """

    connections: list[dict[str, Any]]
    dependencies: list[dict[str, Any]]
    gaps: list[dict[str, Any]]
    hosts: dict[str, Any]
    store: Path

    def calls(self, port: int, **wanted: Any) -> list[dict[str, Any]]:
        """Connections to a port, in the order in which they began."""
        rows = [row for row in self.connections if row["resp_port"] == port]
        rows = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
        return sorted(rows, key=lambda row: row["first_ns"])

    def needs(self, app: str) -> dict[tuple[str, int], str]:
        """Kind of each (protocol, port) that an application needs."""
        rows = [row for row in self.dependencies if row["app"] == app and row["level"] == 1]
        return {(row["protocol"], row["port"]): row["kind"] for row in rows}


def walk(folder: Path, tracers: Sequence[Tracer]) -> Answer:
    """Bring segments to the controller and walk the whole line with them."""
    for tracer in tracers:
        shutil.copytree(tracer.folder / "segments", folder / "incoming" / tracer.host)
    with open_store(folder / "store", create=True, write=True) as store:
        walked = pipeline.run_line(store, [folder / "incoming"])
        assert not walked.taken_in.quarantined, walked.taken_in.quarantined
        made = join_connections(store.table(FlowRecord), store.table(Attribution))
        return Answer(
            store.read(made).to_pylist(),
            list(store.rows(Dependency)),
            list(store.rows(Gap)),
            pipeline.facts(store)["hosts"],
            folder / "store",
        )


def free_port(low: int, high: int) -> int:
    """A port within a range on which nobody waits now; seldom the one of an earlier run, which the kernel remembers."""
    for port in random.sample(range(low, high), high - low):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError(f"no free port from {low} to {high}")
