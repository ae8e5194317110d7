# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile texts, and a facts document that carries one in every place where a host's words can stand.

Each payload that could run has a mark of its own: the shell would create a file of that name. Commands are short
(``>m/2f``), so that they fit where names are limited to 64 characters; paths are relative to the folder in which
Ansible is run, which is also the playbook's.
"""

from dataclasses import dataclass, field
from typing import Any

#: Folder of the marks, relative to where Ansible runs.
MARKS = "m"

#: Templates by name; the command takes the place of @.
TEMPLATES: dict[str, str] = {
    "braces": "{{lookup('pipe','@')}}",
    "statement": "{% set x=lookup('pipe','@') %}",
    "if": "{%if lookup('pipe','@')%}a{%endif%}",
    "comment": "{#x#}{{lookup('pipe','@')}}",
    "close_braces": "x}}{{lookup('pipe','@')}}",
    "unsafe_tag": "!unsafe {{lookup('pipe','@')}}",
    "new_line": "a\n{{lookup('pipe','@')}}\n",
    "bidi": "\u202e{{lookup('pipe','@')}}\u2066",
    "control": "\x1b[2J\x85{{lookup('pipe','@')}}\x9b",
    "yaml_like": "- {{lookup('pipe','@')}}: &a *b # c",
    "surrogate": "\udcff{{lookup('pipe','@')}}",
}

#: Templates that need more room than a name has. (All are valid templates: on a careless way, one that is not would
#: stop Ansible before it meets the others. Broken ones are among `ODD_TEXTS`.)
LONG_TEMPLATES: dict[str, str] = {
    "override": "#jinja2: variable_start_string:'[[', variable_end_string:']]'\n[[lookup('pipe','@')]]",
    "deep": "x" * 150 + "{{lookup('pipe','@')}}",
}

#: Expressions without braces: where a play says ``assert: that: "{{ name }}"``, they are evaluated. They have hosts of
#: their own: once any template in a variable ran, older versions distrust all of it.
EXPRESSIONS: dict[str, str] = {
    "bare": "lookup('pipe','@')",
    "bare_query": "q('pipe','@')|first",
    "single_quote": "' ~ lookup('pipe','@') ~ '",
    "double_quote": '" ~ lookup("pipe","@") ~ "',
}

#: Texts that run nothing and that writers, parsers and typed languages get wrong.
ODD_TEXTS = (
    "", " ", "=", "<<", "~", "null", "Null", "yes", "No", "on", "true", "False", "0", "-1", "0x1f", "0o17", "017",
    "1_000", "1e3", "1.5", ".inf", "-.INF", ".nan", "12:30:45", "2001-01-01", "2001-12-14t21:59:43.10-05:00",
    "!unsafe x", "!!python/object/apply:os.system [id]", "!vault |", "$ANSIBLE_VAULT;1.1;AES256", "&a", "*a", "- x",
    "? x", "a: b", "%YAML 1.1", "---", "...", "# c", "a #b", "'", '"', "\\", "\\x41", "{", "}", "[", "]", ",", "|",
    ">", "@", "`", "{{", "}}", "{%", "{#", "#jinja2:", "${x}", "$(id)", "`id`", "; id", "__ansible_unsafe", "\t",
    "\n", "\r\n", "\x00", "\x7f", "\x80", "\x85", "\x9f", "\xa0", "\xad", "\u2028", "\u2029", "\ufeff", "\ufffe",
    "\U0001f600", "\U000e0041", "e\u0301", "\udcff", "\ud83d", "x" * 70, "lookup", "inventory_hostname", "omit",
    "None",
)  # fmt: skip


@dataclass
class Planting:
    """Hands out payloads and remembers which mark belongs to which case."""

    run: str
    cases: dict[str, dict[str, str]] = field(default_factory=dict)

    def plant(self, host: str, channel: str, usage: str, position: str, kind: str) -> str:
        """The payload of that kind, with a mark of its own."""
        mark = _short(len(self.cases))
        self.cases[mark] = {"host": host, "channel": channel, "usage": usage, "position": position, "kind": kind}
        return {**TEMPLATES, **LONG_TEMPLATES, **EXPRESSIONS}[kind].replace("@", f">{MARKS}/{mark}")


def host_facts(planting: Planting, host: str, channel: str, usage: str, *, braces: bool) -> dict[str, Any]:
    """One host's facts with payloads in all places: every kind where an application's name stands, one elsewhere.

    They are in the form of the facts document and bypass everything that makes text inert.
    """

    def some(position: str, *kinds: str) -> list[str]:
        return [planting.plant(host, channel, usage, position, kind) for kind in kinds or (one,)]

    one = "braces" if braces else "bare"
    needs = [need(app=text) for text in some("needs.app", *(TEMPLATES if braces else EXPRESSIONS))]
    needs += [need(provider=text) for text in some("needs.provider")]
    needs += [need(address=text) for text in some("needs.address")]
    needs += [need(host=text, kind="transient") for text in some("needs.host")]
    dependents = [
        {**DEPENDENT, field: text} for field in ("app", "host", "provider") for text in some(f"needed_by.{field}")
    ]
    provides = [{**PROVISION, "app": text} for text in some("provides.app")]
    provides += [{**PROVISION, field: some(f"provides.{field}")} for field in ("needed_by_apps", "needed_by_hosts")]
    return {
        "addresses": some("addresses"),
        "needs": needs,
        "needed_by": dependents,
        "provides": provides,
        "runs": some("runs"),
        "groups": ["whoneeds_runs_x"],
        "coverage": {**COVERAGE, "gaps": some("coverage.gaps", one, *(LONG_TEMPLATES if braces else ()))},
    }


NEED = {
    "app": "app", "kind": "static", "protocol": "tcp", "port": 5432, "address": "10.0.0.1", "host": None,
    "provider": None, "usage_share": 0.5, "support": 1, "flows": 1, "orig_bytes": None, "resp_bytes": 0,
    "first_ns": 1, "last_ns": 2, "probability": None, "grounds": None, "name": None, "any_of": None,
}  # fmt: skip
DEPENDENT = {
    "host": "other", "app": "app", "kind": "static", "protocol": "tcp", "port": 80, "provider": None, "support": 1,
    "flows": 1, "first_ns": 1, "last_ns": 2, "probability": None,
}  # fmt: skip
PROVISION = {
    "app": None, "protocol": "tcp", "port": 80, "loopback_only": False, "needed_by_hosts": [], "needed_by_apps": [],
}  # fmt: skip
COVERAGE = {
    "segments": 1, "samples": 12, "period_s": 5.0, "privileged": False, "first_ns": 1, "last_ns": 2, "ends": 4,
    "by_socket": 1, "by_listener": 1, "ambiguous": 1, "unknown": 1, "unpaired": 0, "gaps": [],
}  # fmt: skip


def need(**changed: Any) -> dict[str, Any]:
    """One need with some fields changed."""
    return {**NEED, **changed}


def document(hosts: dict[str, Any]) -> dict[str, Any]:
    """A facts document around those hosts."""
    return {"schema": 1, "kind": "whoneeds-facts", "method": "macroscope", "hosts": hosts}


def odd_facts() -> dict[str, Any]:
    """A host whose applications, gaps and needs bear all the odd names."""
    return {
        "addresses": [],
        "needs": [need(app=text, provider=text) for text in ODD_TEXTS],
        "needed_by": [],
        "provides": [],
        "runs": list(ODD_TEXTS),
        "groups": [],
        "coverage": {**COVERAGE, "gaps": [*ODD_TEXTS, "x" * 3000]},
    }


def _short(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while True:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
        if number == 0:
            return text
