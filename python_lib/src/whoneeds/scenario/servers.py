# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of a data centre, all of them traced: programs with one to three instances each.

Nothing here is from the paper, which looked at laptops alone; it is what such fleets are commonly made of, and what
makes a rule by shares of users and instances weak: few instances, connections that are held in pools for hours, ports
that programs choose when they start, monitoring that touches everything, a scanner that tries everything, jobs of one
night or one week, resolvers and proxies on the host itself, and addresses and process numbers that change with every
deployment. What a monitoring system is configured to ask is a static dependency of it; what a scanner finds, or what a
person asks for by hand, is not.

Who calls from outside is left out: nothing on a traced host stands behind it.

The held-out variant has other stores, other agents, other ports, services that speak through a proxy beside them
(a mesh), and name service asked without a resolver on the host.
"""

from dataclasses import dataclass, replace

import numpy as np

from whoneeds.scenario.habits import Action, Application, Place, Ports, Step
from whoneeds.scenario.settings import PopulationSettings

_DAY_S = 86400.0


@dataclass(frozen=True)
class _Kit:
    """What the services of a fleet are made with.

    Attributes
    ----------
    stem : str
    ports : tuple of (int, int, float)
        Ranges that services' ports are from, with the share of each.
    stores : tuple of (str, int, bool)
        Name, port, and whether connections to it are held in pools.
    peer_ports : dict of str to int
        Ports on which the instances of a store speak to each other.
    resolver : str
        The host's own resolver; empty if there is none.
    proxy : tuple of (str, int) or None
        The host's own proxy to the outside.
    mesh : tuple of (str, int) or None
        The proxy beside every service through which it calls others.
    monitor, exporter, shipper, manager : (str, int)
        Who watches, the agent that it asks, where logs go, and who configures.
    """

    stem: str
    ports: tuple[tuple[int, int, float], ...]
    stores: tuple[tuple[str, int, bool], ...]
    peer_ports: dict[str, int]
    resolver: str
    proxy: tuple[str, int] | None
    mesh: tuple[str, int] | None
    monitor: str
    exporter: tuple[str, int]
    logs: tuple[str, str, int]
    manager: tuple[str, str, int]


_KITS = {
    "default": _Kit(
        stem="svc-",
        ports=((8000, 10000, 0.75), (3000, 7000, 0.1), (32768, 52000, 0.15)),
        stores=(
            ("postgres", 5432, True), ("redis", 6379, True), ("kafka", 9092, True), ("elasticsearch", 9200, False),
            ("rabbitmq", 5672, True), ("memcached", 11211, True), ("minio", 9000, False), ("slapd", 389, False),
            ("vault", 8200, False), ("postfix", 25, False),
        ),
        peer_ports={"elasticsearch": 9300, "rabbitmq": 25672},
        resolver="resolver", proxy=("egress", 3128), mesh=None,
        monitor="prometheus", exporter=("node_exporter", 9100),
        logs=("filebeat", "logstash", 5044), manager=("puppet", "puppetserver", 8140),
    ),
    "held_out": _Kit(
        stem="unit-",
        ports=((20000, 32000, 0.5), (32768, 45000, 0.3), (1100, 5000, 0.2)),
        stores=(
            ("mysqld", 3306, True), ("cassandra", 9042, True), ("mongod", 27017, True), ("nats", 4222, True),
            ("influxd", 8086, False), ("clickhouse", 8123, False), ("etcd", 2379, True), ("solr", 8983, False),
        ),
        peer_ports={"cassandra": 7000, "etcd": 2380},
        resolver="", proxy=None, mesh=("sidecar", 15001),
        monitor="zabbix_server", exporter=("zabbix_agentd", 10050),
        logs=("fluent-bit", "fluentd", 24224), manager=("salt-minion", "salt-master", 4505),
    ),
}  # fmt: skip


def lay_out_servers(
    settings: PopulationSettings, rng: np.random.Generator
) -> tuple[tuple[Application, ...], tuple[Place, ...]]:
    """The applications of a data centre, and the places that they call.

    Parameters
    ----------
    settings : PopulationSettings
    rng : numpy.random.Generator
    """
    fleet = _Fleet(settings, _KITS[settings.variant], rng)
    fleet.add_base()
    fleet.add_stores()
    fleet.add_services(settings.applications - len(fleet.applications) - fleet.watching)
    fleet.add_watchers()
    restarts = settings.restarts_per_week / 7.0
    applications = tuple(
        replace(one, restarts_per_day=restarts) if one.uid >= 2000 else one for one in fleet.applications
    )
    return applications, tuple(fleet.places.values())


class _Fleet:
    """Applications and places of a data centre, as they are added."""

    #: Applications that `add_watchers` adds.
    watching = 9

    def __init__(self, settings: PopulationSettings, kit: _Kit, rng: np.random.Generator) -> None:
        self._settings, self._kit, self._rng = settings, kit, rng
        self.applications: list[Application] = []
        self.places: dict[str, Place] = {}
        self._everywhere = tuple(range(settings.hosts))
        net = "10.90" if settings.variant == "held_out" else "10.41"
        self._untraced("dns", tuple(f"{net}.0.{each}" for each in (2, 3)), "sticky")
        self._untraced("clock", tuple(f"{net}.1.{each}" for each in (2, 3, 4)), "balanced")
        self._untraced("outside", tuple(f"203.0.113.{each}" for each in range(2, 200)), "popular", "api{}.site.example")
        self.places["local"] = Place("local")
        self.places["everywhere"] = Place("everywhere", hosts=self._everywhere, choice="rotating")
        self._taken = {port for _name, port, _pool in kit.stores} | set(kit.peer_ports.values())
        self._taken |= {kit.exporter[1], kit.logs[2], kit.manager[2], 22, 53, 80, 443, 111, 2049, 8125}
        self._taken |= {pair[1] for pair in (kit.proxy, kit.mesh) if pair is not None}

    # -- what steps are made of ----------------------------------------------------------------------------------

    def _untraced(self, name: str, addresses: tuple[str, ...], choice: str, domain: str = "") -> None:
        domains = tuple(domain.format(each) for each in range(len(addresses))) if domain else ()
        self.places[name] = Place(name, addresses, domains=domains, choice=choice)

    def _place(self, name: str, most: int, choice: str = "balanced") -> tuple[int, ...]:
        """Put an application on some hosts, where others can call it by name."""
        many = int(self._rng.integers(1, min(most, self._settings.hosts) + 1))
        hosts = tuple(int(host) for host in self._rng.choice(self._settings.hosts, many, replace=False))
        self.places[name] = Place(name, hosts=hosts, domains=(f"{name}.fleet.example",), choice=choice)
        return hosts

    def _resolve(self, share: float = 0.1) -> tuple[Step, ...]:
        """A question to name service: over the host's own resolver, which mostly knows, or directly."""
        ask = Step("udp", 53, "dns", share=share, delay_s=0.001, median_s=0.004, sigma=0.8, sent_bytes=40)
        if not self._kit.resolver:
            return (ask,)
        local = replace(ask, to="local", at=self._kit.resolver, median_s=0.001)
        return local, replace(ask, share=share * 0.3, by=self._kit.resolver)

    def _call(self, port: int, to: str, **habits: float) -> tuple[Step, ...]:
        """A call of another service: over the proxy beside it in a mesh, which makes the connection, or directly."""
        step = Step("tcp", port, to, **habits)  # type: ignore[arg-type]
        if self._kit.mesh is None:
            return (step,)
        name, own = self._kit.mesh
        return replace(step, port=own, to="local", at=name, delay_s=0.01), replace(step, by=name, delay_s=0.002)

    def _go_out(self, share: float) -> tuple[Step, ...]:
        """A call to the outside: over the host's own proxy, if there is one."""
        step = Step("tcp", 443, "outside", share=share, median_s=0.8, sigma=1.2, received_bytes=9000)
        if self._kit.proxy is None:
            return (step,)
        name, port = self._kit.proxy
        return replace(step, port=port, to="local", at=name), replace(step, by=name, delay_s=0.003)

    # -- applications --------------------------------------------------------------------------------------------

    def _add(self, name: str, actions: tuple[Action, ...], on: tuple[int, ...], *, lifetime: str = "boot",
             listens: tuple[tuple[str, int], ...] = (), uid: int = 0, delay_s: float = 15.0, every_s: float = 3600.0,
             at_s: float = 0.0, median_s: float = 60.0) -> None:  # fmt: skip
        self.applications.append(Application(
            name, actions, lifetime=lifetime, on=on, listens=listens, uid=uid, delay_s=delay_s, every_s=every_s,
            at_s=at_s, median_s=median_s,
        ))  # fmt: skip

    def add_base(self) -> None:
        """What is on every host."""
        kit, everywhere = self._kit, self._everywhere
        if kit.resolver:
            self._add(kit.resolver, (), everywhere, listens=(("udp", 53),), uid=101, delay_s=2)
        for pair in (kit.proxy, kit.mesh):
            if pair is not None:
                self._add(pair[0], (), everywhere, listens=(("tcp", pair[1]),), uid=102, delay_s=3)
        self._add(kit.exporter[0], (), everywhere, listens=(("tcp", kit.exporter[1]),), uid=103, delay_s=8)
        self._add("sshd", (), everywhere, listens=(("tcp", 22),), delay_s=6)
        ask = Step("udp", 123, "clock", median_s=0.02, sigma=0.5)
        self._add("chronyd", (Action("periodic", (ask,), every_s=1024, jitter_s=8),), everywhere, uid=104, delay_s=5)
        agent, center, port = kit.logs
        self._place(center, 2)
        ship = Step("tcp", port, center, median_s=3600, sent_bytes=2_000_000, received_bytes=3000)
        self._add(agent, (Action("held", (*self._resolve(0.5), ship), every_s=21600, jitter_s=5),), everywhere)
        store = Step("tcp", kit.stores[0][1], kit.stores[0][0], median_s=600, sent_bytes=500_000)
        self._add(center, (Action("held", (store,), every_s=14400, pool=2),), self.places[center].hosts,
                  listens=(("tcp", port),), uid=105)  # fmt: skip
        agent, center, port = kit.manager
        self._place(center, 1)
        pull = Step("tcp", port, center, median_s=9.0, received_bytes=60000)
        self._add(agent, (Action("periodic", (*self._resolve(0.8), pull), every_s=1800, jitter_s=60),), everywhere)
        self._add(center, (Action("periodic", self._go_out(1.0), every_s=7200),), self.places[center].hosts,
                  listens=(("tcp", port),), uid=106)  # fmt: skip
        self._place("backupd", 1)
        save = Step("tcp", 873, "backupd", delay_s=400, median_s=240, sigma=1.0, sent_bytes=8_000_000)
        self._add("backup", (Action("start", (*self._resolve(0.8), save)),), everywhere, lifetime="clock",
                  every_s=_DAY_S, at_s=2 * 3600, median_s=1500)  # fmt: skip
        self._add("backupd", (), self.places["backupd"].hosts, listens=(("tcp", 873),), delay_s=9)
        update = Action("start", (*self._resolve(1.0), *self._go_out(1.0), *self._go_out(0.5)))
        self._add("upgrade", (update,), everywhere, lifetime="clock", every_s=_DAY_S, at_s=5 * 3600 + 600, median_s=90)

    def add_stores(self) -> None:
        """Stores and brokers, some of which keep copies of each other."""
        for number, (name, port, _pooled) in enumerate(self._kit.stores):
            hosts = self._place(name, self._settings.instances, choice="sticky")
            listens: tuple[tuple[str, int], ...] = (("tcp", port),)
            actions: tuple[Action, ...] = ()
            if name in self._kit.peer_ports and len(hosts) > 1:
                peer = self._kit.peer_ports[name]
                listens = (*listens, ("tcp", peer))
                copy = Step("tcp", peer, name, median_s=3600, sent_bytes=900_000, received_bytes=900_000)
                actions = (Action("held", (copy,), every_s=43200, pool=2),)
            if name == "postfix":
                deliver = Step("tcp", 25, "outside", median_s=4.0, failing_share=0.08, sent_bytes=20000)
                actions = (Action("random", (*self._resolve(1.0), deliver), every_s=600),)
            self._add(name, actions, hosts, listens=listens, uid=2000 + number, delay_s=20)

    def add_services(self, many: int) -> None:
        """The fleet's own services, each of which calls some of those before it, and stores."""
        ports = self._draw_ports(max(many, 0))
        for number in range(max(many, 0)):
            name = f"{self._kit.stem}{number:02d}"
            hosts = self._place(name, self._settings.instances)
            self._add(name, self._service_actions(number, ports), hosts, listens=(("tcp", ports[number]),),
                      uid=2100 + number, delay_s=float(self._rng.uniform(20, 60)))  # fmt: skip

    def _draw_ports(self, many: int) -> list[int]:
        ranges = self._kit.ports
        shares = np.array([share for _low, _high, share in ranges])
        drawn: list[int] = []
        while len(drawn) < many:
            low, high, _share = ranges[int(self._rng.choice(len(ranges), p=shares / shares.sum()))]
            port = int(self._rng.integers(low, high))
            if port not in self._taken:
                self._taken.add(port)
                drawn.append(port)
        return drawn

    def _service_actions(self, number: int, ports: list[int]) -> tuple[Action, ...]:
        rng, kit = self._rng, self._kit
        actions: list[Action] = []
        stores = rng.choice(len(kit.stores), int(rng.integers(1, 4)), replace=False)
        asked: list[Step] = [*self._resolve(0.05)]
        for each in stores:
            name, port, pooled = kit.stores[int(each)]
            if pooled:
                held = Step("tcp", port, name, median_s=3600, sent_bytes=3e6, received_bytes=9e6)
                life_s = float(rng.choice([1800.0, 14400.0, 200000.0]))
                actions.append(Action("held", (held,), every_s=life_s, pool=int(rng.integers(2, 9)), jitter_s=4))
            else:
                asked += self._call(port, name, share=float(rng.uniform(0.1, 0.9)), median_s=0.15, sigma=1.2)
        if number:
            for other in rng.choice(number, int(rng.integers(0, min(number, 3) + 1)), replace=False):
                habits = {"share": float(rng.uniform(0.2, 1.0)), "median_s": float(rng.lognormal(-2.0, 1.2))}
                asked += self._call(ports[int(other)], f"{kit.stem}{int(other):02d}", delay_s=0.02, **habits)
        if rng.random() < 0.3:
            asked += self._go_out(0.2)
        actions.append(Action("random", tuple(asked), every_s=float(rng.lognormal(np.log(300.0), 0.9))))
        # what is needed once a day, or a week, or only if something is wrong, is needed all the same
        rare = kit.stores[int(rng.integers(len(kit.stores)))]
        if rng.random() < 0.35:
            every_s = _DAY_S * (7 if rng.random() < 0.4 else 1)
            at_s = float(rng.integers(0, 86400))
            report = self._call(rare[1], rare[0], median_s=20.0, delay_s=2.0)
            actions.append(Action("clock", report, every_s=every_s, at_s=at_s, jitter_s=30))
        if rng.random() < self._settings.transient_share:
            ports_of_choice = Ports(chosen=tuple(int(port) for port in rng.integers(7000, 9900, 30)), skew=0.6)
            hook = Step("tcp", ports_of_choice, "outside", median_s=0.6, failing_share=0.1)
            actions.append(Action("random", (*self._resolve(0.5), hook), every_s=900))
        return tuple(actions)

    def add_watchers(self) -> None:
        """What watches or touches others, batch work on ports chosen at its start, and people with their tools."""
        rng, kit, hosts = self._rng, self._kit, self._settings.hosts
        one = (int(rng.integers(hosts)),)
        offered = [
            (port, application.name, application.on)
            for application in self.applications
            for protocol, port in application.listens
            if protocol == "tcp" and application.uid >= 2000
        ]
        scrape = Step("tcp", kit.exporter[1], "everywhere", median_s=3600, received_bytes=900_000)
        knock = tuple(
            Step("tcp", port, name, delay_s=1.0, median_s=0.05, sigma=0.7, received_bytes=3000)
            for port, name, _on in offered
        )
        self._add(kit.monitor, (
            Action("held", (scrape,), every_s=43200, pool=hosts, jitter_s=20),
            Action("periodic", knock, every_s=600, jitter_s=2),
        ), one, uid=107)  # fmt: skip
        probe = Step("tcp", Ports(1, 10000), "everywhere", delay_s=0.02, median_s=0.02, share=1.0)
        found = Ports(chosen=tuple({port for port, _name, _on in offered} | {22, kit.exporter[1]}), skew=0.0)
        self._add("scanner", (
            Action("random", (probe, replace(probe, port=found)), every_s=2.0),
        ), (int(rng.integers(hosts)),), lifetime="clock", every_s=_DAY_S, at_s=3.5 * 3600, median_s=1800)  # fmt: skip
        self._add_batch()
        person = (int(rng.integers(hosts)),)
        login = Step("tcp", 22, "everywhere", median_s=300, sigma=1.5)
        odd = Ports(chosen=tuple(port for port, _name, _on in offered[::2]) or (8080,), skew=0.8)
        self._add("ssh", (Action("start", (*self._resolve(0.9), login)),), person, lifetime="run", uid=1001,
                  every_s=5400, median_s=900)  # fmt: skip
        ask = Step("tcp", odd, "everywhere", median_s=0.2, sigma=1.5)
        self._add("curl", (Action("start", (*self._resolve(0.5), ask)),), person, lifetime="run", uid=1001,
                  every_s=2500, median_s=5)  # fmt: skip

    def _add_batch(self) -> None:
        """Work that is spread over hosts, whose parts find each other on ports that each takes when it starts."""
        rng = self._rng
        anything = Ports(32768, 61000)
        workers = self._place("batch-worker", max(self._settings.instances, 4))
        driver = self._place("batch-driver", 1)
        give = Step("tcp", anything, "batch-worker", at="batch-worker", median_s=40, sigma=1.3, sent_bytes=200_000)
        tell = Step("tcp", anything, "batch-driver", at="batch-driver", median_s=20, sigma=1.3, sent_bytes=50_000)
        rest = self._kit.stores[int(rng.integers(len(self._kit.stores)))]
        load = Step("tcp", rest[1], rest[0], median_s=30.0, received_bytes=4_000_000)
        self._add("batch-driver", (Action("random", (give, replace(give, share=0.7)), every_s=300),), driver,
                  listens=(("tcp", 0), ("tcp", 7077)), uid=2050)  # fmt: skip
        join = Step("tcp", 7077, "batch-driver", median_s=3600)
        self._add("batch-worker", (
            Action("held", (join,), every_s=43200), Action("random", (tell, replace(load, share=0.4)), every_s=600),
        ), workers, listens=(("tcp", 0),), uid=2051)  # fmt: skip
        share = self._place("nfsd", 1)
        mapped = Step("tcp", anything, "nfsd", at="nfsd", delay_s=0.1, median_s=0.3)
        self._add("nfsd", (), share, listens=(("tcp", 111), ("tcp", 2049), ("tcp", 0)))
        clients = tuple(int(each) for each in rng.choice(self._settings.hosts, min(6, self._settings.hosts), False))
        mount = (Step("tcp", 111, "nfsd", median_s=0.2), mapped, Step("tcp", 2049, "nfsd", median_s=20000, sigma=1.0))
        self._add("mount.nfs", (Action("start", mount), Action("periodic", mount[:2], every_s=20000)), clients)
