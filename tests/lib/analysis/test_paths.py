# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths along needs: against a recursion that has read the page only, and where a path has to end."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.analysis.paths import PathLimits, walk_paths
from whoneeds.model.errors import SettingsError


def member(app, host, group=None, population=1):
    """A group of instances."""
    return {"app": app, "host": host, "group_id": group or f"{app}.{host}", "population": population}


def link(source, target, port=1, instances=1, group=None, host=...):
    """A need of (app, host) for (app, host); an app or a host may be None."""
    resp_app, resp_host = target
    place = resp_host or "203.0.113.9"
    return {
        "app": source[0], "host": source[1], "group_id": group or f"{source[0]}.{source[1]}", "protocol": "tcp",
        "port": port, "resp_host": resp_host, "resp_app": resp_app, "place": place, "kind": "static",
        "instances": instances,
    }  # fmt: skip


def onward(row, group):
    """Where a link leads on to."""
    return {name: row[name] for name in row if name not in ("kind", "instances")} | {"resp_group": group}


def told(paths):
    """Paths as what they go through, why they end, and their share."""
    return [([(hop.resp_app, hop.place, hop.port) for hop in path.hops], path.end, path.share) for path in paths]


def recurse(node, edges, populations, trail, most):
    """Every path from a node on, by recursion: steps, end, share."""
    for target, port, used in sorted(
        edges.get(node, ()), key=lambda edge: (edge[1], edge[0][1] or "203.0.113.9", edge[0][0])
    ):
        app, host = target
        share = used / populations[node]
        step = (app or None, host or "203.0.113.9", port)
        if host is None:
            yield [step], "untraced", share
        elif not app:
            yield [step], "unnamed", share
        elif target in trail:
            yield [step], "cycle", share
        elif not edges.get(target):
            yield [step], "nothing", share
        elif len(trail) == most:
            yield [step], "depth", share
        else:
            for steps, end, rest in recurse(target, edges, populations, [*trail, target], most):
                yield [step, *steps], end, share * rest


NODES = st.tuples(st.sampled_from("abc"), st.sampled_from(["h1", "h2"]))
TARGETS = NODES | st.sampled_from([("", "h1"), ("a", None), ("", None)])


@settings(max_examples=200, deadline=None)
@given(
    edges=st.dictionaries(st.tuples(NODES, TARGETS, st.integers(1, 2)), st.integers(1, 4), max_size=14),
    most=st.integers(1, 5),
)
def test_equals_the_recursion(edges, most):
    """On any net all whole paths come out once, in order, with their ends and shares, as a recursion finds them."""
    populations = {(app, host): 4 for app in "abc" for host in ("h1", "h2")}
    leaving = {}
    for (source, target, port), used in edges.items():
        leaving.setdefault(source, []).append((target, port, used))
    links = [link(source, (target[0] or None, target[1]), port, used) for (source, target, port), used in edges.items()]
    further = [
        onward(row, f"{row['resp_app']}.{row['resp_host']}") for row in links if row["resp_host"] and row["resp_app"]
    ]
    for begin in sorted(populations):
        members = [member(*node, population=4) for node in populations]
        found, whole = walk_paths(links, further, members, [begin], PathLimits(most))
        wanted = list(recurse(begin, leaving, populations, [begin], most))
        assert whole
        assert [path[:2] for path in told(found)] == [path[:2] for path in wanted]
        assert all(math.isclose(path.share, one[2]) for path, one in zip(found, wanted, strict=True))


def test_it_goes_on_with_the_program_that_answered():
    """Of two programs of one name on a host, the path goes on with the needs of the one that answered."""
    links = [
        link(("web", "h1"), ("python3", "h2")),
        link(("python3", "h2"), ("db", "h3"), group="first"),
        link(("python3", "h2"), ("cache", "h3"), group="second"),
    ]
    members = [member("web", "h1"), member("python3", "h2", "first"), member("python3", "h2", "second")]
    found, _whole = walk_paths(links, [onward(links[0], "second")], members, [("web", "h1")])
    assert [path.hops[-1].resp_app for path in found] == ["cache"]
    found, _whole = walk_paths(links, [], members, [("web", "h1")])
    assert told(found) == [([("python3", "h2", 1)], "unclear", 1.0)]


def test_a_server_that_was_begun_anew_is_one_step():
    """Two groups that answered one after the other, as around a restart, make one path, and shares of both."""
    links = [link(("web", "h1"), ("api", "h2"), instances=3), link(("api", "h2"), ("db", "h3"), group="new")]
    members = [member("web", "h1", population=4), member("api", "h2", "old"), member("api", "h2", "new")]
    found, _whole = walk_paths(links, [onward(links[0], "old"), onward(links[0], "new")], members, [("web", "h1")])
    assert told(found) == [([("api", "h2", 1), ("db", "h3", 1)], "nothing", 3 / 4 * 1 / 2)]


def test_no_more_paths_are_made_than_are_asked_for():
    """In a net with more paths than could ever be listed, as many come as were asked for, and it is said."""
    layers = [[(f"a{row}", f"h{layer}") for row in range(10)] for layer in range(40)]
    links = [link(one, other) for here, there in pairwise(layers) for one in here for other in there]
    further = [onward(row, f"{row['resp_app']}.{row['resp_host']}") for row in links]
    members = [member(*node) for layer in layers for node in layer]
    found, whole = walk_paths(links, further, members, None, PathLimits(hops=64, paths=25))
    assert (len(found), whole) == (25, False)


@pytest.mark.parametrize("wrong", [{"hops": 0}, {"hops": 65}, {"paths": 0}, {"paths": True}, {"hops": 1.5}])
def test_limits_that_are_none_are_refused(wrong):
    """Limits of nothing or beyond all bounds are refused."""
    with pytest.raises(SettingsError, match="most"):
        PathLimits(**wrong)
