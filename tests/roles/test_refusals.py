# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong settings and unsafe surroundings: refused before the first change, in words that help, and others go on."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from .played import Played, Player

#: Settings of a host, and what its refusal must say: what was expected, what was found, what to do.
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "period0": ({"tracer_period_s": 0}, ("Expected tracer_period_s from 0.1", "found 0", "Correct the setting")),
    "periodword": ({"tracer_period_s": "often"}, ("tracer_period_s", "convert to float")),
    "rotate": ({"tracer_rotate_s": 0}, ("tracer_rotate_s from 1", "(found 0)", "Correct the settings")),
    "budget": ({"tracer_budget_bytes": 1000}, ("tracer_budget_bytes from 65536", "1000", "Correct the settings")),
    "smallbudget": (
        {"tracer_budget_bytes": 70000, "tracer_rotate_bytes": 80000},
        ("not smaller than tracer_rotate_bytes", "80000", "70000"),
    ),
    "relative": ({"tracer_dir": "var/whoneeds"}, ("var/whoneeds", "Expected an absolute path")),
    "notours": ({"tracer_dir": "/var/lib"}, ("/var/lib", "component that begins with 'whoneeds'")),
    "upwards": ({"tracer_dir": "/var/lib/whoneeds/../x"}, ("/var/lib/whoneeds/../x", "without '.' and '..'")),
    "same": (
        {"tracer_dir": "~/whoneeds-one", "tracer_campaign_dir": "~/whoneeds-one/more"},
        ("two directories", "/whoneeds-one/more", "Name another directory"),
    ),
    "unbuilt": ({"tracer_zipapp": "/nowhere/whoneeds.pyz"}, ("/nowhere/whoneeds.pyz", "no such file", "make zipapp")),
    "nopython": ({"tracer_python": "/nowhere/python3"}, ("Expected Python 3.9", "/nowhere/python3", "tracer_python")),
    "campaign0": (
        {"tracer_state": "campaign", "tracer_campaign_s": 0},
        ("Expected tracer_campaign_s from 1", "found 0", "Correct the setting"),
    ),
    "nosystemd": (
        {"tracer_supervisor": "systemd"},
        ("tracer_supervisor=systemd expects", "Use tracer_supervisor=auto"),
    ),
    "noservice": (
        {"tracer_privilege": "none"},
        ("tracer_privilege=none expects a service of systemd", "tracer_scope=user", "Use tracer_privilege=auto"),
    ),
    "privilegeword": ({"tracer_privilege": "some"}, ("tracer_privilege", "auto, none, root")),
    "rules": ({"tracer_location_rules": [{"location": "elsewhere", "networks": []}]}, ("elsewhere", "inside, vpn")),
    "../up": ({}, ('Host name "../up" cannot be used', "Expected letters", "Rename the host")),
}


def own(folder: Path, **variables: Any) -> dict[str, Any]:
    """A host that is this machine, traced without privilege into a folder of its own."""
    return {
        "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "tracer_scope": "user",
        "tracer_dir": str(folder / "whoneeds-service"), "tracer_campaign_dir": str(folder / "whoneeds-campaign"),
        **variables,
    }  # fmt: skip


@pytest.fixture(scope="module")
def refused(player: Player) -> Played:
    """The tracer's role on one host for each wrong setting, and on one good host, in one play."""
    places = player.folder / "places"
    places.mkdir()
    hosts = {name: own(places / str(at), **settings) for at, (name, (settings, _words)) in enumerate(WRONG.items())}
    hosts["good"] = own(places / "good", tracer_period_s=0.2)
    inventory = player.inventory(hosts)
    run = player.role("tracer", inventory)
    player.role("tracer", player.inventory({"good": hosts["good"]}, name="good"), tracer_state="absent").require()
    return run


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_setting_is_refused_in_words_that_help(refused: Played, name: str) -> None:
    """The host with the wrong setting is told what was expected, what was found and what to do."""
    said = refused.failures()[name]
    for words in WRONG[name][1]:
        assert words in said


def test_nothing_was_changed_where_a_setting_was_refused(refused: Played, player: Player) -> None:
    """No host with a wrong setting had a task that changed something, and no folder was made for one."""
    assert [name for name in WRONG if refused.changed(name)] == []
    assert [path.name for path in (player.folder / "places").iterdir()] in ([], ["good"])


def test_the_good_host_goes_on(refused: Played) -> None:
    """The host beside all the refused ones got its tracer."""
    assert "good" not in refused.failures()
    assert refused.changed("good")[-1] == "Start the supervised process, anew where something changed"


@pytest.mark.parametrize("role", ["tracer", "collector", "facts"])
def test_fact_injection_is_refused(player: Player, role: str) -> None:
    """Each role refuses to work where facts of a host would become variables, and says which setting to change."""
    inventory = player.inventory({"any": own(player.folder / "any")}, name="any")
    player.env = {"ANSIBLE_INJECT_FACT_VARS": "True"}
    try:
        run = player.role(role, inventory, collector_incoming=str(player.folder / "incoming"))
    finally:
        player.env = {}
    assert "Expected inject_facts_as_vars off, found it on" in run.failures()["any"]
    assert "ANSIBLE_INJECT_FACT_VARS=False" in run.failures()["any"]
    assert run.changed() == []


@pytest.mark.parametrize("playbook", ["discover", "trace", "collect", "analyze", "publish", "untrace"])
def test_an_unknown_host_is_an_error(player: Player, playbook: str) -> None:
    """Asking for a host that the inventory does not know fails and names it, instead of doing nothing."""
    inventory = player.inventory({"any": own(player.folder / "any")}, name="any")
    settings = {"whoneeds_hosts": "any,nosuch", "whoneeds_become": False, "whoneeds_dir": str(player.folder / "none")}
    run = player.play(f"whoneeds.discovery.{playbook}", inventory, **settings)
    assert run.code != 0
    said = " ".join(run.failures().values())
    assert 'Expected "nosuch" of whoneeds_hosts to be a host or group of the inventory' in said
    assert "ansible-inventory --graph" in said
    assert run.changed() == []


def test_a_foreign_file_stops_installation_and_removal(player: Player) -> None:
    """A directory that holds something of somebody else is neither used nor removed."""
    folder = player.folder / "shared" / "whoneeds-service"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "thesis.txt").write_text("the only copy")
    inventory = player.inventory({"any": own(folder.parent)}, name="any")
    for state in ("present", "absent"):
        run = player.role("tracer", inventory, tracer_state=state)
        assert "thesis.txt" in run.failures()["any"]
        assert "this one is left as it is" in run.failures()["any"]
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_an_unreadable_configuration_on_the_host_is_replaced(player: Player) -> None:
    """A damaged configuration file on the host is replaced, and the tracer is restarted with the new one."""
    places = player.folder / "damaged"
    inventory = player.inventory({"any": own(places, tracer_period_s=0.2)}, name="any")
    player.role("tracer", inventory).require()
    config = places / "whoneeds-service" / "tracer.json"
    before = config.read_bytes()
    config.write_bytes(b"\x00{not json")
    run = player.role("tracer", inventory).require()
    assert run.changed() == ["Write the configuration", "Start the supervised process, anew where something changed"]
    assert config.read_bytes() == before
    player.role("tracer", inventory, tracer_state="absent").require()
    assert list(places.iterdir()) == []


@pytest.mark.root
def test_the_scope_of_the_system_needs_root(player: Player) -> None:
    """A task that is not root is told so where all processes shall be traced."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    if not Path("/usr/bin/python3").is_file():
        pytest.skip("there is no Python that another user may run")
    variables = own(
        player.folder / "any", tracer_scope="system", ansible_become=True, ansible_become_user="nobody",
        ansible_become_method="ansible.builtin.su", ansible_become_flags="-s /bin/sh",
        ansible_python_interpreter="/usr/bin/python3", tracer_dir="/var/lib/whoneeds-nobody",
        tracer_campaign_dir="/var/lib/whoneeds-nobodys-campaign",
    )  # fmt: skip
    said = player.role("tracer", player.inventory({"any": variables}, name="any")).failures()["any"]
    for words in ("user number 0 for tracer_scope=system", "found 65534", "Use become"):
        assert words in said
