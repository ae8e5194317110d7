# SPDX-License-Identifier: GPL-3.0-or-later
"""DuckDB through Ibis, shut in: it may touch the store's own folder and nothing else, and its limits are set.

The settings are made on the bare connection before anything untrusted is read, and then locked, so that no later
statement can widen them. Values never enter SQL text here: what is asked comes as Ibis expressions.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis


@dataclass(frozen=True)
class EngineSettings:
    """What the engine may use.

    Attributes
    ----------
    memory_bytes : int
        Above it, the engine writes to its scratch folder in the store.
    spill_bytes : int
        Most that it may write there; above it, the query fails cleanly.
    threads : int
    """

    memory_bytes: int = 1 << 30
    spill_bytes: int = 16 << 30
    threads: int = min(8, os.cpu_count() or 1)


def connect_engine(root: Path, scratch: Path, settings: EngineSettings) -> Any:
    """Open an in-memory engine that can read (and spill) below ``root`` only.

    Parameters
    ----------
    root : Path
        The store, absolute.
    scratch : Path
        Folder below it for what does not fit into memory.
    settings : EngineSettings

    Returns
    -------
    ibis backend
    """
    backend = ibis.duckdb.connect(":memory:")
    options: list[tuple[str, Any]] = [
        ("memory_limit", f"{settings.memory_bytes}B"),
        ("max_temp_directory_size", f"{settings.spill_bytes}B"),
        ("temp_directory", str(scratch)),
        ("threads", settings.threads),
        ("preserve_insertion_order", False),
        ("enable_external_file_cache", False),  # a file of this store may be replaced under its name
        ("autoinstall_known_extensions", False),
        ("autoload_known_extensions", False),
        ("allow_community_extensions", False),
        ("python_enable_replacements", False),
        ("allowed_directories", [str(root)]),
        ("enable_external_access", False),
        ("lock_configuration", True),
    ]
    for name, value in options:
        backend.con.execute(f"SET {name} = {_literal(value)}")
    return backend


def _literal(value: Any) -> str:
    """A setting's value as SQL: settings take no bound parameters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return "'" + str(value).replace("'", "''") + "'"
