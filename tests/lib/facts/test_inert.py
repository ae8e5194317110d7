# SPDX-License-Identifier: GPL-3.0-or-later
"""Inert text: nothing in it acts or hides, plain text stays, and two texts stay two."""

import unicodedata

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.facts.inert import make_inert

#: Texts made of what acts and of what hides.
HOSTILE = st.lists(
    st.sampled_from(
        [
            "{",
            "{",
            "}",
            "%",
            "#",
            "jinja2:",
            "#jinja2",
            " ",
            "\n",
            "\t",
            "\x1b[2J",
            "\x85",
            "\u202e",
            "\u2066",
            "\u200b",
            "\ufeff",
            "\u2028",
            "\udcff",
            "\ud83d",
            "\U000e0041",
            "e\u0301",
            "\u0378",
            "a",
            "1",
            "\\x7b",
            "~",
        ]
    )
).map("".join)
TEXTS = HOSTILE | st.text(st.characters())


@given(TEXTS, st.integers(16, 80))
def test_nothing_acts_or_hides(text: str, max_length: int) -> None:
    """No template begins, no character is invisible or half of one, and the result is in normal form and fits."""
    shown = make_inert(text, max_length)
    assert len(shown) <= max_length
    assert not any(opening in shown for opening in ("{{", "{%", "{#"))
    assert not shown.lstrip().replace(" ", "").lower().startswith("#jinja2:")
    assert not any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"} for letter in shown)
    assert unicodedata.is_normalized("NFC", shown)
    shown.encode("utf-8")


@given(TEXTS, st.integers(16, 80))
def test_making_inert_twice_changes_nothing(text: str, max_length: int) -> None:
    """What is inert stays as it is."""
    once = make_inert(text, max_length)
    assert make_inert(once, max_length) == once


@given(TEXTS)
def test_jinja_sees_no_template(text: str) -> None:
    """Jinja itself finds nothing in the text but text."""
    tokens = list(jinja2.Environment().lex(make_inert(text, 1000)))
    assert {kind for _, kind, _ in tokens} <= {"data"}


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_stays(text: str) -> None:
    """Printable ASCII stays as it is, but for the brace of a template and the sign of its override."""
    shown = make_inert(text, 10_000)
    assert shown.replace("\\x7b", "{").replace("\\x23", "#") == text.replace("\\x7b", "{").replace("\\x23", "#")


@given(st.text(min_size=30), st.text(min_size=30))
def test_long_texts_stay_apart(one: str, other: str) -> None:
    """Texts that are cut at the same place carry the digits of what they were."""
    if one != other and unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", other):
        cut = [make_inert(text, 16) for text in ("x" * 60 + one, "x" * 60 + other)]
        assert cut[0] != cut[1]
        assert all(text.startswith("xxxxxxx~") for text in cut)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nginx", "nginx"),
        ("café", "café"),
        ("cafe\u0301", "café"),
        ("caf\udce9", "caf\\udce9"),
        ("{{ 7*7 }}", "\\x7b{ 7*7 }}"),
        ("{{{", "\\x7b\\x7b{"),
        ("{\x00{", "{\\x00{"),
        ("#jinja2: variable_start_string:'['", "\\x23jinja2: variable_start_string:'['"),
        ("  #  JINJA2 :", "  \\x23  JINJA2 :"),
        ("a #jinja2:", "a #jinja2:"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\U000e0041", "\\U000e0041"),
        ("", ""),
    ],
)
def test_what_acts_or_hides_becomes_visible(text: str, shown: str) -> None:
    """Each kind of text that acts or hides has its visible form."""
    assert make_inert(text, 64) == shown
