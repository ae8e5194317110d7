# SPDX-License-Identifier: GPL-3.0-or-later
"""Run gates: ``python -m tests.gates [sanity|lint|docs|build ...]``, all of them without a name."""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.gates.checkout import BUILD, PYTHONS, ROOT, Checkout, make_repository, run

BIN = Path(sys.executable).parent
ZIPAPP = Path("roles/tracer/files/whoneeds.pyz")
#: Of the tests, what Ansible's own tools look at; the others need the checkout.
SHIPPED_TESTS = {"config.yml", "sanity", "unit"}
MUST_SHIP = (
    "README.md", "LICENSE", "meta/runtime.yml", "playbooks/discover.yml", "roles/tracer/tasks/main.yml", str(ZIPAPP),
    "python_lib/pyproject.toml",
)  # fmt: skip


def check_sanity(checkout: Checkout) -> list[str]:
    """All sanity tests of this ansible-core on what ships, on every Python that modules are written for and is here."""
    missing = [version for version in PYTHONS if version not in checkout.interpreters]
    if missing:
        print(f"skipped: Python {', '.join(missing)} is not installed", flush=True)
    if shutil.which("shellcheck", path=checkout.environment()["PATH"]) is None:
        print("skipped: the shellcheck test, because there is no shellcheck", flush=True)
    shipped = install_artifact(checkout)
    if shipped is None:
        return ["the collection does not build"]
    ignore_files = sorted((shipped / "tests" / "sanity").glob("ignore*.txt"))
    failures = [f"{path.name} exists; failures are repaired, not ignored" for path in ignore_files]
    make_repository(shipped)
    command = [str(BIN / "ansible-test"), "sanity", "--local", "--requirements", "--color", "no"]
    if run(command, shipped, checkout.environment(shipped.parents[2])):
        failures.append("ansible-test sanity failed")
    return failures


def check_lint(checkout: Checkout) -> list[str]:
    """ansible-lint in its production profile; a skip in a file or in the settings counts as a failure."""
    settings = yaml.safe_load((checkout.path / ".ansible-lint").read_text())
    skips = [key for key in ("skip_list", "warn_list", "mock_modules", "mock_roles") if settings.get(key)]
    failures = [f".ansible-lint has a {key}" for key in skips]
    skipping = [path for path in sorted(checkout.path.rglob("*.yml")) if "# noqa" in path.read_text()]
    failures += [f"{path.relative_to(checkout.path)} skips a rule" for path in skipping]
    if run([str(BIN / "ansible-lint"), "--offline", "--strict"], checkout.path, checkout.environment()):
        failures.append("ansible-lint failed")
    return failures


def check_docs(checkout: Checkout) -> list[str]:
    """Documentation of plugins and roles, with every reference resolved, and the changelog fragments."""
    failures = []
    command = ["lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "."]
    if run([str(BIN / "antsibull-docs"), *command], checkout.path, checkout.environment()):
        failures.append("antsibull-docs found problems")
    if run([str(BIN / "antsibull-changelog"), "lint"], checkout.path, checkout.environment()):
        failures.append("antsibull-changelog found problems")
    return failures


def install_artifact(checkout: Checkout) -> Path | None:
    """Build the collection and install it from its file alone; the folder of what ships, or None where that fails."""
    folder = BUILD / "artifact"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    galaxy = str(BIN / "ansible-galaxy")
    if run([galaxy, "collection", "build", "--output-path", str(folder)], checkout.path, checkout.environment()):
        return None
    artifact = next(folder.glob("whoneeds-discovery-*.tar.gz"))
    # A path of its own: with the copy in sight, there would be nothing to install.
    env = checkout.environment(folder / "installed")
    if run([galaxy, "collection", "install", "--offline", "--no-deps", str(artifact)], folder, env):
        return None
    return folder / "installed" / "ansible_collections" / "whoneeds" / "discovery"


def check_build(checkout: Checkout) -> list[str]:
    """The collection builds, installs from its file alone, and every plugin in it explains itself."""
    installed = install_artifact(checkout)
    if installed is None:
        return ["the collection does not build or does not install"]
    failures = [f"the artifact lacks {name}" for name in MUST_SHIP if not (installed / name).exists()]
    failures += [f"the artifact holds {name}" for name in _must_not_ship(installed)]
    tests = {path.name for path in (installed / "tests").iterdir()}
    failures += [f"the artifact holds tests/{name}; name it in galaxy.yml" for name in sorted(tests - SHIPPED_TESTS)]
    env = checkout.environment(installed.parents[2])
    for kind, name in _plugins(installed):
        command = [str(BIN / "ansible-doc"), "--type", kind, f"whoneeds.discovery.{name}"]
        done = subprocess.run(command, env=env, cwd=BUILD, capture_output=True, text=True, check=False)
        if done.returncode or "ERROR" in done.stderr or name not in done.stdout:
            failures.append(f"ansible-doc --type {kind} {name}: {done.stderr.strip()[-300:]}")
    playbooks = [f"whoneeds.discovery.{path.stem}" for path in sorted((installed / "playbooks").glob("*.yml"))]
    if run([str(BIN / "ansible-playbook"), "--syntax-check", "-i", "localhost,", *playbooks], BUILD, env):
        failures.append("a playbook is not usable by its full name")
    return failures


def _must_not_ship(installed: Path) -> list[str]:
    unwanted = {".git", ".venv", ".cache", ".ansible", ".whoneeds", "build", "output", "__pycache__"}
    found = (path.relative_to(installed) for path in installed.rglob("*"))
    return [str(path) for path in found if path.name in unwanted and path.parent.name != "python_lib"]


def _plugins(installed: Path) -> list[tuple[str, str]]:
    kinds = {"modules": "module"} | {kind: kind for kind in ("inventory", "lookup", "filter", "callback")}
    return [
        (kind, path.stem)
        for folder, kind in kinds.items()
        for path in sorted((installed / "plugins" / folder).glob("*.py"))
        if not path.stem.startswith("_")
    ] + [("role", path.name) for path in sorted((installed / "roles").iterdir()) if path.is_dir()]


GATES: dict[str, Callable[[Checkout], list[str]]] = {
    "lint": check_lint,
    "docs": check_docs,
    "build": check_build,
    "sanity": check_sanity,
}


def main() -> int:
    """Run the named gates on one copy and say at the end which failed and why."""
    parser = argparse.ArgumentParser(prog="python -m tests.gates", description=__doc__)
    parser.add_argument("gate", nargs="*", help=f"some of: {', '.join(GATES)} (all without a name)")
    names = parser.parse_args().gate or list(GATES)
    unknown = [name for name in names if name not in GATES]
    if unknown:
        parser.error(f"expected some of {', '.join(GATES)}, found {', '.join(unknown)}")
    if not (ROOT / ZIPAPP).is_file():
        parser.error(f"expected the tracer in {ZIPAPP}, found no such file; run 'make zipapp' first")
    checkout = Checkout([ZIPAPP])
    failures = {}
    for name in names:
        start = time.monotonic()
        print(f"== {name}", flush=True)
        failures[name] = GATES[name](checkout)
        print(f"== {name}: {'failed' if failures[name] else 'passed'} in {time.monotonic() - start:.0f} s", flush=True)
    for name, reasons in failures.items():
        for reason in reasons:
            print(f"{name}: {reason}", flush=True)
    return 1 if any(failures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
