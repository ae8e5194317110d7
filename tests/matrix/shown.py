# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator is shown: errors about the facts document, groups, plays on them, and what `constructed` builds."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.matrix.cores import Installed
from tests.matrix.payloads import MARKS, document, host_facts
from tests.matrix.run import ansible, inventory_options, probe
from tests.matrix.scenes import Scene, add_rows
from whoneeds.facts import files, overlay
from whoneeds.facts.document import build_document

#: What the play of `groups` prints before a host's name.
PLAYED = "played on"


def stores(core: Installed, folder: Path) -> dict[str, Any]:
    """What Ansible says when the facts document is missing, odd, or cannot be used."""
    scene = Scene.make(folder, "stores")
    scene.write("known/hosts.yml", {"all": {"hosts": {"web1": None}}})
    web1 = host_facts(scene.planting, "web1", "stores", "none", braces=True)
    good = document({"web1": web1})
    documents: dict[str, Any] = {
        "good": good,
        "no_hosts": document({}),
        "unknown_hosts": document({"other": web1}),
        "hostile_hosts": document({"{{lookup('pipe','>m/host')}}": web1, "../../web1": web1, "": web1, "all": web1}),
        "other_schema": {**good, "schema": 2},
        "wrong_type": document({"web1": {**web1, "runs": [{"__ansible_unsafe": "x"}]}}),
        "foreign_group": document({"web1": {**web1, "groups": ["all"]}}),
        "cut": json.dumps(good)[:-20],
        "foreign": {"all": {"hosts": {"web1": {}}}},
        "oversized": "{",
        "not_text": "",
        "empty": "",
        "folder": None,
        "missing": None,
    }
    prepare: dict[str, Callable[[Path], Any]] = {
        "oversized": lambda path: os.truncate(path, 256 * 1024 * 1024 + 1),
        "not_text": lambda path: path.write_bytes(b'{"kind": "\xff\xfe"}'),
        "folder": lambda path: path.mkdir(),
    }
    sets = {}
    for name, content in documents.items():
        path = folder / ".stores" / f"{name}.json"
        if content is not None:
            scene.write(f".stores/{name}.json", content)
        prepare.get(name, lambda _: None)(path)
        sets[name] = ("known", _source(scene, name, f".stores/{name}.json"))
    scene.write("stores/within.json", good)
    sets["within_inventory"] = ("known", _source(scene, "within", "stores/within.json"))
    told = probe(core, scene, {"request": "told", "sets": sets})
    return {"told": told, "executed": sorted(mark.name for mark in (folder / MARKS).iterdir())}


def groups(core: Installed, folder: Path) -> dict[str, Any]:
    """Groups by plugin and by overlay, of hosts whose names collide once they are group-safe, and plays on them."""
    scene = Scene.make(folder, "groups")
    hosts = ("db-1", "db1", "db_1", "web1", "web2", "web3")
    variables = {"ansible_connection": "local", "colour": "blue"}
    scene.write("known/hosts.yml", {"all": {"hosts": dict.fromkeys(hosts), "vars": variables}})
    rows: dict[str, list[dict[str, Any]]] = {"uses": [], "dependencies": []}
    for host, needed in (("web1", "db-1"), ("web2", "db_1"), ("web3", "db1")):
        add_rows(rows, host, "app", resp_host=needed)
    made = build_document(
        service_uses=rows["uses"], dependencies=rows["dependencies"], listeners=[], segments=[], gaps=[], ends=[],
        applications={host: ["nginx"] for host in hosts},
    )  # fmt: skip
    scene.write(".stores/facts.json", made)
    for change in overlay.plan(made, folder / "overlay"):
        files.apply_change(change)
    built = {
        "plugin": "ansible.builtin.constructed",
        "strict": True,
        "use_vars_plugins": True,  # without it, constructed does not see what is in host_vars
        "compose": {"ports_needed": "whoneeds.needs | map(attribute='port') | list"},
        "groups": {"needs_something": "whoneeds.needs | length > 0"},
        "keyed_groups": [{"key": "whoneeds.runs", "prefix": "app"}],
    }
    scene.write("built.constructed.yml", built)
    words = ("inventory_hostname", "whoneeds.needs[0].app", "ports_needed[0]", "colour")
    message = " ".join((PLAYED, *(f"{{{{ {word} }}}}" for word in words)))
    tasks = [{"ansible.builtin.debug": {"msg": message}}]
    scene.write("play.yml", [{"hosts": "whoneeds_needs_db1", "gather_facts": False, "tasks": tasks}])
    return {
        way: _groups_of(core, scene, ("known", source, "built.constructed.yml"))
        for way, source in (("plugin", _source(scene, "z", ".stores/facts.json")), ("overlay", "overlay"))
    }


def _groups_of(core: Installed, scene: Scene, sources: tuple[str, ...]) -> dict[str, Any]:
    options = inventory_options(sources)
    listed, again, graph = (
        ansible(core, scene, ["inventory", *options, way]) for way in ("--list", "--list", "--graph")
    )
    played = ansible(core, scene, ["playbook", *options, "play.yml"], ANSIBLE_DISPLAY_OK_HOSTS="1")
    prefixes = ("whoneeds_", "app_", "needs_something")
    found = json.loads(listed.stdout) if listed.returncode == 0 else {}
    return {
        "members": {name: sorted(group["hosts"]) for name, group in found.items() if name.startswith(prefixes)},
        "repeats": listed.stdout == again.stdout,
        "graph": sorted(group for group in re.findall(r"@(\w+):", graph.stdout) if group.startswith(prefixes)),
        "played": sorted(re.findall(rf"{PLAYED} ([^\"]+)", played.stdout)),
        "told": " ".join((listed.stderr + graph.stderr + played.stderr).split()),
    }


def _source(scene: Scene, name: str, store: str) -> str:
    """A configuration of our plugin with this store; its name."""
    return scene.write(f"{name}.dependencies.yml", {"plugin": "whoneeds.discovery.dependencies", "store": store}).name
