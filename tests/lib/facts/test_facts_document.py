# SPDX-License-Identifier: GPL-3.0-or-later
"""The document: equal to what an oracle finds in the rows, equal for equal evidence, inert, and bounded."""

import json
from collections import Counter
from typing import Any

import facts_oracle as oracle
import pytest
from facts_rows import (
    APPS,
    HOSTS,
    KINDS,
    LISTENERS,
    USES,
    build,
    busy_document,
    dependencies_of,
    gap,
    listener,
    segment,
    use,
)
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.facts import local, overlay, store
from whoneeds.facts.document import GAPS_LIMIT
from whoneeds.facts.groups import slug
from whoneeds.facts.inert import make_inert
from whoneeds.facts.shortening import NAMES_LIMIT, SECTION_LIMIT, SECTION_LIMIT_BYTES
from whoneeds.model.errors import FactsError


def texts(value: Any) -> list[str]:
    """All strings within the value, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts(part)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@given(uses=USES, listeners=LISTENERS, kinds=KINDS)
def test_the_document_holds_what_an_oracle_finds(uses: Any, listeners: Any, kinds: Any) -> None:
    """Needs with their counts, dependents, services and groups of each host are those that an oracle finds."""
    dependencies = dependencies_of(uses, kinds)
    hosts = build(service_uses=uses, listeners=listeners, dependencies=dependencies)["hosts"]
    for host in {row["host"] for row in (*uses, *listeners) if row.get("state") != "established"}:
        found = hosts[host]
        words = (
            "app",
            "kind",
            "protocol",
            "port",
            "address",
            "host",
            "support",
            "flows",
            "orig_bytes",
            "first_ns",
            "last_ns",
        )
        expected = [(make_inert(app, 64), *rest) for app, *rest in oracle.needs(host, uses, dependencies)]
        assert Counter(tuple(entry[word] for word in words) for entry in found["needs"]) == Counter(expected)
        assert {
            tuple(entry[word] for word in ("host", "app", "kind", "protocol", "port")) for entry in found["needed_by"]
        } == {(who, make_inert(app, 64), *rest) for who, app, *rest in oracle.dependents(host, uses, dependencies)}
        assert {(entry["protocol"], entry["port"]) for entry in found["provides"]} == oracle.services(
            host, uses, listeners, dependencies
        )
        needed = {f"whoneeds_needs_{slug(name)}" for name in oracle.needed_hosts(host, uses, dependencies)}
        assert {group for group in found["groups"] if group.startswith("whoneeds_needs_")} == needed


@given(uses=USES, listeners=LISTENERS, source=st.randoms(use_true_random=False))
def test_equal_evidence_gives_an_equal_document(uses: Any, listeners: Any, source: Any) -> None:
    """The order in which rows come changes no byte of the document."""
    rows: dict[str, Any] = {
        "service_uses": uses, "listeners": listeners, "dependencies": dependencies_of(uses),
        "gaps": [gap(), gap(detail="x")], "segments": [segment(), segment(samples=1)],
        "applications": {"web1": ["a", "b", "c"]},
    }  # fmt: skip
    first = store.render(build(**rows))
    for name in ("service_uses", "listeners", "dependencies", "gaps", "segments"):
        rows[name] = source.sample(rows[name], len(rows[name]))
    assert store.render(build(**rows)) == first


@given(app=st.text() | APPS, host=HOSTS, detail=st.text(), address=st.text(max_size=80))
def test_every_string_is_inert(app: str, host: str, detail: str, address: str) -> None:
    """Whatever processes, gaps and addresses are called, no string of the document acts or hides."""
    document = build(
        service_uses=[use(app=app, host=host, resp_app=app, resp_addr=address, resp_host=host)],
        listeners=[listener(app=app)],
        segments=[segment(addresses=(address,))],
        gaps=[gap(detail=detail)],
        applications={"web1": [app]},
    )
    for text in texts(document):
        assert text == make_inert(text, 255)
        assert not any(opening in text for opening in ("{{", "{%", "{#"))


def test_the_sections_are_those_of_one_host() -> None:
    """Each section says what it must of two hosts, one of which needs the other."""
    hosts = busy_document()["hosts"]
    assert [(need["app"], need["host"], need["provider"]) for need in hosts["web1"]["needs"]] == [
        ("\\x7b{ 7 * 7 }}", "db1", None),
        ("web", "db1", "postgres"),
    ]
    assert [(who["host"], who["app"]) for who in hosts["db1"]["needed_by"]] == [
        ("web1", "\\x7b{ 7 * 7 }}"),
        ("web1", "web"),
    ]
    assert [(one["app"], one["port"], one["needed_by_hosts"]) for one in hosts["db1"]["provides"]] == [
        (None, 80, ["web1"]),
        ("postgres", 5432, ["web1"]),
    ]
    assert hosts["web1"]["runs"] == ["nginx", "web", "yes"]
    assert hosts["db1"]["addresses"] == ["10.0.0.5", "fd00::5"]
    assert hosts["db1"]["coverage"] == {
        "segments": 1, "samples": 12, "period_s": 5.0, "privileged": False, "first_ns": 10, "last_ns": 70,
        "ends": 0, "by_socket": 0, "by_listener": 0, "ambiguous": 0, "unknown": 0, "unpaired": 0,
        "gaps": ["table: denied: \\x1b[2J"],
    }  # fmt: skip


def test_a_host_that_was_only_looked_at_is_told() -> None:
    """A host without any activity has empty sections and says how well it was looked at."""
    facts = build(segments=[segment()])["hosts"]["web1"]
    assert facts["needs"] == facts["needed_by"] == facts["provides"] == facts["runs"] == facts["groups"] == []
    assert facts["coverage"]["segments"] == 1


def test_how_ends_are_known_is_told() -> None:
    """What is counted of a host's ends stands in its coverage, and a host without conversations has none."""
    counted = {"ends": 9, "by_socket": 3, "by_listener": 2, "ambiguous": 3, "unknown": 1, "unpaired": 5}
    hosts = build(segments=[segment(), segment(host="db1")], ends=[{"host": "web1", **counted}])["hosts"]
    assert {name: hosts["web1"]["coverage"][name] for name in counted} == counted
    assert {hosts["db1"]["coverage"][name] for name in counted} == {0}


def test_no_evidence_is_an_empty_document() -> None:
    """Of no rows a document without hosts is made, and it can be written in every form."""
    document = build()
    assert document["hosts"] == {}
    assert store.check_document(json.loads(store.render(document)), "it")["hosts"] == {}
    assert overlay.render_hosts(document).endswith(" hosts: {}\n children: {}\n")


def test_providers_that_disagree_are_no_provider() -> None:
    """Where two applications answered the same need, none is named."""
    uses = [use(resp_app="a", pid=1), use(resp_app="b", pid=2), use(port=80, resp_app="a"), use(port=80, resp_app=None)]
    needs = {need["port"]: need["provider"] for need in build(service_uses=uses)["hosts"]["web1"]["needs"]}
    assert needs == {5432: None, 80: "a"}


def test_a_bound_udp_socket_is_a_service_only_where_something_says_so() -> None:
    """A UDP socket with a high port that nobody used is taken for a client's."""
    bound = [listener(state="bound", protocol="udp", socket_id=str(port), local_port=port) for port in (53, 5000, 5001)]
    uses = [use(host="db1", protocol="udp", port=5001, resp_host="web1")]
    facts = build(listeners=bound, service_uses=uses)["hosts"]["web1"]
    assert [entry["port"] for entry in facts["provides"]] == [53, 5001]


def test_a_socket_that_was_seen_both_ways_is_a_service() -> None:
    """A socket that was seen bound and later listening counts as listening, whichever row comes first."""
    seen = [listener(local_port=5000, state="bound"), listener(local_port=5000)]
    for rows in (seen, seen[::-1]):
        assert [entry["port"] for entry in build(listeners=rows)["hosts"]["web1"]["provides"]] == [5000]


def test_loopback_only_holds_for_all_addresses() -> None:
    """A service is loopback-only if each of its addresses is, and an address that is none counts as reachable."""
    sockets = [
        listener(socket_id="1", local_port=80, local_addr="127.0.0.1"),
        listener(socket_id="2", local_port=81, local_addr="127.0.0.1"),
        listener(socket_id="3", local_port=81, local_addr="10.0.0.1"),
        listener(socket_id="4", local_port=82, local_addr="nonsense"),
        listener(socket_id="5", local_port=83, local_addr="::1"),
    ]
    provides = build(listeners=sockets)["hosts"]["web1"]["provides"]
    assert {entry["port"]: entry["loopback_only"] for entry in provides} == {80: True, 81: False, 82: False, 83: True}


def test_a_use_without_its_dependency_is_refused() -> None:
    """Uses and dependencies of different evidence make no document."""
    with pytest.raises(FactsError, match="level-1 dependency of web on tcp/5432"):
        build(service_uses=[use()], dependencies=[])


@pytest.mark.parametrize("host", ["../web1", "", "{{ 7 }}", "a b", ".hidden", "-o", "x" * 300, "w\n"])
def test_a_name_that_no_host_may_have_is_refused(host: str) -> None:
    """A host with a name that is unsafe as a file or group is refused with what to do."""
    with pytest.raises(FactsError, match="rename the host in the inventory"):
        build(segments=[segment(host=host)])


def test_an_unknown_method_is_refused() -> None:
    """A document says by which method it was decided, and only known ones."""
    with pytest.raises(FactsError, match="expected macroscope"):
        build(method="guess")


# ---------------------------------------------------------------- a host that does very much


def test_a_section_that_is_too_long_keeps_what_matters_and_says_so() -> None:
    """Of more needs than fit, static and much used ones stay, and a gap says how many were left out."""
    uses = [use(app="scan", port=port, flows=1 + port % 7) for port in range(1, SECTION_LIMIT + 501)]
    uses += [use(app="web", port=port, resp_host="db1") for port in range(60000, 60010)]
    kinds = {("scan", "tcp", port): "transient" for port in range(SECTION_LIMIT + 501)}
    facts = build(service_uses=uses, dependencies=dependencies_of(uses, kinds))["hosts"]["web1"]
    assert len(facts["needs"]) == SECTION_LIMIT
    assert sum(need["app"] == "web" for need in facts["needs"]) == 10
    assert min(need["flows"] for need in facts["needs"] if need["app"] == "scan") > 1
    assert "facts: truncated: 510 of 1510 needs left out of this document" in facts["coverage"]["gaps"]


def test_groups_hold_every_host_that_is_needed() -> None:
    """A host with more static needs than are listed is still in the group of each host that it needs."""
    uses = [use(resp_host=f"node{number}", resp_addr=f"10.0.0.{number}") for number in range(SECTION_LIMIT + 200)]
    facts = build(service_uses=uses)["hosts"]["web1"]
    assert len(facts["needs"]) == SECTION_LIMIT
    assert facts["groups"] == sorted(f"whoneeds_needs_node{number}" for number in range(SECTION_LIMIT + 200))


def test_one_host_cannot_make_the_document_too_large() -> None:
    """The worst that a host can do in every section stays within the limits of each form."""
    apps = ["\U0001f600" * 59 + f"{number:05d}" for number in range(2000)]
    uses = [use(app=app, resp_app=app, resp_host="web1", port=1 + number % 999) for number, app in enumerate(apps)]
    document = build(
        service_uses=uses,
        listeners=[listener(socket_id=app, local_port=1 + number, app=app) for number, app in enumerate(apps)],
        gaps=[gap(detail=app * 4) for app in apps],
        applications={"web1": apps},
    )
    facts = document["hosts"]["web1"]
    for section in ("needs", "needed_by", "provides", "runs"):
        assert 100 < len(facts[section]) < 1000, section
        assert len(json.dumps(facts[section])) < SECTION_LIMIT_BYTES * 1.01
    assert len(facts["coverage"]["gaps"]) == GAPS_LIMIT + 1 + 4
    assert len(store.render(document)) < store.STORE_LIMIT_BYTES / 100
    assert len(overlay.render_host(facts)) < overlay.FILE_LIMIT_BYTES
    assert len(local.render(document, "web1")) < local.FILE_LIMIT_BYTES


def test_names_within_a_service_are_bounded() -> None:
    """A service with very many dependents lists some applications and leaves the rest to its dependents' own facts."""
    uses = [use(app=f"app{number}", resp_host="db1") for number in range(NAMES_LIMIT + 50)]
    facts = build(service_uses=uses, segments=[segment(host="db1")])["hosts"]["db1"]
    (service,) = facts["provides"]
    assert len(service["needed_by_apps"]) == NAMES_LIMIT


def test_absurd_counts_do_not_stop_the_facts() -> None:
    """Counts whose sum no column can hold are told as the most that one can."""
    uses = [use(pid=pid, orig_bytes=2**62, resp_host="db1") for pid in (1, 2, 3)]
    facts = build(service_uses=uses, segments=[segment(samples=2**62)] * 3)["hosts"]["web1"]
    assert facts["needs"][0]["orig_bytes"] == facts["coverage"]["samples"] == 2**63 - 1
