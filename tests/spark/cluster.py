# SPDX-License-Identifier: GPL-3.0-or-later
"""A Spark standalone master and two workers on loopback, for as long as a block of code lasts."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

WORKERS = 2
_PR_SET_PDEATHSIG = 1
_START_S = 90
_CONFIGURATION = """\
spark.driver.memory 1g
spark.executor.memory 700m
spark.sql.shuffle.partitions 4
spark.default.parallelism 2
"""


@contextlib.contextmanager
def run_cluster(folder: Path) -> Iterator[str]:
    """Start a master and its workers, each a process of its own; end them by number.

    Parameters
    ----------
    folder : Path
        For their logs and what they write.

    Yields
    ------
    str
        The master's URL.
    """
    import pyspark

    home = Path(pyspark.__file__).parent
    (folder / "spark-defaults.conf").write_text(_CONFIGURATION, encoding="ascii")
    # without the first, their pages would be open to all; the driver, which is this process, reads the last as well
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_CONF_DIR"] = str(folder)
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_DAEMON_MEMORY": "256m"}
    port = _free_port()
    url = f"spark://127.0.0.1:{port}"
    place = ["--host", "127.0.0.1", "--webui-port", "0"]
    programs = {"master": ["org.apache.spark.deploy.master.Master", *place, "--port", str(port)]}
    for number in range(WORKERS):
        work = folder / f"worker{number}"
        programs[work.name] = [
            "org.apache.spark.deploy.worker.Worker", *place, "--cores", "1", "--memory", "800m", "--work-dir",
            str(work), url,
        ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, words in programs.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [str(home / "bin" / "spark-class"), *words], env=environment, cwd=folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, preexec_fn=partial(end_with_parent, signal.SIGKILL),
            )  # fmt: skip
            stack.callback(_end, process)
            if name == "master":
                _await(folder / "master.log", "New state: ALIVE", 1, process)
        _await(folder / "master.log", "Registering worker", WORKERS, process)
        yield url


def _await(log: Path, words: str, times: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a log says something so many times."""
    end = time.monotonic() + _START_S
    while log.read_text(encoding="utf-8", errors="replace").count(words) < times:
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError(f"Spark did not start: no {words!r} in {log}")
        time.sleep(0.2)


def end_with_parent(by: signal.Signals) -> None:
    """Be sent a signal by the kernel when whoever started this process is gone, however that came about."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
