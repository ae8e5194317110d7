# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that make one application look like several are marked, and those that do not are not."""

from dataclasses import replace
from typing import Any

import duckdb
import ibis
from fleet import BOOT, Host, at

from whoneeds.collector.applications import find_applications, mark_parts
from whoneeds.collector.local_uses import find_local_uses
from whoneeds.model.conclusions import ApplicationInstance, ServiceUse
from whoneeds.model.evidence import ProcessRecord, UnixConnectionRecord
from whoneeds.model.identity import process_id
from whoneeds.store.columns import arrow_schema, to_arrow


def run(expression: Any, rows: dict[type[Any], list[Any]]) -> list[dict[str, Any]]:
    """Work an expression out on lists of records; it is given what keeps intermediate tables, and the tables."""
    with duckdb.connect() as engine:
        tables = []

        def keep(table: ibis.Table, _number: str | None = None, /) -> ibis.Table:
            name = f"kept_{len(tables)}_{len(engine.sql('SHOW TABLES').fetchall())}"
            engine.execute(f"CREATE TEMP TABLE {name} AS {ibis.to_sql(table, dialect='duckdb')}")
            return ibis.table(table.schema(), name=name)

        for record, held in rows.items():
            evidence = record in (ProcessRecord, UnixConnectionRecord)
            engine.register(record.__name__, to_arrow(record, held, "s") if evidence else to_arrow(record, held))
            tables.append(ibis.table(ibis.Schema.from_pyarrow(arrow_schema(record)), name=record.__name__))
        made = engine.sql(str(ibis.to_sql(expression(keep, *tables), dialect="duckdb"))).to_arrow_table().to_pylist()
    return sorted(made, key=str)


class Family:
    """Processes of one host, each with who began it."""

    def __init__(self) -> None:
        self.host = Host("web1").segment()
        self.rows: dict[int, ProcessRecord] = {}
        self.add(1, "systemd", None)

    def add(self, pid: int, name: str, parent: int | None, **changes: Any) -> "Family":
        """Tell of a process; its session is its own unless it is said."""
        self.host.process(name, pid)
        row: ProcessRecord = self.host.segments[-1][1][ProcessRecord][-1]
        began = None if parent is None else self.id_of(parent)
        self.rows[pid] = replace(row, **{"parent_id": began, "session": pid, "unit": "x.service", **changes})
        return self

    def id_of(self, pid: int) -> str:
        """The identity of a process."""
        return process_id("web1", BOOT, pid, 100)

    def marks(self) -> dict[int, tuple[int | None, str | None, int | None]]:
        """For each process the number of its leader, what it is part of, and that one's number."""
        found = run(lambda keep, table: find_applications(table, keep), {ProcessRecord: list(self.rows.values())})
        numbers: dict[str | None, int | None] = {self.id_of(pid): pid for pid in self.rows} | {None: None}
        return {
            pid: (numbers[row["leader_id"]], row["part_of"], numbers[row["part_of_id"]])
            for row in found
            for pid in [numbers[row["process_id"]]]
            if pid is not None
        }


def test_workers_of_a_pre_forking_server_have_its_first_process_as_leader() -> None:
    """Forked processes of the same program are one application, however many generations there are."""
    family = Family().add(10, "nginx", 1)
    for pid in range(11, 18):
        family.add(pid, "nginx", pid - 1, session=10)
    marks = family.marks()
    assert {marks[pid] for pid in range(10, 18)} == {(10, None, None)}
    assert marks[1] == (None, None, None)


def test_a_helper_is_part_of_the_application_that_began_it() -> None:
    """A program begun by an application is part of it, also a helper's helper, and a worker's."""
    family = Family().add(10, "postgres", 1).add(11, "postgres", 10, session=11).add(12, "archiver", 11, session=12)
    family.add(13, "gzip", 12, session=12)
    marks = family.marks()
    assert marks[11] == (10, None, None)
    assert marks[12] == (12, "postgres", 10)
    assert marks[13] == (13, "postgres", 10)


def test_what_shells_managers_and_strangers_began_is_no_part() -> None:
    """The way up ends at a shell, at a service manager, and where session, service and container are others."""
    family = Family().add(10, "sshd", 1).add(11, "bash", 10).add(12, "curl", 11, session=11)
    family.add(20, "agent", 1).add(21, "job", 20, unit="job.service")
    family.add(30, "runner", 1).add(31, "nginx", 30, session=30, container="docker:" + "a" * 64)
    marks = family.marks()
    assert {pid: marks[pid][1] for pid in (12, 21, 31)} == {12: None, 21: None, 31: None}


def test_bare_interpreters_in_a_row_are_not_taken_for_one() -> None:
    """Of a bare interpreter it is not known which script it runs; of one whose script has a name it is."""
    family = Family().add(10, "python3.11", 1).add(11, "python3.11", 10, session=10)
    family.add(20, "gunicorn", 1, exe="/usr/bin/python3.11").add(
        21, "gunicorn", 20, session=20, exe="/usr/bin/python3.11"
    )
    family.add(30, "tool", 1, exe="/opt/a/tool").add(31, "tool", 30, session=30, exe="/opt/b/tool")
    marks = family.marks()
    assert (marks[11][0], marks[21][0], marks[31][0]) == (11, 20, 31)


def test_instances_carry_their_marks() -> None:
    """An instance has the leader, the application and the container of its process; without any word it has none."""
    family = Family().add(10, "app", 1, container="docker:" + "a" * 64, container_name="shop").add(11, "app", 10)
    rows = [
        ApplicationInstance("app", "web1", pid, "10.0.0.1", None, process_id("web1", BOOT, pid, 100), at(1), at(2))
        for pid in (11, 99)
    ]
    made = run(
        lambda keep, instances, processes: mark_parts(instances, find_applications(processes, keep)),
        {ApplicationInstance: rows, ProcessRecord: list(family.rows.values())},
    )
    assert [(row["pid"], row["leader_id"], row["container"]) for row in made] == [
        (11, family.id_of(10), None), (99, None, None),
    ]  # fmt: skip


def use(**changes: Any) -> ServiceUse:
    """A use of a resolver on loopback."""
    values: dict[str, Any] = {
        "app": "curl", "host": "web1", "pid": 20, "address": "127.0.0.1", "user": None, "protocol": "udp", "port": 53,
        "resp_addr": "127.0.0.53", "resp_host": "web1", "resp_app": "resolver", "flows": 2, "samples": 1,
        "duration_s": 0.0, "period_s": 5.0, "orig_bytes": None, "resp_bytes": None, "first_ns": at(1), "last_ns": at(2),
    }  # fmt: skip
    return ServiceUse(**{**values, **changes})


def test_who_asked_a_local_daemon_is_told_by_loopback_and_by_path() -> None:
    """Uses of daemons of the own host are summed by application, service and daemon; others are none."""
    family = Family().add(10, "dbd", 1).add(20, "curl", 1).add(21, "curl", 1).add(22, "dbd", 10)

    def talk(client: int, server: int) -> UnixConnectionRecord:
        return UnixConnectionRecord(
            "web1", "1", "stream", "/run/db.sock", family.id_of(client), family.id_of(server), at(3), at(4), 1
        )  # fmt: skip

    # the service manager holds the daemon's socket beside it; a daemon's own worker is no dependent
    talks = [talk(20, 10), talk(20, 1), talk(21, 10), talk(22, 10)]
    uses = [use(), use(pid=21, flows=1), use(resp_addr="10.0.0.9"), use(resp_addr="::1", resp_app=None, protocol="tcp")]
    made = run(
        lambda _keep, *tables: find_local_uses(*tables),
        {ServiceUse: uses, UnixConnectionRecord: talks, ProcessRecord: list(family.rows.values())},
    )
    told = {(row["app"], row["service"], row["daemon"]): (row["processes"], row["connections"]) for row in made}
    assert told == {
        ("curl", "unix:/run/db.sock", "dbd"): (2, 2),
        ("curl", "udp:127.0.0.53:53", "resolver"): (2, 3),
        ("curl", "tcp:[::1]:53", None): (1, 2),
    }


def test_a_socket_of_two_daemons_is_nobody_s() -> None:
    """Where two programs hold the other end of one connection, the daemon is not named."""
    family = Family().add(10, "one", 1).add(11, "two", 1).add(20, "curl", 1)
    talks = [
        UnixConnectionRecord("web1", "1", "stream", "/x", family.id_of(20), family.id_of(pid), at(3), at(4), 1)
        for pid in (10, 11)
    ]
    made = run(
        lambda _keep, *tables: find_local_uses(*tables),
        {ServiceUse: [], UnixConnectionRecord: talks, ProcessRecord: list(family.rows.values())},
    )
    assert [(row["service"], row["daemon"]) for row in made] == [("unix:/x", None)]
