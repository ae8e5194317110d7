# SPDX-License-Identifier: GPL-3.0-or-later
"""Dependencies as a graph that other tools draw and read: DOT (Graphviz), GraphML and Mermaid.

Names come from hosts. In each format they stand where only text is expected, with every sign that means something
there escaped, and what nobody can see made visible, so that no name adds a node, an edge or a command. Identities of
nodes are numbers that this page gives.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from whoneeds.render.quantity import tell_share
from whoneeds.render.views import name_parts
from whoneeds.render.visible import make_visible

_GRAPHML = "http://graphml.graphdrawing.org/xmlns"
_EDGE_KEYS = (
    ("service", "string"), ("kind", "string"), ("usage_share", "double"), ("flows", "long"), ("orig_bytes", "long"),
    ("resp_bytes", "long"), ("name", "string"), ("any_of", "string"),
)  # fmt: skip
#: What Mermaid takes as it stands within quotation marks; all else becomes its number.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-/@:,()[]")

Row = Mapping[str, Any]


@dataclass
class Graph:
    """Nodes in the order in which they came, and the rows between them.

    Attributes
    ----------
    nodes : dict of str to int
        Name and number.
    edges : list of (int, int, mapping)
        From, to, and the attributes of the row.
    """

    nodes: dict[str, int] = field(default_factory=dict)
    edges: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)

    def number(self, name: str) -> int:
        """The number of a node, a new one if it is new."""
        return self.nodes.setdefault(name, len(self.nodes))


def make_graph(rows: Iterable[Row]) -> Graph:
    """Rows as a graph: who needs is a node, and so is what is needed; each row is an edge.

    An application on a host is one node, whether it needs or is needed, so that needs of needs follow each other.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of `Dependency`, or of the view by host.
    """
    graph = Graph()
    for row in rows:
        dependent, provider, service = (make_visible(part) for part in name_parts(row))
        # where nobody is known to answer, the service itself is what is needed
        ends = graph.number(dependent), graph.number(provider or service)
        known = {name: row.get(name) for name, _type in _EDGE_KEYS} | {"service": service}
        graph.edges.append((*ends, {name: value for name, value in known.items() if value is not None}))
    return graph


def format_dot(rows: Iterable[Row]) -> str:
    r"""Rows in Graphviz' language.

    Examples
    --------
    >>> row = {"app": 'a"b\\', "host": "h", "pid": None, "address": None, "protocol": "tcp", "port": 1,
    ...        "kind": "static", "resp_app": "db", "resp_host": "h2", "resp_addr": None, "usage_share": 1.0}
    >>> print(format_dot([row]), end="")
    digraph whoneeds {
      n0 [label="a\"b\\@h"];
      n1 [label="db@h2"];
      n0 -> n1 [label="tcp/1 100%", style=solid];
    }
    """
    graph = make_graph(rows)
    lines = ["digraph whoneeds {"]
    lines += [f"  n{number} [label={_quote(name)}];" for name, number in graph.nodes.items()]
    for begin, end, known in graph.edges:
        style = "solid" if known["kind"] == "static" else "dashed"
        lines.append(f"  n{begin} -> n{end} [label={_quote(_label(known))}, style={style}];")
    return "\n".join([*lines, "}", ""])


def format_mermaid(rows: Iterable[Row]) -> str:
    """Rows as a flowchart of Mermaid, which Markdown pages draw."""
    graph = make_graph(rows)
    lines = ["flowchart LR"]
    lines += [f'  n{number}["{_number_signs(name)}"]' for name, number in graph.nodes.items()]
    for begin, end, known in graph.edges:
        arrow = "-->" if known["kind"] == "static" else "-.->"
        lines.append(f'  n{begin} {arrow}|"{_number_signs(_label(known))}"| n{end}')
    return "\n".join([*lines, ""])


def format_graphml(rows: Iterable[Row]) -> str:
    """Rows as GraphML, with all figures as attributes of edges."""
    graph = make_graph(rows)
    root = ElementTree.Element("graphml", xmlns=_GRAPHML)
    ElementTree.SubElement(root, "key", {"id": "label", "for": "node", "attr.name": "label", "attr.type": "string"})
    for name, kind in _EDGE_KEYS:
        ElementTree.SubElement(root, "key", {"id": name, "for": "edge", "attr.name": name, "attr.type": kind})
    inside = ElementTree.SubElement(root, "graph", edgedefault="directed")
    for name, number in graph.nodes.items():
        node = ElementTree.SubElement(inside, "node", id=f"n{number}")
        ElementTree.SubElement(node, "data", key="label").text = name
    for at, (begin, end, known) in enumerate(graph.edges):
        edge = ElementTree.SubElement(inside, "edge", id=f"e{at}", source=f"n{begin}", target=f"n{end}")
        for name, value in known.items():
            ElementTree.SubElement(edge, "data", key=name).text = make_visible(str(value))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _label(known: Row) -> str:
    share = known.get("usage_share")
    return known["service"] if share is None else f"{known['service']} {tell_share(share)}"


def _quote(text: str) -> str:
    """A text in quotation marks; Graphviz reads entities of HTML in it as well."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return f'"{escaped}"'


def _number_signs(text: str) -> str:
    return "".join(sign if sign in _PLAIN else f"#{ord(sign)};" for sign in text)
