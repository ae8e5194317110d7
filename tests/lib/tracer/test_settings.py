# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings are taken as they are meant, or refused with what was expected, what was found and what to do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.errors import SettingsError
from whoneeds.tracer.location import locate, parse_rule
from whoneeds.tracer.settings import check_config, make_settings, read_config

WHOLE = {
    "schema": 1,
    "host": "db1",
    "dir": "/var/lib/whoneeds",
    "period_s": 2,
    "rotate_s": 30,
    "rotate_bytes": 65536,
    "budget_bytes": 1048576,
    "location_rules": [{"location": "inside", "networks": ["10.0.0.0/8", "2001:db8::/32"]}],
}


def test_a_whole_file_becomes_settings(tmp_path):
    """Every setting of a file is taken, and an option goes before the file."""
    path = tmp_path / "tracer.json"
    path.write_text(json.dumps(WHOLE))
    made = make_settings(read_config(str(path)), {"period_s": 0.5, "for_s": 60, "dir": None})
    assert (made.host, made.period_s, made.for_s, made.dir) == ("db1", 0.5, 60.0, "/var/lib/whoneeds")
    assert (made.rotate_s, made.rotate_bytes, made.budget_bytes) == (30.0, 65536, 1048576)
    assert [rule.location for rule in made.location_rules] == ["inside"]


def test_nothing_set_is_the_default():
    """Without a file and options the defaults hold, and the host is called by its own name."""
    import os

    made = make_settings({}, {})
    assert (made.period_s, made.rotate_s, made.rotate_bytes, made.budget_bytes) == (5.0, 60.0, 4 << 20, 1 << 30)
    assert (made.host, made.for_s, made.sources) == (os.uname().nodename, None, ("events", "packets", "table"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("period_s", 0), ("period_s", 0.09), ("period_s", 3601), ("period_s", "5"), ("period_s", True),
        ("period_s", None), ("period_s", float("nan")), ("rotate_s", 0), ("rotate_bytes", 1), ("rotate_bytes", 1.5),
        ("budget_bytes", -1), ("host", "a/b"), ("host", 5), ("host", ""), ("dir", "relative"), ("dir", 5),
        ("dir", "/a\0b"), ("location_rules", {}), ("location_rules", [{"location": "inside"}]),
        ("location_rules", [{"location": "moon", "networks": ["10.0.0.0/8"]}]),
        ("location_rules", [{"location": "inside", "networks": []}]),
        ("location_rules", [{"location": "inside", "networks": ["10.0.0.1/8"]}]),
        ("location_rules", [{"location": "inside", "networks": [10]}]), ("periods", 5), ("schema", 2), ("schema", "1"),
        ("schema", True),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(name, value):
    """A wrong, unknown or missing setting is refused with its name, what was expected and what was found."""
    with pytest.raises(SettingsError) as caught:
        check_config({**WHOLE, name: value}, "tracer.json")
    assert name.rstrip("s") in str(caught.value)
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"5", b"\xff", b"{}", b"[" * 100_000, b" " * (2 << 20)])
def test_files_that_are_no_configuration_are_refused(tmp_path, text):
    """A file that is no JSON object of schema 1 is refused."""
    path = tmp_path / "tracer.json"
    path.write_bytes(text)
    with pytest.raises(SettingsError, match=r"tracer\.json"):
        read_config(str(path))


def test_an_unreadable_file_says_what_to_do(tmp_path):
    """A file that cannot be read is refused by its path, with what to do."""
    with pytest.raises(SettingsError, match="check the path and its permissions"):
        read_config(str(tmp_path / "missing.json"))


@given(st.floats(allow_nan=True) | st.integers())
def test_the_period_lies_in_its_range(period):
    """Every period from 0.1 to 3600 seconds is taken as it is; every other is refused."""
    try:
        made = make_settings({}, {"period_s": period})
    except SettingsError:
        assert not 0.1 <= period <= 3600
    else:
        assert made.period_s == period
        assert 0.1 <= period <= 3600


def test_the_first_rule_that_fits_decides():
    """The first rule with a network of one of the host's addresses decides, over IPv4 and IPv6."""
    rules = [parse_rule("vpn", ["10.9.0.0/16"]), parse_rule("inside", ["10.0.0.0/8", "2001:db8::/32"])]
    assert locate(["10.1.1.1", "10.9.0.7"], rules) == "vpn"
    assert locate(["2001:db8::7"], rules) == "inside"
    assert locate(["198.51.100.1"], rules) == "outside"
    assert locate([], rules) == "outside"


def test_without_rules_the_location_is_not_known():
    """No rules, no location: not 'outside'."""
    assert locate(["10.0.0.1"], []) is None
