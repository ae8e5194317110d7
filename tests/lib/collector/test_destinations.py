# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that meet flows: against a loop over all pairs, and what must have no name."""

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.collector.destinations import (
    NameSettings,
    find_destinations,
    find_spans,
    make_register,
    name_flows,
    organisation_of,
)
from whoneeds.model.errors import SettingsError
from whoneeds.model.evidence import NameRecord
from whoneeds.store.columns import to_arrow

S = 10**9
USES = pa.schema(
    [(name, pa.string()) for name in ("flow_id", "app", "host", "protocol", "resp_addr", "resp_host", "called_addr")]
    + [(name, pa.int64()) for name in ("resp_port", "first_ns", "last_ns")]
)


def use(number, address="192.0.2.1", at=1000, host="h1", called=None, **changes):
    """A flow of an application."""
    return {
        "flow_id": f"f{number}", "app": "web", "host": host, "protocol": "tcp", "resp_addr": address, "resp_host": None,
        "called_addr": called, "resp_port": 443, "first_ns": at * S, "last_ns": at * S + 1, **changes,
    }  # fmt: skip


def name(called="a.example", address="192.0.2.1", first=1000, last=None, host="h1", source="dns"):
    """A sighting of a name."""
    return NameRecord(host, "4026531840", called, address, source, first * S, (first if last is None else last) * S)


def tables(uses, names):
    """Both as expressions."""
    return ibis.memtable(pa.Table.from_pylist(uses, USES)), ibis.memtable(to_arrow(NameRecord, names, "s"))


def run(expression):
    """The rows of an expression."""
    return ibis.duckdb.connect().to_pyarrow(expression).to_pylist()


def told(uses, names, settings=NameSettings()):
    """What each flow is called by, and how that is known."""
    flows, sightings = tables(uses, names)
    return {
        row["flow_id"]: (row["name"], row["told_by"]) for row in run(name_flows(flows, find_spans(sightings, settings)))
    }


NAMES = st.lists(
    st.builds(
        name,
        called=st.sampled_from(["a.example", "b.example"]),
        address=st.sampled_from(["192.0.2.1", "192.0.2.2", "127.0.0.1"]),
        first=st.integers(0, 60),
        host=st.sampled_from(["h1", "h2"]),
        source=st.sampled_from(["dns", "sni"]),
    ),
    max_size=9,
)
FLOWS = st.lists(
    st.tuples(
        st.sampled_from(["192.0.2.1", "192.0.2.2", "127.0.0.1"]), st.integers(0, 80), st.sampled_from(["h1", "h2"])
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=20, deadline=None)
@given(names=NAMES, flows=FLOWS)
def test_equals_the_loop(names, flows):
    """Every flow has the name that a loop over all sightings gives it, and none where none or several held."""
    chosen = NameSettings(early_s=2, hold_s=7)
    uses = [use(at, address, second, host) for at, (address, second, host) in enumerate(flows)]
    wanted = {}
    for row in uses:
        # sightings that touch are one, and then both ways in which it was seen count
        spans = {}
        for one in sorted(names, key=lambda one: one.first_ns):
            if (one.host, one.address) == (row["host"], row["resp_addr"]) and not one.address.startswith("127."):
                begin, end = one.first_ns - 2 * S, one.last_ns + 7 * S
                held = spans.setdefault(one.name, [])
                if held and begin <= held[-1][1]:
                    held[-1] = (held[-1][0], max(held[-1][1], end), held[-1][2] | {one.source})
                else:
                    held.append((begin, end, {one.source}))
        holding = {
            called: sources for called, held in spans.items() for begin, end, sources in held
            if begin <= row["first_ns"] <= end
        }  # fmt: skip
        if len(holding) > 1:
            wanted[row["flow_id"]] = (None, "ambiguous")
        elif holding:
            ((called, sources),) = holding.items()
            wanted[row["flow_id"]] = (called, "both" if len(sources) == 2 else min(sources))
    assert told(uses, names, chosen) == wanted


def test_an_address_that_changes_hands_changes_its_name():
    """Once the old name has run out, the address has the new one; while both hold it has none."""
    uses = [use(at, at=second) for at, second in enumerate((1000, 4000, 5000, 9000))]
    found = told(uses, [name("old.example", first=1000), name("new.example", first=4500, last=8000)])
    assert found == {
        "f0": ("old.example", "dns"), "f1": ("old.example", "dns"), "f2": ("new.example", "dns"),
        "f3": ("new.example", "dns"),
    }  # fmt: skip
    assert told(uses[1:2], [name("old.example"), name("new.example", first=3900)]) == {"f1": (None, "ambiguous")}


def test_a_translated_call_has_the_name_of_what_was_called():
    """Where the address was translated on the way, the name of the called one counts, and not of the real end."""
    uses = [use(0, address="10.1.1.1", called="192.0.2.1"), use(1, address="192.0.2.1", called="10.1.1.1")]
    assert told(uses, [name()]) == {"f0": ("a.example", "dns")}


def test_names_are_summed_for_each_service_instance():
    """One row says how many flows a name was laid to, and one how many had none."""
    uses = [use(0), use(1), use(2, at=99_000), use(3, resp_port=80)]
    rows = run(find_destinations(*tables(uses, [name(source="sni")])))
    found = {(row["port"], row["name"], row["told_by"], row["flows"]) for row in rows}
    assert found == {(443, "a.example", "sni", 2), (443, None, "none", 1), (80, "a.example", "sni", 1)}


@pytest.mark.parametrize(
    ("called", "host", "wanted"),
    [
        ("www.example.co.uk", None, "example.co.uk"), ("a.b.amazonaws.com", None, "amazonaws.com"),
        ("db1.internal", None, "db1.internal"), ("db1", None, "db1"), ("www.example.org", "web1", None),
        ("co.uk", None, "co.uk"), (None, None, None), ("_x.xn--55qx5d.cn", None, "_x.xn--55qx5d.cn"),
        ("a.b.xn--55qx5d.cn", None, "b.xn--55qx5d.cn"),
    ],
)  # fmt: skip
def test_organisations_are_registered_domains(called, host, wanted):
    """A name belongs to its registered domain, or to itself where no suffix is known, unless the host is traced."""
    assert organisation_of(called, host, make_register()) == wanted


@pytest.mark.parametrize("wrong", [{"early_s": -1}, {"hold_s": float("nan")}, {"hold_s": 1e9}, {"early_s": True}])
def test_times_that_are_none_are_refused(wrong):
    """Negative, endless and other impossible times are refused."""
    with pytest.raises(SettingsError, match="names"):
        NameSettings(**wrong)
