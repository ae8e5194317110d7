# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold of one core's results. Each check returns what is wrong, in words; nothing wrong is an empty list."""

from typing import Any

from tests.matrix.payloads import EXPRESSIONS
from tests.matrix.scenes import EXPRESSION_USAGES

#: On these a text without braces is evaluated as an expression by every core.
_BARE_USAGES = ("when_braces", "assert_braces", "debug_name")


def _run_cases(results: dict[str, Any], run: str) -> set[tuple[str, str, str]]:
    return {(case["channel"], case["usage"], case["kind"]) for case in results["runs"][run]["executions"]}


def control_executes(results: dict[str, Any]) -> list[str]:
    """The careless ways run payloads in every usage, so a payload that ran on one of our ways would be seen."""
    ran = _run_cases(results, "control")
    usages = [usage for usage in results["usages"] if usage != "composed"]  # that is the plugins' own
    by_hand = {usage for channel, usage, _ in ran if channel == "plain_host_vars"}
    wrong = [f"plain host_vars ran nothing as {usage}" for usage in usages if usage not in by_hand]
    wrong += [f"{channel} ran nothing" for channel in ("plain_script", "trusted_plugin") if not any(
        found == channel for found, _, _ in ran)]  # fmt: skip
    if not any(channel == "trusted_plugin" and usage == "composed" for channel, usage, _ in ran):
        wrong.append("nothing ran that a careless plugin composed")
    bare = {usage for channel, usage, kind in ran if channel == "plain_host_vars" and kind in EXPRESSIONS}
    wrong += [f"no bare expression ran as {usage}" for usage in _BARE_USAGES if usage in usages and usage not in bare]
    assert bare <= set(EXPRESSION_USAGES)
    return wrong


def ours_is_inert(results: dict[str, Any]) -> list[str]:
    """None of our ways runs a payload: alone, with others in either order, through `constructed`, exported as JSON."""
    wrong = []
    for run in ("alone", "cached", "later", "first", "constructed", "export_json"):
        wrong += [f"{run}: {case} ran" for case in sorted(_run_cases(results, run))]
    return wrong


def yaml_export_is_known(results: dict[str, Any]) -> list[str]:
    """After a YAML export, which drops Ansible's own marks, what we made inert holds no template that runs."""
    ran = _run_cases(results, "export_yaml")
    return [
        f"export_yaml: {case} ran" for case in sorted(ran) if case[0].endswith("_clean") and case[2] not in EXPRESSIONS
    ]


def everything_was_played(results: dict[str, Any]) -> list[str]:
    """Every host of every run took part in its play."""
    return [
        f"{name}: {run['hosts_played']} of {run['hosts_expected']} hosts were played"
        for name, run in results["runs"].items()
        if run["hosts_played"] != run["hosts_expected"] or not run["planted"]
    ]


def values_are_equal(results: dict[str, Any]) -> list[str]:
    """What is loaded equals what was written, and no string of it could be run, in each order of sources."""
    wrong = []
    for name, loaded in results["loaded"].items():
        wrong += [f"{name}: {host} was loaded with other values" for host in loaded["differ"]]
        wrong += [f"{name}: could be run: {text}" for text in loaded["runnable"][:10]]
        if loaded["strings"] < 1000:
            wrong.append(f"{name}: only {loaded['strings']} strings were looked at")
        if name in ("alone", "constructed") and loaded["composed"] != loaded["hosts"]:
            wrong.append(f"{name}: composed for {loaded['composed']} of {loaded['hosts']} hosts")
    return wrong


def form_b_holds(results: dict[str, Any]) -> list[str]:
    """Random objects in form B are loaded equal and inert."""
    found = results["fuzz"]
    return [
        *(f"fuzz: differs: {text}" for text in found["differ"][:10]),
        *(f"fuzz: {t}" for t in found["runnable"][:10]),
    ]


def stores_are_judged(results: dict[str, Any]) -> list[str]:
    """A missing document is a warning; a damaged one is an error: what was expected, what was found, what to do."""
    wrong = []
    for name, fails, words in (
        ("good", False, ()),
        ("missing", False, ("no facts document", "discover")),
        ("no_hosts", False, ()),
        ("hostile_hosts", False, ("none of the 4 hosts",)),
        ("empty", True, ("expected JSON", "publish the facts anew")),
        ("not_text", True, ("expected JSON", "publish the facts anew")),
        ("folder", True, ("expected a plain file", "found a folder", "option store")),
        ("within_inventory", True, ("expected a place outside", "Move it")),
        ("unknown_hosts", False, ("none of the 1 hosts", "after those that name the hosts")),
        ("other_schema", True, ("schema", "expected 1", "found 2", "publish")),
        ("wrong_type", True, ("runs", "expected texts", "publish the facts anew")),
        ("foreign_group", True, ("groups", "whoneeds_", "found")),
        ("cut", True, ("expected JSON", "publish the facts anew")),
        ("foreign", True, ("kind", "expected whoneeds-facts", "found None")),
        ("oversized", True, ("expected at most", "fewer hosts")),
    ):
        said = results["stores"]["told"][name]
        if said["failed"] != fails:
            wrong.append(f"{name}: failed is {said['failed']}: {said['told'][:300]}")
        wrong += [f"{name}: does not say {word!r}: {said['told'][:600]}" for word in words if word not in said["told"]]
        if "{{" in said["told"] or (name in ("good", "no_hosts") and "WARNING" in said["told"]):
            wrong.append(f"{name}: {said['told'][:300]}")
        if said["hosts"] not in (["web1"], []):
            wrong.append(f"{name}: made hosts: {said['hosts']}")
    wrong += [f"stores: {mark} ran" for mark in results["stores"]["executed"]]
    return wrong


def groups_are_apart(results: dict[str, Any]) -> list[str]:
    """Plugin and overlay give the same groups, one for each host even where safe names collide; plays find them."""
    expected = {
        "app_nginx": ["db-1", "db1", "db_1", "web1", "web2", "web3"],
        "needs_something": ["web1", "web2", "web3"],
        "whoneeds_needs_db1": ["web3"],
        "whoneeds_needs_db_1": ["web2"],
        "whoneeds_needs_db_1_68150cfc": ["web1"],
        "whoneeds_provides_tcp_1000": ["db-1"],
        "whoneeds_provides_tcp_1001": ["db_1"],
        "whoneeds_provides_tcp_1002": ["db1"],
        "whoneeds_runs_nginx": ["db-1", "db1", "db_1", "web1", "web2", "web3"],
    }
    wrong = []
    for way, found in results["groups"].items():
        if not found["repeats"]:
            wrong.append(f"{way}: two lists of the same inventory differ")
        if found["members"] != expected or found["graph"] != sorted(expected):
            wrong.append(f"{way}: groups: expected {expected}, found {found['members']}; {found['told'][:300]}")
        if found["played"] != ["web3 app 1002 blue"]:
            wrong.append(
                f"{way}: hosts whoneeds_needs_db1: expected web3, found {found['played']}; {found['told'][:300]}"
            )
    return wrong


CHECKS = (
    everything_was_played, control_executes, ours_is_inert, yaml_export_is_known, values_are_equal, form_b_holds,
    stores_are_judged, groups_are_apart,
)  # fmt: skip


def judge(results: dict[str, Any]) -> list[str]:
    """Everything that is wrong on one core."""
    return [problem for check in CHECKS for problem in check(results)]
