# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's declaration: consistent in itself, and static or transient as Macroscope's rule means it."""

import ipaddress
import itertools
import math
import random

import pytest

from .declaration import Application, Host, Pool, expected_samples
from .fleet import DIALLERS_PER_PORT, FLEET, PEER_HOSTS, PEERS_PER_HOST
from .truth import EPHEMERAL_PORTS, LOAD_S, PERIOD_S

# Macroscope's thresholds.
T, U, I = 0.85, 0.10, 0.10  # noqa: E741


def judge(uses: dict[tuple[str, int], set[int]], service: tuple[str, int]) -> str:
    """Macroscope's rule on instance numbers alone, word for word: steps 1 and 2 with N, N_s, V_s, M, T and I."""
    n = len(set().union(*uses.values()))
    m = math.sqrt(sum((n - len(users)) ** 2 for users in uses.values()) / len(uses))
    if m < T * (n - 1):
        return "static"
    return "static" if service[1] < 1024 or len(uses[service]) / n >= I else "transient"


def test_names_and_addresses_are_each_used_once():
    """No two hosts share a name or an address, and no group is called like a host."""
    names = [host.name for host in FLEET.hosts]
    addresses = [address for host in FLEET.hosts for address in (host.ipv4, host.ipv6) if address]
    assert len(set(names)) == len(names) >= 7
    assert len(set(addresses)) == len(addresses)
    assert not {host.group for host in FLEET.hosts} & set(names)
    assert not {FLEET.controller_ipv4, FLEET.controller_ipv6} & set(addresses)


def test_addresses_lie_in_the_fleets_networks():
    """Every host and the controller have their addresses inside the declared networks."""
    for address in [
        FLEET.controller_ipv4,
        FLEET.controller_ipv6,
        *(address for host in FLEET.hosts for address in (host.ipv4, host.ipv6) if address),
    ]:
        network = FLEET.ipv6_network if ":" in address else FLEET.ipv4_network
        assert ipaddress.ip_address(address) in ipaddress.ip_network(network)


def test_two_hosts_speak_ipv6_only_and_need_one_another():
    """One dependency runs between hosts that have no IPv4 address at all."""
    only = {host.name for host in FLEET.hosts if host.ipv4 is None}
    assert len(only) == 2
    assert any({edge.dependent_host, edge.resp_host} == only for edge in FLEET.edges())


@pytest.mark.parametrize("application", FLEET.applications, ids=lambda application: application.name)
def test_every_need_has_a_provider_that_listens_there(application: Application):
    """What an application needs on a fixed port is offered, by the named provider, on each named host."""
    for need in application.needs:
        provider = FLEET.application(need.provider)
        assert set(need.hosts) <= set(provider.hosts)
        if need.port is not None:
            assert (need.protocol, need.port) in provider.listens
        # Where one side has no IPv4, the other must have IPv6.
        for host, resp in itertools.product(application.hosts, need.hosts):
            families = [(bool(FLEET.host(name).ipv4), bool(FLEET.host(name).ipv6)) for name in (host, resp)]
            assert any(a and b for a, b in zip(*families, strict=True))


def test_program_names_fit_into_the_kernels_name_field():
    """No application's name is cut by the kernel's limit of 15 bytes for a process name."""
    assert all(len(application.name.encode()) <= 15 for application in FLEET.applications)


def test_every_host_has_an_exporter_that_is_scraped():
    """The scraper needs the exporter of every host but its own."""
    scraped = {edge.resp_host for edge in FLEET.edges() if edge.dependent_app == "scraper" and edge.port == 9100}
    assert scraped == {host.name for host in FLEET.hosts} - {"mon1"}


def test_expected_samples_follow_littles_law_and_never_pass_the_samples_taken():
    """A connection of 10 s twice a minute is in a third of the samples; four lasting ones are in each sample once."""
    assert expected_samples(per_minute=2, duration_s=10, load_s=300, period_s=5) == pytest.approx(20)
    pool = Pool(connections=4, duration_s=60)
    assert expected_samples(pool.per_minute, pool.duration_s, load_s=300, period_s=5) == 60


def test_every_static_dependency_is_clearly_long_or_clearly_short():
    """At the default load each static dependency is expected in at least 10 samples or in fewer than 2."""
    for edge in FLEET.edges():
        if edge.kind == "static":
            assert not 2 <= edge.expected_samples(LOAD_S, PERIOD_S) < 10, edge


def test_peers_make_transient_ports_by_macroscopes_rule_and_their_tracker_stays_static():
    """Whatever partners the peers choose, and though some are not seen, each random port is transient by the rule."""
    chance = random.Random(11)
    peers = PEERS_PER_HOST * len(PEER_HOSTS)
    assert peers >= 24
    assert len(PEER_HOSTS) >= 4
    for seen in range(20, peers + 1):
        ports = chance.sample(range(*EPHEMERAL_PORTS), seen)
        uses: dict[tuple[str, int], set[int]] = {("tcp", 6379): set(range(seen)), ("udp", 53): set(range(seen))}
        for port in ports:
            uses["tcp", port] = set(chance.sample(range(seen), DIALLERS_PER_PORT))
        verdicts = {service: judge(uses, service) for service in uses}
        assert verdicts.pop(("tcp", 6379)) == "static"
        assert verdicts.pop(("udp", 53)) == "static"
        if seen > DIALLERS_PER_PORT / I:
            assert set(verdicts.values()) == {"transient"}


def test_every_other_application_is_static_by_macroscopes_rule():
    """With each process using what it is declared to use, no service of any other application comes out transient."""
    for application in FLEET.applications:
        edges = [edge for edge in FLEET.edges() if edge.dependent_app == application.name]
        if not edges or any(edge.kind == "transient" for edge in edges):
            continue
        for processes in (1, 2, 10):
            uses: dict[tuple[str, int], set[int]] = {}
            for number, host in enumerate(application.hosts):
                for edge in edges:
                    if edge.dependent_host == host:
                        instances = uses.setdefault((edge.protocol, edge.port), set())
                        instances.update(range(number * processes, (number + 1) * processes))
            assert {judge(uses, service) for service in uses} == {"static"}


def test_a_host_without_an_address_is_refused():
    """Asking for the address of a host that has none says what to give it."""
    with pytest.raises(ValueError, match="give it ipv4 or ipv6"):
        _ = Host("nowhere", "lost").address
