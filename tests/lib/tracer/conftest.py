# SPDX-License-Identifier: GPL-3.0-or-later
"""The program as it goes to hosts, run by a real Python 3.9 with nothing but its standard library."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from event_watches import ProgramsWatch

from whoneeds.model.errors import Denied, HostError, Unsupported
from whoneeds.tracer.bpf.load import load, scope_here
from whoneeds.tracer.bpf.source import open_programs

LIBRARY = Path(__file__).parents[3] / "python_lib"


def find_python39():
    """A Python 3.9 on this machine that runs, or None; a `python3.9` on the path may be a shim that does not."""
    question = "import sys; print(sys.executable if sys.version_info[:2] == (3, 9) else '')"
    for path in (
        *sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python")),
        shutil.which("python3.9"),
    ):
        if path:
            answer = subprocess.run([path, "-I", "-c", question], capture_output=True, text=True, check=False)
            if answer.returncode == 0 and answer.stdout.strip():
                return answer.stdout.strip()
    return None


@pytest.fixture(scope="session")
def python39():
    """Path of a Python 3.9."""
    path = find_python39()
    if path is None:
        pytest.skip("no Python 3.9 on this machine")
    return path


@pytest.fixture(scope="session")
def pyz(tmp_path_factory):
    """The zipapp, freshly built."""
    out = tmp_path_factory.mktemp("zipapp") / "whoneeds.pyz"
    subprocess.run([sys.executable, str(LIBRARY / "build_zipapp.py"), "--out", str(out)], check=True, stdout=-1)
    return out


@pytest.fixture
def trace(python39, pyz):
    """The words that begin a command of the tracer on a host."""
    return [python39, "-I", "-S", str(pyz), "trace"]


@pytest.fixture
def folder():
    """A folder for a tracer; whatever still runs there at the end is stopped."""
    made = tempfile.mkdtemp(prefix="whoneeds-test-")
    yield made
    for name in ("supervisor.json", "status.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, ProcessLookupError):
            document = json.loads((Path(made) / name).read_text())
            stat = Path(f"/proc/{document['pid']}/stat").read_text()
            if int(stat.rsplit(")", 1)[1].split()[19]) == document["start_ticks"]:
                os.kill(document["pid"], signal.SIGKILL)
    shutil.rmtree(made)


@pytest.fixture
def watch():
    """The kernel's programs; skipped where this machine takes none."""
    if os.geteuid() != 0:
        pytest.skip("kernel programs need root")
    try:
        made = ProgramsWatch()
    except (Denied, Unsupported) as error:
        pytest.skip(f"no kernel programs here: {error}")
    yield made
    made.close()


@pytest.fixture
def events():
    """The kernel's programs, loaded for one test."""
    try:
        made = open_programs(load(scope_here()))
    except HostError as error:
        pytest.skip(f"the kernel takes no programs here: {error}")
    yield made
    made.close()
