# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet of the lab, declared once: inventory, truth file, units, configuration and load follow from it."""

from __future__ import annotations

from .declaration import Application, Fleet, Host, Need, Pool

PEER_HOSTS = ("web1", "web2", "batch1", "client1")
PEERS_PER_HOST = 7
# A port is dialled by at most this many peers over the whole run: 2 of 28 instances stay below Macroscope's I = 0.10.
DIALLERS_PER_PORT = 2

_HOSTS = (
    Host("dns1", "resolvers", "10.77.0.10", "fd77:1ab::10"),
    Host("lb1", "loadbalancers", "10.77.0.11"),
    Host("web1", "webservers", "10.77.0.12"),
    Host("web2", "webservers", "10.77.0.13"),
    Host("app1", "appservers", "10.77.0.14"),
    Host("db1", "databases", "10.77.0.15"),
    Host("cache1", "caches", "10.77.0.16"),
    Host("mon1", "monitoring", "10.77.0.17", "fd77:1ab::17"),
    Host("batch1", "batch", "10.77.0.18"),
    Host("client1", "clients", "10.77.0.19"),
    Host("v6a", "ipv6only", None, "fd77:1ab::20"),
    Host("v6b", "ipv6only", None, "fd77:1ab::21"),
)
_ALL = tuple(host.name for host in _HOSTS)

# How connections live. The programs and the configuration files take their settings from these same values.
SHOPPER = Pool(connections=4, duration_s=45, pause_s=1)
# A second connection is opened only when a request comes while the first is at work.
BALANCER = Pool(connections=2, duration_s=60, least=1)
PROXY = Pool(connections=2, duration_s=60, least=1)
APP_TO_DB = Pool(connections=4, duration_s=90)
APP_TO_CACHE = Pool(connections=4, duration_s=90)
SCRAPE = Pool(connections=1, duration_s=120)
FEED = Pool(connections=1, duration_s=40, pause_s=1)
TRACKER = Pool(connections=PEERS_PER_HOST, duration_s=90)
PEER = Pool(connections=PEERS_PER_HOST * DIALLERS_PER_PORT / (len(PEER_HOSTS) - 1), duration_s=30, pause_s=1)
# The resolver client of HAProxy keeps one connected UDP socket from its start on.
BALANCER_DNS = Pool(connections=1, duration_s=3600)

# The nightly job, made frequent: a run every NIGHTLY_PERIOD_S with one slow query; its dump is over at once.
NIGHTLY_PERIOD_S = 30
NIGHTLY_QUERY_S = 10
NIGHTLY = Pool(connections=1, duration_s=12, pause_s=18)
NIGHTLY_QUERY = Pool(connections=1, duration_s=NIGHTLY_QUERY_S, pause_s=NIGHTLY_PERIOD_S - NIGHTLY_QUERY_S)
NIGHTLY_DUMP = Pool(connections=1, duration_s=0.1, pause_s=29.9)
# The probe: one request, one short connection, one short process.
PROBE_PERIOD_S = 20
PROBE = Pool(connections=1, duration_s=0.05, pause_s=19.95)

_APPLICATIONS = (
    Application("sshd", _ALL, "ssh.service", (("tcp", 22),)),
    Application("exporter", _ALL, "exporter.service", (("tcp", 9100),)),
    Application("dnsmasq", ("dns1",), "dnsmasq.service", (("udp", 53), ("tcp", 53))),
    Application("postgres", ("db1",), "postgresql@15-main.service", (("tcp", 5432),)),
    # Debian's redis-server is a link to redis-check-rdb, one program under many names.
    Application("redis-server", ("cache1",), "redis-server.service", (("tcp", 6379),), executable="redis-check-rdb"),
    Application(
        "appserver", ("app1",), "appserver.service", (("tcp", 8080),),
        (Need("postgres", ("db1",), 5432, APP_TO_DB), Need("redis-server", ("cache1",), 6379, APP_TO_CACHE)),
        executable="python3.11",
    ),
    Application(
        "nginx", ("web1", "web2"), "nginx.service", (("tcp", 80),),
        (Need("appserver", ("app1",), 8080, PROXY, asks_dns="start"),),
    ),
    Application(
        "haproxy", ("lb1",), "haproxy.service", (("tcp", 80),),
        (
            Need("nginx", ("web1", "web2"), 80, BALANCER, asks_dns="never"),
            Need("dnsmasq", ("dns1",), 53, BALANCER_DNS, protocol="udp", asks_dns="never"),
        ),
    ),
    Application("shopper", ("client1",), "shopper.service", (), (Need("haproxy", ("lb1",), 80, SHOPPER),),
                executable="python3.11"),
    Application("probe", ("client1",), "probe.timer", (), (Need("haproxy", ("lb1",), 80, PROBE),),
                executable="python3.11"),
    Application("scraper", ("mon1",), "scraper.service", (), (Need("exporter", _ALL, 9100, SCRAPE),),
                executable="python3.11"),
    Application("nightly", ("batch1",), "nightly.timer", (), (Need("redis-server", ("cache1",), 6379, NIGHTLY),),
                executable="python3.11"),
    Application("psql", ("batch1",), "nightly.timer", (), (Need("postgres", ("db1",), 5432, NIGHTLY_QUERY),)),
    Application("pg_dump", ("batch1",), "nightly.timer", (), (Need("postgres", ("db1",), 5432, NIGHTLY_DUMP),)),
    Application(
        "peerd", PEER_HOSTS, "peerd.service", (),
        (
            Need("redis-server", ("cache1",), 6379, TRACKER),
            Need("peerd", PEER_HOSTS, None, PEER, kind="transient", asks_dns="never"),
        ),
        executable="python3.11",
    ),
    Application("ledger", ("v6b",), "ledger.service", (("tcp", 7400),), executable="python3.11"),
    Application("feeder", ("v6a",), "feeder.service", (), (Need("ledger", ("v6b",), 7400, FEED),),
                executable="python3.11"),
)  # fmt: skip

FLEET = Fleet(
    domain="lab.test",
    ipv4_network="10.77.0.0/24",
    ipv6_network="fd77:1ab::/64",
    controller_ipv4="10.77.0.1",
    controller_ipv6="fd77:1ab::1",
    resolver="dns1",
    resolver_app="dnsmasq",
    hosts=_HOSTS,
    applications=_APPLICATIONS,
)
