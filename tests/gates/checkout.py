# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the tracked files where Ansible's tools expect a collection, and the surroundings that they need.

``ansible-test`` wants the path ``ansible_collections/<namespace>/<name>``, a git repository, real interpreters on the
PATH and a bootstrap script for pip, which it would fetch from a file server of its own.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gates"
#: Interpreters that the collection's modules are written for.
PYTHONS = tuple(f"3.{minor}" for minor in range(8, 15))
#: Names under which the ansible-test of each ansible-core looks for its bootstrap script.
BOOTSTRAP_NAMES = ("get_pip_23_1_2.py", "get_pip_24_2.py", "get_pip_25_2.py")
BOOTSTRAP = '''"""Stand-in for the bootstrap script of pip: the interpreter brings its own pip along."""
import subprocess
import sys

wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "ensurepip"])
subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", *wanted])
'''


class Checkout:
    """The copy, made anew at every run so that it never holds what is no longer tracked.

    Attributes
    ----------
    collections : pathlib.Path
        Folder for ``ANSIBLE_COLLECTIONS_PATH``.
    path : pathlib.Path
        The collection.
    """

    def __init__(self, extra_files: Sequence[Path] = ()) -> None:
        self.collections = BUILD / "collections"
        self.path = self.collections / "ansible_collections" / "whoneeds" / "discovery"
        shutil.rmtree(self.path, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        for name in [*filter(None, listed.split("\0")), *(str(file) for file in extra_files)]:
            source, target = ROOT / name, self.path / name
            if source.is_file() or source.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        make_repository(self.path)
        self.home = BUILD / "home"
        self.interpreters = link_interpreters(BUILD / "interpreters")
        write_bootstrap(self.home)

    def environment(self, collections: Path | None = None) -> dict[str, str]:
        """Environment in which tools see the copy (or other collections), a home and interpreters of its own only."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYENV_", "GIT_"))
        }
        path = [str(BUILD / "interpreters"), str(Path(sys.executable).parent), kept.get("PATH", "")]
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": os.pathsep.join(path),
            "ANSIBLE_COLLECTIONS_PATH": str(collections or self.collections),
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def make_repository(path: Path) -> None:
    """Make a folder a git repository of its own, as ansible-test expects it."""
    identity = ("-c", "user.name=gates", "-c", "user.email=gates@localhost")
    for command in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "copy"]):
        subprocess.run(["git", *command], cwd=path, check=True)


def run(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> int:
    """Run a tool with its output shown, and return its exit code."""
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, check=False).returncode


def link_interpreters(folder: Path) -> dict[str, Path]:
    """Link each interpreter that really runs into one folder; wrappers that only choose a version are passed over."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = {}
    for version in PYTHONS:
        for candidate in _candidates(version):
            real = _real_interpreter(candidate, version)
            if real:
                (folder / f"python{version}").symlink_to(real)
                found[version] = real
                break
    return found


def _candidates(version: str) -> list[Path]:
    paths = [Path(folder) / f"python{version}" for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    known = [
        folder / "bin" / f"python{version}"
        for folder in sorted(pyenv.glob(f"{version}.*"))
        if re.fullmatch(r"[0-9.]+", folder.name)
    ]
    return [path for path in known + paths if path.is_file()]


def _real_interpreter(candidate: Path, version: str) -> Path | None:
    code = "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"
    done = subprocess.run([candidate, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    found = done.stdout.strip().partition(" ")
    return Path(found[2]) if done.returncode == 0 and found[0] == version else None


def write_bootstrap(home: Path) -> None:
    """Put the stand-in where every ansible-test looks before it fetches."""
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in BOOTSTRAP_NAMES:
        (cache / name).write_text(BOOTSTRAP)
