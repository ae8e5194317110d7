# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracer's life as a service on a host without systemd: foreseen, installed, kept, changed, removed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import variables_of
from .namespace_host import NamespaceHost
from .played import Played, Player

pytestmark = pytest.mark.root

PERIOD = {"tracer_period_s": 0.2, "tracer_rotate_s": 1}


@dataclass
class Moment:
    """One run and what the host held after it."""

    run: Played
    written: dict[str, str]
    processes: list[str]


@pytest.fixture(scope="module")
def life(player: Player, new_host: Callable[[str], NamespaceHost]) -> dict[str, Moment]:
    """The playbooks trace and untrace, played in the order of a host's life; what each run did."""
    host = new_host("plain1")
    inventory = player.inventory({"plain1": variables_of(host)})
    look = ("--check", "--diff")
    story: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
        ("foreseen", "trace", look, PERIOD),
        ("installed", "trace", ("--diff",), PERIOD),
        ("kept", "trace", ("--diff",), PERIOD),
        ("kept, foreseen", "trace", look, PERIOD),
        ("changed, foreseen", "trace", look, PERIOD | {"tracer_period_s": 0.3}),
        ("changed", "trace", ("--diff",), PERIOD | {"tracer_period_s": 0.3}),
        ("removed, foreseen", "untrace", look, {}),
        ("removed", "untrace", ("--diff",), {}),
        ("removed twice", "untrace", ("--diff",), {}),
    ]
    moments = {"before": Moment(Played(0, [], ""), host.written(), host.processes())}
    for name, playbook, options, settings in story:
        run = player.play(f"whoneeds.discovery.{playbook}", inventory, *options, **settings).require()
        moments[name] = Moment(run, host.written(), host.processes())
        if name == "installed":
            moments[name].run.tasks.append({"host": "config", "task": "", "outcome": "", "result": _config(host)})
            moments[name].run.tasks.append({"host": "rights", "task": "", "outcome": "", "result": _rights(host)})
    return moments


def _config(host: NamespaceHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run("cat", "/etc/whoneeds/tracer.json"))
    return found


def _rights(host: NamespaceHost) -> dict[str, Any]:
    """What the tracer says that it traces by, and the capabilities that its process holds in each set."""
    words = ("python3", "-I", "/usr/local/lib/whoneeds/whoneeds.pyz", "trace", "status", "--format", "json")
    status = json.loads(host.run(*words))
    lines = host.run("cat", f"/proc/{status['pid']}/status").splitlines()
    return {"events": status["events"], "sets": dict(line.split(":\t") for line in lines if line.startswith("Cap"))}


def steady(written: dict[str, str]) -> dict[str, str]:
    """What was written, without what a working tracer writes all the time."""
    return {name: what for name, what in written.items() if not name.startswith("var/lib/whoneeds/")}


def shown(diffs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences without temporary names, the tracer's own files, and modes of folders that do not exist yet."""
    found = []
    for diff in diffs:
        sides: dict[str, Any] = {}
        for side in ("before", "after"):
            told = diff.get(side)
            sides[side] = {k: v for k, v in told.items() if k in ("path", "state")} if isinstance(told, dict) else told
        found.append(sides)
    return found


@pytest.mark.parametrize("name", ["foreseen", "changed, foreseen", "removed, foreseen"])
def test_check_mode_foresees_exactly_what_the_run_changes(life: dict[str, Moment], name: str) -> None:
    """A check run names the same changed tasks, with the same differences, as the run after it."""
    after = {"foreseen": "installed", "changed, foreseen": "changed", "removed, foreseen": "removed"}[name]
    assert life[name].run.changed("plain1") == life[after].run.changed("plain1") != []
    assert shown(life[name].run.diffs("plain1")) == shown(life[after].run.diffs("plain1")) != []


def test_check_mode_writes_nothing(life: dict[str, Moment]) -> None:
    """A check run before the installation leaves neither a file nor a process on the host."""
    assert life["foreseen"].written == life["before"].written
    assert life["foreseen"].processes == life["before"].processes == []
    assert steady(life["changed, foreseen"].written) == steady(life["kept"].written)
    assert life["removed, foreseen"].processes == life["changed"].processes


def test_the_service_runs_and_is_where_the_documentation_says(life: dict[str, Moment]) -> None:
    """The installed tracer runs under its supervisor, and its files lie in the three documented folders only."""
    moment = life["installed"]
    assert {name.rsplit("/", 1)[0] for name, what in moment.written.items() if what != "folder"} <= {
        "usr/local/lib/whoneeds", "etc/whoneeds", "var/lib/whoneeds", "var/lib/whoneeds/segments",
    }  # fmt: skip
    assert len([line for line in moment.processes if "whoneeds.pyz" in line]) == 2
    config = next(t["result"] for t in moment.run.tasks if t["host"] == "config")
    assert config["host"] == "plain1"
    assert config["period_s"] == 0.2


def test_the_tracer_has_given_up_every_capability(life: dict[str, Moment]) -> None:
    """Where root has loaded the kernel's programs, the process that reads them holds no capability in any set."""
    found = next(t["result"] for t in life["installed"].run.tasks if t["host"] == "rights")
    if (found["events"] or {}).get("kind") != "programs":
        pytest.skip(f"this kernel takes no programs: {found['events']}")
    assert found["sets"] == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)


def test_a_second_installation_changes_nothing(life: dict[str, Moment]) -> None:
    """The same settings again change no task, no file and no process, in a check run and in a real one."""
    assert life["kept"].run.changed() == []
    assert life["kept, foreseen"].run.changed() == []
    assert steady(life["kept"].written) == steady(life["installed"].written)
    assert life["kept"].processes == life["installed"].processes


def test_a_changed_setting_restarts_the_tracer(life: dict[str, Moment]) -> None:
    """Another period changes the configuration and restarts the tracer, and nothing else."""
    assert life["changed"].run.changed("plain1") == [
        "Write the configuration", "Start the supervised process, anew where something changed",
    ]  # fmt: skip


def test_removal_leaves_nothing(life: dict[str, Moment]) -> None:
    """After removal the host holds no file and no process that it did not hold before."""
    assert life["removed"].written == life["before"].written
    assert life["removed"].processes == []


def test_a_second_removal_changes_nothing(life: dict[str, Moment]) -> None:
    """Removing what is not there changes nothing."""
    assert life["removed twice"].run.changed() == []
    assert life["removed twice"].written == life["before"].written
