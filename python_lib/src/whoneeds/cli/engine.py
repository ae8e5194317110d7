# SPDX-License-Identifier: GPL-3.0-or-later
"""From the words of the command line to what the engine may use."""

import re
from typing import TYPE_CHECKING

from whoneeds.cli.options import DEFAULT_SPARK_MASTER, EngineName
from whoneeds.model.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from whoneeds.store import EngineSettings

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\Z")
_UNITS = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
    "TiB": 1 << 40,
}  # fmt: skip
#: Below it, DuckDB cannot even begin with a large table.
_LEAST_MEMORY_BYTES = 64 << 20


def parse_size(option: str, text: str, least: int = 0) -> int:
    """A size in words, such as 4GiB, in bytes.

    Parameters
    ----------
    option : str
        What it was given for.
    text : str
    least : int, default 0

    Raises
    ------
    SettingsError
    """
    found = _SIZE.match(text)
    size = None if found is None else int(float(found[1]) * _UNITS[found[2]])
    if size is None or not least <= size < 1 << 50:
        raise SettingsError(
            option,
            expected=f"a number with a unit such as 4GiB or 500MB, {least} bytes or more",
            found=ascii(text)[:40],
        )
    return size


def settings_of(
    memory: str, spill: str, engine: EngineName = EngineName.DUCKDB, spark_master: str = DEFAULT_SPARK_MASTER
) -> "EngineSettings":
    """Settings of the engine, from what was given on the command line or in the environment.

    Raises
    ------
    SettingsError
        If a size is none, or too small to work with.
    """
    from whoneeds.store import EngineSettings

    return EngineSettings(
        name=engine.value,
        memory_bytes=parse_size("--memory", memory, _LEAST_MEMORY_BYTES),
        spill_bytes=parse_size("--spill", spill),
        spark_master=spark_master,
    )


def as_limit(error: Exception) -> StoreError | None:
    """What to do about an engine that may not take as much as it needs; None for any other error.

    The class is known by its name: errors are also told where the engine was never loaded.
    """
    if type(error).__name__ != "OutOfMemoryException":
        return None
    return StoreError(
        "the engine needs more memory or disk than it may take",
        expected="what --memory and --spill allow",
        found=ascii(str(error).partition("\n")[0])[1:-1][:200],
        remedy="allow more by --memory and --spill (WHONEEDS_MEMORY, WHONEEDS_SPILL); the store is as it was",
    )
