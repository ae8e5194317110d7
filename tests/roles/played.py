# SPDX-License-Identifier: GPL-3.0-or-later
"""Play a playbook as an operator does, and read what every task of it came to."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
ZIPAPP = ROOT / "roles" / "tracer" / "files" / "whoneeds.pyz"


@dataclass(frozen=True)
class Played:
    """One run of ansible-playbook.

    Attributes
    ----------
    code : int
        Its exit code.
    tasks : list of dict
        ``host``, ``task``, ``action``, ``outcome`` (ok, skipped, failed, unreachable) and ``result`` of each task.
    text : str
        What it printed.
    """

    code: int
    tasks: list[dict[str, Any]]
    text: str

    def changed(self, host: str | None = None) -> list[str]:
        """Names of the tasks that changed something, or said that they would."""
        return [t["task"] for t in self._of(host) if t["outcome"] == "ok" and t["result"].get("changed")]

    def failures(self) -> dict[str, str]:
        """What was said for each host that was lost."""
        return {t["host"]: _message(t["result"]) for t in self.tasks if t["outcome"] in ("failed", "unreachable")}

    def result(self, task: str, host: str | None = None) -> dict[str, Any]:
        """What the one task of this name came to."""
        found = [t["result"] for t in self._of(host) if t["task"] == task and t["outcome"] != "skipped"]
        assert len(found) == 1, f"{len(found)} tasks {task!r}:\n{self.text}"
        return found[0]

    def diffs(self, host: str | None = None) -> list[dict[str, Any]]:
        """Every difference that was shown, in order; one between equal sides is none."""
        found = []
        for task in self._of(host):
            for result in [task["result"], *task["result"].get("results", [])]:
                diff = result.get("diff") if isinstance(result, dict) else None
                found += diff if isinstance(diff, list) else [diff] if diff else []
        return [diff for diff in found if diff.get("before") != diff.get("after")]

    def require(self) -> "Played":
        """The run itself, which must have succeeded."""
        assert self.code == 0, self.text
        return self

    def _of(self, host: str | None) -> list[dict[str, Any]]:
        return [task for task in self.tasks if host in (None, task["host"])]


def _message(result: Mapping[str, Any]) -> str:
    items = [item for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    return str((items[0] if items else result).get("msg", result))


class Player:
    """A controller with a folder of its own.

    Parameters
    ----------
    folder : pathlib.Path
        Its home; the collection is linked there, so that nothing of the user's is read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        collections = folder / "collections" / "ansible_collections" / "whoneeds"
        collections.mkdir(parents=True)
        (collections / "discovery").symlink_to(ROOT)
        self.prefix: list[str] = []
        self.env: dict[str, str] = {}

    def inventory(self, hosts: Mapping[str, Mapping[str, Any]], name: str = "fleet", **variables: Any) -> Path:
        """Write an inventory of these hosts and their variables."""
        path = self.folder / f"{name}.yml"
        path.write_text(yaml.safe_dump({"all": {"hosts": {k: dict(v) for k, v in hosts.items()}, "vars": variables}}))
        return path

    def environment(self, record: Path) -> dict[str, str]:
        """What ansible-playbook sees."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "WHONEEDS_", "XDG_"))}
        return {
            **kept,
            "HOME": str(self.home),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CONNECTION_PLUGINS": str(HERE / "connection_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORKS": "2",
            "RECORD_FILE": str(record),
            **self.env,
        }

    def command(self, playbook: str | Path, inventory: Path, *options: str, **settings: Any) -> list[str]:
        """The words of the call."""
        words = [*self.prefix, str(BIN / "ansible-playbook"), str(playbook), "-i", str(inventory), *options]
        return words + (["-e", json.dumps(settings)] if settings else [])

    def play(self, playbook: str | Path, inventory: Path, *options: str, **settings: Any) -> Played:
        """Play to the end."""
        record = self.folder / "record.jsonl"
        record.unlink(missing_ok=True)
        done = subprocess.run(
            self.command(playbook, inventory, *options, **settings),
            env=self.environment(record), cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        tasks = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        return Played(done.returncode, tasks, done.stdout + done.stderr)

    def role(self, name: str, inventory: Path, *options: str, **settings: Any) -> Played:
        """Play one role on all hosts."""
        return self.play(self.write_role_play(name), inventory, *options, **settings)

    def write_role_play(self, name: str, **extra: Any) -> Path:
        """A playbook of one role."""
        path = self.folder / f"play_{name}.yml"
        play: Sequence[dict[str, Any]] = [
            {
                "name": f"Play {name}", "hosts": "all", "gather_facts": False,
                "roles": [f"whoneeds.discovery.{name}"], **extra,
            }
        ]  # fmt: skip
        path.write_text(yaml.safe_dump(play))
        return path
