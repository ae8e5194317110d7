# SPDX-License-Identifier: GPL-3.0-or-later
"""Walk the whole line on the lab's hosts as an operator would, and judge what comes out against the truth file.

Every step is a real command: playbooks over ssh, the command line, ``ansible-inventory``. The outcome of each
step, with its figures, is written to ``result.json`` in the output folder, whether it passes or not.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import score

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "lab"
DATA = ROOT / ".whoneeds" / "lab"
RECAP = re.compile(
    r"^(?P<host>[\w.-]+)\s*: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)"
    r"\s+failed=(?P<failed>\d+)",
    re.MULTILINE,
)
COMMAND_LIMIT_S = 900


@dataclass
class Step:
    """One step and what it showed."""

    name: str
    passed: bool
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)


class Exercise:
    """The walk: runs steps, remembers what they showed, goes on after a failed one so that all is seen at once."""

    def __init__(self, out: Path, load_s: float) -> None:
        self.out = out
        self.load_s = load_s
        self.steps: list[Step] = []
        self.truth = json.loads(Path(os.environ["WHONEEDS_LAB_TRUTH"]).read_text())

    # ------------------------------------------------------------ running commands

    def run(self, log: str, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the virtual environment, keeping all its output in a log file of the output folder."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        with (self.out / f"{log}.log").open("a") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}\n{done.stderr}\nexit {done.returncode}\n\n")
        return done

    def playbook(self, verb: str, *options: str, log: str | None = None) -> tuple[int, dict[str, dict[str, int]]]:
        """Run one of the collection's playbooks on the lab; give its exit code and its recap by host."""
        done = self.run(
            log or verb, "ansible-playbook", f"whoneeds.discovery.{verb}", "-i", str(INVENTORY),
            "-e", f"whoneeds_dir={DATA}", *options,
        )  # fmt: skip
        recap = {
            found["host"]: {key: int(found[key]) for key in ("ok", "changed", "unreachable", "failed")}
            for found in RECAP.finditer(done.stdout)
        }
        return done.returncode, recap

    def step(self, name: str, passed: bool, since: float, **figures: Any) -> None:
        """Note the outcome of a step and print it."""
        self.steps.append(Step(name, passed, round(time.monotonic() - since, 1), figures))
        shown = ", ".join(f"{key}={value}" for key, value in figures.items() if not isinstance(value, dict | list))
        print(f"{'ok  ' if passed else 'FAIL'} {self.steps[-1].seconds:6.1f} s  {name}  {shown}", flush=True)
        if not passed:
            for key, value in figures.items():
                if isinstance(value, dict | list) and value:
                    print(f"       {key}: {json.dumps(value)[:1500]}", flush=True)

    # ------------------------------------------------------------ the steps, in order

    def install(self) -> None:
        """Tracers are installed; the second run changes nothing; a check run foresees what the real one does."""
        start = time.monotonic()
        _, foreseen = self.playbook("trace", "--check", "--diff", log="trace-check")
        self.step("check run before anything is installed", _clean(foreseen), start, hosts=len(foreseen))
        start = time.monotonic()
        code, recap = self.playbook("trace", "--diff")
        self.step("trace", code == 0 and _clean(recap) and _hosts(self.truth) <= set(recap), start, hosts=len(recap))
        start = time.monotonic()
        code, recap = self.playbook("trace", log="trace-again")
        self.step("trace a second time", code == 0 and _changed(recap) == 0, start, changed=_changed(recap))

    def load(self) -> None:
        """The lab's services work for the time that was asked."""
        start = time.monotonic()
        time.sleep(self.load_s)
        self.step("load", True, start, load_s=self.load_s)

    def gather(self) -> None:
        """Segments come in, are analysed and published; publishing the same store again changes nothing."""
        self.run("hosts", "ansible", "all", "-i", str(INVENTORY), "-b", "-m", "ansible.builtin.service",
                 "-a", "name=whoneeds-tracer state=stopped")  # fmt: skip
        for verb in ("collect", "analyze", "publish"):
            start = time.monotonic()
            code, recap = self.playbook(verb)
            self.step(verb, code == 0 and _clean(recap), start, changed=_changed(recap))
        for verb in ("collect", "publish"):
            start = time.monotonic()
            code, recap = self.playbook(verb, log=f"{verb}-again")
            self.step(f"{verb} a second time", code == 0 and _changed(recap) == 0, start, changed=_changed(recap))

    def judge(self) -> None:
        """Dependencies found are those declared: none missed that lives long enough, none false, no wrong name."""
        start = time.monotonic()
        rows = self.rows("connections")
        used = self.rows("deps", "--level", "4")
        (self.out / "connections.json").write_text(json.dumps(rows, indent=1))
        (self.out / "deps.json").write_text(json.dumps(used, indent=1))
        kinds = {(row["app"], row["protocol"], row["port"]): row["kind"] for row in used}
        judged = [
            {**row, "kind": kinds.get((row["orig_app"], row["protocol"], row["resp_port"]))}
            for row in rows
            if row["orig_app"] is not None and row["direction"] != "unknown"
        ]
        result = score.score(self.truth, judged, load_s=self.load_s)
        self.step(
            "every declared static dependency that lives long enough is found, none is false, no name is wrong",
            not result["missed"] and not result["false"] and not result["wrong_names"],
            start,
            **result,
        )
        peers = [row for row in used if row["app"] == "peerd" and row["protocol"] == "tcp" and row["port"] != 53]
        instances = {(row["host"], row["pid"]) for row in peers}
        shares = {kind: sum(row["kind"] == kind for row in peers) for kind in ("static", "transient", "unclassified")}
        self.step(
            "the peer-to-peer application has at least 20 instances and its ports are transient",
            len(instances) >= 20 and shares["static"] == shares["unclassified"] == 0,
            start,
            instances=len(instances),
            **shares,
        )

    def rows(self, *command: str) -> list[dict[str, Any]]:
        """Rows of a `whoneeds` query as JSON."""
        done = self.run("query", "whoneeds", *command, "--store", str(DATA / "store"), "--format", "json")
        return json.loads(done.stdout) if done.returncode == 0 else []

    def inventory(self) -> None:
        """Groups stand in the inventory and a play on them runs on exactly the right hosts."""
        start = time.monotonic()
        graph = self.run("graph", "ansible-inventory", "-i", str(INVENTORY), "--graph").stdout
        (self.out / "graph.txt").write_text(graph)
        groups = set(re.findall(r"@(whoneeds_\w+):", graph))
        needed = {"whoneeds_needs_db1", "whoneeds_provides_tcp_5432", "whoneeds_runs_haproxy"}
        self.step(
            "groups in the inventory", needed <= groups, start, groups=len(groups), missing=sorted(needed - groups)
        )
        start = time.monotonic()
        done = self.run("play", "ansible-playbook", "-i", str(INVENTORY), str(ROOT / "tests/lab/needs_db1.yml"))
        ran = {match["host"] for match in RECAP.finditer(done.stdout)}
        right = {
            edge["dependent_host"]
            for edge in self.truth["dependencies"]
            if edge["resp_host"] == "db1" and edge["kind"] == "static" and edge["dependent_host"] != "db1"
            and score.lives_long_enough(edge, self.load_s)
        }  # fmt: skip
        self.step("a play with hosts: whoneeds_needs_db1", done.returncode == 0 and ran == right, start,
                  ran=sorted(ran), right=sorted(right))  # fmt: skip

    def bad_input(self) -> None:
        """One host does not answer and one sends a damaged segment: the others go on, and both are named."""
        start = time.monotonic()
        extra = self.out / "unreachable.yml"
        extra.write_text("all: {hosts: {ghost1: {ansible_host: 127.0.0.254, ansible_port: 1, ansible_timeout: 5}}}\n")
        self.run("damage", "ansible", "web1", "-i", str(INVENTORY), "-b", "-m", "ansible.builtin.shell",
                 "-a", "head -c 300 $(ls /var/lib/whoneeds/segments/*.seg | head -1)"
                 " > /var/lib/whoneeds/segments/00000000000000000001-deadbeef-1.seg")  # fmt: skip
        code, recap = self.playbook("collect", "-i", str(extra), log="collect-bad")
        others = {host: row for host, row in recap.items() if host != "ghost1"}
        self.step("collect with an unreachable host and a damaged segment", _clean(others) and "ghost1" in recap, start,
                  exit_code=code, hosts=len(recap))  # fmt: skip
        start = time.monotonic()
        code, recap = self.playbook("analyze", log="analyze-bad")
        quarantined = [str(path.relative_to(DATA)) for path in (DATA / "store" / "quarantine").rglob("*.json")]
        self.step("the damaged segment is quarantined with its reason, the rest stands",
                  _clean(recap) and len(quarantined) == 1 and "web1" in quarantined[0], start,
                  exit_code=code, quarantined=quarantined)  # fmt: skip

    def remove(self) -> None:
        """The tracer is removed from every host, wholly."""
        start = time.monotonic()
        code, recap = self.playbook("untrace", "--diff")
        self.step("untrace", code == 0 and _clean(recap), start, changed=_changed(recap))
        start = time.monotonic()
        code, recap = self.playbook("untrace", log="untrace-again")
        self.step("untrace a second time", code == 0 and _changed(recap) == 0, start, changed=_changed(recap))
        start = time.monotonic()
        left = self.run(
            "left", "ansible", "all", "-i", str(INVENTORY), "-b", "-m", "ansible.builtin.shell",
            "-a", "find / -xdev -iname '*whoneeds*' -not -path '/proc/*' -not -path '/sys/*' -not -path '*/.ansible/*'",
        )  # fmt: skip
        paths = sorted({line for line in left.stdout.splitlines() if line.startswith("/")})
        self.step("nothing is left on the hosts", left.returncode == 0 and not paths, start, left=paths)

    def finish(self) -> int:
        """Write the result; give the exit code."""
        failed = [step.name for step in self.steps if not step.passed]
        result = {
            "schema": 1,
            "load_s": self.load_s,
            "passed": not failed,
            "steps": [asdict(step) for step in self.steps],
        }
        (self.out / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
        print(f"{len(self.steps) - len(failed)} passed, {len(failed)} failed")
        return 1 if failed else 0


def _hosts(truth: dict[str, Any]) -> set[str]:
    return {host if isinstance(host, str) else host["name"] for host in truth["hosts"]}


def _clean(recap: dict[str, dict[str, int]]) -> bool:
    return bool(recap) and not any(row["failed"] or row["unreachable"] for row in recap.values())


def _changed(recap: dict[str, dict[str, int]]) -> int:
    return sum(row["changed"] for row in recap.values())


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the exercise inside a lab that is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", type=float, default=300, metavar="S", help="seconds of load (default 300)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "lab", help="folder for result.json and logs")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    for old in (chosen.out, DATA):
        shutil.rmtree(old, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    exercise = Exercise(chosen.out, chosen.load)
    for act in (exercise.install, exercise.load, exercise.gather, exercise.judge, exercise.inventory,
                exercise.bad_input, exercise.remove):  # fmt: skip
        act()
    return exercise.finish()


if __name__ == "__main__":
    sys.exit(main())
