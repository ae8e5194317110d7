# SPDX-License-Identifier: GPL-3.0-or-later
"""What the walk reads from findings and from Ansible, and the damage that it does."""

import hashlib
from typing import Any

import pytest

from .damage import DIGEST_BYTES, spoil
from .fleet import FLEET
from .judgement import conversations_of, dependents_of, needs_of, peers_of
from .operator import Played, read_recap
from .truth import truth_document

NEED = {"app": "nginx", "host": "app1", "provider": "appserver", "protocol": "tcp", "port": 8080, "kind": "static"}
RECAP = """\
web1 : ok=1 changed=9 unreachable=0 failed=0
PLAY RECAP *****
db1                        : ok=5    changed=2    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
web1                       : ok=3    changed=0    unreachable=1    failed=0    skipped=0    rescued=0    ignored=0
"""


def test_published_needs_become_rows_of_the_scorer():
    """Each need between two hosts is one claim with its kind; a need of the host itself is none."""
    document = {"hosts": {"web1": {"needs": [NEED, {**NEED, "host": "web1"}]}, "app1": {"needs": []}}}
    assert needs_of(document) == [
        {
            "orig_host": "web1", "orig_app": "nginx", "resp_host": "app1", "resp_app": "appserver", "protocol": "tcp",
            "resp_port": 8080, "kind": "static",
        }
    ]  # fmt: skip


def test_connections_without_direction_claim_nothing():
    """Of unknown direction, or within one host, a connection is no claim; without a program's name it still is one."""
    row: dict[str, Any] = {"orig_host": "web1", "resp_host": "app1", "direction": "listener", "orig_app": None}
    others = [{**row, "direction": "unknown"}, {**row, "resp_host": "web1"}]
    assert conversations_of([row, *others]) == [row]


def test_peers_are_counted_by_process_and_their_ports_by_kind():
    """Instances are (host, pid); ports of the application's own kind are told apart from those of its tracker."""
    base = {"app": "peerd", "host": "web1", "pid": 1, "resp_app": "peerd", "port": 40000, "kind": "transient"}
    rows = [
        base,
        {**base, "host": "web2", "port": 40001},
        {**base, "pid": 2, "resp_app": "redis-server", "port": 6379, "kind": "static"},
        {**base, "pid": 2, "port": 40002, "kind": "static"},
        {**base, "pid": 3, "port": 40003, "kind": "unclassified"},
        {**base, "app": "nginx", "pid": 9},
    ]
    assert peers_of(rows, "peerd") == {
        "instances": 4, "dialling_instances": 4, "transient": 2, "static": 1, "other": 1
    }  # fmt: skip


def test_hosts_that_must_and_may_need_a_host_follow_from_the_truth():
    """Five minutes make every dependent of db1 certain; in a few seconds the nightly job is only possible."""
    truth = truth_document(FLEET)
    everybody = {"app1", "batch1", "mon1"}
    assert dependents_of(truth, "db1", 300, 5) == (everybody, everybody)
    assert dependents_of(truth, "db1", 30, 5) == (everybody - {"batch1"}, everybody)


def test_a_recap_is_read_host_by_host():
    """Only what follows the words PLAY RECAP counts."""
    played = Played(0, read_recap(RECAP), RECAP)
    assert played.recap["db1"] == {"ok": 5, "changed": 2, "unreachable": 0, "failed": 0}
    assert (played.changed, played.lost, played.good) == (2, ["web1"], False)
    assert not Played(0, {}, "").good
    assert not Played(2, {"db1": played.recap["db1"]}, "").good
    assert Played(0, {"db1": played.recap["db1"]}, "").good


@pytest.mark.parametrize("kind", ["cut", "flipped", "schema"])
def test_a_spoilt_segment_is_bad_in_one_way_only(kind: str):
    """A cut or flipped one contradicts its digest; one of another schema does not."""
    body = b"whoneeds-segment 1\n" + bytes(range(200))
    good = body + hashlib.sha256(body).digest()
    bad = spoil(good, kind)
    whole = hashlib.sha256(bad[:-DIGEST_BYTES]).digest() == bad[-DIGEST_BYTES:]
    assert bad != good
    assert whole is (kind == "schema")
    assert (len(bad) == len(good)) is (kind != "cut")
    assert bad.startswith(b"whoneeds-segment 9\n" if kind == "schema" else b"whoneeds-segment 1\n")
