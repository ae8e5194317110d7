# SPDX-License-Identifier: GPL-3.0-or-later
"""Graphs for other tools: read back by readers of their own kind, hostile names among them."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from whoneeds.render.graphs import format_dot, format_graphml, format_mermaid, make_graph

HOSTILE = [
    "plain", 'a"];n9[label="x', "back\\", "\\", '\\"', "<b>bold</b>", "&quot;", "%%{init: x}%%", "end", "a\nb", "a;b",
    "]]>", "<!--", "\x00\x1b[2J", "\u202e", "n0 --> n1", "ü漢", "subgraph", "#quot;", "click n0 \"javascript:1\"", "`",
]  # fmt: skip


def row(app, provider="db", **changes):
    """One need."""
    return {
        "app": app, "host": "h", "pid": None, "address": None, "protocol": "tcp", "port": 5432, "resp_app": provider,
        "resp_host": "h2", "resp_addr": None, "kind": "static", "usage_share": 0.5, "flows": 3, "orig_bytes": None,
        "resp_bytes": 7, "name": None, "any_of": None, **changes,
    }  # fmt: skip


ROWS = [row(name, provider) for name, provider in zip(HOSTILE, reversed(HOSTILE), strict=True)]


def unquote(text):
    """What a quoted text of DOT says."""
    return re.sub(r"\\(.)", r"\1", text).replace("&amp;", "&")


def read_dot(text):
    """Labels of nodes, and edges, by the grammar of the language: nothing may be left over."""
    quoted = r'"((?:[^"\\\n]|\\.)*)"'
    nodes, edges = {}, []
    head, *body, tail, last = text.split("\n")
    assert (head, tail, last) == ("digraph whoneeds {", "}", "")
    for line in body:
        if node := re.fullmatch(rf"  (n\d+) \[label={quoted}\];", line):
            nodes[node[1]] = unquote(node[2])
        else:
            edge = re.fullmatch(rf"  (n\d+) -> (n\d+) \[label={quoted}, style=(solid|dashed)\];", line)
            assert edge is not None, line
            edges.append((nodes[edge[1]], nodes[edge[2]], unquote(edge[3])))
    return edges


def read_mermaid(text):
    """The same of Mermaid."""
    quoted = r'"((?:[A-Za-z0-9 ._\-/@:,()\[\]]|#\d+;)*)"'
    nodes, edges = {}, []
    head, *body, last = text.split("\n")
    assert (head, last) == ("flowchart LR", "")

    def plain(found):
        return re.sub(r"#(\d+);", lambda sign: chr(int(sign[1])), found)

    for line in body:
        if node := re.fullmatch(rf"  (n\d+)\[{quoted}\]", line):
            nodes[node[1]] = plain(node[2])
        else:
            edge = re.fullmatch(rf"  (n\d+) (?:-->|-\.->)\|{quoted}\| (n\d+)", line)
            assert edge is not None, line
            edges.append((nodes[edge[1]], nodes[edge[3]], plain(edge[2])))
    return edges


def read_graphml(text):
    """The same of GraphML, by a reader of XML."""
    space = {"g": "http://graphml.graphdrawing.org/xmlns"}
    root = ElementTree.fromstring(text)
    nodes = {node.get("id"): node.find("g:data", space).text for node in root.iterfind(".//g:node", space)}
    edges = []
    for edge in root.iterfind(".//g:edge", space):
        known = {data.get("key"): data.text for data in edge.iterfind("g:data", space)}
        assert (known["flows"], known["resp_bytes"], known["kind"]) == ("3", "7", "static")
        assert "orig_bytes" not in known
        edges.append((nodes[edge.get("source")], nodes[edge.get("target")], f"{known['service']} 50%"))
    return edges


@pytest.mark.parametrize(
    ("write", "read"), [(format_dot, read_dot), (format_mermaid, read_mermaid), (format_graphml, read_graphml)]
)
def test_hostile_names_stay_names(write, read):
    """Each row is one edge between the two that it names, whatever they are called, and nothing else is there."""
    graph = make_graph(ROWS)
    names = {number: name for name, number in graph.nodes.items()}
    wanted = [(names[begin], names[end], "tcp/5432 50%") for begin, end, _known in graph.edges]
    assert len(wanted) == len(HOSTILE)
    assert read(write(ROWS)) == wanted
    assert "\x1b" not in write(ROWS)
    assert "\u202e" not in write(ROWS)


def test_what_needs_and_is_needed_is_one_node():
    """A program that one row needs and that needs something in another is one node; an untraced one is its address."""
    rows = [
        row("web", "api", resp_host="h"), row("api", None, resp_host=None, resp_addr="192.0.2.1", kind="transient"),
        row("web", None, resp_host=None, host=None),
    ]  # fmt: skip
    graph = make_graph(rows)
    assert list(graph.nodes) == ["web@h", "api@h", "192.0.2.1", "web", "tcp/5432"]
    assert [edge[:2] for edge in graph.edges] == [(0, 1), (1, 2), (3, 4)]
    assert "dashed" in format_dot(rows)
    assert "-.->" in format_mermaid(rows)


def test_no_rows_are_an_empty_graph():
    """Of no rows comes a graph without nodes, which is still one."""
    assert read_dot(format_dot([])) == read_mermaid(format_mermaid([])) == read_graphml(format_graphml([])) == []
