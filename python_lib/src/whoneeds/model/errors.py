# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error this library raises on purpose, as one tree.

::

    WhoneedsError
    |-- EvidenceError            what came from a host cannot be used
    |   |-- CorruptSegment       bytes damaged: cut short, bits changed, not a segment at all
    |   |-- UnknownSchema        a segment or document of another schema number
    |   |-- LimitExceeded        larger than the reader is willing to hold
    |   `-- InvalidRecord        a value outside its column's type or range
    |-- HostError                what a running host did not give
    |   |-- Gone                 it vanished between listing and reading (normal flow, never shown)
    |   |-- Denied               a permission is missing (becomes a Gap)
    |   |-- Unsupported          this kernel or system does not offer the interface
    |   `-- Busy                 another process holds what only one may hold
    |-- StoreError               the store on the controller is missing, busy, foreign or damaged
    |-- AnalysisError            the evidence does not carry the analysis that was asked for
    |-- FactsError               facts cannot be written or read safely
    `-- SettingsError            a setting, option or file given by the user is wrong

Each carries what was expected, what was found and what to do about it, as fields and in its text, so that
a caller never has to take text apart.
"""

from typing import Optional


class WhoneedsError(Exception):
    """Root of all errors of this library.

    Parameters
    ----------
    message : str
        What went wrong, in one clause.
    expected : str, optional
        What would have been right.
    found : str, optional
        What was there instead.
    remedy : str, optional
        What the reader can do now.
    """

    def __init__(
        self,
        message: str,
        *,
        expected: Optional[str] = None,
        found: Optional[str] = None,
        remedy: Optional[str] = None,
    ) -> None:
        self.message = message
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [self.message]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.found is not None:
            parts.append(f"found {self.found}")
        if self.remedy is not None:
            parts.append(self.remedy)
        return "; ".join(parts)


class EvidenceError(WhoneedsError):
    """Something that came from a host cannot be used."""


class CorruptSegment(EvidenceError):
    """The bytes of a segment are damaged or are not a segment."""


class UnknownSchema(EvidenceError):
    """A segment or document carries a schema number that this version does not read."""


class LimitExceeded(EvidenceError):
    """An input is larger than the reader is willing to hold."""


class InvalidRecord(EvidenceError):
    """A value lies outside its column's type, range or closed set."""


class HostError(WhoneedsError):
    """A running host did not give what was asked."""


class Gone(HostError):
    """The thing vanished between listing and reading. Normal flow."""


class Denied(HostError):
    """A permission is missing."""


class Unsupported(HostError):
    """The interface is not offered by this kernel or system."""


class Busy(HostError):
    """Another process holds what only one may hold."""


class StoreError(WhoneedsError):
    """The store is missing, busy, foreign or damaged."""


class AnalysisError(WhoneedsError):
    """The evidence does not carry the analysis that was asked for."""


class FactsError(WhoneedsError):
    """Facts cannot be written or read safely."""


class SettingsError(WhoneedsError):
    """A setting, option or file given by the user is wrong."""
