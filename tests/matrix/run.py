# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the scenes on one ansible-core and say which payloads ran.

Runs: ``control`` loads hostile text by careless ways, which must execute: it proves that the others would be seen.
``alone`` loads our plugin, and ``cached`` plays again on facts that it set; ``later`` and ``first`` load plugin and
overlays together with other sources, harmless and hostile, in both orders; ``constructed`` puts Ansible's own plugin
of that name behind them, which composes variables and groups without our care; ``export_json`` and ``export_yaml``
load again what ansible-inventory exported.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.matrix.cores import Installed
from tests.matrix.payloads import MARKS
from tests.matrix.scenes import CONSTRUCTED, QUICK_USAGES, REPOSITORY, USAGES, Scene, environment

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


def hosts_to_play(scene: Scene, usages: Mapping[str, Sequence[str]]) -> list[str]:
    """The hosts that show these usages, by channel, of those that the scene has."""
    return sorted(
        host
        for channel, wanted in usages.items()
        for host, (usage, _) in scene.hosts_of(channel).items()
        if usage in wanted
    )


def play(
    core: Installed,
    scene: Scene,
    sources: Sequence[str],
    usages: Mapping[str, Sequence[str]],
    playbook: str = "usages.yml",
) -> Outcome:
    """Run usages on the hosts of these sources and collect the marks.

    Parameters
    ----------
    core : Installed
    scene : Scene
    sources : sequence of str
        In the order in which Ansible is given them.
    usages : mapping of str to sequence of str
        Which usages are played, by channel; a scene may have fewer.
    playbook : str
        What is played.

    Raises
    ------
    AssertionError
        If Ansible did not get through the plays: nothing would be proven then.
    """
    for mark in (scene.folder / MARKS).iterdir():
        mark.unlink()
    hosts = hosts_to_play(scene, usages)
    limit = scene.write(f"{scene.planting.run}.hosts", "\n".join(hosts) + "\n")
    done = ansible(core, scene, ["playbook", *inventory_options(sources), "--limit", f"@{limit}", playbook])
    (scene.folder / f"{scene.planting.run}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    _, recap, tail = done.stdout.rpartition("PLAY RECAP")
    assert recap, f"{core.version}: the plays did not end: {done.stdout[-500:]}{done.stderr[-1500:]}"
    played = set(re.findall(r"^(\S+)\s+: ok=\d+", tail, re.MULTILINE))
    cases = {mark: case for mark, case in scene.planting.cases.items() if case["host"] in hosts}
    marks = sorted(mark.name for mark in (scene.folder / MARKS).iterdir())
    executed = tuple(case for mark in marks if (case := scene.planting.cases[mark])["channel"] in usages)
    return Outcome(scene.planting.run, tuple(usages), len(cases), executed, len(played & set(hosts)), len(hosts))


def control(core: Installed, folder: Path, usages: tuple[str, ...]) -> Outcome:
    """Careless ways, all of which run payloads on one core or another."""
    scene = Scene.make(folder, "control", usages)
    channels = ("plain_host_vars", "plain_script", "trusted_plugin", "untagged_plugin")
    scene.limited = dict.fromkeys(channels[1:], QUICK_USAGES)
    scene.add_planted("trusted_plugin", trusted=True)
    scene.name_hosts(channels)
    scene.add_plain_host_vars("plain_host_vars")
    scene.add_script("plain_script")
    scene.add_planted("untagged_plugin", trusted=False)
    return play(core, scene, scene.sources, dict.fromkeys(channels, usages))


def ours(folder: Path, usages: tuple[str, ...]) -> tuple[Scene, dict[str, list[str]]]:
    """A scene with all of our ways, and the order of sources for each run."""
    scene = Scene.make(folder, "alone", usages)
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
    settings = {"plugin": "ansible.builtin.constructed", "use_vars_plugins": True, **CONSTRUCTED}
    built = scene.write("built.constructed.yml", settings).name
    return scene, {
        "alone": alone,
        "later": [hostile, benign, *alone, *others],
        "first": [*others, *alone, benign, hostile],
        "constructed": [*others[:3], *alone, built],
    }


def probe(core: Installed, scene: Scene, request: dict[str, Any]) -> dict[str, Any]:
    """Ask `tests.matrix.probe` inside the core's own Python."""
    done = subprocess.run(
        [str(core.python), str(Path(__file__).with_name("probe.py"))], input=json.dumps(request), cwd=scene.folder,
        env={**environment(scene, core.python), "PYTHONPATH": str(REPOSITORY / "python_lib" / "src")},
        capture_output=True, text=True, check=False, timeout=_LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{core.version}: {done.stderr[-2000:]}"
    answer: dict[str, Any] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return answer


def export(core: Installed, scene: Scene, name: str, sources: Sequence[str]) -> Outcome:
    """Export the whole inventory, load the export as an inventory script (JSON) or file (YAML), and play again."""
    as_yaml = name == "export_yaml"
    usages = dict.fromkeys(OURS[:4], QUICK_USAGES)
    limit = scene.write(f"{name}.hosts", "\n".join(hosts_to_play(scene, usages)) + "\n")
    options = ["--list", "--export", "--limit", f"@{limit}", *(["--yaml"] if as_yaml else [])]
    done = ansible(core, scene, ["inventory", *inventory_options(sources), *options])
    assert done.returncode == 0, f"{core.version}: {done.stderr[-2000:]}"
    if as_yaml:
        again = scene.write("export_yaml.yml", done.stdout).name
    else:
        again = scene.add_script_output("export_json", json.loads(done.stdout))
    scene.planting.run = name
    return play(core, scene, [again], usages)


def all_runs(core: Installed, folder: Path, campaign: tuple[str, ...], fuzz_count: int, seed: int) -> dict[str, Any]:
    """Every run on this core with the usages of this campaign, as plain values."""
    outcomes = [control(core, folder / "control", campaign)]
    scene, orders = ours(folder / "ours", campaign)
    plugin, all_but_local = OURS[:2], OURS[:4]
    usages: dict[str, dict[str, Sequence[str]]] = {
        "alone": dict.fromkeys(plugin, USAGES),
        # Of the overlays the one whose texts are raw is played in full: there the marks are all that keeps them inert.
        "later": {**dict.fromkeys(OURS, QUICK_USAGES), "overlay_raw": USAGES, "local_facts": USAGES},
        "first": dict.fromkeys(all_but_local, QUICK_USAGES),
        "constructed": dict.fromkeys(all_but_local, ("composed",)),
    }
    loaded = {}
    for name, sources in orders.items():
        scene.planting.run = name
        outcomes.append(play(core, scene, sources, usages[name]))
        channels = tuple(channel for channel in usages[name] if channel in all_but_local)
        expected = {host: value for host, value in scene.expected.items() if host.startswith(channels)}
        request = {"request": "inventory", "sources": sources, "channels": channels, "expected": expected}
        loaded[name] = probe(core, scene, request)
        if name == "alone":
            scene.planting.run = "cached"
            outcomes.append(play(core, scene, sources, dict.fromkeys(plugin, ("set_fact",)), "again.yml"))
    outcomes += [export(core, scene, name, orders["constructed"][:-1]) for name in ("export_json", "export_yaml")]
    return {
        "core": core.name,
        "version": core.version,
        "usages": list(campaign),
        "runs": {outcome.run: outcome.as_json() for outcome in outcomes},
        "loaded": loaded,
        "fuzz": probe(core, scene, {"request": "fuzz", "count": fuzz_count, "seed": seed}),
    }
