# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a core's own Python: load what was written, and say what differs and which strings could still be run.

Takes a request as JSON on standard input and prints the answer as JSON. Three requests: ``inventory`` loads sources
and compares one variable of some hosts; ``told`` loads sources, several sets of them one after the other, and tells
what Ansible said; ``fuzz`` writes random objects in form B, loads each with Ansible's own loader and compares.
"""

import contextlib
import inspect
import io
import json
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.vars.manager import VariableManager

try:
    from ansible.template import is_trusted_as_template as is_runnable
except ImportError:  # ansible-core 2.18 and older: whatever is not wrapped can be run
    from ansible.utils.unsafe_proxy import AnsibleUnsafe

    def is_runnable(value: object) -> bool:
        """Whether the text would be templated."""
        return not isinstance(value, AnsibleUnsafe)


#: What may stay runnable, since it holds no template and calls nothing: plain words (our plugin leaves them, so that
#: exports stay readable), and what YAML takes for a number, a date, a bool or null, also with a line end behind it
#: (form B must leave them).
HARMLESS = re.compile(r"[A-Za-z0-9_.:/@+=,<~ \t-]*\n?")


def plain(value: Any) -> Any:
    """The value without any of Ansible's own types."""
    if isinstance(value, dict):
        return {str.__str__(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return "".join(value)
    return value


def runnable(value: Any) -> list[str]:
    """All strings within the value, keys included, that a play could run and that are not harmless."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in runnable(part)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in runnable(item)]
    if isinstance(value, str) and is_runnable(value) and HARMLESS.fullmatch(value) is None:
        return [ascii(value)]
    return []


def same(left: Any, right: Any) -> bool:
    """Whether two plain values are equal in type as well."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def load_inventory(request: dict[str, Any]) -> dict[str, Any]:
    """Compare the variable of each expected host, and look at every host for strings that could be run."""
    inventory, variables = _load_sources(request["sources"])
    differ, could_run, strings, looked_at, composed = [], [], 0, 0, 0
    for host in inventory.get_hosts():
        if not host.name.startswith(tuple(request["channels"])):
            continue
        values = variables.get_vars(host=host, include_hostvars=False)
        found = values.get("whoneeds")
        looked_at += 1
        composed += plain(values.get("composed_joined", "")).startswith("x ")
        strings += json.dumps(plain(found)).count('"') // 2
        could_run += [f"{host.name}: {text}" for text in runnable(found)]
        expected = request["expected"].get(host.name)
        if expected is not None and not same(plain(found), expected):
            differ.append(host.name)
    return {"hosts": looked_at, "composed": composed, "strings": strings, "differ": differ, "runnable": could_run}


def tell(request: dict[str, Any]) -> dict[str, Any]:
    """For each set of sources: whether it could be loaded, which hosts there are, and all that Ansible printed."""
    answers = {}
    for name, sources in request["sets"].items():
        printed, failed, hosts = io.StringIO(), False, []
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            try:
                hosts = sorted(host.name for host in _load_sources(sources)[0].get_hosts())
            except AnsibleError as error:
                failed = True
                print(error, file=printed)
        answers[name] = {"failed": failed, "told": " ".join(printed.getvalue().split()), "hosts": hosts}
    return answers


def _load_sources(sources: list[str]) -> Any:
    loader = DataLoader()
    loader.set_basedir(str(Path.cwd()))
    inventory = InventoryManager(loader=loader, sources=sources)
    return inventory, VariableManager(loader=loader, inventory=inventory)


PIECES = (
    "{{ lookup('pipe', 'id') }}", "{{", "}}", "{%", "%}", "{#", "#}", "'", '"', "\\", "\\x41", "!unsafe", "&a", "*a",
    ": ", " #", "- ", "? ", "|", ">", "%", "@", "`", "\n", "\r", "\t", "\x00", "\x07", "\x1b", "\x7f", "\x80", "\x85",
    "\xa0", "\u2028", "\u2029", "\ufeff", "\u202e", "\ud800", "\udcff", "\U0001f600", "\U0010ffff", "\ufffe",
    "e\u0301", "a", "Z", "0", "1", ".", "-", "+", "_", "=", "<<", "~", "yes", "no", "on", "null", "true", "0x1f",
    "0o7", "1e3", "1:30", ".inf", "2001-01-01", "2001-12-14t21:59:43.10-05:00", "[", "]", "{", "}", ",", "...", "---",
    "$ANSIBLE_VAULT;1.1;AES256", " ",
)  # fmt: skip


def random_text(source: random.Random) -> str:
    """A text of hostile and odd pieces; one alone quite often, so that typed words are met whole."""
    if source.random() < 0.3:
        return source.choice(PIECES)
    if source.random() < 0.02:
        return source.choice(PIECES) * source.randrange(200, 1500)
    return "".join(source.choice(PIECES) for _ in range(source.randrange(6)))


def random_value(source: random.Random, depth: int = 0) -> Any:
    """A nested value."""
    shape = source.random()
    if depth < 4 and shape < 0.25:
        return [random_value(source, depth + 1) for _ in range(source.randrange(5))]
    if depth < 4 and shape < 0.5:
        return {random_text(source): random_value(source, depth + 1) for _ in range(source.randrange(5))}
    if shape < 0.8:
        return random_text(source)
    return source.choice(
        (None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.0, -0.5, 1e-7, 1.5e300, 1e22, 123456789.125, source.random())
    )


def fuzz(request: dict[str, Any]) -> dict[str, Any]:
    """Write and load random objects."""
    from whoneeds.facts.form_b import show_surrogates, write_value

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {show_surrogates(key): shown(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shown(item) for item in value]
        return show_surrogates(value) if isinstance(value, str) else value

    source = random.Random(request["seed"])
    loader = DataLoader()
    differ, could_run = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h.yml"
        for number in range(request["count"]):
            value = {"whoneeds": random_value(source)}
            path.write_text("---\n" + "whoneeds: " + write_value(value["whoneeds"]) + "\n", encoding="ascii")
            try:
                loaded = _load(loader, path)
            except Exception as error:  # the campaign counts whatever goes wrong
                differ.append(f"{number}: {ascii(str(error))[:200]}")
                continue
            if not same(plain(loaded), shown(value)):
                differ.append(f"{number}: {ascii(value)[:200]}")
            could_run += [f"{number}: {text[:200]}" for text in runnable(loaded)]
    return {"count": request["count"], "seed": request["seed"], "differ": differ, "runnable": could_run}


def _load(loader: DataLoader, path: Path) -> Any:
    """As the plugin that reads host_vars loads a file, and anew each time."""
    known = inspect.signature(loader.load_from_file).parameters
    options = {"trusted_as_template": True} if "trusted_as_template" in known else {}
    cache = "none" if isinstance(known["cache"].default, str) else False
    return loader.load_from_file(str(path), cache=cache, unsafe=True, **options)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    init_plugin_loader()
    answer = {"inventory": load_inventory, "told": tell, "fuzz": fuzz}[asked["request"]](asked)
    print("\n" + json.dumps(answer))
