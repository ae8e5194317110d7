# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped tracer, and the stage that cases play on. All of them need root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence.stage import Stage

LIBRARY = Path(__file__).parents[2] / "python_lib"


@pytest.fixture(scope="session")
def pyz(tmp_path_factory):
    """The zipapp, freshly built."""
    if os.geteuid() != 0:
        pytest.skip("needs root: other users' processes, the kernel's events and namespaces")
    out = tmp_path_factory.mktemp("zipapp") / "whoneeds.pyz"
    subprocess.run([sys.executable, str(LIBRARY / "build_zipapp.py"), "--out", str(out)], check=True, stdout=-1)
    return out


@pytest.fixture(scope="module")
def stage(tmp_path_factory, pyz):
    """A stage for the cases of one module; all that was started on it ends with them."""
    made = Stage(tmp_path_factory.mktemp("stage"), pyz)
    yield made
    made.close()
