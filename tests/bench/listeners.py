# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens while connections are made: the tracer as shipped, in three ways, and bpftrace on the tracepoint.

Each is a process of its own whose CPU time and memory are read from outside, and answers which process was at which
end: rows of (caller's port, whether it is the called end, which socket, process or None).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from whoneeds.model.evidence import Gap, ProcessRecord, SocketRecord
from whoneeds.segment.read import read_segment

#: One end of a connection as a listener tells of it: caller's port, called, identity of the socket, process.
End = tuple[int, bool, str, int | None]
_CALL = "from whoneeds.tracer.command import main; raise SystemExit(main())"
#: Every change of every TCP socket, as somebody who looks for short connections prints it.
_SCRIPT = """tracepoint:sock:inet_sock_set_state {
  printf("%d %s %d %d %d %d\\n", pid, comm, args->oldstate, args->newstate, args->sport, args->dport);
}"""
_SYN_SENT, _ESTABLISHED, _CLOSE_WAIT, _LAST_ACK, _FIN_WAIT1 = 2, 1, 8, 9, 4


class Heard(NamedTuple):
    """What a listener has told: ends of connections, how many it says it lost (None if it cannot), bytes on disk."""

    ends: list[End]
    lost: int | None
    disk_bytes: int
    capture_bytes: int


class Listener:
    """A process that listens; begin it with `start`.

    Parameters
    ----------
    command : list of str
    folder : Path
        Its own.
    ready : callable
        Whether it listens by now.
    """

    def __init__(self, command: list[str], folder: Path, ready: Callable[[Path], bool]) -> None:
        self.folder = folder
        with (folder / "out").open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        until_s = time.monotonic() + 30
        while not ready(folder):
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{command[0]} does not listen")
            time.sleep(0.1)
        time.sleep(2)

    def cpu_s(self) -> float:
        """CPU time so far, user and system."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Most memory that it had at once."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait()


def start_tracer(folder: Path, *options: str) -> Listener:
    """The tracer as shipped."""
    words = [sys.executable, "-c", _CALL, "trace", "run", "--dir", str(folder), *options]
    return Listener(words, folder, lambda place: (place / "status.json").exists())


def hear_tracer(folder: Path, port: int) -> Heard:
    """What the tracer wrote of connections to a port."""
    ends: list[End] = []
    lost = 0
    for path in sorted((folder / "segments").glob("*.seg")):
        segment = read_segment(str(path))
        pids: dict[str | None, int | None] = {row.process_id: row.pid for row in segment.tables[ProcessRecord]}
        lost += sum(gap.lost or 0 for gap in segment.tables[Gap] if gap.source in ("events", "destroyed"))
        for row in segment.tables[SocketRecord]:
            if row.remote_port is None or row.local_addr != "127.0.0.1":
                continue
            if port in (row.local_port, row.remote_port):
                called = row.local_port == port
                caller = row.remote_port if called else row.local_port
                ends.append((caller, called, row.socket_id, pids.get(row.process_id)))
    return Heard(ends, lost, _size(folder, "*.seg"), _size(folder, "*.pcap"))


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in (folder / "segments").glob(pattern))


def start_bpftrace(folder: Path) -> Listener:
    """bpftrace, in a mount namespace in which tracefs is where it looks for it."""
    script = folder / "script.bt"
    script.write_text('BEGIN { printf("ready\\n"); }\n' + _SCRIPT)
    mounts = "mount -t tracefs tracefs /sys/kernel/tracing && mount -t debugfs debugfs /sys/kernel/debug"
    words = ["unshare", "--mount", "sh", "-c", f"{mounts}; exec bpftrace -q {script}"]
    return Listener(words, folder, lambda place: b"ready" in (place / "out").read_bytes())


def hear_bpftrace(folder: Path, port: int) -> Heard:
    """What bpftrace printed, read as kindly as can be: each end's process at the change that is its own act.

    The caller's is that of its way out of ``syn_sent``, which on loopback happens in its own call; the called end's is
    that of its close, since at ``established`` the kernel names the caller.
    """
    ends: list[End] = []
    text = (folder / "out").read_text(errors="replace")
    for number, line in enumerate(text.splitlines()):
        words = line.split()
        if len(words) < 6 or not all(word.isdigit() for word in (words[0], *words[-4:])):
            continue
        old, new, local_port, remote_port = map(int, words[-4:])
        if remote_port == port and (old, new) == (_SYN_SENT, _ESTABLISHED):
            ends.append((local_port, False, str(number), int(words[0]) or None))
        elif local_port == port and (old, new) in ((_CLOSE_WAIT, _LAST_ACK), (_ESTABLISHED, _FIN_WAIT1)):
            ends.append((remote_port, True, str(number), int(words[0]) or None))
    lost = sum(
        int(line.split()[1]) for line in text.splitlines() if line.startswith("Lost ") and line.split()[1].isdigit()
    )
    return Heard(ends, lost, len(text), 0)


class Contestant(NamedTuple):
    """A way to listen."""

    name: str
    start: Callable[[Path], Listener]
    hear: Callable[[Path, int], Heard]


CONTESTANTS = (
    Contestant("events", start_tracer, hear_tracer),
    Contestant("events, no packets", lambda folder: start_tracer(folder, "--packets", "off"), hear_tracer),
    Contestant("events of tracefs", lambda folder: start_tracer(folder, "--sources", "tracefs,table"), hear_tracer),
    Contestant("samples, 5 s", lambda folder: start_tracer(folder, "--sources", "table"), hear_tracer),
    Contestant("samples, 1 s", lambda folder: start_tracer(folder, "--sources", "table", "--period", "1"), hear_tracer),
    Contestant("bpftrace", start_bpftrace, hear_bpftrace),
)


def missing() -> dict[str, str]:
    """Contestants that cannot be had here, and why."""
    if shutil.which("bpftrace") is None:
        return {"bpftrace": "it is not installed"}
    with tempfile.TemporaryDirectory(prefix="whoneeds-bench-") as folder:
        try:
            start_bpftrace(Path(folder)).stop()
        except RuntimeError:
            return {"bpftrace": "it does not run here"}
    return {}


def idle_share(seconds: float) -> dict[str, Any]:
    """Share of a core that the tracer takes while next to nothing happens."""
    with tempfile.TemporaryDirectory(prefix="whoneeds-bench-") as folder:
        listener = start_tracer(Path(folder))
        time.sleep(3)
        before_s, begin_s = listener.cpu_s(), time.monotonic()
        time.sleep(seconds)
        share = (listener.cpu_s() - before_s) / (time.monotonic() - begin_s)
        made = {"core_share": share, "seconds": seconds, "rss_mib": listener.peak_mib()}
        listener.stop()
    return made
