# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the scenes on one ansible-core and say which payloads ran.

Runs: ``control`` loads hostile text by careless ways, which must execute: it proves that the others would be seen.
``alone`` loads our plugin; ``later`` and ``first`` load plugin and overlays together with other sources, harmless and
hostile, in both orders; ``export_json`` and ``export_yaml`` load again what ansible-inventory exported.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.matrix.cores import Installed
from tests.matrix.payloads import MARKS
from tests.matrix.scenes import QUICK_USAGES, Scene, environment

_LIMIT_S = 900
OURS = ("plugin_clean", "plugin_raw", "overlay_clean", "overlay_raw", "local_facts")


@dataclass(frozen=True)
class Outcome:
    """What one run of the plays showed."""

    run: str
    channels: tuple[str, ...]
    planted: int
    executed: tuple[dict[str, str], ...]
    hosts_played: int
    hosts_expected: int

    def count(self, *names: str) -> Counter[tuple[str, ...]]:
        """Executions by these parts of their cases."""
        return Counter(tuple(case[name] for name in names) for case in self.executed)

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        by_usage = self.count("channel", "usage", "kind")
        return {
            "run": self.run,
            "channels": list(self.channels),
            "planted": self.planted,
            "executed": len(self.executed),
            "hosts_played": self.hosts_played,
            "hosts_expected": self.hosts_expected,
            "executions": [
                {"channel": channel, "usage": usage, "kind": kind, "count": count}
                for (channel, usage, kind), count in sorted(by_usage.items())
            ],
        }


def ansible(core: Installed, scene: Scene, arguments: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
    """Run an ansible command (``playbook``, ``inventory``, ...) of that core in the scene's folder."""
    return subprocess.run(
        [str(core.python), "-m", "ansible", *arguments],
        cwd=scene.folder, env={**environment(scene, core.python), **extra}, capture_output=True, text=True,
        errors="backslashreplace", check=False, timeout=_LIMIT_S,
    )  # fmt: skip


def inventory_options(sources: Iterable[str]) -> list[str]:
    """``-i`` for each source."""
    return [part for source in sources for part in ("-i", source)]


def play(
    core: Installed, scene: Scene, sources: Sequence[str], channels: tuple[str, ...], quick: tuple[str, ...] = ()
) -> Outcome:
    """Run the usages on the hosts of these sources and collect the marks.

    Parameters
    ----------
    quick : tuple of str
        Channels of which only the quick usages are played.

    Raises
    ------
    AssertionError
        If Ansible did not get through the plays: nothing would be proven then.
    """
    for mark in (scene.folder / MARKS).iterdir():
        mark.unlink()
    hosts = {
        host: channel
        for channel in channels
        for host, (usage, _) in scene.hosts_of(channel).items()
        if usage in QUICK_USAGES or channel not in quick
    }
    limit = scene.write(f"{scene.planting.run}.hosts", "\n".join(sorted(hosts)) + "\n")
    done = ansible(core, scene, ["playbook", *inventory_options(sources), "--limit", f"@{limit}", "usages.yml"])
    (scene.folder / f"{scene.planting.run}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    _, recap, tail = done.stdout.rpartition("PLAY RECAP")
    assert recap, f"{core.version}: the plays did not end: {done.stdout[-500:]}{done.stderr[-1500:]}"
    played = set(re.findall(r"^(\S+)\s+: ok=\d+", tail, re.MULTILINE))
    cases = {mark: case for mark, case in scene.planting.cases.items() if case["host"] in hosts}
    marks = sorted(mark.name for mark in (scene.folder / MARKS).iterdir())
    executed = tuple(case for mark in marks if (case := scene.planting.cases[mark])["channel"] in channels)
    return Outcome(scene.planting.run, channels, len(cases), executed, len(played & set(hosts)), len(hosts))


def control(core: Installed, folder: Path) -> Outcome:
    """Careless ways, all of which run payloads on one core or another."""
    scene = Scene.make(folder, "control")
    channels = ("plain_host_vars", "plain_script", "trusted_plugin", "untagged_plugin")
    scene.limited = dict.fromkeys(channels[1:], QUICK_USAGES)
    scene.add_planted("trusted_plugin", trusted=True)
    scene.name_hosts(channels)
    scene.add_plain_host_vars("plain_host_vars")
    scene.add_script("plain_script")
    scene.add_planted("untagged_plugin", trusted=False)
    return play(core, scene, scene.sources, channels)


def ours(folder: Path) -> tuple[Scene, dict[str, list[str]]]:
    """A scene with all of our ways, and the order of sources for each run."""
    scene = Scene.make(folder, "alone")
    scene.name_hosts(("plugin_clean", "plugin_raw"))
    scene.add_clean_plugin("plugin_clean")
    scene.add_raw_plugin("plugin_raw")
    alone = list(scene.sources)
    scene.sources.clear()
    scene.name_hosts(("overlay_clean", "overlay_raw"), "known_overlay")
    scene.add_clean_overlay("overlay_clean")
    scene.add_raw_overlay("overlay_raw")
    scene.add_local_facts("local_facts")
    others = list(scene.sources)
    scene.sources.clear()
    scene.limited["earlier"] = ("message",)
    scene.add_benign("benign")
    scene.add_planted("earlier", trusted=True)
    benign, hostile = scene.sources
    return scene, {
        "alone": alone,
        "later": [hostile, benign, *alone, *others],
        "first": [*others, *alone, benign, hostile],
    }


def all_runs(core: Installed, folder: Path) -> list[Outcome]:
    """Every run on this core."""
    outcomes = [control(core, folder / "control")]
    scene, orders = ours(folder / "ours")
    quick = {"alone": (), "later": OURS[:2], "first": OURS[:4]}
    for name, sources in orders.items():
        scene.planting.run = name
        outcomes.append(play(core, scene, sources, OURS[:2] if name == "alone" else OURS, quick[name]))
    return outcomes


def report(core: Installed, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """The outcomes of one core as plain values."""
    return {"core": core.name, "version": core.version, "runs": [outcome.as_json() for outcome in outcomes]}


if __name__ == "__main__":
    import sys
    import tempfile
    import time

    from tests.matrix.cores import choose, install

    for wanted in choose(sys.argv[1:]):
        installed = install(wanted)
        place = Path(tempfile.mkdtemp(prefix="whoneeds-matrix-"))
        began = time.monotonic()
        for outcome in (all_runs(installed, place)):
            print(installed.version, outcome.run, outcome.planted, len(outcome.executed), outcome.hosts_played, outcome.hosts_expected)
            print(time.monotonic() - began)
            for case, count in sorted(outcome.count("channel", "usage", "kind").items()):
                print("   ", *case, count)
        print(place, json.dumps(time.monotonic() - began))
