# SPDX-License-Identifier: GPL-3.0-or-later
"""Walk the whole line on the lab's hosts as an operator would, and judge what comes out against the truth file.

Every step is a real command: playbooks over ssh, the command line, ``ansible-inventory``. The outcome of each
step, with its figures, is written to ``result.json`` in the output folder, whether it passes or not. All the while the
wire is watched, and what was found is held against what it carried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import score
from .audit import Watch, audit, confront, excused_wrongly
from .fleet import FLEET
from .inventory import INVENTORY
from .judgement import conversations_of, dependents_of, needs_of, peers_of
from .operator import Operator
from .rundir import REPOSITORY, TRUTH, read_state
from .truth import PERIOD_S, truth_document

DATA = REPOSITORY / ".whoneeds" / "lab"
HERE = Path(__file__).resolve().parent
SEGMENTS = "/var/lib/whoneeds/segments"
# A connection that was open for so many periods in a row is in a sample for sure, one late one allowed.
SURE_PERIODS = 3
LEAST_PEERS = 20
# Most that `systemd-analyze security` may hold against the tracer's unit, of 10.
MOST_EXPOSURE = 1.5
# Which host hands out which bad segment, and the reason for which it is put aside.
DAMAGED = {"web1": ("cut", "corrupt"), "web2": ("flipped", "corrupt"), "db1": ("schema", "schema")}
OVERSIZED = "cache1"
# Everywhere a tracer could have left a file; each of these may be a file system of its own.
LEFT = (
    "find / /run /tmp /dev/shm /sys/fs/cgroup -xdev -iname '*whoneeds*' -not -path '*/.ansible/*'; "
    "pgrep -af whoneeds[.]pyz; systemctl list-units --all --no-legend 'whoneeds*'; "
    "getent passwd whoneeds; getent group whoneeds; true"
)


@dataclass
class Step:
    """One step and what it showed."""

    name: str
    passed: bool
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)


class Exercise:
    """The walk: runs steps, remembers what they showed, goes on after a failed one so that all is seen at once.

    Parameters
    ----------
    out : Path
        Gets result.json, the findings, and a log for each kind of command.
    load_s, period_s : float
        Time under load and sampling period, seconds.
    repeat_on : str
        Hosts on which check runs, second runs and refusals are tried.
    """

    def __init__(self, out: Path, load_s: float, period_s: float, repeat_on: str) -> None:
        self.out = out
        self.load_s = load_s
        self.period_s = period_s
        self.repeat = ("-e", f"whoneeds_hosts={repeat_on}")
        self.repeat_on = repeat_on
        self.period = ("-e", f"tracer_period_s={period_s:g}")
        self.steps: list[Step] = []
        self.figures: dict[str, Any] = {}
        self.truth = truth_document(FLEET, load_s, period_s)
        (out / TRUTH).write_text(json.dumps(self.truth, indent=1))
        self.operator = Operator(INVENTORY.parent, DATA, out)
        self.began_s = self.since_s = time.monotonic()
        self.watch = Watch()
        self.looked_s = (0.0, 0.0)

    def step(self, name: str, passed: bool, **figures: Any) -> None:
        """Note the outcome of a step and print it; it lasted since the one before."""
        now_s = time.monotonic()
        self.steps.append(Step(name, passed, round(now_s - self.since_s, 1), figures))
        self.since_s = now_s
        shown = ", ".join(f"{key}={value}" for key, value in figures.items() if not isinstance(value, dict | list))
        print(f"{'ok  ' if passed else 'FAIL'} {self.steps[-1].seconds:6.1f} s  {name}  {shown}", flush=True)
        if not passed:
            for key, value in figures.items():
                if isinstance(value, dict | list) and value:
                    print(f"       {key}: {json.dumps(value)[:1500]}", flush=True)

    def on(self, hosts: str, script: str, log: str) -> tuple[int, str]:
        """Run a shell command on hosts; exit code and output."""
        done = self.operator.run(log, "ansible", hosts, "-i", str(self.operator.inventory), "-b",
                                 "-m", "ansible.builtin.shell", "-a", script)  # fmt: skip
        return done.returncode, done.stdout

    def repeated(self, verb: str, *options: str) -> None:
        """A second run of a playbook changes nothing."""
        again = self.operator.play(verb, *self.repeat, *options, log=f"{verb}-again")
        self.step(f"{verb} a second time", again.good and again.changed == 0, changed=again.changed,
                  hosts=len(again.recap))  # fmt: skip

    # ------------------------------------------------------------ the steps, in order

    def refuse(self) -> None:
        """What cannot be done is refused before anything is touched, with what was expected and found."""
        refusals = {
            "a wrong interval": (
                self.operator.play("trace", *self.repeat, "-e", "tracer_period_s=0", log="refused"),
                r"Expected tracer_period_s from 0\.1 to 3600 seconds, found 0",
            ),
            "an unknown host": (
                self.operator.play("trace", "-e", "whoneeds_hosts=nosuchhost", log="refused"),
                r'Expected "nosuchhost" of whoneeds_hosts to be a host or group of the inventory, found none',
            ),
        }
        for what, (played, words) in refusals.items():
            said = re.search(words, " ".join(played.text.split())) is not None
            self.step(f"{what} is refused", played.code != 0 and said and played.changed == 0, said=said,
                      exit_code=played.code, changed=played.changed)  # fmt: skip
        empty = self.operator.run("refused", "whoneeds", "deps", "--store", str(self.out / "no-store"))
        said = "whoneeds ingest" in empty.stderr or "whoneeds run" in empty.stderr or "expected" in empty.stderr
        self.step("an empty store is told as such", empty.returncode == 1 and said, exit_code=empty.returncode)

    def install(self) -> None:
        """A check run foresees what the real one does; the second run changes nothing; damage is repaired."""
        foreseen = self.operator.play("trace", *self.repeat, *self.period, "--check", "--diff", log="trace-check")
        _, left = self.on(self.repeat_on, LEFT, "left-by-check")
        self.step("a check run before anything is installed changes nothing",
                  foreseen.good and not _paths(left), hosts=len(foreseen.recap), left=_paths(left))  # fmt: skip
        traced = self.operator.play("trace", *self.period, "--diff")
        self.step("trace", traced.good and set(self.truth["hosts"]) <= set(traced.recap), hosts=len(traced.recap),
                  changed=traced.changed, lost=traced.lost)  # fmt: skip
        real = {host: traced.changes().get(host) for host in foreseen.recap}
        self.step("the check run foresaw the changes of the real one", foreseen.changes() == real,
                  foreseen=foreseen.changes(), real=real)  # fmt: skip
        self.repeated("trace", *self.period)
        self.spoil_configuration()
        self.disturb()

    def disturb(self) -> None:
        """The service has no right, goes on whatever befalls it, and leaves nothing in the kernel when stopped."""
        answer = self.operator.run("disturb", "ansible", "web2", "-i", str(self.operator.inventory), "-b",
                                   "-m", "ansible.builtin.script",
                                   "-a", f"{HERE / 'unprivileged.py'} executable=/usr/bin/python3")  # fmt: skip
        found = re.search(r"^\s*(\{\"exposure.*\})$", answer.stdout, re.MULTILINE)
        seen: dict[str, Any] = json.loads(found[1]) if found else {}
        moments = {name: seen.get(name, {}) for name in ("at_first", "killed", "reloaded", "restarted", "started")}
        right = {
            "user": "whoneeds",
            "capabilities": ["0" * 16],
            "sources": ["events", "packets", "table"],
            "privileged": True,
        }
        wrong = {
            name: moment
            for name, moment in moments.items()
            if any(moment.get(key) != value for key, value in right.items()) or moment["told"].get("kind") != "programs"
        }
        self.step("the service has no capability and sees all processes, also after kill, reload and restart",
                  not wrong, wrong=wrong, said=[] if found else answer.stdout.splitlines())  # fmt: skip
        self.step("its exposure as systemd sees it is small", seen.get("exposure", 10.0) <= MOST_EXPOSURE,
                  exposure=seen.get("exposure"))  # fmt: skip
        ran, left = seen.get("programs_before_stop"), seen.get("programs_after_stop")
        self.step("stopping it takes its programs out of the kernel",
                  bool(ran) and left == seen.get("kept_after_stop") == 0, ran=ran, left=left)  # fmt: skip

    def spoil_configuration(self) -> None:
        """A tracer whose configuration cannot be read says so and stays off; the next run of the role repairs it."""
        run = "/usr/local/lib/whoneeds/whoneeds.pyz trace run --config /etc/whoneeds/tracer.json"
        _, text = self.on("web2", f"printf '{{' > /etc/whoneeds/tracer.json; python3 {run}; echo exit $?", "spoilt")
        said = all(word in text for word in ("expected", "found", "/etc/whoneeds/tracer.json", "exit 2"))
        self.step("a configuration that cannot be read is refused", said, text=text.splitlines())
        mended = self.operator.play("trace", "-e", "whoneeds_hosts=web2,lb1", *self.period, log="mended")
        others = sum(changed for host, changed in mended.changes().items() if host != "web2")
        self.step("the role repairs it there and nowhere else",
                  mended.good and mended.changes().get("web2", 0) > 0 and others == 0, changed=mended.changed,
                  changed_elsewhere=others)  # fmt: skip

    def load(self) -> None:
        """The lab's services work for the time that was asked."""
        began_s = time.monotonic()
        time.sleep(self.load_s)
        self.looked_s = (began_s, time.monotonic())
        self.step("load", True, load_s=self.load_s)

    def gather(self) -> None:
        """Segments come in, are analysed and published; the same again changes nothing."""
        code, _ = self.on("all", "systemctl stop whoneeds-tracer.service", "stop")
        self.step("tracers stop and complete their last segment", code == 0)
        for verb in ("collect", "analyze", "publish"):
            played = self.operator.play(verb)
            self.step(verb, played.good, changed=played.changed, lost=played.lost)
        for verb in ("collect", "analyze", "publish"):
            self.repeated(verb)

    def judge(self) -> None:
        """What is published is what is declared: none missed that lives long enough, none false, no wrong name."""
        connections = self.operator.query("connections")
        dependencies = self.operator.query("deps", "--level", "4")
        facts = json.loads(self.operator.facts.read_text()) if self.operator.facts.exists() else {"hosts": {}}
        for name, found in (("connections", connections), ("deps", dependencies), ("facts", facts)):
            (self.out / f"{name}.json").write_text(json.dumps(found, indent=1))
        judged = score.score(self.truth, needs_of(facts), load_s=self.load_s, period_s=self.period_s)
        self.figures = {
            **{key: judged[key] for key in ("precision", "recall", "f1", "counted")},
            **{key: len(judged[key]) for key in ("found", "missed", "false", "wrong_names", "unnamed")},
        }
        self.step("every declared static dependency that lives long enough is published, none false, no wrong name",
                  score.perfect(judged), **judged)  # fmt: skip
        named = score.score(self.truth, conversations_of(connections), load_s=self.load_s, period_s=self.period_s)
        self.step("every connection is a declared one, and none has a wrong name at either end",
                  bool(connections) and not named["false"] and not named["wrong_names"],
                  connections=len(connections), false=named["false"], wrong_names=named["wrong_names"],
                  unnamed=named["unnamed"])  # fmt: skip
        peers = peers_of(dependencies, "peerd")
        self.step("the peer-to-peer application has at least 20 instances and its ports are transient",
                  min(peers["instances"], peers["dialling_instances"]) >= LEAST_PEERS and peers["transient"] > 0
                  and peers["static"] == peers["other"] == 0, **peers)  # fmt: skip
        self.hear_the_wire(connections)

    def hear_the_wire(self, connections: list[dict[str, Any]]) -> None:
        """The frames on the bridge, a witness that knows neither the declaration nor the tool, bear both out."""
        wire = self.watch.finish()
        (self.out / "wire.json").write_text(json.dumps(wire))
        audited = audit(FLEET, wire["rows"], wire["ended_s"] - wire["began_s"])
        (self.out / "declared-and-seen.json").write_text(json.dumps(audited["measured"], indent=1))
        self.step(
            "the wire carries what is declared, as often as declared, and nothing else",
            not audited["undeclared"] and not audited["off_rate"] and not wire["frames_lost"],
            services=len(audited["measured"]),
            undeclared=audited["undeclared"],
            off_rate=audited["off_rate"],
            frames_lost=wire["frames_lost"],
        )
        excused = excused_wrongly(self.truth, wire, *self.looked_s)
        self.step("the truth excuses nothing that the wire carried for long enough", not excused, excused=excused)
        heard = confront(FLEET, wire, connections, *self.looked_s, SURE_PERIODS * self.period_s)
        self.step("connections are those on the wire: none invented, none turned round, no lasting one overlooked",
                  heard["lasting"] > 0 and not (heard["overlooked"] or heard["invented"] or heard["reversed"]),
                  **heard)  # fmt: skip

    def inventory(self) -> None:
        """Groups stand in the inventory and a play on them runs on exactly the right hosts."""
        graph = self.operator.run("graph", "ansible-inventory", "-i", str(self.operator.inventory), "--graph").stdout
        (self.out / "graph.txt").write_text(graph)
        groups = set(re.findall(r"@(whoneeds_\w+):", graph))
        needed = {"whoneeds_needs_db1", "whoneeds_provides_tcp_5432", "whoneeds_runs_haproxy"}
        self.step("groups in the inventory", needed <= groups, groups=len(groups), missing=sorted(needed - groups))
        played = self.operator.play_file(str(HERE / "needs_db1.yml"), log="needs_db1")
        must, may = dependents_of(self.truth, "db1", self.load_s, self.period_s)
        ran = set(played.recap)
        self.step("a play with hosts: whoneeds_needs_db1 runs on exactly the right hosts",
                  played.good and must <= ran <= may, ran=sorted(ran), must=sorted(must), may=sorted(may))  # fmt: skip

    def bad_input(self) -> None:
        """A host that does not answer and four bad segments: the others go on, each is named, nothing is lost."""
        before = self.operator.query("deps")
        unreachable = self.out / "unreachable.yml"
        unreachable.write_text("all: {hosts: {ghost1: {ansible_host: 127.0.0.254, ansible_port: 1}}}\n")
        for host, kind in {**{host: kind for host, (kind, _) in DAMAGED.items()}, OVERSIZED: "oversized"}.items():
            self.operator.run("damage", "ansible", host, "-i", str(self.operator.inventory), "-b",
                              "-m", "ansible.builtin.script",
                              "-a", f"{HERE / 'damage.py'} {SEGMENTS} {kind} executable=/usr/bin/python3")  # fmt: skip
        hosts = ",".join([*DAMAGED, OVERSIZED, "v6a", "ghost1"])
        played = self.operator.play("collect", "-i", str(unreachable), "-e", f"whoneeds_hosts={hosts}", log="bad")
        refused = re.search(rf"{OVERSIZED}: [^\n]*oversized[^\n]*", played.text)
        self.step("an unreachable host and bad segments are named, and the other hosts go on",
                  played.lost == ["ghost1"] and played.code != 0 and refused is not None,
                  exit_code=played.code, lost=played.lost, said=refused[0] if refused else None)  # fmt: skip
        analyzed = self.operator.play("analyze", log="bad")
        put_aside = {
            (path.relative_to(DATA / "store" / "quarantine").parts[0], json.loads(path.read_text())["reason"])
            for path in (DATA / "store" / "quarantine").rglob("*.json")
        }
        wanted = {(host, reason) for host, (_, reason) in DAMAGED.items()}
        after = self.operator.query("deps")
        self.step("bad segments are put aside with their reasons, and what was known stands",
                  analyzed.good and put_aside == wanted and bool(before) and before == after,
                  put_aside=sorted(map(list, put_aside)), rows_before=len(before), rows_after=len(after))  # fmt: skip

    def remove(self) -> None:
        """The tracer is removed from every host, wholly."""
        removed = self.operator.play("untrace", "--diff")
        self.step("untrace", removed.good, changed=removed.changed, lost=removed.lost)
        self.repeated("untrace")
        code, text = self.on("all", LEFT, "left")
        self.step("nothing is left on the hosts", code == 0 and not _paths(text), left=_paths(text))

    # ------------------------------------------------------------ the end

    def finish(self) -> int:
        """Write the result; give the exit code."""
        failed = [step.name for step in self.steps if not step.passed]
        result = {
            "schema": 1,
            "passed": not failed,
            "failed": failed,
            "figures": self.figures,
            "load_s": self.load_s,
            "period_s": self.period_s,
            "repeated_on": self.repeat_on,
            "seconds": round(time.monotonic() - self.began_s, 1),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
            "steps": [asdict(step) for step in self.steps],
        }
        (self.out / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
        print(f"{len(self.steps) - len(failed)} passed, {len(failed)} failed; {self.out / 'result.json'}")
        print(", ".join(f"{key} {value}" for key, value in self.figures.items()))
        return 1 if failed else 0


def _paths(text: str) -> list[str]:
    """Files, processes and units in the output of an ad-hoc command, without the line that names the host."""
    return sorted({line for line in text.splitlines() if line.strip() and "| CHANGED |" not in line})


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the exercise inside a lab that is up."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.exercise", description=__doc__)
    parser.add_argument("--load", type=float, default=300, metavar="S", help="seconds of load (default 300)")
    parser.add_argument("--period", type=float, default=PERIOD_S, metavar="S", help="sampling period (default 5)")
    parser.add_argument("--repeat-on", default="all", metavar="HOSTS",
                        help="hosts for check runs, second runs and refusals (default all)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "lab", help="folder for results and logs")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    if read_state() is None:
        print("exercise: no lab is up; use `make lab`, or start one with `python -m tests.lab up`", file=sys.stderr)
        return 1
    if chosen.out.is_dir() and any(chosen.out.iterdir()) and not (chosen.out / TRUTH).exists():
        print(f"exercise: expected a new folder or one of an earlier walk, found other files in {chosen.out}; "
              "name another one with --out", file=sys.stderr)  # fmt: skip
        return 2
    for old in (chosen.out, DATA):
        shutil.rmtree(old, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    exercise = Exercise(chosen.out, chosen.load, chosen.period, chosen.repeat_on)
    for act in (
        exercise.refuse,
        exercise.install,
        exercise.load,
        exercise.gather,
        exercise.judge,
        exercise.inventory,
        exercise.bad_input,
        exercise.remove,
    ):
        try:
            act()
        except Exception:
            # The others are still worth seeing, and what was found must be written.
            exercise.step(f"{act.__name__} comes to its end", False, trace=traceback.format_exc().splitlines())
    return exercise.finish()


if __name__ == "__main__":
    sys.exit(main())
