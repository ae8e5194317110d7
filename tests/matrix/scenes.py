# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes: folders in which one ansible-core meets hostile text, by our ways and by careless ones.

A *channel* is a way by which text reaches Ansible. Each channel has one host for each *usage* (a play of
fixtures/usages.yml), and each host carries payloads with marks of their own. So a mark that appears names the
channel, the usage, the place in the facts and the kind of payload.
"""

import json
import os
import re
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.matrix.payloads import (
    EXPRESSIONS,
    LONG_TEMPLATES,
    MARKS,
    TEMPLATES,
    Planting,
    document,
    host_facts,
    odd_facts,
)
from whoneeds.facts import files, local, overlay, store
from whoneeds.facts.document import build_document

FIXTURES = Path(__file__).parent / "fixtures"
PLUGINS = Path(__file__).parent / "inventory_plugins"
REPOSITORY = Path(__file__).resolve().parents[2]

USAGES = tuple(re.findall(r"^  hosts: use_(\w+)$", (FIXTURES / "usages.yml").read_text(encoding="utf-8"), re.MULTILINE))

#: Usages that may evaluate a text without braces; each has a second host with such texts.
EXPRESSION_USAGES = (
    "when", "when_braces", "failed_when", "assert", "assert_braces", "debug_name", "groups", "composed",
)  # fmt: skip

#: One usage of each way in which Ansible evaluates text: in a template, as an expression, while an inventory is read.
#: For runs that repeat with other sources what another showed in every usage.
QUICK_USAGES = ("message", "assert_braces", "composed")

#: What a quick campaign plays at all; it still looks at every string of every host. The rest is for the long lane.
QUICK_CAMPAIGN = (*QUICK_USAGES, "set_fact")

#: Reading facts.d starts a process on each host, so these hosts are few.
LOCAL_FACT_USAGES = ("debug_var", "message", "assert_braces", "set_fact")

#: Hosts with odd names of things, by channel; they run nothing and are compared.
ODD = "odd"

#: What a play may build from the facts while the inventory is read.
CONSTRUCTED = {
    "compose": {
        "composed_copy": "whoneeds.needs",
        "composed_joined": "'x ' ~ whoneeds.needs[0].app",
        "composed_json": "whoneeds | to_json",
        "composed_first": "whoneeds.needs[1].app",
        "composed_texts": "whoneeds.needs | map(attribute='app') | list",
    },
    "groups": {"seen_badly": "whoneeds.needs[0].app", "seen_well": "whoneeds.coverage.gaps[1]"},
    "keyed_groups": [
        {"key": "whoneeds.runs", "prefix": "k"},
        {"key": "whoneeds.needs[0]", "prefix": "n"},
        {"key": "whoneeds.coverage.gaps", "prefix": "g", "separator": ""},
    ],
}

#: All texts of the facts as one list, and what else the plays use.
PLAY_VARIABLES = {
    "texts": "{{ whoneeds.addresses + whoneeds.runs + (whoneeds.needs | map(attribute='app') | list)"
    " + whoneeds.coverage.gaps }}",
    "ansible_connection": "local",
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}


def host_name(channel: str, usage: str, *, braces: bool = True) -> str:
    """The host that shows one usage of one channel, with templates in braces or with bare expressions."""
    return f"{channel}-{usage.replace('_', '-')}" + ("" if braces else "-bare")


def hosts_of(channel: str, usages: tuple[str, ...]) -> dict[str, tuple[str, bool]]:
    """All hosts of a channel, each with its usage and whether its texts have braces."""
    hosts = {host_name(channel, usage): (usage, True) for usage in usages}
    bare = (usage for usage in usages if usage in EXPRESSION_USAGES and channel != "local_facts")
    return hosts | {host_name(channel, usage, braces=False): (usage, False) for usage in bare}


@dataclass
class Scene:
    """A folder to run Ansible in, the sources to give it, and the marks to look for."""

    folder: Path
    planting: Planting
    sources: list[str] = field(default_factory=list)
    #: What the odd hosts' variable must be, by host.
    expected: dict[str, Any] = field(default_factory=dict)
    #: The usages of this campaign, and channels with fewer.
    usages: tuple[str, ...] = USAGES
    limited: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def hosts_of(self, channel: str) -> dict[str, tuple[str, bool]]:
        """The channel's hosts in this scene."""
        return hosts_of(channel, self.limited.get(channel, self.usages))

    @classmethod
    def make(cls, folder: Path, name: str, usages: tuple[str, ...] = USAGES) -> "Scene":
        """An empty scene with the collection, the playbook and the folder of marks in place."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / MARKS).mkdir(parents=True)
        linked = folder / "collections" / "ansible_collections" / "whoneeds" / "discovery"
        linked.parent.mkdir(parents=True)
        linked.symlink_to(REPOSITORY)
        for fixture in ("usages.yml", "again.yml", "page.j2"):
            shutil.copy(FIXTURES / fixture, folder / fixture)
        return cls(folder, Planting(name), usages=usages)

    def write(self, name: str, content: Any) -> Path:
        """Write a file of the scene; what is no text is written as JSON, which is YAML as well."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        path.write_text(text, encoding="utf-8")
        return path

    def facts(self, channel: str) -> dict[str, Any]:
        """Raw hostile facts for each usage of the channel, by host."""
        return {
            host: host_facts(self.planting, host, channel, usage, braces=braces)
            for host, (usage, braces) in self.hosts_of(channel).items()
        }

    def name_hosts(self, channels: tuple[str, ...], source: str = "known") -> None:
        """Add a source that knows the hosts of these channels and sorts them into their plays; it is free of tricks."""
        groups: dict[str, Any] = {f"use_{usage}": {"hosts": {}} for usage in USAGES}
        for channel in channels:
            for host, (usage, _) in self.hosts_of(channel).items():
                groups[f"use_{usage}"]["hosts"][host] = None
        groups["odd_ones"] = {"hosts": {host_name(channel, ODD): None for channel in channels}}
        groups["with_local_facts"] = {"hosts": {}}
        self.write(f"{source}/hosts.yml", {"all": {"children": groups, "vars": PLAY_VARIABLES}})
        self.sources.append(source)

    def add_benign(self, name: str) -> None:
        """Add a source that means no harm and knows none of the hosts."""
        self.write(
            f"{name}/hosts.yml", {"benign": {"hosts": {f"{name}-1": {"colour": "blue", "whoneeds": {"needs": []}}}}}
        )
        self.sources.append(name)

    # ------------------------------------------------------------ careless ways: the control group

    def add_plain_host_vars(self, channel: str) -> None:
        """Facts written into host_vars as they are, beside the source that knows the hosts."""
        for host, facts in _shown(self.facts(channel)).items():
            self.write(f"known/host_vars/{host}.yml", {"whoneeds": facts})

    def add_script(self, channel: str) -> None:
        """An inventory script that prints the facts as they are."""
        facts_of = _shown(self.facts(channel))  # Ansible itself refuses lone surrogates here
        self.add_script_output(channel, by_script(facts_of))

    def add_script_output(self, channel: str, output: Any) -> str:
        """An inventory script that prints this; its name."""
        printed = self.write(f"{channel}.json", output)
        script = self.write(f"{channel}.sh", f"#!/bin/sh\ncat '{printed}'\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        self.sources.append(script.name)
        return script.name

    def add_planted(self, channel: str, *, trusted: bool) -> None:
        """A careless inventory plugin, trusting or not."""
        facts_of = _shown(self.facts(channel))
        planted = self.write(f"{channel}.vars", {host: {"whoneeds": facts} for host, facts in facts_of.items()})
        settings = {"plugin": "matrix_planted", "planted": str(planted), "trusted": trusted, **CONSTRUCTED}
        self.sources.append(self.write(f"{channel}.planted.yml", settings).name)

    # ------------------------------------------------------------ our ways

    def add_plugin(self, channel: str, facts_of: dict[str, Any]) -> None:
        """Our inventory plugin over a document of these facts, taken as they are."""
        self.write(f".stores/{channel}.json", document(facts_of))
        settings = {"plugin": "whoneeds.discovery.dependencies", "store": f".stores/{channel}.json", **CONSTRUCTED}
        self.sources.append(self.write(f"{channel}.dependencies.yml", settings).name)

    def add_raw_plugin(self, channel: str) -> None:
        """Our plugin over a document that somebody tampered with: nothing in it was made inert."""
        odd = odd_facts()
        self.add_plugin(channel, {**self.facts(channel), host_name(channel, ODD): odd})
        self.expected[host_name(channel, ODD)] = _shown({k: v for k, v in odd.items() if k != "groups"})

    def add_clean_plugin(self, channel: str) -> None:
        """The whole way: rows with hostile names, the document made of them, the store, our plugin."""
        made = self.build(channel)
        change = store.plan(made, self.folder / ".stores" / f"{channel}.json")
        files.apply_change(change)
        read = store.read(change.path)
        self.add_plugin(channel, read["hosts"])
        odd = read["hosts"][host_name(channel, ODD)]
        self.expected[host_name(channel, ODD)] = {name: value for name, value in odd.items() if name != "groups"}

    def add_overlay(self, channel: str, facts_of: dict[str, Any]) -> None:
        """The overlay folder of these facts."""
        for change in overlay.plan(document(facts_of), self.folder / channel):
            files.apply_change(change)
        self.sources.append(channel)

    def add_raw_overlay(self, channel: str) -> None:
        """The overlay of facts of which nothing was made inert."""
        odd = odd_facts()
        self.add_overlay(channel, {**self.facts(channel), host_name(channel, ODD): odd})
        self.expected[host_name(channel, ODD)] = _shown({k: v for k, v in odd.items() if k != "groups"})

    def add_clean_overlay(self, channel: str) -> None:
        """The overlay of a document that was made of hostile rows."""
        hosts = self.build(channel)["hosts"]
        self.add_overlay(channel, hosts)
        odd = hosts[host_name(channel, ODD)]
        self.expected[host_name(channel, ODD)] = {name: value for name, value in odd.items() if name != "groups"}

    def add_local_facts(self, channel: str) -> None:
        """Local facts of which nothing was made inert, on hosts that gather them."""
        self.limited[channel] = tuple(usage for usage in LOCAL_FACT_USAGES if usage in self.usages)
        raw = {
            host: host_facts(self.planting, host, channel, usage, braces=usage != "assert_braces")
            for host, (usage, _) in self.hosts_of(channel).items()
        }
        for host in raw:
            text = local.render(document(_shown(raw)), host)
            self.write(f"facts.d/{host}/whoneeds.fact", text).chmod(0o644)
        groups: dict[str, Any] = {
            f"use_{usage}": {"hosts": {host_name(channel, usage): None}} for usage in self.limited[channel]
        }
        variables = {
            **PLAY_VARIABLES,
            "local_facts_folder": str(self.folder / "facts.d"),
            "whoneeds": "{{ ansible_facts.ansible_local.whoneeds }}",
        }
        groups["with_local_facts"] = {"hosts": dict.fromkeys(raw), "vars": variables}
        self.write(f"{channel}.yml", {"all": {"children": groups}})
        self.sources.append(f"{channel}.yml")

    def build(self, channel: str) -> dict[str, Any]:
        """A document made by the library from rows in which every name is hostile."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("uses", "dependencies", "listeners", "gaps")}
        applications: dict[str, list[str]] = {}
        for host, (usage, braces) in {**self.hosts_of(channel), host_name(channel, ODD): (ODD, True)}.items():
            for text in self._texts(host, channel, usage, braces=braces):
                add_rows(rows, host, text, resp_host=host)
                applications.setdefault(host, []).append(text)
        return build_document(
            service_uses=rows["uses"],
            dependencies=rows["dependencies"],
            listeners=rows["listeners"],
            segments=[],
            gaps=rows["gaps"],
            ends=[],
            applications=applications,
        )

    def _texts(self, host: str, channel: str, usage: str, *, braces: bool) -> list[str]:
        if usage == ODD:
            return [text for text in odd_facts()["runs"] if text]
        kinds = (*TEMPLATES, *LONG_TEMPLATES) if braces else tuple(EXPRESSIONS)
        return [self.planting.plant(host, channel, usage, "rows", kind) for kind in kinds]


def by_script(facts_of: dict[str, Any]) -> dict[str, Any]:
    """What an inventory script prints."""
    variables = {host: {"whoneeds": facts} for host, facts in facts_of.items()}
    return {"all": {"hosts": sorted(facts_of)}, "_meta": {"hostvars": variables}}


def add_rows(rows: dict[str, list[dict[str, Any]]], host: str, text: str, *, resp_host: str) -> None:
    """One use of a service, one listener and one gap in which every name is the text."""
    port = 1000 + len(rows["uses"]) % 30000
    use = {
        "app": text, "host": host, "pid": 1, "address": "10.0.0.1", "user": text, "protocol": "tcp", "port": port,
        "resp_addr": text, "resp_host": resp_host, "resp_app": text, "flows": 1, "samples": 1, "duration_s": 1.0,
        "period_s": 5.0, "orig_bytes": None, "resp_bytes": None, "first_ns": 1, "last_ns": 2,
    }  # fmt: skip
    rows["uses"].append(use)
    rows["dependencies"].append({**use, "level": 1, "kind": "static", "usage_share": 1.0})
    rows.setdefault("listeners", []).append(
        {"host": host, "socket_id": f"{host}/{port}", "protocol": "tcp", "local_addr": "0.0.0.0", "local_port": port,
         "state": "listen", "app": text}
    )  # fmt: skip
    rows.setdefault("gaps", []).append({"host": host, "source": text, "reason": "failed", "detail": text})


def _shown(value: Any) -> Any:
    """What the overlay can hold of a value: lone surrogates as visible characters."""
    if isinstance(value, str):
        return "".join(f"\\u{ord(letter):04x}" if "\ud800" <= letter <= "\udfff" else letter for letter in value)
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def environment(scene: Scene, python: Path) -> dict[str, str]:
    """The environment that Ansible runs in: nothing of the caller's but its PATH."""
    return {
        "PATH": f"{python.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(scene.folder),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANSIBLE_CONFIG": str(scene.write("ansible.cfg", "[defaults]\ninject_facts_as_vars = False\n")),
        "ANSIBLE_COLLECTIONS_PATH": str(scene.folder / "collections"),
        "ANSIBLE_INVENTORY_PLUGINS": str(PLUGINS),
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(scene.folder / "cache"),
        "ANSIBLE_LOCAL_TEMP": str(scene.folder / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DISPLAY_OK_HOSTS": "0",  # the marks tell; megabytes of printed facts do not
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    }
