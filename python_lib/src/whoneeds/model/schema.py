# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataclass is the schema: columns are read off the record's own fields.

A record is a frozen dataclass whose fields are made by `documented`. `columns` turns it into a list of typed
columns; segments, Parquet files, the reference page and the tests all take them from there, so that no
second list of columns exists.
"""

import dataclasses
import functools
import typing
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from whoneeds.model.errors import InvalidRecord

if TYPE_CHECKING:  # not in the typing of Python 3.9
    from typing import TypeGuard

Record = TypeVar("Record")

#: Column types by Python annotation. Signed 64 bit only, so that every engine can hold every value.
_TYPES: Dict[Any, str] = {str: "string", int: "int64", float: "float64", bool: "bool", Tuple[str, ...]: "string[]"}

#: Columns that were worked out already: rows are checked by the million.
_COLUMNS: Dict[Type[Any], Tuple["Column", ...]] = {}

_INT64_MAX = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a record.

    Attributes
    ----------
    name : str
    type : str
        ``string``, ``int64``, ``float64``, ``bool`` or ``string[]``.
    nullable : bool
        Whether ``None`` (not known) is a legal value.
    doc : str
    unit : str or None
    choices : tuple of str or None
        The closed set, where there is one.
    max_length : int
        Longest legal string, in characters; longer ones are refused by readers and cut by the tracer.
    """

    name: str
    type: str
    nullable: bool
    doc: str
    unit: Optional[str]
    choices: Optional[Tuple[str, ...]]
    max_length: int


def documented(
    doc: str,
    *,
    unit: Optional[str] = None,
    choices: Optional[Tuple[str, ...]] = None,
    max_length: int = 255,
    default: Any = dataclasses.MISSING,
) -> Any:
    """Make a dataclass field that carries its own documentation.

    Parameters
    ----------
    doc : str
        One sentence: the meaning, its accuracy, and when it is absent.
    unit : str, optional
        Unit of the value.
    choices : tuple of str, optional
        The closed set of legal words.
    max_length : int, default 255
        Longest legal string in characters.
    default : optional
        Default value of the field.
    """
    metadata = {"doc": doc, "unit": unit, "choices": choices, "max_length": max_length}
    made: Any = functools.partial(dataclasses.field, default=default, metadata=metadata)
    return made()


def table_name(record: Type[Any]) -> str:
    """Name of the table that holds records of this class: the class name in lower case with underscores.

    Examples
    --------
    >>> from whoneeds.model.evidence import SocketRecord
    >>> table_name(SocketRecord)
    'socket'
    """
    name = record.__name__
    for suffix in ("Record", "Header"):
        if name.endswith(suffix):
            name = name[: -len(suffix)]
    return "".join(
        "_" + letter.lower() if letter.isupper() and at else letter.lower() for at, letter in enumerate(name)
    )


def columns(record: Type[Any]) -> Tuple[Column, ...]:
    """The columns of a record class, in the order of its fields.

    Raises
    ------
    TypeError
        If a field's annotation is not one of the column types, or a field has no documentation.
    """
    known = _COLUMNS.get(record)
    if known is not None:
        return known
    hints = typing.get_type_hints(record)
    made = []
    for field in dataclasses.fields(record):
        hint = hints[field.name]
        nullable = False
        if typing.get_origin(hint) is typing.Union:
            inner = [argument for argument in typing.get_args(hint) if argument is not type(None)]
            nullable = len(inner) < len(typing.get_args(hint))
            hint = inner[0] if len(inner) == 1 else hint
        if hint not in _TYPES or "doc" not in field.metadata:
            raise TypeError(f"{record.__name__}.{field.name}: not a documented column of a known type")
        made.append(Column(field.name, _TYPES[hint], nullable, **field.metadata))
    return _COLUMNS.setdefault(record, tuple(made))


def is_whole_number(value: Any) -> "TypeGuard[int]":
    """Whether a value is an integer; to Python, true and false are some as well."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_value(column: Column, value: Any) -> None:
    """Refuse a value that its column cannot hold.

    Raises
    ------
    InvalidRecord
        Naming the column, what it holds and what was found.
    """
    if value is None:
        if not column.nullable:
            raise InvalidRecord(f"column {column.name}", expected=column.type, found="nothing")
        return
    kind = column.type
    if kind == "string":
        legal = isinstance(value, str) and _legal_text(value, column.max_length)
    elif kind == "int64":
        legal = is_whole_number(value) and -_INT64_MAX <= value <= _INT64_MAX
    elif kind == "float64":
        legal = (isinstance(value, float) or is_whole_number(value)) and abs(value) < float("inf")  # nan is not
    elif kind == "bool":
        legal = isinstance(value, bool)
    else:
        legal = (
            isinstance(value, (list, tuple))
            and len(value) <= 4096
            and all(isinstance(item, str) and _legal_text(item, column.max_length) for item in value)
        )
    if legal and column.choices is not None:
        words = (value,) if kind == "string" else value
        legal = all(word in column.choices for word in words)
    if not legal:
        wanted = " or ".join(column.choices) if column.choices else f"{kind} of at most {column.max_length} characters"
        raise InvalidRecord(
            f"column {column.name}", expected=wanted if "string" in kind else kind, found=ascii(value)[:80]
        )


def _legal_text(text: str, max_length: int) -> bool:
    """Whether the text fits and holds no lone surrogate (which no UTF-8 file can hold)."""
    if len(text) > max_length:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def to_row(record: Any) -> Tuple[Any, ...]:
    """The record's values in the order of its columns."""
    return tuple(getattr(record, column.name) for column in columns(type(record)))


def from_row(record: Type[Record], names: Sequence[str], row: Sequence[Any]) -> Record:
    """Build a record from a row whose columns are named by `names`, checking every value.

    Raises
    ------
    InvalidRecord
        If a column is missing, unknown, repeated, or a value does not fit.
    """
    if len(names) != len(row):
        raise InvalidRecord(record.__name__, expected=f"{len(names)} values", found=f"{len(row)}")
    check_names(record, names)  # before a repeated name is lost in the mapping
    return from_mapping(record, dict(zip(names, row)))


def from_mapping(record: Type[Record], values: Mapping[str, Any]) -> Record:
    """Build a record from a mapping of column names to values, checking every value."""
    wanted = columns(record)
    check_names(record, tuple(values))
    made: Dict[str, Any] = {}
    for column in wanted:
        value = values[column.name]
        check_value(column, value)
        made[column.name] = tuple(value) if column.type == "string[]" and value is not None else value
    return record(**made)


def check_names(record: Type[Any], names: Sequence[str]) -> None:
    """Refuse a list of column names that is not exactly the record's own, in any order.

    Raises
    ------
    InvalidRecord
        Naming what is missing, unknown or repeated.
    """
    wanted = {column.name for column in columns(record)}
    missing, unknown = wanted - set(names), set(names) - wanted
    if missing or unknown or len(set(names)) != len(names):
        found = f"missing {sorted(missing)}, unknown {[ascii(name)[:40] for name in sorted(unknown, key=str)][:8]}"
        raise InvalidRecord(f"columns of {table_name(record)}", expected="each of its columns once", found=found)
