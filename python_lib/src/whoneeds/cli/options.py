# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several verbs share, so that they mean the same everywhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from whoneeds.cli.outcome import Format, GraphFormat, SummaryFormat

#: Where `make discover` puts the store, seen from the checkout.
DEFAULT_STORE = Path(".whoneeds/local/store")

StoreOption = Annotated[
    Path, typer.Option("--store", metavar="DIR", envvar="WHONEEDS_STORE", help="The store.", show_default=True)
]
FormatOption = Annotated[Format, typer.Option("--format", help="How rows are printed.")]
GraphFormatOption = Annotated[GraphFormat, typer.Option("--format", help="How rows are printed, or drawn as a graph.")]
SummaryOption = Annotated[
    SummaryFormat,
    typer.Option("--format", help="'json' prints a summary on standard output; words go to standard error."),
]

CheckOption = Annotated[bool, typer.Option("--check", help="Change nothing; tell what would change.")]


class EngineName(StrEnum):
    """What works the tables out."""

    DUCKDB = "duckdb"
    SPARK = "spark"


EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine", envvar="WHONEEDS_ENGINE", help="What works the tables out: DuckDB in this process, or Spark."
    ),
]
SparkMasterOption = Annotated[
    str,
    typer.Option(
        "--spark-master", metavar="URL", envvar="WHONEEDS_SPARK_MASTER",
        help="Spark's master; local[*] is this machine alone.",
    ),
]  # fmt: skip
DEFAULT_SPARK_MASTER = "local[*]"
MemoryOption = Annotated[
    str,
    typer.Option(
        "--memory", metavar="SIZE", envvar="WHONEEDS_MEMORY",
        help="Memory that DuckDB takes before it spills to the store's disk.",
    ),
]  # fmt: skip
SpillOption = Annotated[
    str,
    typer.Option(
        "--spill", metavar="SIZE", envvar="WHONEEDS_SPILL",
        help="Most that DuckDB spills; what needs more fails cleanly.",
    ),
]  # fmt: skip
DEFAULT_MEMORY, DEFAULT_SPILL = "1GiB", "16GiB"


class Location(StrEnum):
    """Where a host was when it observed, by the rules set on its addresses."""

    INSIDE = "inside"
    VPN = "vpn"
    OUTSIDE = "outside"
    ALL = "all"


class Method(StrEnum):
    """How static is told from transient."""

    EVIDENCE = "evidence"
    MACROSCOPE = "macroscope"


MethodOption = Annotated[
    Method,
    typer.Option(
        "--method",
        help="How static needs are told from transient ones: by the weight of all evidence, with a probability, or by "
        "the published rule.",
    ),
]
AskedMethodOption = Annotated[
    Method | None,
    typer.Option(
        "--method",
        help="How static needs are told from transient ones; by default as when the store was analysed, otherwise "
        "decided anew and not stored.",
    ),
]
TransientOption = Annotated[
    float,
    typer.Option("--transient-share", metavar="T", help="Below this share of N - 1, an application is all static."),
]
UsersOption = Annotated[
    float, typer.Option("--users-share", metavar="U", help="Least share of users that a static service has.")
]
InstancesOption = Annotated[
    float, typer.Option("--instances-share", metavar="I", help="Least share of instances that a static service has.")
]
