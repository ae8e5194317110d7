# SPDX-License-Identifier: GPL-3.0-or-later
"""What writer and reader of segments agree on."""

from typing import Any, Dict, Tuple, Type

from whoneeds.model.evidence import (
    SEGMENT_SCHEMA,
    CaptureRecord,
    ExchangeRecord,
    Gap,
    NameRecord,
    ProcessRecord,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
)
from whoneeds.model.schema import table_name

MAGIC = b"whoneeds-segment "
FIRST_LINE = MAGIC + str(SEGMENT_SCHEMA).encode("ascii") + b"\n"
DIGEST_BYTES = 32
SUFFIX = ".seg"
#: Ending of the capture file beside a segment, which has its name otherwise.
CAPTURE_SUFFIX = ".pcap"
#: Ending of files that are not complete yet; what a dead writer left behind ends so.
TEMPORARY_SUFFIX = ".tmp"

#: Tables that a segment can hold, in the order in which they are written.
TABLES: Tuple[Type[Any], ...] = (
    ProcessRecord,
    SocketRecord,
    TranslationRecord,
    UnixConnectionRecord,
    CaptureRecord,
    ExchangeRecord,
    NameRecord,
    Gap,
)
RECORD_BY_TABLE: Dict[str, Type[Any]] = {table_name(record): record for record in TABLES}
