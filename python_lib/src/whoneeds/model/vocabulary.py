# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of all records, and the reference page that is made of it.

``python -m whoneeds.model.vocabulary`` prints the page; ``docs/vocabulary.md`` is its output and a test fails
when the two differ.
"""

import inspect
from typing import Any, List, Tuple, Type

from whoneeds.model import conclusions, destinations, evidence
from whoneeds.model.schema import columns, table_name

EVIDENCE: Tuple[Type[Any], ...] = (
    evidence.SegmentHeader,
    evidence.ProcessRecord,
    evidence.SocketRecord,
    evidence.TranslationRecord,
    evidence.UnixConnectionRecord,
    evidence.CaptureRecord,
    evidence.ExchangeRecord,
    evidence.NameRecord,
    evidence.Gap,
    evidence.WireFlow,
    evidence.FlowRecord,
)
CONCLUSIONS: Tuple[Type[Any], ...] = (
    conclusions.Attribution,
    conclusions.Connection,
    conclusions.ApplicationInstance,
    conclusions.ServiceUse,
    conclusions.ServiceTrait,
    conclusions.LocalUse,
    destinations.Destination,
    destinations.ReplicaSet,
    conclusions.ApplicationCoverage,
    conclusions.Dependency,
    conclusions.WireJoin,
    conclusions.Need,
    conclusions.Dependent,
    conclusions.Provision,
    conclusions.HostCoverage,
)


def render_page() -> str:
    """The reference page of the vocabulary, as Markdown."""
    lines = [
        "# Vocabulary",
        "",
        "Made from the records in `python_lib/src/whoneeds/model` by `make vocabulary`; change it there.",
        "",
        "`None` means not known, `0` a measured zero. Instants are UTC nanoseconds by the observer's clock.",
    ]
    for title, records in (("Evidence", EVIDENCE), ("Conclusions", CONCLUSIONS)):
        lines += ["", f"## {title}"]
        for record in records:
            lines += ["", *_render_record(record)]
    return "\n".join(lines) + "\n"


def _render_record(record: Type[Any]) -> List[str]:
    lines = [f"### {record.__name__} (`{table_name(record)}`)", "", inspect.getdoc(record) or "", ""]
    lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in columns(record):
        kind = column.type + (" or None" if column.nullable else "")
        doc = column.doc
        if column.choices:
            doc += " One of: " + ", ".join(f"`{word}`" for word in column.choices) + "."
        lines.append(f"| `{column.name}` | {kind} | {column.unit or ''} | {doc} |")
    return lines


if __name__ == "__main__":
    print(render_page(), end="")
