# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: evidence and conclusions on the controller's disk, and the engine that reads them.

Parquet files under a manifest that knows the SHA-256 and the number of rows of each; one writer at a time.
``docs/store.md`` shows the layout. `open_store` is the door.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whoneeds.store.engine import EngineSettings
    from whoneeds.store.problems import Problem
    from whoneeds.store.session import Store, open_store

__all__ = ["EngineSettings", "Problem", "Store", "open_store"]

_MODULES = {"EngineSettings": "engine", "Problem": "problems", "Store": "session", "open_store": "session"}


def __getattr__(name: str) -> Any:
    """Load a name when it is asked for: whoever only writes a file needs no engine, which takes half a second."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
