# SPDX-License-Identifier: GPL-3.0-or-later
"""One virtual environment for each ansible-core, made once and kept.

Each lies in ``.cache/core/<name>``. It counts as made when its last file, ``complete``, is there; a build that
was interrupted is thrown away and begun anew. A lock keeps two builders of the same one apart. What cannot be
made here (no fitting Python, no such release) is an `Absent` with its reason, which the caller prints.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "core"

_BUILD_LIMIT_S = 600


class Absent(Exception):
    """A core cannot be had on this machine; the text says why."""


@dataclass(frozen=True)
class Core:
    """One ansible-core: how it is asked for, and the Pythons that it runs on, best first."""

    name: str
    requirement: str
    pythons: tuple[str, ...]
    pre: bool = False


CORES = (
    Core("2.16", "ansible-core~=2.16.0", ("3.11", "3.12")),
    Core("2.17", "ansible-core~=2.17.0", ("3.11", "3.12")),
    Core("2.18", "ansible-core~=2.18.0", ("3.11", "3.12", "3.13")),
    Core("2.19", "ansible-core~=2.19.0", ("3.11", "3.12", "3.13")),
    Core("2.20", "ansible-core~=2.20.0", ("3.13", "3.12", "3.14")),
    Core("2.21", "ansible-core~=2.21.0", ("3.13", "3.12", "3.14")),
    Core("newest", "ansible-core>=2.22.0b1", ("3.14", "3.13", "3.12"), pre=True),
)


@dataclass(frozen=True)
class Installed:
    """A core that is ready to run."""

    name: str
    version: str
    python: Path

    @property
    def minor(self) -> tuple[int, int]:
        """Its major and minor number."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def tags_trust(self) -> bool:
        """Whether it marks what may be run (2.19 and later) rather than what may not."""
        return self.minor >= (2, 19)


def find_python(series: str) -> Path | None:
    """A working interpreter of that series, on the PATH or among pyenv's."""
    candidates = []
    found = shutil.which(f"python{series}")
    if found:
        candidates.append(Path(found))
    candidates += sorted(Path.home().glob(f".pyenv/versions/{series}.*/bin/python{series}"))
    for candidate in candidates:
        asked = [str(candidate), "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip() == series:
            return candidate
    return None


def choose(names: Sequence[str]) -> tuple[Core, ...]:
    """The cores of those names; all of them if no name is given.

    Raises
    ------
    SystemExit
        If a name is not known.
    """
    known = {core.name: core for core in CORES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no such core: {', '.join(unknown)}; known are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else CORES


def install(core: Core) -> Installed:
    """Make the core's environment, or take the one that is there.

    Raises
    ------
    Absent
        If this machine has no Python for it, or the release cannot be installed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / core.name
    with (CACHE / f"{core.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            version = _build(core, folder)
            (folder / "complete").write_text(version + "\n", encoding="ascii")
    version = (folder / "complete").read_text(encoding="ascii").strip()
    return Installed(core.name, version, folder / "bin" / "python")


def _build(core: Core, folder: Path) -> str:
    base = next(filter(None, map(find_python, core.pythons)), None)
    if base is None:
        raise Absent(f"ansible-core {core.name}: needs Python {' or '.join(core.pythons)}, and this machine has none")
    _run([str(base), "-m", "venv", str(folder)], core)
    python = str(folder / "bin" / "python")
    options = ["--quiet", "--disable-pip-version-check"] + (["--pre"] if core.pre else [])
    _run([python, "-m", "pip", "install", *options, core.requirement], core)
    return _run([python, "-c", "import ansible.release as r; print(r.__version__)"], core).strip()


def _run(command: list[str], core: Core) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise Absent(f"ansible-core {core.name}: not installed within {_BUILD_LIMIT_S} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Absent(f"ansible-core {core.name}: cannot be installed: {last}")
    return done.stdout


if __name__ == "__main__":
    for wanted in choose(sys.argv[1:]):
        try:
            print(install(wanted))
        except Absent as reason:
            print(f"skipped: {reason}")
