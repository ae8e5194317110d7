# SPDX-License-Identifier: GPL-3.0-or-later
"""What populations are, and what is true of them."""

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import NameRecord
from whoneeds.scenario import TABLE_2, PopulationSettings, make_population, observe, preset
from whoneeds.scenario.habits import Action, Application


def digest(table: pa.Table) -> str:
    """What a table's bytes come to."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


@pytest.mark.parametrize("seed", [0, 1, 1000])
def test_table_2(seed):
    """Each of the twelve has as many static dependencies as the paper says, those on TCP and UDP counted once."""
    population = make_population(preset("few-laptops"), seed)
    ports = {(app, port) for app, _protocol, port in population.truth}
    counted = Counter(app for app, _port in ports)
    assert {name: counted[name] for name in TABLE_2} == TABLE_2
    assert sum(TABLE_2.values()) == 61
    assert len(population.applications) == 159


def test_seed(populations):
    """The same settings and seed give the same bytes, and another seed gives others."""
    first, settings = populations["laptops"], populations["laptops"].settings
    again, other = make_population(settings, first.seed), make_population(settings, first.seed + 1)
    assert digest(again.connections) == digest(first.connections) != digest(other.connections)
    assert again.truth == first.truth != other.truth
    seen, seen_again = observe(first), observe(again)
    assert all(digest(seen.tables[record]) == digest(seen_again.tables[record]) for record in seen.tables)
    phases = observe(first, phase_seed=1)
    assert any(digest(seen.tables[record]) != digest(phases.tables[record]) for record in seen.tables)


def test_truth_is_of_fixed_ports(population):
    """A use is static if its application, protocol and port are in the truth, and all of the truth can be used."""
    rows = population.connections.select(["app", "protocol", "resp_port", "static"]).to_pylist()
    assert all(((row["app"], row["protocol"], row["resp_port"]) in population.truth) == row["static"] for row in rows)
    shares = pc.mean(population.connections["static"]).as_py()
    assert 0.5 < shares < 1.0
    names = {application.name for application in population.applications}
    assert {app for app, _protocol, _port in population.truth} <= names


def test_connections_are_possible(population):
    """Connections lie within their process's life and their host's time, and no tuple is used twice at a time."""
    made, process, uptime = population.made, population.process, population.uptime
    who = made["process"]
    assert np.all(process["begin"][who] <= made["first"])
    assert np.all(made["last"] <= process["end"][who])
    assert np.all(made["last"] < uptime.stretch_end[made["stretch"]])
    assert np.all(uptime.boot_host[process["boot"][who]] == uptime.stretch_host[made["stretch"]])
    assert np.all(np.diff(made["first"]) >= 0)
    assert np.all(made["last"] > made["first"])
    answered = made["resp_process"] >= 0
    assert np.all(process["begin"][made["resp_process"][answered]] <= made["first"][answered])
    assert np.all(made["last"][answered] <= process["end"][made["resp_process"][answered]])
    tuples = np.stack([made[name] for name in ("protocol", "orig_addr", "orig_port", "resp_addr", "port")], axis=1)
    order = np.lexsort((made["first"], *tuples.T))
    same = np.all(tuples[order][1:] == tuples[order][:-1], axis=1)
    assert not np.any(same & (made["first"][order][1:] <= made["last"][order][:-1]))


def test_ephemeral_ranges(populations):
    """Callers' ports are from their system's own range, and from another one in the held-out house."""
    ranges = {
        name: (int(each.made["orig_port"].min()), int(each.made["orig_port"].max()))
        for name, each in populations.items()
    }
    for name, (low, past) in {
        "laptops": (1025, 5000), "laptops, held out": (49152, 65536), "servers": (32768, 61000),
    }.items():  # fmt: skip
        assert low <= ranges[name][0] < ranges[name][1] < past


def test_ports_come_again():
    """Outlook meets the mail server's ports again in many runs of several users, none of which is in the truth."""
    population = make_population(preset("laptops", hosts=20, days=15), 3)
    made, process = population.made, population.process
    app = next(number for number, each in enumerate(population.applications) if each.name == "outlook.exe")
    own = process["app"][made["process"]] == app
    # what the system asks on others' behalf is the system's
    dynamic = own & (made["port"] >= 1024) & ~np.isin(made["port"], [1025, 3268, 9090])
    address = made["orig_addr"][own].astype(np.int64) * (1 << 32) + made["process"][own]
    instances = len(np.unique(address))
    pairs = np.unique(np.stack([made["port"][dynamic], made["process"][dynamic], made["orig_addr"][dynamic]]), axis=1)
    ports, used = np.unique(pairs[0], return_counts=True)
    assert 0.10 < used.max() / instances < 0.40
    users = np.unique(population.uptime.stretch_host[made["stretch"][dynamic & (made["port"] == ports[used.argmax()])]])
    assert 2 <= len(users) < 15
    assert np.sum(used == 1) > 20


def test_name_service_is_asked_by_one_program(populations):
    """On laptops of the default house the system asks the name service in the name of nearly all programs."""
    rows = populations["laptops"].connections
    asked = rows.filter(pc.equal(rows["resp_port"], 53))
    by = Counter(asked["app"].to_pylist())
    assert set(by) <= {"lsass.exe", "searchprotocolhost.exe"}
    assert by["lsass.exe"] > 0.8 * asked.num_rows


def test_servers(populations):
    """A fleet's own applications run on one to three hosts, and deployments change addresses and boots."""
    population = populations["servers"]
    own = [each for each in population.applications if each.name.startswith("svc-")]
    assert len(own) > 10
    assert {len(each.on) for each in own} == {1, 2, 3}
    uptime = population.uptime
    assert len(uptime.boot_host) > len(uptime.hosts)
    assert len(set(uptime.addresses)) == len(uptime.boot_host)
    rows = population.connections
    scanned = rows.filter(pc.equal(rows["app"].cast("string"), "scanner"))
    assert not any(scanned["static"].to_pylist())
    assert pc.sum(pc.equal(scanned["end"].cast("string"), "rejected")).as_py() > 0.5 * scanned.num_rows
    asked = rows.filter(pc.equal(rows["app"].cast("string"), "prometheus"))
    assert len(pc.unique(asked["resp_host"])) == population.settings.hosts


def test_held_out_house_is_another(populations):
    """The held-out laptops have no program, and hardly a service, in common with the others."""
    default, held_out = populations["laptops"].truth, populations["laptops, held out"].truth
    assert not {app for app, _protocol, _port in default} & {app for app, _protocol, _port in held_out}
    others = {(protocol, port) for _app, protocol, port in held_out}
    common = others & {(protocol, port) for _app, protocol, port in default}
    assert len(common) < 0.5 * len(others)


def test_names_are_of_called_addresses(population):
    """Every name stands for an address that the host called in that time."""
    rows = population.connections
    called = {
        (host, address) for host, address in zip(rows["host"].to_pylist(), rows["resp_addr"].to_pylist(), strict=True)
    }
    names = observe(population).tables[NameRecord].to_pylist()
    assert names
    assert {(row["host"], row["address"]) for row in names} <= called


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"hosts": 0}, "hosts"),
        ({"hosts": True}, "hosts"),
        ({"hosts": 10**9}, "hosts"),
        ({"days": 2.5}, "days"),
        ({"activity": float("nan")}, "activity"),
        ({"activity": float("inf")}, "activity"),
        ({"transient_share": 1.01}, "transient_share"),
        ({"recurring_share": "0.5"}, "recurring_share"),
        ({"kind": "mainframes"}, "kind"),
        ({"kind": ["laptops"]}, "kind"),
        ({"variant": None}, "variant"),
        ({"begin_hour": 18.0}, "end_hour"),
        ({"applications": -1}, "applications"),
    ],
)
def test_bad_settings(changes, word):
    """A wrong setting is refused by name, with what is right and what was found."""
    with pytest.raises(SettingsError, match=word) as refused:
        PopulationSettings(**changes)
    assert refused.value.expected
    assert refused.value.found
    assert refused.value.remedy


def test_bad_presets():
    """An unknown preset or setting is refused with a list or a place to look."""
    with pytest.raises(SettingsError, match="few-servers"):
        preset("mainframes")
    with pytest.raises(SettingsError, match="colour"):
        preset("laptops", colour="red")


def test_bad_habits():
    """A way to begin or to live that there is none of is refused."""
    with pytest.raises(SettingsError, match="sometimes"):
        Action("sometimes", ())
    with pytest.raises(SettingsError, match="forever"):
        Application("clock", (), lifetime="forever")


def test_smallest_population():
    """One host that is never there, with one application, has nothing, and nothing of it breaks."""
    settings = preset("laptops", hosts=1, days=1, applications=1, present_share=0.0)
    seen = observe(make_population(settings, 0))
    assert all(seen.tables[record].num_rows == 0 for record in seen.tables)
    assert len(seen.trace().first_ns) == 0
