# SPDX-License-Identifier: GPL-3.0-or-later
"""Group names: as they are where they can be, apart where names collide, and nobody can name itself into a group."""

import hashlib
import re
import string

from hypothesis import given
from hypothesis import strategies as st

from whoneeds.facts.groups import GROUP_NAME, group_names, slug

SAFE = string.ascii_letters + string.digits + "_"
#: Names that nearly meet: equal once they are group-safe, or with digits as a hash would give.
NEAR = st.text(alphabet="ab_-. é\udcff0", max_size=6) | st.text(max_size=60)
DIGITS = st.integers(0, 2**32 - 1).map("{:08x}".format)


def expected_slug(name: str) -> str:
    """The rule in other words: a safe and short name stays unless it ends like a hash; others get their own hash."""
    safe = "".join(letter if letter in SAFE else "_" for letter in name)
    if (
        name
        and safe == name
        and len(name) <= 48
        and not (name[-9:-8] == "_" and re.fullmatch("[0-9a-f]{8}", name[-8:]))
    ):
        return name
    return safe[:48] + "_" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


@given(NEAR | st.builds("{}_{}".format, NEAR, DIGITS))
def test_a_slug_follows_the_rule(name: str) -> None:
    """Each name gives what the rule in other words gives, and that makes a group that the inventory plugin takes."""
    assert slug(name) == expected_slug(name)
    assert GROUP_NAME.fullmatch(f"whoneeds_needs_{slug(name)}")


@given(one=NEAR, other=NEAR)
def test_two_names_are_two_groups(one: str, other: str) -> None:
    """Names that differ have slugs that differ."""
    assert (slug(one) == slug(other)) == (one == other)


@given(victim=NEAR)
def test_nobody_names_itself_into_the_group_of_another(victim: str) -> None:
    """A process that is called like the group of another name gets a group of its own."""
    attacker = slug(victim)
    assert attacker == victim or slug(attacker) != attacker


def test_names_stay_as_they_are_where_they_can() -> None:
    """Plain names stay, others carry eight digits of their hash."""
    assert slug("db1") == "db1"
    assert slug("db_1") == "db_1"
    assert slug("db-1") == "db_1_68150cfc"
    assert slug("") == "_e3b0c442"
    assert slug("x" * 48) == "x" * 48
    assert slug("x" * 49).startswith("x" * 48 + "_")
    assert slug("db_1_68150cfc") == "db_1_68150cfc_3afb2b53"


def test_groups_follow_from_the_sections() -> None:
    """Static needs of other hosts, offered services and applications give groups, and nothing else does."""
    facts = {
        "needs": [
            {"kind": "static", "host": "db1"},
            {"kind": "static", "host": "db1"},
            {"kind": "static", "host": "web1"},
            {"kind": "static", "host": None},
            {"kind": "transient", "host": "db2"},
            {"kind": "unclassified", "host": "db3"},
        ],
        "provides": [
            {"protocol": "tcp", "port": 80, "needed_by_hosts": []},
            {"protocol": "udp", "port": 32767, "needed_by_hosts": []},
            {"protocol": "tcp", "port": 32768, "needed_by_hosts": []},
            {"protocol": "tcp", "port": 40000, "needed_by_hosts": ["web2"]},
        ],
        "runs": ["nginx", "php-fpm"],
    }
    assert group_names("web1", facts) == [
        "whoneeds_needs_db1",
        "whoneeds_provides_tcp_40000",
        "whoneeds_provides_tcp_80",
        "whoneeds_provides_udp_32767",
        "whoneeds_runs_nginx",
        f"whoneeds_runs_{slug('php-fpm')}",
    ]
