# SPDX-License-Identifier: GPL-3.0-or-later
"""An operator at the controller: types commands, keeps all that they print, and reads Ansible's recaps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rundir import REPOSITORY

COMMAND_LIMIT_S = 900
_RECAP = re.compile(
    r"^(?P<host>[\w.-]+)\s*: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)"
    r"\s+failed=(?P<failed>\d+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Played:
    """What came of a playbook.

    Attributes
    ----------
    code : int
        Exit code.
    recap : dict of str to dict of str to int
        For each host: ok, changed, unreachable, failed.
    text : str
        All that was printed.
    """

    code: int
    recap: dict[str, dict[str, int]]
    text: str

    @property
    def changed(self) -> int:
        """Changes on all hosts together."""
        return sum(row["changed"] for row in self.recap.values())

    @property
    def lost(self) -> list[str]:
        """Hosts that failed or were not reached."""
        return sorted(host for host, row in self.recap.items() if row["failed"] or row["unreachable"])

    @property
    def good(self) -> bool:
        """Whether it ran and all went well on every host."""
        return self.code == 0 and bool(self.recap) and not self.lost

    def changes(self) -> dict[str, int]:
        """Changes by host."""
        return {host: row["changed"] for host, row in self.recap.items()}


def read_recap(text: str) -> dict[str, dict[str, int]]:
    """Hosts and their figures from the recap at the end of a playbook's output."""
    return {
        found["host"]: {key: int(found[key]) for key in ("ok", "changed", "unreachable", "failed")}
        for found in _RECAP.finditer(text.rpartition("PLAY RECAP")[2])
    }


class Operator:
    """Runs commands of this virtual environment on the lab.

    Parameters
    ----------
    inventory : Path
    data : Path
        Where segments, store and facts of the lab lie on the controller.
    logs : Path
        Gets one log file for each kind of command.
    """

    def __init__(self, inventory: Path, data: Path, logs: Path) -> None:
        self.inventory = inventory
        self.data = data
        self.store = data / "store"
        self.facts = data / "facts.json"
        self._logs = logs

    def run(self, log: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=REPOSITORY, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=COMMAND_LIMIT_S,
        )  # fmt: skip
        with (self._logs / f"{log}.log").open("a") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}\n{done.stderr}\nexit {done.returncode}\n\n")
        return done

    def play(self, verb: str, *options: str, log: str = "") -> Played:
        """Run one of the collection's playbooks."""
        return self.play_file(
            f"whoneeds.discovery.{verb}", "-e", f"whoneeds_dir={self.data}", *options, log=log or verb
        )

    def play_file(self, playbook: str, *options: str, log: str) -> Played:
        """Run any playbook on the lab's inventory."""
        done = self.run(log, "ansible-playbook", playbook, "-i", str(self.inventory), *options)
        return Played(done.returncode, read_recap(done.stdout), done.stdout + done.stderr)

    def query(self, *words: str) -> list[dict[str, Any]]:
        """Rows of a `whoneeds` query; none when it fails, which the log then shows."""
        done = self.run("query", "whoneeds", *words, "--store", str(self.store), "--format", "json")
        rows: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
        return rows
