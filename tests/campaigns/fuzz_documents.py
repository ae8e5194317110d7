# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged documents: facts as the inventory plugin reads them, and the tracer's state and settings files."""

import importlib.util
import json
import random
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.campaigns.mutation import damage_bytes, damage_document
from tests.campaigns.result import Result
from whoneeds.model.errors import SettingsError, WhoneedsError
from whoneeds.tracer.settings import make_settings, read_config
from whoneeds.tracer.status import STATUS_FILE, render, report

_PLUGIN = Path(__file__).parents[2] / "plugins/plugin_utils/_facts_document.py"
_SURROGATE = re.compile("[\ud800-\udfff]")
_SAMPLES = {"text": "nginx", "int": 5, "float": 0.5, "bool": True, "texts": ["a", "b"]}


def load_plugin() -> ModuleType:
    """The reader of the collection, without Ansible."""
    spec = importlib.util.spec_from_file_location("whoneeds_facts_document", _PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_facts(plugin: ModuleType) -> dict[str, Any]:
    """A document that holds every field."""

    def record(fields: dict[str, str], absent: bool) -> dict[str, Any]:
        return {
            name: None if absent and kind.endswith("?") else _SAMPLES[kind.rstrip("?")] for name, kind in fields.items()
        }

    facts: dict[str, Any] = {
        "addresses": ["192.0.2.1"],
        "runs": ["nginx"],
        "groups": ["whoneeds_needs_db1", "whoneeds_provides_tcp_80"],
        "coverage": record(plugin.COVERAGE, absent=False),
    }
    for section, fields in plugin.RECORDS.items():
        facts[section] = [record(fields, absent=False), record(fields, absent=True)]
    return {"kind": plugin.KIND, "schema": plugin.SCHEMA, "hosts": {"web1": facts, "db1": facts}}


def _faults(hosts: Any, plugin: ModuleType) -> str | None:
    """What is wrong with facts that were taken; None if they are as the plugin promises."""
    for facts in hosts.values():
        if set(facts) != {*plugin.TEXTS, *plugin.RECORDS, "coverage"}:
            return f"sections {sorted(facts)}"
        entries = [(facts["coverage"], plugin.COVERAGE)]
        entries += [(entry, fields) for section, fields in plugin.RECORDS.items() for entry in facts[section]]
        for entry, fields in entries:
            if set(entry) != set(fields):
                return f"fields {sorted(entry)}"
            for name, kind in fields.items():
                if not _is(entry[name], kind):
                    return f"{name} is {ascii(entry[name])[:60]}"
        if not all(_is(facts[section], "texts") for section in plugin.TEXTS):
            return "a section of texts with something else in it"
    return None


def _is(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("?")
    kind = kind.rstrip("?")
    if kind == "texts":
        return isinstance(value, list) and all(_is(item, "text") for item in value)
    wanted = {"text": str, "int": int, "float": (int, float), "bool": bool}[kind]
    return (
        isinstance(value, wanted)
        and isinstance(value, bool) == (kind == "bool")
        and (kind != "text" or not _SURROGATE.search(value))
    )


def fuzz_facts(result: Result, count: int, rng: random.Random) -> None:
    """Damage facts documents: refused by name, or facts of the promised types."""
    plugin = load_plugin()
    document = make_facts(plugin)
    text = json.dumps(document).encode()
    with tempfile.TemporaryDirectory(prefix="whoneeds-facts-") as made:
        path = Path(made) / "facts.json"
        for number in range(count):
            if number % 3 == 0:
                content = damage_bytes(text, [text], rng)
            else:
                content = json.dumps(damage_document(document, rng)).encode()
            path.write_bytes(content)
            result.add("damaged_facts")
            try:
                hosts = plugin.read_document(str(path))
                fault = _faults(hosts, plugin)
            except plugin.DamagedDocument:
                continue
            except Exception as error:
                fault = f"{type(error).__name__}: {ascii(str(error))[:200]}"
            result.add("damaged_facts_taken")
            if fault:
                result.violate(f"facts {content[:2000]!r}: {fault}")


def fuzz_states(result: Result, count: int, rng: random.Random) -> None:
    """Damage the tracer's state and settings: `status` answers, settings are refused by name or hold."""
    state = {
        "schema": 1, "state": "running", "pid": 1, "start_ticks": 5, "version": "0.1.0", "host": "h1",
        "since_ns": 10**18, "committed_ns": 10**18, "period_s": 5.0, "sources": ["table"], "location": None,
        "privileged": True, "samples": 3,
        "sockets": 5, "processes": 1, "waiting": 0, "gaps": 0, "cpu_s": 0.1, "cpu_share": 0.01, "last_error": None,
    }  # fmt: skip
    settings = {
        "schema": 1, "host": "h1", "dir": "/tmp/x", "period_s": 1.0, "rotate_s": 60.0, "rotate_bytes": 4096,
        "budget_bytes": 1 << 20, "location_rules": [{"location": "inside", "networks": ["10.0.0.0/8"]}],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="whoneeds-states-") as made:
        place = Path(made)
        place.chmod(0o700)
        for number in range(count):
            base, name = ((state, STATUS_FILE), (settings, "tracer.json"))[number % 2]
            text = json.dumps(base).encode()
            damaged = (
                damage_bytes(text, [text], rng) if number % 3 == 0 else json.dumps(damage_document(base, rng)).encode()
            )
            (place / name).write_bytes(damaged)
            result.add("damaged_states_and_settings")
            try:
                if name == STATUS_FILE:
                    render(report(str(place)))
                else:
                    make_settings(read_config(str(place / name)), {})
            except SettingsError:
                continue
            except WhoneedsError as error:
                result.violate(f"{name} {damaged!r}: {error}")
            except Exception as error:
                result.violate(f"{name} {damaged!r}: {type(error).__name__}: {error}")
