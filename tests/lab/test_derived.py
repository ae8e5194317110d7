# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from the declaration: inventory, truth file, and the files of each host."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .fleet import BALANCER, FLEET, PROXY
from .hostfiles import PACKAGED_UNITS, TEMPLATES, active_units, host_files, machine_id
from .inventory import INVENTORY, inventory_text
from .truth import truth_document

HOSTS = [host.name for host in FLEET.hosts]


def run_lab(*words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the lab's command line in a process of its own."""
    package = (__package__ or "tests.lab").split(".")
    top = Path(__file__).resolve().parents[len(package)]
    return subprocess.run(
        [*before, sys.executable, "-m", ".".join(package), *words], cwd=top, capture_output=True, text=True
    )


def test_the_inventory_in_git_is_what_the_declaration_makes():
    """The hosts file under inventories/lab equals the generated one byte for byte."""
    assert INVENTORY.read_text() == inventory_text(FLEET), "run `python -m tests.lab inventory --write`"


def test_the_inventory_names_every_host_once_with_its_address():
    """YAML gives back each host in exactly one group, with the address at which its sshd listens."""
    document = yaml.safe_load(inventory_text(FLEET))
    listed = [
        (name, values["ansible_host"])
        for group in document["all"]["children"].values()
        for name, values in group["hosts"].items()
    ]
    assert sorted(listed) == sorted((host.name, host.address) for host in FLEET.hosts)
    assert "StrictHostKeyChecking=yes" in document["all"]["vars"]["ansible_ssh_common_args"]


def test_the_truth_document_is_plain_json_and_its_rows_name_declared_hosts_and_applications():
    """Every dependency's two ends run where the truth's own table of applications says."""
    truth = json.loads(json.dumps(truth_document(FLEET)))
    runs = {host: {application["name"] for application in rows} for host, rows in truth["applications"].items()}
    assert set(runs) == set(truth["hosts"]) == set(HOSTS)
    for edge in truth["dependencies"]:
        assert edge["dependent_app"] in runs[edge["dependent_host"]]
        assert edge["resp_app"] in runs[edge["resp_host"]]
        assert edge["dependent_host"] != edge["resp_host"]
        assert (edge["port"] is None) == (edge["kind"] == "transient")


def test_expected_samples_in_the_truth_grow_with_load_and_shrink_with_period():
    """Twice the load doubles each figure, and twice the period halves it."""
    base = truth_document(FLEET, 300, 5)["dependencies"]
    for other, factor in ((truth_document(FLEET, 600, 5), 2), (truth_document(FLEET, 300, 10), 0.5)):
        for row, changed in zip(base, other["dependencies"], strict=True):
            assert changed["expected_samples"] == pytest.approx(row["expected_samples"] * factor, abs=0.002)


def test_every_application_that_asks_by_name_needs_the_resolver():
    """Clients on every host but the resolver's own have a declared dependency on DNS."""
    edges = FLEET.edges()
    askers = {(edge.dependent_host, edge.dependent_app) for edge in edges if edge.port == 53}
    clients = {(edge.dependent_host, edge.dependent_app) for edge in edges if edge.dependent_host != "dns1"}
    assert askers == clients


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_gets_the_units_that_it_must_have_active(host: str):
    """Each unit that must be active is either installed by a package or written here, and something starts it."""
    files = {file.path: file for file in host_files(FLEET, host)}
    wanted = {path.rpartition("/")[2] for path in files if "multi-user.target.wants" in path}
    for unit in active_units(FLEET, host):
        assert unit == "ssh.service" or unit in PACKAGED_UNITS or f"/etc/systemd/system/{unit}" in files
        assert PACKAGED_UNITS.get(unit, unit) in wanted
        if unit.endswith(".timer"):
            assert f"/etc/systemd/system/{unit.removesuffix('.timer')}.service" in files


@pytest.mark.parametrize("host", HOSTS)
def test_a_hosts_files_have_absolute_paths_and_no_unfilled_template(host: str):
    """Each path is absolute and stays below the root, each file is either text or link, and no brace pair is left."""
    for file in host_files(FLEET, host):
        assert file.path.startswith("/")
        assert ".." not in file.path.split("/")
        assert (file.text is None) != (file.target is None)
        if not file.path.startswith("/usr/local/"):
            assert not re.search(r"{{|{%", file.text or "")


def test_scripts_run_under_their_own_names():
    """Programs of the lab begin with an interpreter line, so that the kernel names the process after the file."""
    programs = [file for host in HOSTS for file in host_files(FLEET, host) if file.path.startswith("/usr/local/bin/")]
    assert {file.path.rpartition("/")[2] for file in programs} >= {
        "appserver",
        "scraper",
        "exporter",
        "peerd",
        "nightly",
    }
    assert all((file.text or "").startswith("#!/usr/bin/python3\n") and file.mode == 0o755 for file in programs)


def test_configuration_takes_its_times_from_the_declaration():
    """The ages at which nginx closes connections are those from which the truth file reckons."""
    nginx = next(file.text for file in host_files(FLEET, "web1") if file.path == "/etc/nginx/nginx.conf")
    ages = re.findall(r"keepalive_time (\d+)s;", nginx or "")
    assert [float(age) for age in ages] == [BALANCER.duration_s, PROXY.duration_s]


def test_every_template_is_used_by_some_host():
    """No template lies about unused."""
    names = {path.name.removesuffix(".j2") for path in TEMPLATES.iterdir()}
    paths = {file.path for host in HOSTS for file in host_files(FLEET, host)}
    endings = {path.rpartition("/")[2] for path in paths}
    dropins = {f"{path.split('/')[-2].removesuffix('.service.d')}.dropin" for path in paths if ".service.d/" in path}
    assert names - endings - dropins == {"postgresql.conf"}
    assert "/etc/postgresql/15/main/conf.d/lab.conf" in paths


def test_machine_ids_are_distinct_and_well_formed():
    """Each host has a machine id of 32 hex digits of its own."""
    ids = {machine_id(host) for host in HOSTS}
    assert len(ids) == len(HOSTS)
    assert all(re.fullmatch(r"[0-9a-f]{32}", identity) for identity in ids)


def test_truth_and_inventory_need_no_lab_and_no_root(tmp_path: Path):
    """The command line writes the truth file for another load, and prints the inventory, without a running lab."""
    done = run_lab("truth", "--load-seconds", "600", "--out", str(tmp_path / "truth.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "truth.json").read_text())["load_s"] == 600
    assert run_lab("inventory").stdout == INVENTORY.read_text()


@pytest.mark.parametrize("words", [("up",), ("down",), ("status",), ("run", "--", "true")], ids=lambda words: words[0])
def test_whoever_is_not_root_is_told_so(words: tuple[str, ...]):
    """Without root the lab does nothing, says that it needs root, and ends with 2."""
    before = ("unshare", "--user")
    if subprocess.run([*before, "true"], capture_output=True).returncode != 0:
        pytest.skip("user namespaces are not allowed here, so nobody else can be played")
    done = run_lab(*words, before=before)
    assert done.returncode == 2
    assert "needs root" in done.stderr


def test_wrong_usage_ends_with_2():
    """An unknown verb and a missing command are refused."""
    assert run_lab("fly").returncode == 2
    assert run_lab("run").returncode == 2
