# SPDX-License-Identifier: GPL-3.0-or-later
"""A small shop whose dependencies are known because they are written down here, as folders of collected segments."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "collector"))

from fleet import Host

from whoneeds.model.evidence import Gap
from whoneeds.segment.write import write_segment

#: Dependent application and host, provider application and host, protocol, port.
TRUTH = {
    ("nginx", "web1", "api", "app1", "tcp", 8080),
    ("api", "app1", "postgres", "db1", "tcp", 5432),
    ("api", "app1", "redis", "app1", "tcp", 6379),
    ("api", "app1", None, None, "tcp", 443),
    ("chrony", "db1", None, None, "udp", 123),
}
WEB, APP, DB, AWAY, CLOCK = "10.0.0.1", "10.0.0.2", "10.0.0.3", "203.0.113.9", "192.0.2.7"


def build_shop() -> list[Host]:
    """Three hosts that were looked at for a minute."""
    web, app, db = (Host(name, (address,)) for name, address in (("web1", WEB), ("app1", APP), ("db1", DB)))
    for host in (web, app, db):
        host.segment()
    nginx = web.process("nginx", 10)
    web.socket((WEB, 40001), (APP, 8080), by=nginx, sent=1000, received=20_000)
    api, redis = app.process("api", 20), app.process("redis", 30, uid=7)
    app.socket(("0.0.0.0", 8080), by=api)
    app.socket((APP, 8080), (WEB, 40001), by=api, sent=20_000, received=1000)
    app.socket((APP, 40002), (DB, 5432), by=api, sent=700, received=90_000)
    app.socket(("127.0.0.1", 6379), by=redis)
    app.socket(("127.0.0.1", 40003), ("127.0.0.1", 6379), by=api)
    app.socket(("127.0.0.1", 6379), ("127.0.0.1", 40003), by=redis)
    app.socket((APP, 40004), (AWAY, 443), by=api)
    postgres, chrony = db.process("postgres", 40, uid=26), db.process("chrony", 50)
    db.socket(("0.0.0.0", 5432), by=postgres)
    db.socket((DB, 5432), (APP, 40002), by=postgres)
    db.socket((DB, 40005), (CLOCK, 123), by=chrony, protocol="udp")
    header, tables = db.segments[-1]
    tables[Gap].append(
        Gap("db1", "owners", "permission", "sockets of other users", header.opened_ns, header.closed_ns, 3)
    )
    return [web, app, db]


def collect(hosts: list[Host], folder: Path) -> Path:
    """Lay the hosts' segments where collecting would have put them: one folder a host."""
    for host in hosts:
        place = folder / host.name
        place.mkdir(parents=True, exist_ok=True)
        for header, tables in host.segments:
            write_segment(str(place), header, tables)
    return folder


def edges(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Who needs whom, out of rows of the view by host or of level 4."""
    return {(row["app"], row["host"], row["resp_app"], row["resp_host"], row["protocol"], row["port"]) for row in rows}
