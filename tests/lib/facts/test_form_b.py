# SPDX-License-Identifier: GPL-3.0-or-later
"""Form B: any YAML reader reads back what was written, and nothing but typed words is left untagged."""

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.facts.form_b import DEPTH_LIMIT, show_surrogates, write_value
from whoneeds.facts.overlay import load_tagged

ODD = st.sampled_from(
    ["", "=", "<<", "~", "null", "yes", "No", "on", "0", "-1", "0x1f", "0o17", "017", "1_000", "1e3", ".inf", ".nan",
     "12:30:45", "2001-01-01", "!unsafe x", "&a", "*a", "- x", "? x", "a: b", "%YAML 1.1", "---", "...", "# c", "'",
     '"', "\\", "{{ 7 }}", "{% x %}", "$ANSIBLE_VAULT;1.1;AES256", "\t", "\n", "\r\n", "\x00", "\x85", "\u2028",
     "\ufeff", "\ud800", "\udcff", "\U0001f600", "x" * 1500]
)  # fmt: skip
TEXTS = ODD | st.text(st.characters())
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


class UntaggedLoader(yaml.SafeLoader):
    """A reader that takes the type of a tagged string from its text, as newer versions of Ansible do."""


def _resolved(loader: Any, node: Any) -> Any:
    kind = loader.resolve(yaml.ScalarNode, node.value, (True, False))
    return loader.yaml_constructors[kind](loader, yaml.ScalarNode(kind, node.value))


UntaggedLoader.add_constructor("!unsafe", _resolved)


def shown(value: Any) -> Any:
    """The value as a file can hold it: lone surrogates as visible characters."""
    if isinstance(value, str):
        return show_surrogates(value)
    if isinstance(value, dict):
        return {shown(key): shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list) else value


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal in type as well."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    """The C reader, the Python one and one that forgets quotes read values of the same type and content."""
    text = write_value(value)
    assert text.isascii()
    assert same(load_tagged(text), shown(value))
    assert same(yaml.load(text, Loader=UntaggedLoader), shown(value))


@given(VALUES)
def test_nothing_that_could_be_a_template_is_left_untagged(value: Any) -> None:
    """Every scalar that stays a string for the reader carries the tag, and no text holds a brace or a percent sign."""
    for event in yaml.parse(write_value(value)):
        if isinstance(event, yaml.ScalarEvent) and event.style == '"':
            plain = yaml.SafeLoader("").resolve(yaml.ScalarNode, event.value, (True, False))
            assert (event.tag == "!unsafe") == (plain == "tag:yaml.org,2002:str")
            assert event.tag == "!unsafe" or "{" not in event.value


@given(TEXTS)
def test_no_character_between_the_quotes_acts(text: str) -> None:
    """What could end the string, begin a template or start a comment is escaped."""
    written = write_value(text).removeprefix("!unsafe ")
    assert written.startswith('"')
    assert written.endswith('"')
    assert not set(written[1:-1]) & set('"{}%#')


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_as_the_same_float(number: float) -> None:
    """YAML takes 1e-07 for a string, so each float is written in a form that it takes for a float."""
    loaded = yaml.safe_load(write_value(number))
    assert isinstance(loaded, float)
    assert math.copysign(1, loaded) == math.copysign(1, number)
    assert loaded == number


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {1: 2}, b"x", {"a": object()}, [{"a": {None: 1}}]])
def test_what_yaml_and_json_do_not_share_is_refused(value: Any) -> None:
    """Not a number, infinity, keys that are no strings and other types are refused."""
    with pytest.raises(ValueError, match=r"not a number|not a string|^a "):
        write_value(value)


def test_bottomless_nesting_is_refused() -> None:
    """A value that is nested too deeply is refused instead of exhausting the reader."""
    value: Any = "x"
    for _ in range(DEPTH_LIMIT + 1):
        value = [value]
    with pytest.raises(ValueError, match="levels deep"):
        write_value(value)
    assert load_tagged(write_value(value[0])) == value[0]
