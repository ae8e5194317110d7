# SPDX-License-Identifier: GPL-3.0-or-later
"""Expressions that every engine means alike, in the place of some of Ibis's own that they do not.

* ``argmax`` and ``argmin`` become a sort within each group on DuckDB (slow, and all rows are held), and an unknown
  value at the highest key is skipped by one engine and given by another: `at_highest`, `at_lowest`.
* A bare cast of a broken number to a whole one rounds on DuckDB and cuts on Spark: `as_whole`.
* ``bit_or`` is one of DuckDB's only, as Ibis sees it: `merge_bits`.
* Broken numbers add up differently in every order, and no engine keeps one: sum whole ones.
"""

from functools import cache
from typing import Any

import ibis


@cache
def _aggregate(name: str, kind: str) -> Any:
    """One of the engines' own aggregates, which Ibis does not offer; both call it alike."""

    def aggregate(value: Any, key: Any) -> Any: ...

    aggregate.__name__ = name
    return ibis.udf.agg.builtin(aggregate, name=name, signature=((kind, None), kind))


def at_highest(value: Any, key: Any) -> Any:
    """The known value of the row with the highest known key in each group; unknown if there is none."""
    return _aggregate("max_by", str(value.type().copy(nullable=True)))(value, ibis.ifelse(value.notnull(), key, None))


def at_lowest(value: Any, key: Any) -> Any:
    """The known value of the row with the lowest known key in each group; unknown if there is none."""
    return _aggregate("min_by", str(value.type().copy(nullable=True)))(value, ibis.ifelse(value.notnull(), key, None))


def merge_bits(number: Any) -> Any:
    """The bits that are set in any row of each group."""
    return _aggregate_one("bit_or", "int64")(number)


@cache
def _aggregate_one(name: str, kind: str) -> Any:
    """The same of one value."""

    def aggregate(value: Any) -> Any: ...

    aggregate.__name__ = name
    return ibis.udf.agg.builtin(aggregate, name=name, signature=((kind,), kind))


def as_whole(number: Any) -> Any:
    """The nearest whole number, halves away from zero."""
    return number.round().cast("int64")


def count_bits(number: Any) -> Any:
    """How many bits of a whole number are set."""
    return _of_the_engine("bit_count", "int64", "int64")(number).cast("int64")


@cache
def _of_the_engine(name: str, given: str, made: str) -> Any:
    """One of the engines' own functions, which Ibis does not offer; both call it alike."""

    def function(value: Any) -> Any: ...

    function.__name__ = name
    return ibis.udf.scalar.builtin(function, name=name, signature=((given,), made))
