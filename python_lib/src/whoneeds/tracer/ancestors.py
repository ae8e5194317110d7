# SPDX-License-Identifier: GPL-3.0-or-later
"""Ancestors of the processes that a segment tells of, so that its reader can follow who began whom."""

from typing import Container, Dict, Iterator, List, NamedTuple, Optional, Tuple

from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import Attributes

#: How far back ancestors are told of.
MAX_GENERATIONS = 8


class Ancestor(NamedTuple):
    """A process that began others, and when it was asked."""

    holder: Holder
    attributes: Attributes
    asked_ns: int


class Ancestors:
    """Ancestors of one segment's processes."""

    def __init__(self) -> None:
        self._wanted: Dict[Holder, int] = {}
        self._told: Dict[Holder, Optional[Tuple[Attributes, int]]] = {}

    def want_parent(self, attributes: Attributes, named: Container[Holder], generation: int = 1) -> None:
        """Ask for the parent of a process, unless it is named already or too far back."""
        if attributes.parent is not None and generation <= MAX_GENERATIONS:
            parent = Holder(*attributes.parent)
            if parent not in named and parent not in self._told:
                self._wanted.setdefault(parent, generation)

    @property
    def missing(self) -> List[Holder]:
        """Those that were asked for and not told of by `tell`."""
        return list(self._wanted)

    def tell(self, holder: Holder, attributes: Optional[Attributes], asked_ns: int, named: Container[Holder]) -> None:
        """Say what an ancestor is; None if that cannot be known any more."""
        generation = self._wanted.pop(holder, MAX_GENERATIONS)
        self._told[holder] = None if attributes is None else (attributes, asked_ns)
        if attributes is not None:
            self.want_parent(attributes, named, generation + 1)

    def without(self, seen: Container[Holder]) -> Iterator[Ancestor]:
        """Those that are known and not among these processes, in order."""
        for holder, told in sorted(self._told.items(), key=lambda item: item[0]):
            if told is not None and holder not in seen:
                yield Ancestor(holder, *told)
