# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.spark``: make an environment with Spark under build/, and run the comparison in it.

Spark is half a gigabyte, so that it is nowhere else. Where it or Java is missing, the reason is printed.
"""

import hashlib
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.spark.cluster import end_with_parent

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = ROOT / "build" / "spark"
_LEAST_JAVA = 17
_LIMIT_S = 1800
#: How long a cluster may take to end.
_END_S = 60


def find_obstacle() -> str | None:
    """Why Spark cannot run here; None if nothing is known to stand in the way."""
    java = shutil.which("java")
    if java is None:
        return "there is no Java"
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    words = told.split('"')
    version = words[1].split(".")[0] if len(words) > 1 else ""
    if not version.isdigit() or int(version) < _LEAST_JAVA:
        return f"Java {_LEAST_JAVA} is needed, found {told.splitlines()[0] if told else 'none'!a}"
    return None


def make_environment() -> str | None:
    """Install the library with its extra, if that is not done yet; why it could not be, or None."""
    wanted = hashlib.sha256((ROOT / "python_lib" / "pyproject.toml").read_bytes()).hexdigest()
    stamp = _ENVIRONMENT / ".made"
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return None
    print(f"test-spark: setting up {_ENVIRONMENT.relative_to(ROOT)} (only the first time)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True)
    words = [str(_ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--editable", "python_lib[spark]"]
    done = subprocess.run([*words, "hypothesis>=6", "pytest>=8"], cwd=ROOT, check=False)
    if done.returncode:
        return "its packages could not be installed"
    stamp.write_text(wanted, encoding="ascii")
    return None


def main() -> int:
    """Run the comparison; its exit code, or 0 where Spark cannot be had."""
    obstacle = find_obstacle() or make_environment()
    if obstacle:
        print(f"test-spark: skipped: {obstacle}")
        return 0
    return run([str(_ENVIRONMENT / "bin" / "python"), "-m", "tests.spark.compare"], _LIMIT_S)


def run(words: list[str], limit_s: float) -> int:
    """Run a program; its exit code. When this process is asked to end, or dies, so is the program."""
    signal.signal(signal.SIGTERM, lambda *_given: sys.exit(128 + signal.SIGTERM))
    child = subprocess.Popen(words, cwd=ROOT, preexec_fn=partial(end_with_parent, signal.SIGTERM))
    try:
        return child.wait(limit_s)
    finally:
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
