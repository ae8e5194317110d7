# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of evidence and conclusions, one by one and by the dozen, and documents made of them."""

from typing import Any

from hypothesis import strategies as st

from whoneeds.facts.document import Document, build_document

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"

Row = dict[str, Any]


def use(**chosen: Any) -> Row:
    """One use of a service, with unremarkable values where none are given."""
    row = {
        "app": "web", "host": "web1", "pid": 1, "address": "10.0.0.1", "user": "web1/0", "protocol": "tcp",
        "port": 5432, "resp_addr": "10.0.0.5", "resp_host": None, "resp_app": None, "flows": 1, "samples": 4,
        "duration_s": 20.0, "period_s": 5.0, "orig_bytes": None, "resp_bytes": None, "first_ns": 1, "last_ns": 2,
    }  # fmt: skip
    return {**row, **chosen}


def listener(**chosen: Any) -> Row:
    """One listening socket and the application of its owner."""
    row = {
        "host": "web1", "socket_id": "s1", "protocol": "tcp", "local_addr": "0.0.0.0", "local_port": 80,
        "state": "listen", "app": "nginx",
    }  # fmt: skip
    return {**row, **chosen}


def segment(**chosen: Any) -> Row:
    """One segment's header."""
    row = {
        "host": "web1", "addresses": ("10.0.0.1",), "samples": 12, "period_s": 5.0, "privileged": True,
        "opened_ns": 10, "closed_ns": 70,
    }  # fmt: skip
    return {**row, **chosen}


def gap(**chosen: Any) -> Row:
    """One gap."""
    return {"host": "web1", "source": "table", "reason": "denied", "detail": "no root", **chosen}


def dependencies_of(uses: list[Row], kinds: dict[tuple[str, str, int], str] | None = None) -> list[Row]:
    """The level-1 dependencies of these uses, static where no kind is given."""
    services = {(row["app"], row["protocol"], row["port"]) for row in uses}
    return [
        {"app": app, "protocol": protocol, "port": port, "level": 1, "usage_share": 0.5,
         "kind": (kinds or {}).get((app, protocol, port), "static")}
        for app, protocol, port in sorted(services)
    ]  # fmt: skip


def build(**rows: Any) -> Document:
    """A document of these rows, with the dependencies that follow from its uses where none are given."""
    uses = rows.get("service_uses", [])
    empty: dict[str, Any] = {
        "service_uses": [],
        "listeners": [],
        "segments": [],
        "gaps": [],
        "ends": [],
        "applications": {},
    }
    return build_document(**{**empty, "dependencies": dependencies_of(uses), **rows})


def busy_document() -> Document:
    """Two hosts with entries in every section, some of them with hostile names."""
    return build(
        service_uses=[
            use(resp_host="db1", resp_app="postgres", orig_bytes=5),
            use(app="{{ 7 * 7 }}", port=80, resp_host="db1"),
            use(app="caf\udce9", host="db1", port=53, protocol="udp", resp_addr="10.0.0.9"),
        ],
        listeners=[listener(), listener(host="db1", local_port=5432, app="postgres")],
        segments=[segment(), segment(host="db1", addresses=("10.0.0.5", "fd00::5"), privileged=False)],
        gaps=[gap(host="db1", detail="\x1b[2J")],
        applications={"web1": ["web", "nginx", "yes"], "db1": ["postgres", "caf\udce9"]},
    )


#: Few names and many rows, so that they meet; texts that act or hide among them.
HOSTS = st.sampled_from(["web1", "db-1", "db_1", "db1"])
APPS = st.sampled_from(["a", "b", "{{ x }}", "caf\udce9", "x" * 80, "x" * 79 + "y"])
PORTS = st.sampled_from([22, 80, 1024, 32767, 32768, 65535])
USES = st.lists(
    st.builds(
        use,
        app=APPS,
        host=HOSTS,
        pid=st.integers(1, 3),
        protocol=st.sampled_from(["tcp", "udp"]),
        port=PORTS,
        resp_addr=st.sampled_from(["10.0.0.5", "127.0.0.1", "::1"]),
        resp_host=st.none() | HOSTS,
        resp_app=st.none() | APPS,
        flows=st.integers(1, 9),
        orig_bytes=st.none() | st.integers(0, 99),
        first_ns=st.integers(0, 5),
        last_ns=st.integers(5, 9),
    ),
    max_size=12,
)
LISTENERS = st.lists(
    st.builds(
        lambda port, **chosen: listener(socket_id=f"s{port}", local_port=port, **chosen),
        port=st.sampled_from([80, 1024, 32768]),
        host=HOSTS,
        state=st.sampled_from(["listen", "bound", "established"]),
        app=st.none() | APPS,
    ),
    max_size=6,
)
KINDS = st.dictionaries(
    st.tuples(APPS, st.sampled_from(["tcp", "udp"]), PORTS), st.sampled_from(["static", "transient"]), max_size=30
)
