# SPDX-License-Identifier: GPL-3.0-or-later
"""The same thing always has the same name, and two things never share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoneeds.model.errors import InvalidRecord
from whoneeds.model.identity import (
    ProcessKey,
    check_host_name,
    parse_process_id,
    process_id,
    rehost,
    segment_id,
    socket_id,
)

BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"
HOSTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}(\.[a-z0-9]{1,8}){0,3}", fullmatch=True)


@given(HOSTS, st.integers(0, 2**22), st.integers(0, 2**62))
def test_process_identities_are_taken_apart_again(host, pid, ticks):
    """A process identity gives back exactly the parts that it was made of."""
    assert parse_process_id(process_id(host, BOOT, pid, ticks)) == ProcessKey(host, BOOT, pid, ticks)


@given(st.text(max_size=80))
def test_other_texts_are_no_process_identities(text):
    """A text that is not a process identity is refused, whatever it is."""
    try:
        key = parse_process_id(text)
    except InvalidRecord:
        return
    assert process_id(*key) == text


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", "a/b", "../x", "a..b", "a b", "a\n", "ä", "{{ x }}", "x" * 254, "$(id)", "a\0"]
)
def test_names_that_are_no_host_names(name):
    """A name that could leave its folder, its line or its word is no host name."""
    with pytest.raises(InvalidRecord):
        check_host_name(name)


@given(HOSTS)
def test_plain_names_are_host_names(name):
    """Names of letters, digits, dots and dashes are taken as they are."""
    assert check_host_name(name) == name


def test_sockets_without_a_cookie_are_told_apart_by_tuple_and_time():
    """The kernel's cookie names a socket; without one its tuple and first sight do."""
    assert socket_id("h", BOOT, "1", 255) == f"h/{BOOT}/1/ff"
    assert socket_id("h", BOOT, "1", None, "tcp:a>b", 7) != socket_id("h", BOOT, "1", None, "tcp:a>b", 8)


def test_rehosting_replaces_the_claimed_name_only():
    """The controller's name takes the place of the claimed one; an identity of another host is refused."""
    assert rehost(segment_id("claimed", BOOT, 5), "claimed", "db1") == f"db1/{BOOT}/5"
    for foreign in (segment_id("other", BOOT, 5), "claimed", "", "claimedx/1"):
        with pytest.raises(InvalidRecord):
            rehost(foreign, "claimed", "db1")
